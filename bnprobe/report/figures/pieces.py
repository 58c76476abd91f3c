"""A picture in pieces: its panels one by one, which a page sets beside each other, and below each other on a phone.

Drawn as one, a picture is as wide as a sheet of paper, and its words cannot be read on a screen of a third of that.
"""

from __future__ import annotations

from dataclasses import replace

from bnprobe.report.figures.specs import ByDepth, Clouds, Picture, Plots, Swatches


def panels_of(spec: Picture) -> tuple[tuple[str, Picture], ...]:
    """The title of each panel, which the page writes above it, and the panel; without a title what stays whole."""
    if isinstance(spec, ByDepth):
        return tuple(
            (panel.title, replace(spec, panels=(replace(panel, title=""),), narrow=True))
            for panel in spec.panels
        )
    if isinstance(spec, Clouds):
        return tuple((cloud.title, Clouds((replace(cloud, title=""),), narrow=True)) for cloud in spec.clouds)
    if isinstance(spec, Plots) and not spec.narrow:
        return tuple((plot.title, Plots((replace(plot, title=""),), narrow=True)) for plot in spec.plots)
    if isinstance(spec, Swatches):
        return tuple(("", Swatches((patch,))) for patch in spec.patches)
    return (("", spec),)
