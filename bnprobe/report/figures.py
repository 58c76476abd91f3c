"""Every picture but those of the chapters, which are in `charts`: no other room imports seaborn and matplotlib.

Pictures are drawn in ink that the page replaces with its own (`INK`, `MUTED`, `PAPER`), so that one
drawing serves light and dark. The same quantity has the same colour everywhere.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.colorbar
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from bnprobe.measures.shape import median
from bnprobe.recording import LayerRecord
from bnprobe.report.colours import INK, MEMORY, MUTED, PAPER, SEEN
from bnprobe.report.words import shorten
from bnprobe.scipy_stats import stats
from bnprobe.stats.histogram import Z_EDGES
from bnprobe.stats.moments import Array

HEIGHT = 64
"""Rows of a map column: layers of any width are stretched to one height, so narrow ones are not lost."""

RIDGES = 7
MOST_NAMES = 60
"""Names that stand below one axis without touching."""

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

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}


def seaborn() -> Any:
    """seaborn, which imports scipy.stats, and so must come after `bnprobe.scipy_stats`."""
    import seaborn

    return seaborn


@contextmanager
def style(name: str) -> Iterator[None]:
    """Our settings while drawing, the user's own afterwards; ids in the SVG follow from `name`."""
    settings: Any = {**_STYLE, "svg.hashsalt": name}
    with mpl.rc_context(), warnings.catch_warnings():
        seaborn()  # brings its colour maps along
        mpl.rcdefaults()  # a page looks the same whatever the user has set
        mpl.rcParams.update(settings)
        # a font without a glyph, or a layout that has no room left: the page shows what there is
        warnings.simplefilter("ignore", UserWarning)
        yield


def to_svg(name: str, draw: Callable[[], Figure]) -> str:
    """The picture as an inline SVG without size, fonts or identity of its own."""
    with style(name):
        figure = draw()
        buffer = io.StringIO()
        # not savefig, which draws everything twice, the first time to find out what to crop
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        r'<svg viewBox="\1" aria-hidden="true" stroke-linejoin="round" stroke-linecap="butt">',
        svg,
        count=1,
    )
    # matplotlib's style would hold for the whole page, and goes on our own tag instead
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    prefix = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
    numbers: dict[str, int] = {}
    # inside tags only: between them stand names, which are left as they are
    return re.sub(r"<[^>]*>", lambda tag: _page_tag(tag[0], prefix, numbers), svg)


def _page_tag(tag: str, prefix: str, numbers: dict[str, int]) -> str:
    """One SVG tag as the page wants it: short, in the page's ink, with ids that are its own."""
    tag = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", tag)
    tag = re.sub(r"font-family: [^;\"]+;? ?| transform=\"rotate\(-?0 [^\"]*\"", "", tag)
    # a hundredth of a point is finer than any screen
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
    # matplotlib numbers its groups, which would clash between pictures, and makes other ids of addresses
    # in memory, which would change from run to run
    tag = re.sub(r'<g id="[^"]*"(/?)>', r"<g\1>", tag)
    # nothing refers to an image, whose id is a digest of its pixels: two colour bars of one picture share it
    tag = re.sub(r'^(<image\b[^>]*?) id="[^"]*"', r"\1", tag)
    tag = re.sub(
        r'(\bid="|url\(#|href="#)([^")]+)',
        lambda match: f"{match[1]}p{prefix}-{numbers.setdefault(match[2], len(numbers))}",
        tag,
    )
    for colour, variable in (
        (INK, "ink"),
        (MUTED, "muted"),
        (PAPER, "paper"),
        (SEEN, "seen"),
        (MEMORY, "memory"),
    ):
        tag = tag.replace(colour, f"var(--{variable})")
    return tag


@dataclass(frozen=True)
class MapPanel:
    """One map of the network picture: a channel column, its transform, title and colours."""

    title: str
    column: str
    colours: str
    transform: Callable[[Array], Array] = np.asarray
    centre: float | None = None
    limits: tuple[float, float] | None = None


def _log2(values: Array) -> Array:
    return np.asarray(np.log2(np.where(values > 0, values, np.nan)))


