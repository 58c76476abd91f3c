"""Folding and quantization: a norm with fixed statistics is x · slope + intercept, and folds into weights."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.measures.shape import median
from bnprobe.recording.terms import MANY_EPS
from bnprobe.report.chapters.chapter import Absent, Material, highest, named, norms
from bnprobe.report.colours import EXPECTED, GREEN, ROSE
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Band, Curves, Line, Panel
from bnprobe.report.numbers import number, share
from bnprobe.report.page.blocks import Figure, Prose, Section
from bnprobe.report.page.tables import of_all, table

TITLE = "Folding and quantization"
HEADS = ["layer", "affine_by", "eps_dominated", "folded_spread", "bits_lost_median", "bits_lost_worst"]
MOST_ROWS = 6


def chapter(material: Material) -> Section | Absent:
    """The sentence, slopes and lost bits by depth, and the layers that lose most."""
    layers = material.tables.layers
    known = layers[layers["affine_by"] != "none"]
    slopes = _slopes(material.tables).reindex(pd.MultiIndex.from_frame(known[["layer", "call"]]))
    if known.empty or slopes["mid"].isna().all():
        return Absent(TITLE, "these norms use each sample's own statistics, so none of them is a fixed map")
    losing = known[known["bits_lost_worst"].notna()].sort_values(
        "bits_lost_worst", ascending=False, kind="stable"
    )
    rows = []
    if len(losing) > 1:
        rows = [
            table(
                losing.head(MOST_ROWS),
                HEADS,
                "The norms that lose most bits, folded and quantized with one scale per layer"
                f"{of_all(losing, MOST_ROWS)}.",
            )
        ]
    return Section(
        "affine", TITLE, (Prose(_words(known, slopes)), _figure(known, slopes), *rows), short="Folding"
    )


def _slopes(tables: Tables) -> pd.DataFrame:
    """Quartiles of |slope| over the channels of each site."""
    size = tables.channels["slope"].abs().where(np.isfinite(tables.channels["slope"]))
    by_site = size.groupby([tables.channels["layer"], tables.channels["call"]], sort=False)
    return by_site.quantile(np.array([0.25, 0.5, 0.75])).unstack().set_axis(["low", "mid", "high"], axis=1)


def _words(known: pd.DataFrame, slopes: pd.DataFrame) -> tuple[str, str]:
    low, high = (number(float(extreme(slopes["mid"].to_numpy())), 2) for extreme in (np.nanmin, np.nanmax))
    each = "each norm is" if len(known) > 1 else "the norm is"
    size = f"ranges from {low} to {high} over {norms(len(known))}" if low != high else f"is {low}"
    line = f"With fixed statistics, {each} a line per channel, x · slope + intercept; the typical |slope| {size}."
    losing = known[known["bits_lost_worst"].notna()]
    eps = _eps(known)
    if losing.empty:
        return line, f"{eps[0].upper()}{eps[1:]}."
    worst = highest(losing, "bits_lost_worst")
    bits, spread = worst["bits_lost_worst"], median(of(known, "folded_spread"))
    advice = " Use per-channel scales." if bits >= 1 else ""
    return line, (
        f"Quantized with one scale per layer after folding, the worst channel (in {named(worst)}) "
        f"{_loses(bits)}.{advice} A typical channel's folded weights span {share(spread)} of its layer's range; "
        f"{eps}."
    )


def _loses(bits: float) -> str:
    """How much of int8 is left to a channel that is so many bits below its layer's range."""
    return (
        "keeps none of the 8 bits of int8" if bits >= 8 else f"loses {number(bits, 2)} of the 8 bits of int8"
    )


def _eps(known: pd.DataFrame) -> str:
    """How much eps matters, marked where it is assumed."""
    assumed = " (eps is assumed)" if known["eps_assumed"].any() else ""
    least = share(1 - (1 + 1 / MANY_EPS) ** -0.5)
    most = highest(known, "eps_dominated") if known["eps_dominated"].notna().any() else None
    if most is None or most["eps_dominated"] == 0:
        return f"eps makes no channel's output smaller by {least} or more{assumed}"
    whole = float(np.average(of(known, "eps_dominated"), weights=of(known, "n_channels")))
    return (
        f"eps makes the outputs of {share(whole)} of all channels smaller by {least} or more, most at {named(most)} "
        f"({share(most['eps_dominated'])}){assumed}"
    )


def _figure(known: pd.DataFrame, slopes: pd.DataFrame) -> Figure:
    panels: list[Panel] = [
        Curves(
            "|slope| of the norm, |γ| / √(σ² + eps) (median and middle half of the channels)",
            (Line(slopes["mid"].to_numpy(), "", EXPECTED),),
            Band(slopes["low"].to_numpy(), slopes["high"].to_numpy(), EXPECTED),
            logarithmic=True,
            unit="output / input",
        )
    ]
    if known["bits_lost_median"].notna().any():
        panels.append(
            Curves(
                "bits lost to one quantization scale per layer, after folding",
                (
                    Line(of(known, "bits_lost_median"), "typical channel", GREEN),
                    Line(of(known, "bits_lost_worst"), "worst channel whose γ is not near 0", ROSE),
                ),
                limits=(0, None),
                unit="bits",
            )
        )
    return Figure(
        "affine",
        "Slope of every norm, and what folding it costs quantized weights, by depth.",
        by_depth(known, tuple(panels)),
        "An inference engine folds a norm into the preceding layer's weights. Channels whose folded weights are small "
        "relative to the layer's largest lose bits when one scale must fit all.",
    )
