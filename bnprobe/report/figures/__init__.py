"""Pictures: no other room imports seaborn and matplotlib.

They are drawn in ink that the page replaces with its own (`INK`, `MUTED`, `PAPER`), so that one drawing serves light
and dark. The same quantity has the same colour everywhere. `overview`, `backward` and `comparison` are pictures
of their own, `charts` the forms that chapters share, `plots` figures for papers; `svg` is the frame.
"""

from __future__ import annotations

from bnprobe.report.figures.backward import gradients
from bnprobe.report.figures.overview import network
from bnprobe.report.figures.svg import style, to_svg

__all__ = [
    "gradients",
    "network",
    "style",
    "to_svg",
]
