"""The branch of a residual block against its skip connection, by variance, now and at initialization."""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array, ratio

_DE = "De & Smith 2020, arXiv:2002.10444"

COLUMNS = (
    Column("skip", "The other side of the sum that follows.", table="layers"),
    Column(
        "layer_scale",
        "Parameter that the residual branch of this norm is multiplied by before it is added.",
        source="CaiT: Touvron et al. 2021, arXiv:2103.17239",
        table="layers",
    ),
    Column(
        "branch_var",
        "Measured variance of the branch where it enters the sum (divisor n, mean over channels).",
        "mean over channels of post_var",
        "output²",
        _DE,
        "layers",
    ),
    Column(
        "skip_var",
        "Approximate variance of the skip connection, as implied by the parameters of the previous norms.",
        "see graph/residual.py; mean over channels; with a layer scale, measured in the first pass",
        "output²",
        _DE,
        "layers",
    ),
    Column(
        "branch_share",
        "Approximate share of the block's variance that comes from the branch, from parameters on both sides.",
        "V / (V + skip_var), V = mean of γ² σ²/(σ² + eps); branch_var for V with a layer scale",
        "0 to 1",
        _DE,
        "layers",
    ),
    Column(
        "branch_share_initial",
        "The same share with every γ at 1 and every β at 0, as at initialization.",
        "1 / (1 + skip_var at γ = 1, β = 0)",
        "0 to 1",
        _DE,
        "layers",
    ),
)


def layer_columns(record: LayerRecord) -> dict[str, str | float]:
    """Branch against skip; NaN where no sum follows, or its other side is not made of norms."""
    neighbours, missing = record.neighbours, float("nan")
    columns: dict[str, str | float] = {column.name: missing for column in COLUMNS}
    columns["skip"] = "" if neighbours is None else neighbours.skip
    columns["layer_scale"] = "" if neighbours is None else neighbours.scale
    if neighbours is not None and neighbours.scale:
        branch, skip = neighbours.scaled_var, neighbours.scaled_skip_var
        share = float(ratio(branch, branch + skip))
        return columns | {"branch_var": branch, "skip_var": skip, "branch_share": share}
    if neighbours is None or not enters_sum(record):
        return columns
    columns["branch_var"] = _mean(record.post.var_population)
    if neighbours.skip_var is None or neighbours.skip_var_initial is None:
        return columns
    branch, skip, initial = _implied(record), _mean(neighbours.skip_var), _mean(neighbours.skip_var_initial)
    columns["skip_var"] = skip
    columns["branch_share"] = float(ratio(branch, branch + skip))
    columns["branch_share_initial"] = float(ratio(1.0, 1 + initial))
    return columns


def enters_sum(record: LayerRecord) -> bool:
    """Whether the norm's own output is added to something."""
    follows = "" if record.neighbours is None else record.neighbours.follows
    return any(way == "add" or way.startswith("add, ") for way in follows.split(" | "))


def _implied(record: LayerRecord) -> float:
    """Variance of the output that the parameters imply: gamma^2, or below where eps is not small against the variance."""
    gamma = np.ones(record.n_channels) if record.gamma is None else record.gamma
    kept = 1.0 if record.running_var is None else record.running_var / (record.running_var + record.eps)
    return float(np.mean(gamma**2 * kept))


def _mean(values: Array) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")
