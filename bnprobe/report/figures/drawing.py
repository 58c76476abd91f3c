"""From a spec to a drawing: which function draws which kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure

from bnprobe.report.figures import changes, charts, maps, plots, specs, spine, transfer

_BY_KIND: dict[type, Callable[[Any], Figure]] = {
    specs.ByDepth: charts.by_depth,
    specs.Spine: spine.spine,
    specs.NetworkMap: maps.network,
    specs.Clouds: charts.clouds,
    specs.LayerChange: changes.layer,
    specs.Transfer: transfer.transfer,
    specs.Swatches: charts.swatches,
    specs.Plots: plots.plots,
}


def draw(spec: specs.Picture) -> Figure:
    """The picture as a matplotlib figure, in whatever style is set; `svg.style` sets ours."""
    return _BY_KIND[type(spec)](spec)
