"""The samples with the highest and lowest outputs of each channel, and how often they are of one class.

How pure the exemplars of a channel are is the share of its K samples that belong to their most frequent class. Of K samples
drawn at random from the labeled ones of the run, without replacement, that share has the mean `chance`: the number of each
class is multivariate hypergeometric, so that P(no class more than m times) is the coefficient of x^K in the product over
classes of (1 + C(n_c, 1) x + ... + C(n_c, m) x^m), over C(N, K).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bnprobe.recording import LayerRecord, Recording, SampleTable
from bnprobe.stats.exemplars import NOBODY, SIDES
from bnprobe.stats.moments import Array, ratio

COLUMNS = {
    "layer": object,
    "call": np.int64,
    "channel": np.int64,
    "side": object,
    "rank": np.int64,
    "sample": object,
    "value": np.float64,
    "label": object,
    "position": np.float64,
    "caption": object,
    "part": np.int64,
}
"""The columns of the table of exemplars, and their types."""


def exemplars(recording: Recording) -> pd.DataFrame:
    """A row per exemplar; none where no exemplars were kept."""
    table = recording.samples
    records = [record for record in recording.layers if record.exemplars is not None]
    if table is None or not records:
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    parts = [_rows(record) for record in records]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    at = rows.pop("at")
    known = of_samples(table)
    return pd.DataFrame(rows | {name: values[at] for name, values in known.items()})[list(COLUMNS)]


def _rows(record: LayerRecord) -> dict[str, Any]:
    """The columns of one site, without what is known of samples: of those, their places in the table."""
    kept = record.exemplars
    assert kept is not None
    k = kept.k
    sample, value, position = (
        part.transpose(1, 0, 2).reshape(-1) for part in (kept.sample, kept.value, kept.position)
    )
    there = np.flatnonzero(sample != NOBODY)
    return {
        "layer": np.full(len(there), record.layer, dtype=object),
        "call": np.full(len(there), record.call),
        "channel": (there // (2 * k)),
        "side": np.array(SIDES, dtype=object)[there // k % 2],
        "rank": there % k + 1,
        "value": value[there],
        "position": position[there],
        "at": sample[there].astype(np.int64),
    }


def of_samples(table: SampleTable) -> dict[str, Any]:
    """What is known of each sample of the table, by column."""
    is_path, parts = table.is_path == 1, sorted({part for part in table.parts if part})
    numbers = table.numbers.astype(np.int64)
    captions = np.array(table.captions, dtype=object)
    if is_path.any():
        numbers = np.where(is_path, captions, numbers.astype(str).astype(object))
    labels = table.labels
    if table.classes:
        names = np.array([*table.classes, None], dtype=object)
        known = np.isfinite(labels) & (labels < len(table.classes))
        label = names[np.where(known, labels, len(table.classes)).astype(np.int64)]
    else:
        label = np.array([None if np.isnan(one) else int(one) for one in labels], dtype=object)
    number_of_part = {part: i for i, part in enumerate(parts)}
    return {
        "sample": numbers,
        "label": label,
        "caption": np.where(is_path, "", captions),
        "part": np.array([number_of_part.get(part, 0) for part in table.parts]),
    }


def purity(record: LayerRecord, table: SampleTable) -> Array:
    """The share of the most frequent class among the exemplars on each side of each channel, shape (2, C).

    NaN where fewer than two exemplars have a label.
    """
    kept = record.exemplars
    assert kept is not None
    labels = np.full(kept.sample.shape, np.nan)
    there = kept.sample != NOBODY
    labels[there] = table.labels[kept.sample[there].astype(np.int64)]
    n = (~np.isnan(labels)).sum(axis=2)
    most = (labels[..., :, None] == labels[..., None, :]).sum(axis=3).max(axis=2)
    return np.where(n > 1, ratio(most, n), np.nan)


def chance(n_of_class: Array, k: int) -> float:
    """The mean purity of `k` samples drawn at random, without replacement, from classes of these sizes, shape (K,).

    NaN where there are not so many.
    """
    if k < 1 or n_of_class.sum() < k:
        return float("nan")
    # in shares of what the coefficient of all would be, so that nothing overflows: C(n, j) p^j, with p of the size of k / N
    p = k / n_of_class.sum()
    powers = np.ones((len(n_of_class), k + 1))
    for j in range(1, k + 1):
        powers[:, j] = powers[:, j - 1] * (n_of_class - j + 1) / j * p
    at_most = np.array([_coefficient(powers[:, : m + 1], k) for m in range(k + 1)])
    # mean of a number from 1 to k: the sum over m from 0 of P(more than m)
    return float((1 - at_most[:k] / at_most[k]).sum() / k)


def _coefficient(powers: Array, k: int) -> float:
    """The coefficient of x^k in the product of these polynomials, a row each."""
    product = np.zeros(k + 1)
    product[0] = 1.0
    for row in powers:
        product = np.convolve(product, row)[: k + 1]
    return float(product[k])
