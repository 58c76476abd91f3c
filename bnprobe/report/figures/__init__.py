"""Pictures: specs say what is shown, `draw` makes drawings of them; nothing else imports seaborn and matplotlib.

They are drawn in ink that the page replaces with its own (`INK`, `MUTED`, `PAPER`), so that one drawing serves light
and dark. The same quantity has the same color everywhere. `charts`, `maps`, `changes` and `plots` draw one kind of
spec each, `paper` what `report.plot` draws; `svg` is the frame.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnprobe.report.figures.drawing import draw
    from bnprobe.report.figures.pieces import panels_of
    from bnprobe.report.figures.svg import style, to_svg

__all__ = ["draw", "panels_of", "style", "to_svg"]

_HOMES = {"draw": "drawing", "panels_of": "pieces", "style": "svg", "to_svg": "svg"}


def __getattr__(name: str) -> Any:
    # on first use: specs are needed for every report, drawing only for pages
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
