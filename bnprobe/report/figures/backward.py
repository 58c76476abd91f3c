"""The gradient by depth."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bnprobe.report.colours import MEMORY, SEEN
from bnprobe.report.figures.axes import names_below, ratio_ticks
from bnprobe.report.figures.svg import seaborn
from bnprobe.report.page.numbers import shorten

GRADIENT_PANELS: tuple[tuple[str, tuple[tuple[str, str, str], ...], bool], ...] = (
    (
        "length of the gradient (loss per unit, root of the sum of squares of a pass)",
        (("grad_out", "at the output", SEEN), ("grad_in", "at the input", MEMORY)),
        True,
    ),
    ("share of its energy that the norm takes out", (("energy_removed_layer", "", SEEN),), False),
    (
        "signal-to-noise ratio over passes (median channel)",
        (("gamma_snr_median", "γ", SEEN), ("beta_snr_median", "β", MEMORY)),
        True,
    ),
)


def gradients(layers: pd.DataFrame) -> Figure:
    """The gradient by depth: its length out and in, the energy taken out, the signal in gamma and beta."""
    names = [
        f"{shorten(row['layer'], 30)}{f' call {row.call + 1}' if row['call'] else ''}"
        for _, row in layers.iterrows()
    ]
    panels = [
        panel
        for panel in GRADIENT_PANELS
        if layers[[column for column, _, _ in panel[1]]].notna().any(axis=None)
    ]
    figure = Figure(figsize=(10, 0.8 + 1.5 * len(panels) + 0.06 * max(map(len, names))))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for place, (title, lines, logarithmic) in zip(axes, panels, strict=True):
        for column, label, colour in lines:
            seaborn().lineplot(
                x=np.arange(len(layers)),
                y=layers[column].to_numpy(),
                ax=place,
                color=colour,
                label=label or None,
                marker="o",
                markersize=4,
                markeredgewidth=0,
                linewidth=1.3,
            )
        if logarithmic and (layers[[column for column, _, _ in lines]] > 0).any(axis=None):
            ratio_ticks(place)
        place.set_title(title)
        place.set_ylabel("")
        place.set_xlim(-0.5, len(layers) - 0.5)
        if len(lines) > 1:
            place.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderpad=0)
    names_below(axes[-1], names)
    return figure
