"""What stands in a picture, read back from its axes."""

from __future__ import annotations

from matplotlib.axes import Axes


def upright(axes: Axes) -> list[tuple[float, str]]:
    """Where on the x axis which name stands, from left to right."""
    return sorted(
        (text.get_position()[0], text.get_text()) for text in axes.texts if text.get_rotation() == 90
    )
