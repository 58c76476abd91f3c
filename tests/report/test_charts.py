"""The forms of picture that chapters share: what is drawn is what was given, in few enough marks."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from bnprobe.report import figures
from bnprobe.report.colours import EXPECTED, MEASURED
from bnprobe.report.figures.specs import (
    Band,
    ByDepth,
    Cloud,
    Clouds,
    Curves,
    Line,
    Part,
    Stack,
    Swatch,
    Swatches,
)
from report.pictured import svg_of, upright

NAMES = [f"stage{i // 3}.norm{i}" for i in range(9)]


def drawn(*panels: Curves | Stack, names: list[str] = NAMES) -> Figure:
    with figures.style("x"):
        return figures.draw(ByDepth(tuple(names), tuple(names), panels))


def test_names_stand_once_below_all_panels():
    """Fails if every panel repeats the names, one stands below a neighbour's value, or a hundred of them overlap."""
    panel = Curves("a", (Line(np.arange(9.0)),))
    first, second = drawn(panel, panel).axes
    assert upright(first) == []
    assert upright(second) == [(float(i), name) for i, name in enumerate(NAMES)]
    many = [f"blocks.{i}" for i in range(150)]
    (axes,) = drawn(Curves("a", (Line(np.arange(150.0)),)), names=many).axes
    assert upright(axes) == [(3.0 * i, f"blocks.{3 * i}") for i in range(50)]


def test_lines_are_the_values_with_gaps_where_there_are_none():
    """Fails if an infinite value costs the picture, or a gap is drawn as zero."""
    values = np.array([1.0, np.inf, 3.0, np.nan, 5.0, 6.0, 7.0, 8.0, -np.inf])
    axes = drawn(Curves("a", (Line(values, "seen", MEASURED),), Band(values - 1, values + 1), unit="σ")).axes[
        0
    ]
    x, y = axes.lines[0].get_data()
    assert x.tolist() == list(range(9))
    np.testing.assert_array_equal(y, [1, np.nan, 3, np.nan, 5, 6, 7, 8, np.nan])
    assert axes.get_ylabel() == "σ"


def test_a_logarithmic_panel_without_a_positive_value_is_drawn():
    """Fails if a network of zeros divides by its range."""
    figure = drawn(Curves("a", (Line(np.zeros(9)),), logarithmic=True, levels=((1.0, "one"),)))
    assert "a" in {axes.get_title("left") for axes in figure.axes}


def test_parts_are_stacked_to_the_whole():
    """Fails if a part starts at zero, or the last site is cut off."""
    shares = np.linspace(0, 1, 9)
    parts = (Part(shares, "one", MEASURED), Part(1 - shares, "two", EXPECTED))
    axes = drawn(Stack("a", parts)).axes[0]
    filled = {c.get_label(): c.get_paths()[0].vertices for c in axes.collections}
    low, high = filled["one"], filled["two"]
    assert low[:, 0].min() == -0.5
    assert low[:, 0].max() == 8.5
    assert high[:, 1].max() == 1.0
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"one", "two"}


def test_marks_close_together_do_not_stand_on_one_another():
    """Fails if "enters" and "largest" at neighbouring norms are written in one place."""
    axes = drawn(Curves("a", (Line(np.arange(9.0)),), marks=((2, "enters"), (3, "largest")))).axes[0]
    places = {text.get_text(): text.xyann for text in axes.texts if isinstance(text, Annotation)}
    assert places["enters"][1] != places["largest"][1]


def test_one_size_has_no_logarithm():
    """Fails if the slopes of a fresh network, all 1, are drawn on an axis from .1 to 1."""
    axes = drawn(Curves("a", (Line(np.ones(9)),), logarithmic=True)).axes[0]
    assert axes.get_yscale() == "linear"
    axes = drawn(Curves("a", (Line(np.arange(1.0, 10.0)),), logarithmic=True)).axes[0]
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize(("n", "image"), [(50, False), (5000, True)])
def test_a_large_cloud_is_an_image(n, image):
    """Fails if a page of 26,000 channels holds as many circles."""
    rng = np.random.default_rng(0)
    x = np.append(rng.normal(size=n), np.nan)
    svg = svg_of(Clouds((Cloud("a", x, x + 1, "predicted", "measured"),)))
    assert ("<image" in svg) == image
    assert len(svg) < 200_000
    assert "predicted" in svg


def test_an_empty_cloud_is_drawn():
    """Fails if a quantile of nothing ends the picture."""
    nothing = np.full(3, np.nan)
    assert "<svg" in svg_of(Clouds((Cloud("a", nothing, nothing, "x", "y"),)))


def test_a_swatch_has_its_colour_also_where_it_lies_beyond_the_colours():
    """Fails if a decoded mean of 1.01 costs the picture, or red and blue are swapped."""
    svg = svg_of(Swatches((Swatch((1.01, 0.5, -0.01), "a"),)))
    assert "#ff8000" in svg or "#ff7f00" in svg
