"""The sentences about other tensors, and about sides whose channels do not correspond."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from bnprobe.comparison.tensors import n_others
from bnprobe.recording import Recording
from bnprobe.report.numbers import count, listed, number, shorten

LONGEST = 48
"""Letters of a tensor's name in a sentence."""


def norms_alike(a: Recording, tensors: pd.DataFrame, n_sites: int) -> str:
    """That all norms are equal, and what differs all the same."""
    norms = "the only common norm is equal" if n_sites == 1 else f"all {n_sites:,} common norms are equal"
    return f"{norms[:1].upper()}{norms[1:]} to the last bit, but {of_tensors(a, tensors)}"


def of_tensors(a: Recording, tensors: pd.DataFrame) -> str:
    """How many tensors differ, the one whose size changed most, and which names one side lacks; the rest of a sentence."""
    parts = []
    both = tensors[tensors["side"] == "both"]
    if len(both):
        total = n_others(a)
        n = f"{len(both):,} of {count(total, 'other tensor')}" if total else count(len(both), "other tensor")
        parts.append(f"{n} {'differs' if len(both) == 1 else 'differ'}{_largest(both)}")
    for side in "AB":
        names = [shorten(str(name), LONGEST) for name in tensors.loc[tensors["side"] == side, "tensor"]]
        if names:
            parts.append(f"only {side} has {listed(names, 2)}")
    return f"{'; '.join(parts)}."


def _largest(both: pd.DataFrame) -> str:
    with np.errstate(all="ignore"):
        size = np.abs(np.log(both["size_b"].to_numpy(float) / both["size_a"].to_numpy(float)))
    if not np.isfinite(size).any():
        return ""
    most = both.iloc[int(np.argmax(np.where(np.isfinite(size), size, -1.0)))]
    return (
        f", most {shorten(str(most['tensor']), LONGEST)} (root mean square {number(float(most['size_a']), 2)} in A, "
        f"{number(float(most['size_b']), 2)} in B)"
    )


def trained_apart(apart: Mapping[str, float]) -> str:
    """That channels do not correspond, by what."""
    facts = ", ".join(f"{name} {number(r, 2)}" for name, r in apart.items())
    return (
        "A and B were trained apart: a channel of A is not the same channel of B (correlation across channels: "
        f"{facts}), so not channels but their distributions are compared."
    )
