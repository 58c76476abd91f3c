"""Gradients through depth: where backward passes were recorded."""

from __future__ import annotations

from typing import Any

from bnprobe.measures import Tables
from bnprobe.report.chapters.answer import gradient_words
from bnprobe.report.page.blocks import (
    Figure,
    Prose,
    Section,
)
from bnprobe.report.page.tables import table

GRADIENT_HEADS = (
    "layer",
    "n_backward",
    "grad_out",
    "grad_in",
    "grad_ratio",
    "energy_removed_layer",
    "gamma_snr_median",
    "beta_snr_median",
    "dy_kurtosis",
    "no_gradient",
    "w_angle_median",
    "gap_centre",
    "gap_map",
    "gap_weight",
)


def _gradient_sections(tables: Tables) -> tuple[Section, ...]:
    """What backward passes did; nothing where there were none."""
    layers = tables.layers[tables.layers["n_backward"] > 0]
    if layers.empty:
        return ()

    def draw() -> Any:
        from bnprobe.report import figures

        return figures.gradients(layers)

    figure = Figure(
        "gradients",
        "Length of the gradient by depth at the output and the input of every norm, and the signal in γ and β.",
        draw,
        "Backward passes run from right to left. Above: length of the gradient at each norm's output and input. "
        "Middle: share of its energy that the norm takes out. Below: signal-to-noise ratio of the gradients of γ and β.",
    )
    heads = [head for head in GRADIENT_HEADS if head == "layer" or layers[head].notna().any()]
    note = "One row per layer; the gap columns are checks, 0 where an identity holds."
    words = Prose((gradient_words(layers),))
    return (Section("gradients", "Gradients through depth", (words, figure, table(layers, heads, note))),)
