"""What axes of several pictures share: names of layers below, logarithms beside, bounds of stages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # a check of weights counts stages, and draws nothing
    from matplotlib.axes import Axes as Axes  # the type that `Report.plot` returns

MOST_NAMES = 60
"""Names that stand below one axis without touching."""


def names_below(axes: Axes, names: list[str], *, from_edge: float = 0.0, most: int = MOST_NAMES) -> None:
    """Names upright below an axis, one at every whole number plus `from_edge`, thinned to `most`.

    Words and no ticks, each of which is five artists, two of them words: they took a quarter of a page's drawing.
    """
    from matplotlib.transforms import ScaledTranslation

    axes.set_xticks([])
    drop = ScaledTranslation(0, -3.5 / 72, axes.figure.dpi_scale_trans)
    at = axes.get_xaxis_transform() + drop
    for i in range(0, len(names), -(-len(names) // most)):
        axes.text(i + from_edge, 0, names[i], rotation=90, fontsize=7.5, ha="center", va="top", transform=at)


def stage_bounds(names: list[str]) -> list[int]:
    """Positions before which the stage, the first part of the path that varies, changes."""
    paths = [name.split(".") for name in names]
    depth = next((d for d in range(8) if len({tuple(path[: d + 1]) for path in paths}) > 1), 0)
    stages = [tuple(path[: depth + 1]) for path in paths]
    bounds = [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]
    return bounds if len(bounds) <= len(stages) // 2 else []


def ratio_ticks(axes: Axes, of: Literal["x", "y"] = "y") -> None:
    """A logarithmic axis with ticks at round numbers, a handful of them, however narrow or wide the range."""
    axes.set(**{f"{of}scale": "log"})
    axis = axes.yaxis if of == "y" else axes.xaxis
    low, high = axes.get_ylim() if of == "y" else axes.get_xlim()
    for mantissas in (
        tuple(step / 20 for step in range(20, 200)),
        (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
        (1, 1.5, 2, 3, 5, 7),
        (1, 2, 5),
        (1, 3),
        (1,),
    ):
        ticks = [m * 10.0**e for e in range(-30, 31) for m in mantissas if low <= m * 10.0**e <= high]
        if len(ticks) <= 5:
            break
    ticks = ticks[:: -(-len(ticks) // 6)] if ticks else []
    axis.set_ticks(ticks, labels=[_power(tick) for tick in ticks])
    axis.set_ticks([], minor=True)


def _power(value: float) -> str:
    """A tick of a logarithmic axis: far from 1 as a power of ten."""
    if 1e-3 <= value < 1e5:
        return f"{value:,.6g}"
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = value / 10.0**exponent
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if round(mantissa, 6) == 1 else f"{mantissa:.3g}·{power}"
