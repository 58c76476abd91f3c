"""The tables: every measure's columns, a row per site and a row per channel."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from bnprobe.measures import (
    activity,
    affine,
    batch_kinds,
    call_log,
    causes,
    components,
    dependence,
    detail,
    discrepancy,
    equivalence,
    formula,
    gains,
    gaussian,
    gradient,
    gradient_checks,
    headroom,
    implied,
    learning,
    norm_roles,
    outliers,
    output_moments,
    parameters,
    per_sample,
    ranks,
    residual,
    roles,
    scale,
    shape,
    shift,
    tokens,
    verdict,
    within_sample,
)
from bnprobe.measures.columns import Column
from bnprobe.measures.standard_errors import adjust, by_sample
from bnprobe.recording import LayerRecord, Recording
from bnprobe.recording.names import EMPTY, NO_NORM

FAMILIES: tuple[ModuleType, ...] = (
    parameters,
    shape,
    gaussian,
    activity,
    roles,
    shift,
    scale,
    equivalence,
    within_sample,
    dependence,
    batch_kinds,
    verdict,
    discrepancy,
    output_moments,
    formula,
    components,
    per_sample,
    outliers,
    tokens,
    gains,
    norm_roles,
    implied,
    affine,
    residual,
    headroom,
    detail,
    call_log,
    ranks,
    gradient,
    gradient_checks,
    learning,
)
"""One family of measures, one file. Each has COLUMNS, and `channel_columns` or `layer_columns` or both."""

OF_CHANNELS = (
    activity,
    gaussian,
    roles,
    shift,
    equivalence,
    within_sample,
    verdict,
    output_moments,
    components,
    outliers,
    tokens,
    implied,
    affine,
    gradient,
)
"""Families whose layer columns are made of channel columns, which are handed to them."""

OF_ROWS = (within_sample, components)
"""Families about the rows of a layer's input as they are, whether or not many of them belong to one sample."""

PLACE = (
    Column("layer", "Path of the module in the model.", table="both"),
    Column("call", "Which call of the layer within one forward pass, counted from 0.", table="both"),
    Column("channel", "Index of the channel."),
    Column("kind", "Kind of normalization.", table="both"),
    Column(
        "n_values",
        "Finite input values measured: per channel, or of all channels of the layer.",
        table="both",
    ),
    Column(
        "n_nonfinite",
        "Input values that were NaN or infinite; they are left out of all other numbers.",
        table="both",
        rank=6,
    ),
    Column("n_channels", "Number of channels.", table="layers"),
    Column("n_calls", "Forward calls recorded.", table="layers"),
    Column(
        "n_images",
        "Samples recorded: rows of the layer's input, but at most the samples given to the model.",
        table="layers",
    ),
    Column(
        "n_masked",
        "Input values per channel that a mask left out, as padding; 0 without a mask.",
        table="layers",
    ),
    Column(
        "mode",
        "The layer's own flag during the run: eval, train or mixed; weights only where it was not called.",
        table="layers",
    ),
    Column(
        "normalized_by",
        "Statistics that normalized: running, batch, both, the sample's own, or nothing.",
        table="layers",
    ),
    Column("class_name", "Class of the module.", table="layers"),
    Column("eps", "Added to the variance before the root.", "eps", "input²", table="layers"),
    Column(
        "eps_assumed",
        "Whether eps is only assumed to be the usual one, since a file of weights does not hold it: 1 for yes.",
        unit="0 or 1",
        table="layers",
    ),
    Column(
        "stores",
        "The vectors that the layer has: γ, β, running_mean, running_var. A vector of NaN looks like none in other columns.",
        table="layers",
    ),
    Column(
        "gamma_offset",
        "What the layer adds to the weight that it stores: 1 where it multiplies by 1 + w.",
        "γ − w",
        table="layers",
    ),
    Column(
        "momentum",
        "Weight of a new batch in the running statistics; NaN where there is none.",
        table="layers",
    ),
    Column(
        "n_batches_tracked",
        "Batches that the running statistics were updated with, where counted.",
        table="layers",
    ),
    Column(
        "output",
        "Whether the output statistics were derived from those of the input, or measured (read).",
        table="layers",
    ),
    Column(
        "mismatch",
        "Largest difference between the output and the formula at the first call, over the largest output.",
        "max |y − ŷ| / max |y|",
        table="layers",
    ),
)


MANY, MANY_OF_SITE = 100_000, 256
"""Channels, of all sites and of one, from which columns with one value take no room for each channel."""


@dataclass(frozen=True)
class Tables:
    """What the rules and the page read. `unread` names layers that gave no numbers, and why; `preprocessing`
    the mistakes with the inputs that would explain what the first norm measures, and `causes` what else fits each norm."""

    layers: pd.DataFrame
    channels: pd.DataFrame
    unread: pd.DataFrame
    preprocessing: pd.DataFrame = field(default_factory=pd.DataFrame)
    causes: pd.DataFrame = field(default_factory=pd.DataFrame)


def tables(recording: Recording) -> Tables:
    """Measure everything, once: a row per site and per channel, in the order in which sites were reached."""
    sites = list(zip(recording.layers, by_sample(recording), strict=True))
    columns = [_columns(*site) for site in sites]
    adjust(columns)
    rows = [_row(*site, channels) for site, channels in zip(sites, columns, strict=True)]
    # names stay one text each, to which all their channels point: Arrow's, which pandas takes where it finds them, repeat it
    with pd.option_context("mode.string_storage", "python"):
        return Tables(
            pd.DataFrame(rows).assign(**learning.site_columns(recording)) if sites else _empty("layers"),
            _stacked(columns) if sites else _empty("channels"),
            unread_table(recording),
            causes.preprocessing(recording),
            causes.table(recording),
        )


