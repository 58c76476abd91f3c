"""Gradients through depth: how long they are at every norm, what the norms take out, and what is left of γ and β."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures import imbalance
from bnprobe.measures.shape import median
from bnprobe.report.chapters.chapter import Absent, Material, named
from bnprobe.report.colours import MEMORY, SEEN
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Curves, Line
from bnprobe.report.numbers import count, number, share
from bnprobe.report.page.blocks import Figure, Prose, Section
from bnprobe.report.page.tables import table

TITLE = "Gradients through depth"
HEADS = (
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

PANELS: tuple[tuple[str, tuple[tuple[str, str, str], ...], bool], ...] = (
    (
        "length of the gradient (loss per unit, root of the sum of squares of a pass)",
        (("grad_out", "at the output", SEEN), ("grad_in", "at the input", MEMORY)),
        True,
    ),
    ("share of its energy that the norm takes out", (("energy_removed_layer", "", SEEN),), False),
    (
        "signal-to-noise ratio over passes (median channel)",
        (("gamma_snr_median", "γ", SEEN), ("beta_snr_median", "β", MEMORY)),
        True,
    ),
)
"""Title, lines (column, label, colour), and whether the axis is logarithmic."""


def chapter(material: Material) -> Section | Absent:
    """The sentences, the gradient by depth, and the layers; absent where no backward pass was recorded."""
    layers = material.tables.layers
    known = layers[layers["n_backward"] > 0]
    if known.empty:
        return Absent(TITLE, "no backward pass was recorded")
    heads = [head for head in HEADS if head == "layer" or known[head].notna().any()]
    note = "One row per layer; the gap columns are checks, 0 where an identity holds."
    return Section("gradients", TITLE, (Prose((words(known),)), _figure(known), table(known, heads, note)))


def _figure(known: pd.DataFrame) -> Figure:
    return Figure(
        "gradients",
        "Length of the gradient by depth at the output and the input of every norm, and the signal in γ and β.",
        by_depth(known, tuple(_panel(known, *panel) for panel in PANELS if _is_known(known, panel[1]))),
        "Backward passes run from right to left. Above: length of the gradient at each norm's output and input. "
        "Middle: share of its energy that the norm takes out. Below: signal-to-noise ratio of the gradients of γ and β.",
    )


def _is_known(known: pd.DataFrame, lines: tuple[tuple[str, str, str], ...]) -> bool:
    return bool(known[[column for column, _, _ in lines]].notna().any(axis=None))


def _panel(
    known: pd.DataFrame, title: str, lines: tuple[tuple[str, str, str], ...], logarithmic: bool
) -> Curves:
    drawn = tuple(Line(of(known, column), label, colour) for column, label, colour in lines)
    return Curves(title, drawn, logarithmic=logarithmic)


def _shortest(layers: pd.DataFrame) -> int:
    """Position of the norm with the shortest gradient that is not zero."""
    return int(layers["grad_out"].where(layers["grad_out"] > 0).argmin())


def words(layers: pd.DataFrame) -> str:
    """How evenly the gradient travels, in this network's numbers."""
    if not (layers["grad_out"] > 0).any():
        return "No gradient reached any norm."
    longest, shortest = layers.iloc[int(layers["grad_out"].argmax())], layers.iloc[_shortest(layers)]
    text = (
        f"Over {count(int(layers['n_backward'].max()), 'backward pass')} the gradient at the norms' outputs was longest at "
        f"{named(longest)} ({number(longest['grad_out'], 2)}) and shortest at {named(shortest)} "
        f"({number(shortest['grad_out'], 2)}); through depth it typically differs from its mean by a factor of "
        f"{number(10 ** (0.0 if np.isnan(spread := imbalance(layers)) else spread), 2)}. "
    )
    removed = layers["energy_removed_layer"].dropna()
    if len(removed) and removed.max() > 1e-6:
        most = layers.iloc[int(layers["energy_removed_layer"].argmax())]
        text += (
            f"The norms take out {share(median(removed.to_numpy()))} of its energy (median), "
            f"the most at {named(most)} ({share(most['energy_removed_layer'])}). "
        )
    snr = median(layers["gamma_snr_median"].to_numpy())
    if not np.isnan(snr):
        text += f"The typical pull on γ is {number(snr, 2)} times its noise between passes."
    return text.strip()
