"""The forms of picture that chapters share: what is drawn is what was given, in few enough marks."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from bnprobe.report import figures, vocabulary
from bnprobe.report.colours import EXPECTED, MEASURED
from bnprobe.report.figures.palettes import palette
from bnprobe.report.figures.specs import (
    Band,
    ByDepth,
    Cloud,
    Clouds,
    Curve,
    Curves,
    Lane,
    Line,
    Part,
    Plot,
    Plots,
    Spine,
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


def test_a_narrow_picture_has_room_for_its_unit():
    """Fails if digits of small numbers push the unit of an axis out of the picture of a phone."""
    for scale in (1e-4, 0.013, 0.11, 1.0, 2e3, 4e5):
        panel = Curves("", (Line(scale * np.arange(9.0)),), unit="running σ")
        with figures.style("x"):
            figure = figures.draw(ByDepth(tuple(NAMES), tuple(NAMES), (panel,), narrow=True))
            figure.draw_without_rendering()
            (axes,) = figure.axes
            assert axes.yaxis.label.get_window_extent().x0 >= 0, scale


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


def test_the_legend_of_all_roles_is_whole_on_a_phone():
    """Fails if the last words of a legend lie beyond the picture, as "always on, or without an activation" did."""
    labels = [*vocabulary.ROLES.values(), vocabulary.NO_ACTIVATION]
    parts = tuple(Part(np.full(9, 1 / len(labels)), label, MEASURED) for label in labels)
    with figures.style("x"):
        picture = figures.draw(ByDepth(tuple(NAMES), tuple(NAMES), (Stack("", parts),), narrow=True))
    legend = picture.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == labels
    box = legend.get_window_extent(FigureCanvasAgg(picture).get_renderer())
    width, height = picture.get_size_inches() * picture.dpi
    assert min(box.x0, box.y0) > 0
    assert box.x1 < width
    assert box.y1 < height


@pytest.mark.parametrize("narrow", [True, False])
def test_the_names_of_levels_stand_beside_the_lines(narrow):
    """Fails if "Laplacian" is written over the values that it is there to explain."""
    levels = ((1.0, "Gaussian"), (0.886, "Laplacian"), (1.085, "norm shifted"))
    panel = Curves("", (Line(np.linspace(0.8, 1.2, 9)),), levels=levels)
    with figures.style("x"):
        picture = figures.draw(ByDepth(tuple(NAMES), tuple(NAMES), (panel,), narrow=narrow))
    renderer = FigureCanvasAgg(picture).get_renderer()
    (axes,) = picture.axes
    words = [one for one in axes.texts if one.get_text() in [name for _, name in levels]]
    assert len(words) == 3
    for one in words:
        box = one.get_window_extent(renderer)
        assert box.x0 > axes.get_window_extent(renderer).x1
        assert box.x1 < picture.get_figwidth() * picture.dpi


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


def test_a_legend_covers_no_curve():
    """Fails if names of curves stand among them, or over the title, where a picture has several pairs of axes."""
    x = np.arange(1.0, 5.0)
    full = tuple(Curve(x, x * 0 + level, f"a curve of level {level}", dots=True) for level in range(6))
    spec = Plots((Plot("a title", "x", "y", full), Plot("another", "x", "y", full[:2])))
    with figures.style("x"):
        figure = figures.draw(spec)
        FigureCanvasAgg(figure).draw()
        for axes in figure.axes:
            box = axes.get_legend().get_window_extent()
            assert box.y0 >= axes.get_window_extent().y1
            assert box.x1 <= axes.get_window_extent().x1 + 12
            assert box.y1 <= axes._left_title.get_window_extent().y0


@pytest.mark.parametrize(("largest", "says"), [(0.9, "1"), (3.0, "≥1")])
def test_a_scale_that_is_left_says_so(largest, says):
    """Fails if what lies beyond a lane's end reads as if it lay on it, or a lane that holds all says it does not."""
    lane = Lane("distance", np.array([0.1, largest]))
    with figures.style("x"):
        drawn = figures.draw(Spine(("a", "b"), ("a", "b"), (lane,)))
    ticks = [label.get_text() for axes in drawn.axes for label in axes.get_yticklabels()]
    assert ticks == ["0", says]


@pytest.mark.parametrize("name", ["vlag", "icefire", "mako", "viridis"])
def test_palettes_are_those_of_seaborn(name):
    """Fails if a map on paper has other colors than seaborn's palette of that name, to what a pixel can hold."""
    import seaborn  # noqa: F401

    shares = np.linspace(0, 1, 256)
    np.testing.assert_allclose(palette(name)(shares), mpl.colormaps[name](shares), atol=0.5 / 255)
