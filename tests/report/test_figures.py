"""Pictures: which channels are shown, in what they are drawn, and that drawing leaves no trace."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from measures.sites import memory_of, recording, site, some_rows

from bnprobe.measures import tables
from bnprobe.report import colours, figures
from bnprobe.report.chapters.overview import network_map
from bnprobe.report.figures import maps, to_svg
from report.pictured import upright

ROWS = some_rows(40)


def channels_of(record: object) -> object:
    return tables(recording(record)).channels


def plain(text: str = "hello") -> Figure:
    figure = Figure(figsize=(2, 1))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=colours.MEASURED)
    axes.set_title(text)
    return figure


def test_the_picture_is_well_formed_and_has_words_as_words():
    """Fails if text is drawn as outlines, which cannot be searched, or special characters break the SVG."""
    svg = to_svg("one", lambda: plain("a < b & \"c\" > 'd'"))
    root = ET.fromstring(svg.replace("xlink:href", "href"))
    assert "a < b & \"c\" > 'd'" in "".join(root.itertext())
    assert "<text" in svg


@pytest.mark.parametrize(
    "name", ["experts.3.1275.norm", "url(#a)", f"color {colours.INK}", 'id="a" href="#b"', "$x_1$"]
)
def test_text_is_left_as_it_is(name):
    """Fails if what tidies coordinates, ids and colours, or reads formulas, changes the name of a layer."""
    root = ET.fromstring(to_svg("one", lambda: plain(name)).replace("xlink:href", "href"))
    words = [("".join(node.itertext())).strip() for node in root.iter() if node.tag.endswith("text")]
    assert name in words


def test_the_picture_has_no_size_date_or_author_of_its_own():
    """Fails if the page's width is not the picture's, or two runs of one recording differ."""
    svg = to_svg("one", plain)
    assert svg.startswith('<svg viewBox="')
    head = svg[: svg.index(">")]
    assert "width" not in head
    assert "height" not in head
    assert "<metadata" not in svg
    assert "<dc:" not in svg
    assert to_svg("one", plain) == svg


def test_ids_of_two_pictures_differ():
    """Fails if two pictures of the same content share their ids: one page holds both."""
    ids = [set(re.findall(r'\bid="([^"]+)"', to_svg(name, plain))) for name in ("one", "two")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_colours_follow_the_page():
    """Fails if ink is fixed, which on a dark page cannot be seen."""
    svg = to_svg("one", plain)
    assert "var(--ink)" in svg
    assert "var(--measured)" in svg
    for fixed in (colours.INK, colours.MUTED, colours.PAPER, colours.MEASURED, colours.EXPECTED):
        assert fixed not in svg


@pytest.mark.parametrize("fails", [False, True])
def test_style_is_ours_inside_and_the_users_afterwards(fails):
    """Fails if settings stay changed, also where drawing raised."""
    before = dict(mpl.rcParams)

    def draw() -> Figure:
        assert mpl.rcParams["svg.fonttype"] == "none"
        if fails:
            raise ValueError("no")
        return plain()

    if fails:
        with pytest.raises(ValueError, match="no"):
            to_svg("one", draw)
    else:
        to_svg("one", draw)
    assert dict(mpl.rcParams) == before


def test_the_map_has_a_column_per_site_and_the_names_below():
    """Fails if a site is left out of the map, or two calls of one layer cannot be told apart."""
    memory = memory_of(ROWS)
    layers = [
        site(ROWS, "a", **memory),
        site(ROWS, "a", call=1, **memory),
        site(ROWS, "b", "layer_norm", gamma=1.5),
    ]
    with figures.style("x"):
        picture = figures.draw(network_map(tables(recording(*layers)).channels))
    (named,) = filter(None, map(upright, picture.axes))
    assert named == [(0.5, "a (3)"), (1.5, "a call 2 (3)"), (2.5, "b (3)")]


def test_a_network_of_hundreds_of_norms_is_still_one_picture():
    """Fails if labels overlap in a deep network: at most 60 are written."""
    layers = [
        site(some_rows(2, 2, 2), f"blocks.{i}.norm", "layer_norm", histograms=False) for i in range(150)
    ]
    with figures.style("x"):
        picture = figures.draw(network_map(tables(recording(*layers)).channels))
    (named,) = filter(None, map(upright, picture.axes))
    assert len(named) == 50
    assert named[1] == (3.5, "blocks.3.norm (2)")


def test_maps_show_what_there_is():
    """Fails if a network without memory gets a map of shifts that do not exist, or one with memory gets none."""

    def titles(record: object) -> str:
        with figures.style("x"):
            return " | ".join(
                axes.get_title("left") for axes in figures.draw(network_map(channels_of(record))).axes
            )

    assert "remembered" not in titles(site(ROWS, kind="layer_norm"))
    stored = titles(site(ROWS, **memory_of(ROWS)))
    assert "shift of the mean" in stored
    assert "γ" not in stored.replace("share of", ""), "this norm has no gamma"


def test_constant_and_zero_columns_do_not_cost_the_colours_their_range():
    """Fails if a map whose values are all the same divides by its range."""
    low, high = maps.robust(np.zeros(5), None)
    assert low < 0 < high
    low, high = maps.robust(np.zeros(5), 0.0)
    assert (low, high) == (-1, 1)
    assert maps.robust(np.array([]), 0.0) == (0, 1)
    low, high = maps.robust(np.array([-1.0, 3.0] * 50), 0.0)
    assert (low, high) == (-3, 3)
