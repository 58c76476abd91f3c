"""Gradients through depth: how long they are at every norm, what the norms remove, and the signal in γ and β."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures import imbalance
from bnprobe.measures.shape import median
from bnprobe.report.chapters.chapter import Absent, Material, highest, lowest, named
from bnprobe.report.colours import EXPECTED, MEASURED
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Curves, Line
from bnprobe.report.numbers import count, number, share
from bnprobe.report.page.blocks import Figure, Prose, Section
from bnprobe.report.page.tables import table

TITLE = "Gradients through depth"
EVEN = 1.05
"""Typical factor between norms below which gradients count as equally long: two digits would say 1.0."""

ROUNDING = 1e-6
"""Share of a gradient's energy that float32 cannot tell from 0."""

HEADS = (
    "layer",
    "n_backward",
    "grad_out",
    "grad_in",
    "grad_scale",
    "grad_ratio",
    "energy_removed_layer",
    "gamma_snr_pooled",
    "gamma_snr_upper",
    "beta_snr_pooled",
    "beta_snr_upper",
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
        (("grad_out", "at the output", MEASURED), ("grad_in", "at the input", EXPECTED)),
        True,
    ),
    (
        "gradient of the stream, each token times its scale (root of the sum of squares)",
        (("grad_scale", "", MEASURED),),
        True,
    ),
    ("share of its energy that the norm removes", (("energy_removed_layer", "", MEASURED),), False),
    (
        "signal-to-noise ratio between passes (root mean square of channels)",
        (("gamma_snr_pooled", "γ", MEASURED), ("beta_snr_pooled", "β", EXPECTED)),
        False,
    ),
)
"""Title, lines (column, label, color), and whether the axis is logarithmic."""


def chapter(material: Material) -> Section | Absent:
    """The sentences, the gradient by depth, and the layers; absent where no backward pass was recorded."""
    layers = material.tables.layers
    known = layers[layers["n_backward"] > 0]
    if known.empty:
        return Absent(TITLE, "no backward pass was recorded")
    heads = [head for head in HEADS if head == "layer" or _says_something(known, head)]
    note = "One row per layer; the gap columns are checks, 0 where an identity holds."
    return Section(
        "gradients",
        TITLE,
        (Prose((words(known),)), _figure(known), table(known, heads, note)),
        short="Gradients",
    )


def _figure(known: pd.DataFrame) -> Figure:
    return Figure(
        "gradients",
        "Length of the gradient by depth at the output and the input of every norm, and the signal in γ and β.",
        by_depth(known, tuple(_panel(known, *panel) for panel in PANELS if _is_known(known, panel[1]))),
        f"Backward passes run from right to left.{_of_streams(known)}",
    )


def _of_streams(known: pd.DataFrame) -> str:
    """How to read the panel of the stream, where it is there."""
    flat = " In healthy pre-norm networks the gradient of the stream is about as long at every norm."
    return flat if known["grad_scale"].notna().any() else ""


def _is_known(known: pd.DataFrame, lines: tuple[tuple[str, str, str], ...]) -> bool:
    return any(_says_something(known, column) for column, _, _ in lines)


def _says_something(known: pd.DataFrame, column: str) -> bool:
    """Whether a column has values, and energy removed is more than rounding: norms with fixed statistics remove none."""
    values = known[column].dropna()
    return bool(len(values)) and not (column == "energy_removed_layer" and values.max() <= ROUNDING)


def _panel(
    known: pd.DataFrame, title: str, lines: tuple[tuple[str, str, str], ...], logarithmic: bool
) -> Curves:
    drawn = tuple(Line(of(known, column), label, colour) for column, label, colour in lines)
    return Curves(title, drawn, logarithmic=logarithmic)


def words(layers: pd.DataFrame) -> str:
    """How evenly the gradient travels, in this network's numbers."""
    if not (layers["grad_out"] > 0).any():
        return "No gradient reached any norm."
    spread = imbalance(layers)
    passes = count(int(layers["n_backward"].max()), "backward pass")
    longest, shortest = highest(layers, "grad_out"), lowest(layers[layers["grad_out"] > 0], "grad_out")
    sentences = [
        f"Measured over {passes}, gradients differ through depth by a typical factor of {number(10**spread, 2)}."
    ]
    if np.isnan(spread):
        sentences = [f"The gradient is {number(longest['grad_out'], 2)} long at {named(longest)} ({passes})."]
    elif 10**spread < EVEN:
        sentences = [f"Measured over {passes}, gradients are about equally long at all norms."]
    elif longest.name != shortest.name:
        sentences += [
            f"The gradient is longest at {named(longest)} ({number(longest['grad_out'], 2)}) and shortest at "
            f"{named(shortest)} ({number(shortest['grad_out'], 2)})."
        ]
    return " ".join([*sentences, *_removed(layers), *_noise(layers)])


def _removed(layers: pd.DataFrame) -> list[str]:
    removed = layers["energy_removed_layer"].dropna()
    if not len(removed) or removed.max() <= ROUNDING:
        return []
    most = highest(layers, "energy_removed_layer")
    typical = share(median(removed.to_numpy()))
    return [
        f"Norms remove {typical} of the gradient's energy (median), most at {named(most)} "
        f"({share(most['energy_removed_layer'])})."
    ]


def _noise(layers: pd.DataFrame) -> list[str]:
    """Whether γ is pulled one way, or to and fro."""
    snr, upper = (median(layers[f"gamma_snr_{name}"].to_numpy()) for name in ("pooled", "upper"))
    if np.isnan(snr):
        return []
    samples = count(round(median((layers["n_images"] / layers["n_calls"]).to_numpy())), "sample")
    if snr == 0:
        return [
            f"Gradients of γ show no mean beyond their spread between backward passes of {samples}: at most "
            f"{number(upper, 2)} times it."
        ]
    kind = "noisy" if snr < 1 else "consistent"
    return [
        f"Gradients of γ are {kind}: their mean is {number(snr, 2)} times (at most {number(upper, 2)}) their spread between "
        f"backward passes of {samples}."
    ]
