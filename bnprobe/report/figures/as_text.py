"""The numbers of a picture by depth, a row per norm: for those who do not see it, and for whoever wants to copy them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bnprobe.recording.names import site_name
from bnprobe.report.figures.specs import ByDepth, Curves, Line, Panel, Part, Picture, Stack
from bnprobe.report.numbers import MISSING, visible
from bnprobe.stats.moments import Array

DIGITS = 4
"""Of a number: more than can be read off a picture."""


BETWEEN = "\u2003"
"""An em space: no tab, which is a control character, and in no name once spaces are plain."""


def as_text(spec: Picture) -> str:
    """Lines of values with BETWEEN between them, the heads first; empty for pictures that are not by depth."""
    if not isinstance(spec, ByDepth):
        return ""
    columns = [column for panel in spec.panels for column in _columns(panel)]
    heads = ["layer", *(head for head, _ in columns)]
    rows = [
        [site_name(path, spec.paths[:i].count(path)), *(_cell(values[i]) for _, values in columns)]
        for i, path in enumerate(spec.paths)
    ]
    return "\n".join(BETWEEN.join(visible(" ".join(cell.split())) for cell in row) for row in (heads, *rows))


def _columns(panel: Panel) -> Iterator[tuple[str, Array]]:
    """What a panel draws, each with its head."""
    parts: tuple[Line | Part, ...] = panel.lines
    for part in (*panel.parts, *parts) if isinstance(panel, Stack) else parts:
        yield ": ".join(filter(None, (panel.title, part.label))), part.values
    if isinstance(panel, Curves) and panel.band is not None:
        band = ": ".join(filter(None, (panel.title, panel.band.label)))
        yield f"{band}, low", panel.band.low
        yield f"{band}, high", panel.band.high


def _cell(value: float) -> str:
    """As spreadsheets read it."""
    if np.isnan(value):
        return MISSING
    return f"{value:.{DIGITS}g}" if np.isfinite(value) else ("∞" if value > 0 else "-∞")
