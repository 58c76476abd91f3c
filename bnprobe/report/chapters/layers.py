"""Every layer's own section: what it does in a sentence or two, and a few telling channels in a table.

On screen the page's scripts add all channels, their distributions and planes to the layer that is opened; what is
written here is for paper, for searching, and for readers without scripts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.recording import LayerRecord, Recording
from bnprobe.report.chapters.answer import KINDS, layer_words
from bnprobe.report.page.blocks import Cell, Prose, Section, Table
from bnprobe.report.page.numbers import count, number

MOST_ROWS = 5
"""Channels in the table of a layer."""

HEADS = (
    *("channel", "gamma", "beta", "running_mean", "running_var", "pre_mean", "pre_var", "shift", "shift_se"),
    *("scale_ratio", "pre_skew", "pre_kurtosis", "fires", "role", "grad_gamma", "grad_beta", "gamma_snr"),
)


def layer_sections(recording: Recording, tables: Tables) -> tuple[Section, ...]:
    """A section per site, in the order in which they were reached."""
    ends = np.cumsum([record.n_channels for record in recording.layers])
    return tuple(
        _section(i, record, tables.channels.iloc[end - record.n_channels : end])
        for i, (record, end) in enumerate(zip(recording.layers, ends, strict=True))
    )


def _section(position: int, record: LayerRecord, channels: pd.DataFrame) -> Section:
    return Section(
        f"layer-{position}",
        record.site,
        (Prose((layer_words(record, channels),)), telling_table(channels)),
        hint=f"{KINDS.get(record.kind, record.kind)}, {count(record.n_channels, 'channel')}",
        layer=position,
    )


def telling_table(channels: pd.DataFrame) -> Table:
    """The channels that moved most, or where nothing is remembered those with the heaviest tails."""
    heads = [head for head in HEADS if channels[head].notna().any()]
    by = next((name for name in ("shift", "pre_kurtosis", "gamma") if name in heads), "channel")
    order = np.argsort(-channels[by].abs().fillna(-1).to_numpy(), kind="stable")[:MOST_ROWS]
    shown = channels.iloc[order]
    columns = [[_cell(value) for value in shown[head].tolist()] for head in heads]
    note = f"Sorted by |{by}|."
    if len(channels) > MOST_ROWS:
        note = (
            f"The {MOST_ROWS} of {len(channels):,} channels with the largest |{by}|; all of them are in "
            "report.channels."
        )
    return Table(tuple((head, "") for head in heads), tuple(zip(*columns, strict=True)), note, brief=True)


def _cell(value: object) -> Cell:
    return Cell(value, number=False) if isinstance(value, str) else Cell(number(float(value)))  # type: ignore[arg-type]