def _stacked(columns: list[dict[str, Any]]) -> pd.DataFrame:
    """One table of the columns of all sites; a value that all channels of a site share is repeated.

    Each column leaves the sites as it is put in place: of a million channels, both would be a gigabyte.
    """
    lengths = [len(of_site["channel"]) for of_site in columns]
    names = list(columns[0])
    stacked = {name: _column([of_site.pop(name) for of_site in columns], lengths) for name in names}
    return pd.DataFrame(stacked, copy=False)


def _column(parts: list[Any], lengths: list[int]) -> Any:
    if isinstance(parts[0], str):
        return np.repeat(np.array(parts, dtype=object), lengths)
    arrays = [part if np.ndim(part) else np.full(n, part) for part, n in zip(parts, lengths, strict=True)]
    if sum(lengths) > MANY and all(part.strides == (0,) for part in arrays):
        firsts = np.array([part[0] for part in arrays])
        if _is_one_value(firsts):
            return np.broadcast_to(firsts[0], sum(lengths))
    return np.concatenate(arrays)


def _shrunk(column: Any) -> Any:
    """A column with one value in all channels, as those without data are, without room for each of them."""
    if np.ndim(column) and len(column) > MANY_OF_SITE and column.dtype.kind in "fi" and _is_one_value(column):
        return np.broadcast_to(column[0].copy(), column.shape)
    return column


def _is_one_value(column: Any) -> bool:
    return bool(np.isnan(column).all() or (column == column[0]).all())


def _empty(table: str) -> pd.DataFrame:
    """No rows, but every column, so that nobody needs to ask whether one is there."""
    return pd.DataFrame(columns=[column.name for column in glossary() if column.table in (table, "both")])


def _columns(of_rows: LayerRecord, record: LayerRecord) -> dict[str, Any]:
    """The columns of a site's channels; `of_rows` is the site with all rows counted as samples."""
    columns = _place_of_channels(record)
    for family in FAMILIES:
        if hasattr(family, "channel_columns"):
            columns.update(family.channel_columns(of_rows if family in OF_ROWS else record))
    return {name: _shrunk(column) for name, column in columns.items()}


def by_site(channels: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each site, in their order: views, where grouping by names would copy every column."""
    starts = np.flatnonzero(channels["channel"].to_numpy() == 0)
    return [channels.iloc[start:end] for start, end in pairwise([*starts, len(channels)])]


def _row(of_rows: LayerRecord, record: LayerRecord, columns: dict[str, Any]) -> dict[str, Any]:
    """The row of a site, whose channels have these columns."""
    row = _place_of_site(record)
    for family in FAMILIES:
        if hasattr(family, "layer_columns"):
            of_channels = (columns,) if family in OF_CHANNELS else ()
            row.update(family.layer_columns(of_rows if family in OF_ROWS else record, *of_channels))
    return row


def _place_of_channels(record: LayerRecord) -> dict[str, Any]:
    return {
        "layer": record.layer,
        "call": record.call,
        "channel": np.arange(record.n_channels),
        "kind": record.kind,
        "n_values": record.pre.n.astype(np.int64),
        "n_nonfinite": record.pre_nonfinite.astype(np.int64),
    }


def _place_of_site(record: LayerRecord) -> dict[str, Any]:
    return {
        "layer": record.layer,
        "call": record.call,
        "kind": record.kind,
        "n_channels": record.n_channels,
        "n_calls": record.n_calls,
        "n_values": int(record.pre.n.sum()),
        "mode": record.mode,
        "n_images": record.n_images,
        "n_masked": record.n_masked,
        "n_nonfinite": int(record.pre_nonfinite.sum()),
        "normalized_by": record.normalized_by,
        "class_name": record.class_name,
        "eps": record.eps,
        "eps_assumed": int(record.eps_assumed),
        "stores": ", ".join(record.stores),
        "gamma_offset": record.gamma_offset,
        "momentum": np.nan if record.momentum is None else record.momentum,
        "n_batches_tracked": np.nan if record.n_batches_tracked is None else record.n_batches_tracked,
        "output": record.output,
        "mismatch": record.mismatch,
    }


def unread_table(recording: Recording) -> pd.DataFrame:
    """Layers that gave no numbers: `layer`, `why` ("never called", "not understood", "no norm", "empty" or "folded"), and
    whether they were `trained`, as far as is known.
    """
    rows = [(name, "never called") for name in recording.never_called]
    rows += [(name, _why_unread(name)) for name in recording.not_understood]
    rows += [(name, "folded") for name in recording.folded]
    trained = _trained(recording)
    return pd.DataFrame([(*row, row[0] in trained) for row in rows], columns=["layer", "why", "trained"])


def _trained(recording: Recording) -> set[str]:
    """Norms whose β is not 0, by the sizes of the model's parameters."""
    tensors, end = recording.tensors, ".bias"
    if tensors is None:
        return set()
    return {
        name.removesuffix(end)
        for i, name in enumerate(tensors.names)
        if name.endswith(end) and tensors.size(i) > 0
    }


def _why_unread(name: str) -> str:
    """Of an entry of `Recording.not_understood`, by its end."""
    return next(
        (why for end, why in ((EMPTY, "empty"), (NO_NORM, "no norm")) if name.endswith(end)), "not understood"
    )


def glossary() -> list[Column]:
    """Every column of the tables, in their order."""
    return [*PLACE, *(column for family in FAMILIES for column in family.COLUMNS)]