def _log10_root(values: Array) -> Array:
    return np.asarray(_log2(values) / 2 / np.log2(10))


MEMORY_PANELS = (
    MapPanel("shift of the mean, in remembered σ", "shift", "vlag", centre=0),
    MapPanel("log₂ of the scale ratio (deviation seen / remembered)", "scale_ratio", "vlag", _log2, centre=0),
)
STORED_PANELS = (
    MapPanel("log₁₀ of the remembered deviation", "running_var", "viridis", _log10_root),
    MapPanel("β", "beta", "vlag", centre=0),
)
OTHER_PANELS = (MapPanel("log₁₀ of the deviation before the norm", "pre_var", "viridis", _log10_root),)
COMMON_PANELS = (
    MapPanel("share of positive outputs", "fires", "mako", limits=(0, 1)),
    MapPanel("γ", "gamma", "icefire", centre=0),
)


def network(channels: pd.DataFrame) -> Figure:
    """The whole network: a depth profile above maps of layer by channel, sorted by |γ| within a layer."""
    groups = [group for _, group in channels.groupby(["layer", "call"], sort=False)]
    names = [_column_name(group) for group in groups]
    stored = any(group["shift"].notna().any() for group in groups)
    seen = bool((channels["n_values"] > 0).any())
    panels = [*(MEMORY_PANELS if stored else OTHER_PANELS if seen else STORED_PANELS), *COMMON_PANELS]
    panels = [panel for panel in panels if channels[panel.column].notna().any()]
    # a fixed layout, in inches: the automatic one costs as much as the drawing
    tall, gap, below = (1.25, *[1.45] * len(panels)), 0.36, 0.15 + 0.066 * max(map(len, names))
    height = sum(tall) + gap * len(tall) + below
    figure = Figure(figsize=(10, height))
    figure.set_layout_engine("none")
    grid = figure.add_gridspec(
        len(tall),
        2,
        width_ratios=(60, 1),
        height_ratios=tall,
        wspace=0.03,
        hspace=gap / (sum(tall) / len(tall)),
        left=0.065,
        right=0.935,
        bottom=below / height,
        top=1 - gap / height,
    )
    profile = figure.add_subplot(grid[0, 0])
    draw_profile = _variance_profile if stored else _deviation_profile if seen else _stored_profile
    draw_profile(profile, groups)
    bounds = stage_bounds([group["layer"].iloc[0] for group in groups])
    for row, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(grid[row, 0])
        _map(axes, figure.add_subplot(grid[row, 1]), groups, panel)
        for bound in bounds:
            axes.axvline(bound, color=PAPER, linewidth=1.5)
        _label_columns(axes, names if row == len(panels) else None)
    for bound in bounds:
        profile.axvline(bound - 0.5, color=MUTED, linewidth=0.5, alpha=0.6)
    return figure


def _column_name(group: pd.DataFrame) -> str:
    first = group.iloc[0]
    call = f" call {first['call'] + 1}" if first["call"] else ""
    return f"{shorten(first['layer'], 30)}{call} ({len(group)})"


def stage_bounds(names: list[str]) -> list[int]:
    """Positions before which the stage, the first part of the path that varies, changes."""
    paths = [name.split(".") for name in names]
    depth = next((d for d in range(8) if len({tuple(path[: d + 1]) for path in paths}) > 1), 0)
    stages = [tuple(path[: depth + 1]) for path in paths]
    bounds = [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]
    return bounds if len(bounds) <= len(stages) // 2 else []


def _spread(groups: list[pd.DataFrame], column: str) -> Array:
    """Quartiles of a column per site, shape (3, L)."""
    rows = [group[column].dropna() for group in groups]
    return np.array([np.quantile(row, (0.25, 0.5, 0.75)) if len(row) else [np.nan] * 3 for row in rows]).T


