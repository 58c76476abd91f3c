"""Embeddings that one of two sides multiplies by the square root of their width once more than the other.

One recording alone cannot tell: a norm over channels takes such a factor out again, and trained embeddings have any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.rules.by_hand import TWO_SIDES
from bnprobe.rules.rule import Evidence, Finding, Rule

EXACTLY = 5e-3
"""Relative difference from the root of the width: the size of a tensor in bfloat16, and of samples that are the same."""

ALIKE = 1e-2
"""Relative difference between channels of what all of them were multiplied by."""

FEWEST = 16
"""Columns or channels below which such a factor is an ordinary one."""

MOST_NAMED = 4
"""Tensors spelt out in a sentence."""


def scaled_once_more(evidence: Evidence) -> Iterator[Finding]:
    """By the tensors that differ; where the code scales them, by what reaches the first norm."""
    found = scaled_tensors(evidence.tensors)
    if len(found):
        larger = "B" if found["size_b"].iloc[0] > found["size_a"].iloc[0] else "A"
        width = _width(str(found["shape_a"].iloc[0]))
        facts = [
            f"{row['tensor']} (root mean square {row['size_a']:.3g} in A, {row['size_b']:.3g} in B)"
            for _, row in found.iterrows()
        ]
        yield _finding(larger, width, "", "; ".join(facts[:MOST_NAMED]))
        return
    if evidence.apart or not evidence.rows:
        return
    row, channels = evidence.sites[0]
    ratio = _common_ratio(channels)
    if _is_root(ratio, len(channels)):
        fact = f"the inputs of {row['layer']} have {ratio:.4g} times the standard deviation of A in all channels of B"
        yield _finding("B" if ratio > 1 else "A", len(channels), str(row["layer"]), fact)


def _common_ratio(channels: pd.DataFrame) -> float:
    """What the standard deviation of each input is multiplied by, where it is the same in all channels; NaN elsewhere, and
    with running statistics, which embeddings do not meet."""
    ratios = channels["pre_ratio"].to_numpy(dtype=np.float64)
    if not (ratios > 0).all() or channels["running_mean_a"].notna().any():
        return float("nan")
    ratio = float(np.median(ratios))
    return ratio if np.abs(ratios / ratio - 1).max() < ALIKE else float("nan")


def scaled_tensors(tensors: pd.DataFrame) -> pd.DataFrame:
    """The matrices, of a table of tensors that differ, that are the root of their width times as large on one side."""
    if tensors.empty:
        return tensors
    both = tensors[(tensors["side"] == "both") & (tensors["shape_a"] == tensors["shape_b"])]
    with np.errstate(all="ignore"):
        ratios = both["size_b"].to_numpy(float) / both["size_a"].to_numpy(float)
    root = [
        _is_root(float(ratio), _width(str(shape)))
        for ratio, shape in zip(ratios, both["shape_a"], strict=True)
    ]
    return both[np.array(root, dtype=bool)]


def _width(shape: str) -> int:
    """The number of columns of a matrix with at least as many rows, as an embedding; 0 of anything else."""
    sizes = shape.split("×")
    if len(sizes) != 2 or int(sizes[0]) < int(sizes[1]):
        return 0
    return int(sizes[1])


def _is_root(ratio: float, width: int) -> bool:
    """Whether it is the root of a width, or one over it."""
    if width < FEWEST or not ratio > 0:
        return False
    return abs(abs(math.log(ratio)) - math.log(width) / 2) < EXACTLY


def _finding(larger: str, width: int, layer: str, facts: str) -> Finding:
    other = "A" if larger == "B" else "B"
    return Finding(
        "warning",
        layer,
        f"Embeddings are √{width} times as large in {larger} as in {other}: one side scales them by the root of their width "
        "once more.",
        f"{facts}; √{width} is {math.sqrt(width):.4g}.",
        "Gemma and the first transformers multiply embeddings by √d when they run. Either the file was scaled when it was "
        "converted and the code scales again, or the code of one side does not scale. Compare outputs of both with those "
        "of a third implementation, and take the factor out of the file, or out of the code. A head that is tied to "
        "embeddings has them unscaled.",
    )


RULES = (
    Rule(
        "embeddings-scaled",
        "Do both sides scale their embeddings equally often?",
        "Vaswani et al. 2017, arXiv:1706.03762; https://github.com/vllm-project/vllm/pull/36787",
        f"sizes whose ratio is not √d within {EXACTLY:.1%}, of fewer than {FEWEST} columns, or of channels that changed by "
        "other factors",
        scaled_once_more,
        by_hand=TWO_SIDES,
    ),
)
