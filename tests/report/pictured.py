"""What stands in a picture, read back from its axes, and pictures that cannot be drawn."""

from __future__ import annotations

from typing import NoReturn

import pytest
from matplotlib.axes import Axes

from bnprobe.report import figures
from bnprobe.report.figures import drawing
from bnprobe.report.figures.specs import NetworkMap, Picture


def upright(axes: Axes) -> list[tuple[float, str]]:
    """Where on the x axis which name stands, from left to right."""
    return sorted(
        (text.get_position()[0], text.get_text()) for text in axes.texts if text.get_rotation() == 90
    )


def svg_of(spec: Picture, name: str = "x") -> str:
    """The picture as the page holds it."""
    return figures.to_svg(name, lambda: figures.draw(spec))


def the_map_raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """From now on the map of the network cannot be drawn; everything else can."""

    def fail(_: object) -> NoReturn:
        raise error

    monkeypatch.setitem(drawing._BY_KIND, NetworkMap, fail)