def _variance_profile(axes: Axes, groups: list[pd.DataFrame]) -> None:
    low, mid, high = _spread(groups, "scale_ratio") ** 2
    _profile(axes, low, mid, high)
    axes.axhline(1, color=MEMORY, linewidth=1)
    axes.set_title(
        "variance entering the norm, as a share of the remembered one plus eps (median and middle half of the channels)"
    )
    ratio_ticks(axes)


def _deviation_profile(axes: Axes, groups: list[pd.DataFrame]) -> None:
    low, mid, high = np.sqrt(_spread(groups, "pre_var"))
    _profile(axes, low, mid, high)
    axes.set_title("deviation entering the norm (median and middle half of the channels)")
    ratio_ticks(axes)


def _stored_profile(axes: Axes, groups: list[pd.DataFrame]) -> None:
    """Without data: what batch norms divide by, or where no norm remembers anything, the learned scale."""
    remembered = any(group["running_var"].notna().any() for group in groups)
    column = "running_var" if remembered else "gamma"
    sizes = [group.assign(size=group[column].abs() ** (0.5 if remembered else 1.0)) for group in groups]
    _profile(axes, *_spread(sizes, "size"))
    name = "remembered deviation" if remembered else "|γ|"
    axes.set_title(f"{name} (median and middle half of the channels)")
    if any((group["size"] > 0).any() for group in sizes):
        ratio_ticks(axes)


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


def _profile(axes: Axes, low: Array, mid: Array, high: Array) -> None:
    x = np.arange(len(mid))
    axes.fill_between(x, low, high, color=SEEN, alpha=0.25, linewidth=0)
    axes.plot(x, mid, color=SEEN, marker="o", markersize=3, linewidth=1.3)
    axes.set_xlim(-0.5, len(mid) - 0.5)
    axes.set_xticks([])


def _map(axes: Axes, bar: Axes, groups: list[pd.DataFrame], panel: MapPanel) -> None:
    """Columns are sites in the order they were reached; rows are channels, the largest |γ| on top."""
    picture = np.stack([_stretch(group, panel) for group in groups], axis=1)
    known = picture[np.isfinite(picture)]
    low, high = panel.limits or _robust(known, panel.centre)
    beyond = bool(np.any(known < low)), bool(np.any(known > high))
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[
        beyond
    ]
    seaborn().heatmap(
        pd.DataFrame(picture),
        ax=axes,
        cbar_ax=bar,
        cmap=panel.colours,
        vmin=low,
        vmax=high,
        cbar_kws={"extend": extend},
        rasterized=True,
        xticklabels=False,
        yticklabels=False,
    )
    bar.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    note = "" if extend == "neither" else "  (colours end at the 2nd and 98th percentile)"
    axes.set_title(panel.title + note)
    axes.set_ylabel("")


def _stretch(group: pd.DataFrame, panel: MapPanel) -> Array:
    """One site's channels, sorted by |γ|, stretched or thinned to HEIGHT rows by nearest rank."""
    order = np.argsort(-group["gamma"].abs().fillna(0).to_numpy(), kind="stable")
    values = np.asarray(panel.transform(group[panel.column].to_numpy(dtype=float)))[order]
    return values[(np.arange(HEIGHT) * len(values)) // HEIGHT]


def _robust(values: Array, centre: float | None) -> tuple[float, float]:
    """Limits that a few outliers cannot take over; symmetric about `centre` where there is one."""
    if not values.size:
        return 0.0, 1.0
    low, high = np.quantile(values, (0.02, 0.98))
    if centre is not None:
        reach = max(abs(low - centre), abs(high - centre)) or 1.0
        return centre - reach, centre + reach
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)


def _label_columns(axes: Axes, names: list[str] | None) -> None:
    if names is None:
        return
    names_below(axes, names, from_edge=0.5)
    axes.tick_params(length=0)


