"""The frame of every drawing: our style while it is drawn, and an SVG that a page can hold."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bnprobe.report.colours import CRITICAL, EXPECTED, INK, MEASURED, MUTED, PAPER, WARNING
from bnprobe.report.figures.png import shrunk
from bnprobe.stats.scipy_lazy import aside

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
    """seaborn, which imports scipy.stats."""
    with aside():
        import seaborn

    return seaborn


@contextmanager
def style(name: str) -> Iterator[None]:
    """Our settings while drawing, the user's own afterwards; ids in the SVG follow from `name`."""
    settings: Any = {**_STYLE, "svg.hashsalt": name}
    with mpl.rc_context(), warnings.catch_warnings():
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
    svg = shrunk(buffer.getvalue())
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
    if tag.startswith("</"):
        return tag
    if tag.startswith("<text"):
        tag = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", tag)
        tag = re.sub(r"font-family: [^;\"]+;? ?| transform=\"rotate\(-?0 [^\"]*\"", "", tag)
    # a hundredth of a point is finer than any screen
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
    # matplotlib numbers its groups, which would clash between pictures, and makes other ids of addresses
    # of objects, which would change from run to run
    tag = re.sub(r'<g id="[^"]*"(/?)>', r"<g\1>", tag)
    # nothing refers to an image, whose id is a digest of its pixels: two colour bars of one picture share it
    tag = re.sub(r'^(<image\b[^>]*?) id="[^"]*"', r"\1", tag)
    tag = re.sub(
        r'(\bid="|url\(#|href="#)([^")]+)',
        lambda match: f"{match[1]}p{prefix}-{numbers.setdefault(match[2], len(numbers))}",
        tag,
    )
    return _OURS.sub(lambda colour: f"var(--{_VARIABLES[colour[0]]})", tag)


_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    PAPER: "paper",
    MEASURED: "measured",
    EXPECTED: "expected",
    WARNING: "warning",
    CRITICAL: "critical",
}
_OURS = re.compile("|".join(_VARIABLES))
