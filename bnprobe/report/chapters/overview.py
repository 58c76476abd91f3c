"""The network at a glance: maps of layer by channel, and the table of layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bnprobe.measures import Tables
from bnprobe.recording import WEIGHTS_ONLY
from bnprobe.report.page.blocks import (
    Figure,
    Table,
)
from bnprobe.report.page.tables import table

LAYER_HEADS = (
    "layer",
    "kind",
    "n_channels",
    "mode",
    "normalized_by",
    "gamma_abs_median",
    "gamma_negative",
    "fires_median",
    "never_positive",
    "n_batches_tracked",
    "half_headroom",
    "follows",
    "feeder",
    "shift_rms",
    "var_ratio_median",
    "own_mean",
    "own_sd",
    "own_log_var_sd",
    "pre_skew_median",
    "pre_kurtosis_median",
)


NEEDS_DATA = ("normalized_by", "never_positive")


ONLY_WITHOUT_DATA = ("n_batches_tracked", "half_headroom", "follows", "feeder")
"""Columns that a page with data has no room for; all of them are in `report.layers`."""


def _network_figure(tables: Tables) -> Figure:
    def draw() -> Any:
        from bnprobe.report import figures

        return figures.network(tables.channels)

    return Figure(
        "network",
        "Maps of the whole network, one column per normalization layer, under a profile by depth.",
        draw,
        "One column per layer, in the order in which the data reach them; within a column the channels are sorted "
        "by |γ|, the largest on top, and every column is stretched to the same height (number of channels in "
        "brackets). Gaps separate stages.",
        still=True,
    )


def _layer_table(tables: Tables) -> Table:
    layers = tables.layers
    unseen = NEEDS_DATA if (layers["mode"] == WEIGHTS_ONLY).all() else ONLY_WITHOUT_DATA
    heads = [head for head in LAYER_HEADS if head == "layer" or layers[head].notna().any()]
    heads = [head for head in heads if head not in unseen]
    same = [
        head for head in ("kind", "mode", "normalized_by") if len(layers) > 1 and layers[head].nunique() == 1
    ]
    note = "One row per layer; hold the pointer over a column's name for its meaning."
    if same:
        note += (
            " The same for all layers: " + ", ".join(f"{head} {layers[head].iloc[0]}" for head in same) + "."
        )
    shown = table(layers, [head for head in heads if head not in same], note)
    return replace(shown, layers=tuple(range(len(layers))))