def names_below(axes: Axes, names: list[str], *, from_edge: float = 0.0) -> None:
    """Names upright below an axis, one at every whole number plus `from_edge`, thinned to MOST_NAMES.

    Words and no ticks, each of which is five artists, two of them words: they took a quarter of a page's drawing.
    """
    axes.set_xticks([])
    drop = ScaledTranslation(0, -3.5 / 72, axes.figure.dpi_scale_trans)
    at = axes.get_xaxis_transform() + drop
    for i in range(0, len(names), -(-len(names) // MOST_NAMES)):
        axes.text(i + from_edge, 0, names[i], rotation=90, fontsize=7.5, ha="center", va="top", transform=at)


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


def layer(record: LayerRecord, channels: pd.DataFrame) -> Figure:
    """One site: some channels before and after the norm, and all of them in the (|γ|, β) plane."""
    chosen = telling_channels(channels)
    has_plane = record.gamma is not None and record.beta is not None
    drawn = record.pre_histogram is not None
    widths = [1.0, 1.0] * drawn + [0.15, 0.8, 0.05] * has_plane
    height = max(0.9 + 0.42 * len(chosen), 2.6)
    # a fixed layout: the automatic one costs as much as the drawing
    figure = Figure(figsize=(10, height))
    figure.set_layout_engine("none")
    if not widths:
        return figure
    grid = figure.add_gridspec(
        1,
        len(widths),
        width_ratios=widths,
        wspace=0.08,
        left=0.09,
        right=0.93,
        bottom=0.5 / height,
        top=1 - 0.3 / height,
    )
    if drawn:
        _before(figure.add_subplot(grid[0, 0]), record, channels, chosen)
        _after(figure.add_subplot(grid[0, 1]), record, channels, chosen)
    if has_plane:
        _plane(figure.add_subplot(grid[0, -2]), figure.add_subplot(grid[0, -1]), channels)
    return figure


def telling_channels(channels: pd.DataFrame) -> list[int]:
    """A few channels worth drawing: the most and the least shifted, and the heaviest tail."""
    if len(channels) <= RIDGES:
        return list(range(len(channels)))
    strange = channels["pre_kurtosis"].fillna(0)
    distance = channels["shift"].abs() if channels["shift"].notna().any() else strange.abs()
    order = np.argsort(-distance.fillna(0).to_numpy(), kind="stable")
    typical = order[len(order) // 2 - 1 : len(order) // 2 + 1]
    picks = [*order[:3], *typical, int(strange.to_numpy().argmax()), order[-1]]
    return [int(i) for i in dict.fromkeys(picks)]


def _before(axes: Axes, record: LayerRecord, channels: pd.DataFrame, chosen: list[int]) -> None:
    """In units of the memory: every remembered curve is the same, so what moved is seen at once."""
    assert record.pre_histogram is not None
    rows = channels.iloc[chosen]
    if record.has_running:
        centre = rows["running_mean"].to_numpy()
        var = rows["running_var"].to_numpy() + record.eps
        poisoned = ~(np.isfinite(centre) & (var > 0) & np.isfinite(var))
        centre, scale = np.where(poisoned, 0.0, centre), np.sqrt(np.where(poisoned, 0.0, var))
        axes.set_title("before: seen, and remembered (line)")
        axes.set_xlabel("remembered σ from the remembered mean")
    else:
        centre, scale = rows["pre_mean"].to_numpy(), np.sqrt(rows["pre_var"].to_numpy())
        axes.set_title("before: seen, and a Gaussian (line)")
        axes.set_xlabel("σ of the channel from its mean")
    z = _middles(5.0)
    bell = stats.norm.pdf(z)
    for level, (channel, c, s) in enumerate(zip(chosen, centre, scale, strict=True)):
        heights = record.pre_histogram.density(channel, c + s * z) * s if s > 0 else np.zeros_like(z)
        _ridge(axes, level, len(chosen), z, heights, bell)
    _ridge_axis(axes, [f"channel {c}" for c in chosen[::-1]])
    axes.set_xlim(-5, 5)


def _after(axes: Axes, record: LayerRecord, channels: pd.DataFrame, chosen: list[int]) -> None:
    """In units of the output, with the zero line at which a ReLU would cut."""
    rows = channels.iloc[chosen]
    beta = np.where(np.isfinite(rows["beta"]), rows["beta"], 0.0)
    gamma = np.where(np.isfinite(rows["gamma"]), rows["gamma"].abs(), 1.0)
    axes.set_title("after: seen, and N(β, γ²) (line)")
    axes.set_xlabel("output of the norm")
    axes.axvline(0, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    _ridge_axis(axes, [""] * len(chosen))
    reach = max(4 * median(gamma[gamma > 0]) if (gamma > 0).any() else 1.0, 1e-12)
    low, high = float(np.min(beta) - reach), float(np.max(beta) + reach)
    axes.set_xlim(low, high)
    if record.post_histogram is None:
        return
    unit = float(np.median(gamma[gamma > 0])) if (gamma > 0).any() else 1.0
    for level, (channel, b, g) in enumerate(zip(chosen, beta, gamma, strict=True)):
        if g < 0.02 * unit:  # a spike: an arrow tells more than a curve too thin to see
            base = len(chosen) - 1 - level
            axes.plot([b, b], [base, base + 1.2], color=SEEN, linewidth=2, zorder=2 + level)
            continue
        x = b + g * _middles(7.0)
        seen = record.post_histogram.density(channel, x) * unit
        _ridge(axes, level, len(chosen), x, seen, stats.norm.pdf(x, b, g) * unit)


def _ridge_axis(axes: Axes, labels: list[str]) -> None:
    """A base line per channel, the same on every panel."""
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.25, len(labels) + 1.8)
    axes.spines["left"].set_visible(False)


def _middles(reach: float) -> Array:
    middles = (Z_EDGES[1:] + Z_EDGES[:-1]) / 2
    return np.asarray(middles[np.abs(middles) < reach])


def _ridge(axes: Axes, level: int, n: int, x: Array, seen: Array, line: Array) -> None:
    """One channel's curve; lower ridges stand in front."""
    base, tall = n - 1 - level, 2.4
    axes.fill_between(
        x, base, base + np.minimum(tall * seen, 2.6), color=SEEN, alpha=0.6, linewidth=0, zorder=2 + level
    )
    axes.plot(x, base + np.minimum(tall * line, 2.6), color=MEMORY, linewidth=1.1, zorder=2.5 + level)


def _plane(axes: Axes, bar: Axes, channels: pd.DataFrame) -> None:
    """Channels at (|γ|, β); rays of equal predicted firing Φ(β/|γ|); colour is what was measured."""
    channels = channels[np.isfinite(channels["gamma"]) & np.isfinite(channels["beta"])]
    gamma, beta, fires = (channels[name].to_numpy() for name in ("gamma", "beta", "fires"))
    reach_x, reach_y = 1.0, 1.0
    if len(channels):
        reach_x = max(float(np.quantile(np.abs(gamma), 0.995)) * 1.15, 1e-6)
        reach_y = max(float(np.quantile(np.abs(beta), 0.995)) * 1.25, 0.3 * reach_x)
    for predicted in (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
        slope = float(stats.norm.ppf(predicted))
        axes.plot([0, 2 * reach_x], [0, 2 * slope * reach_x], color=MUTED, linewidth=0.6, alpha=0.7, zorder=1)
        x = 0.9 * (min(reach_x, reach_y / abs(slope)) if slope else reach_x)
        axes.text(
            x, slope * x, f" {predicted:g} ", color=MUTED, fontsize=7, ha="center", va="bottom", zorder=1
        )
    seen = bool(np.isfinite(fires).any())
    colours: dict[str, Any] = {"c": fires, "cmap": "mako", "vmin": 0, "vmax": 1} if seen else {"color": SEEN}
    points = axes.scatter(
        np.abs(gamma),
        beta,
        **colours,
        s=16,
        edgecolors=MUTED,
        linewidths=0.3,
        zorder=2,
        rasterized=len(gamma) > 200,
    )
    axes.set_xlim(-0.04 * reach_x, reach_x)
    axes.set_ylim(-reach_y, reach_y)
    axes.set_xlabel("|γ|")
    axes.set_ylabel("β")
    axes.set_title("all channels; rays: predicted firing")
    if seen:
        mpl.colorbar.Colorbar(bar, points, label="measured share of y > 0")
    else:
        bar.set_axis_off()
