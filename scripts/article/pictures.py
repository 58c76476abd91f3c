"""How the article draws: lines and points with labeled axes, in the ink and colors of the report."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bnprobe.report.colours import EXPECTED, GREEN, MEASURED, ROSE, SAND, VIOLET
from bnprobe.report.figures.specs import Curve, Plot, Plots
from bnprobe.report.page.blocks import Figure

COLOURS = {
    "batch norm": MEASURED,
    "no norm": EXPECTED,
    "no norm, careful start": ROSE,
    "layer norm": VIOLET,
    "group norm": GREEN,
    "instance norm": SAND,
}
"""The same network has the same color in every picture."""


def curve(
    x: ArrayLike,
    y: ArrayLike,
    label: str = "",
    colour: str = MEASURED,
    *,
    dashed: bool = False,
    dots: bool = False,
) -> Curve:
    """Values against positions, (L,) each, of whatever can be an array."""
    return Curve(np.asarray(x, np.float64), np.asarray(y, np.float64), label, colour, dashed, dots)


def picture(name: str, alt: str, plots: tuple[Plot, ...], caption: str) -> Figure:
    """Plots in rows of two, with the words of a page around them."""
    return Figure(name, alt, Plots(plots), caption)
