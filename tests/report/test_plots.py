"""Figures for papers: the right numbers on axes with names and units, and files that are pictures."""

from __future__ import annotations

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measures.sites import memory_of, recording, site, some_rows

import bnprobe
from bnprobe.report.colours import MEASURED

ROWS = some_rows(8, 5, 9)
MEMORY = memory_of(ROWS)


@pytest.fixture(scope="module")
def report() -> bnprobe.Report:
    shifted = {**MEMORY, "running_mean": MEMORY["running_mean"] - np.sqrt(MEMORY["running_var"])}
    return bnprobe.report(
        recording(
            site(ROWS, "stage1.bn", gamma=[1, 2, 3, 4, 5], beta=0.5, **MEMORY),
            site(ROWS, "stage1.bn", call=1, gamma=[1, 2, 3, 4, 5], beta=0.5, **MEMORY),
            site(ROWS, "stage2.bn", gamma=[-1, -2, -3, -4, -5], beta=0.5, **shifted),
        )
    )


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_a_column_of_channels_is_a_box_per_layer(report):
    """Fails if a layer's box holds another layer's channels, or the axes have no name."""
    axes = report.plot("gamma")
    assert isinstance(axes, Axes)
    # level lines are the median and the ends of the whiskers: of five equal steps the middle, the first and the last
    level = [line for line in axes.lines if len(set(line.get_ydata())) == 1]
    drawn = {(round(float(np.mean(line.get_xdata()))), float(line.get_ydata()[0])) for line in level}
    upward, downward = (1.0, 3.0, 5.0), (-1.0, -3.0, -5.0)
    assert drawn == {(at, y) for at, ys in enumerate((upward, upward, downward)) for y in ys}
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "stage1.bn",
        "stage1.bn call 2",
        "stage2.bn",
    ]
    assert axes.get_ylabel().startswith("γ")
    assert len(axes.get_title(loc="left")) > 10


def test_a_column_of_layers_is_a_line(report):
    """Fails if values are sorted, or drawn against something else than depth."""
    axes = report.plot("shift_rms")
    line = max(axes.lines, key=lambda one: len(one.get_xdata()))
    np.testing.assert_allclose(line.get_ydata(), report.layers["shift_rms"])
    np.testing.assert_allclose(line.get_xdata(), [0, 1, 2])
    assert "σ" in axes.get_ylabel()


def test_one_layer_is_a_histogram_of_its_channels(report):
    """Fails if channels of another layer are counted in."""
    axes = report.plot("gamma", layer="stage2.bn")
    assert sum(patch.get_height() for patch in axes.patches) == 5
    assert axes.get_xlim()[1] < 0
    assert axes.get_ylabel() == "channels"


def test_two_columns_are_points(report):
    """Fails if x and y are exchanged."""
    axes = report.plot("beta", "gamma", layer="stage2.bn")
    offsets = np.asarray(axes.collections[0].get_offsets())
    assert set(map(tuple, offsets)) == {(-g, 0.5) for g in range(1, 6)}
    assert axes.get_xlabel().startswith("γ")


def test_roles_are_shares(report):
    """Fails if a layer's shares do not add up to one."""
    axes = report.plot("role")
    tops = {}
    for patch in axes.patches:
        tops[patch.get_x()] = tops.get(patch.get_x(), 0) + patch.get_height()
    assert list(tops.values()) == pytest.approx([1, 1, 1])


def test_axes_of_ones_own_are_drawn_into(report):
    """Fails if a figure of several panels cannot be made, or the user's style is changed for good."""
    before = dict(plt.rcParams)
    figure, (left, right) = plt.subplots(1, 2)
    assert report.plot("gamma", ax=left) is left
    assert report.plot("fires", ax=right) is right
    assert plt.get_fignums() == [figure.number]
    assert dict(plt.rcParams) == before
    assert any(
        np.allclose(c.get_facecolor()[:3], plt.matplotlib.colors.to_rgb(MEASURED), atol=0.25)
        for c in left.patches
    )


@pytest.mark.parametrize(("columns", "inches"), [(1, 3.4), (2, 7.0)])
@pytest.mark.parametrize("y", ["scale_ratio", "var_ratio_median", "role", "w2_rms"])
def test_figures_fit_the_columns_of_a_paper(columns, inches, y):
    """Fails if a figure is of another width, its title is cut off, or the names below it run into each other."""
    many = bnprobe.report(
        recording(*(site(ROWS, f"features.{i}.conv.bn", gamma=1, beta=0.5, **MEMORY) for i in range(53)))
    )
    axes = many.plot(y, columns=columns)
    figure = axes.figure
    figure.canvas.draw()
    assert figure.get_figwidth() == pytest.approx(inches)
    title = axes._left_title.get_window_extent()
    assert title.x0 >= 0
    assert title.x1 <= figure.bbox.x1
    names = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(left.x1 <= right.x0 + 1 for left, right in pairwise(names))
    assert names[0].y0 >= 0


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [({"columns": 3}, "Pass 1 or 2"), ({"columns": 1, "ax": True}, "either ax or columns")],
)
def test_a_width_that_is_none_is_said(report, arguments, advice):
    """Fails if a figure of no known width is drawn, or one of two demands is dropped without a word."""
    if "ax" in arguments:
        arguments = {**arguments, "ax": plt.figure().add_subplot()}
    with pytest.raises(bnprobe.BnprobeError, match=advice):
        report.plot("gamma", **arguments)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (("gama",), "Did you mean gamma"),
        (("quite another",), "report.channels"),
        (("dy_mean",), "not defined for any norm of this recording"),
        (("shift_rms", "gamma"), "there is no column 'shift_rms'"),
    ],
)
def test_what_cannot_be_plotted_is_said(report, arguments, advice):
    """Fails if a misspelt name ends in an empty picture or a KeyError."""
    with pytest.raises(bnprobe.NotDefined, match=advice):
        report.plot(*arguments)


def test_a_layer_that_is_not_there_is_said(report):
    """Fails if a misspelt layer gives an empty histogram."""
    with pytest.raises(bnprobe.NotDefined, match="lists them"):
        report.plot("gamma", layer="stage3.bn")


def test_figures_are_saved_for_papers(report, tmp_path):
    """Fails if a picture of the page is missing, or a file is not what its name says."""
    assert "network" in report.figures
    paths = report.figures.save(tmp_path / "new" / "folder")
    assert len(paths) == 2 * len(report.figures) == len(set(paths))
    for path in paths:
        start = path.read_bytes()[:400]
        assert b"<svg" in start or start.startswith(b"%PDF"), path
        assert start.startswith(b"%PDF") == (path.suffix == ".pdf")
    assert "<text" in (tmp_path / "new" / "folder" / "network.svg").read_text("utf-8"), "text stays text"
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in report.figures.save(tmp_path / "new" / "folder")] == first


def test_a_figure_by_its_name(report):
    """Fails if the album does not give the picture that it names, or does not say what it holds."""
    drawn = report.figures["network"]
    assert isinstance(drawn, Figure)
    assert any("γ" in axes.get_title("left") for axes in drawn.axes)
    assert repr(report.figures) == f"Album({len(report.figures)} pictures: {', '.join(report.figures)})"
    with pytest.raises(KeyError):
        report.figures["nothing"]


def test_figures_cannot_be_saved_below_a_file(report, tmp_path):
    """Fails if an OSError reaches the user as it is."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(bnprobe.CannotWrite, match=r"Not a directory\. Choose another path"):
        report.figures.save(tmp_path / "file")
