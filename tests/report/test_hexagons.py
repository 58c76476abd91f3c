"""Layers of thousands of channels in a real browser: points are counted in hexagons, and what is said of them is true."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from measures.sites import memory_of, recording, site, some_rows

import bnprobe

pytest.importorskip("selenium", reason="the test extra brings selenium")
from report.browser import Reader, reader
from report.test_browser_data import script

MOST_POINTS = 3000
FEW = 500

PANEL = """
const panel = [...document.querySelectorAll('.stage .panel')]
  .find((p) => p.querySelector('h4').textContent.startsWith(arguments[0]));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with reader(tmp_path_factory.mktemp("profile")) as one:
        yield one


def opened(browser: Reader, folder: Path, n: int, dark: bool = False) -> Reader:
    """A page of one layer with `n` channels, whose γ and β have one of two values each, the second in the last FEW."""
    rows = some_rows(4, n, 2)
    gamma, beta = np.full(n, 0.5), np.full(n, 0.1)
    gamma[-FEW:], beta[-FEW:] = 1.5, -0.3
    report = bnprobe.report(recording(site(rows, "wide", gamma=gamma, beta=beta, **memory_of(rows))))
    browser.look(1280, 900, dark=dark)
    browser.open(report.to_html(folder / f"{n}.html"))
    return browser


def note(browser: Reader, title: str) -> str:
    return str(browser.run(PANEL + "return panel.querySelector('.note').textContent", title))


def test_each_point_is_counted_in_the_hexagon_that_is_nearest(browser):
    """Fails if a point is counted twice, lost, or in a neighbor: against a search among all centers of the lattice."""
    rng = np.random.default_rng(5)
    points, radius = rng.uniform(0, 60, (400, 2)), 5.0
    dx, dy = math.sqrt(3) * radius, 1.5 * radius
    centres = np.array([((i + (j % 2) / 2) * dx, j * dy) for j in range(-2, 12) for i in range(-2, 10)])
    nearest = ((points[:, None] - centres) ** 2).sum(2).argmin(1)
    expected = Counter(tuple(np.round(centres[k], 1)) for k in nearest)
    browser.driver.get("about:blank")
    ours = script("d3.min.js") + "\n" + script("points.js")
    found = browser.run(
        "(0, eval)(arguments[2] + ';globalThis.counted = hexagons'); return counted(arguments[0], arguments[1])",
        [{"px": x, "py": y} for x, y in points.tolist()],
        radius,
        ours,
    )
    assert {(round(one["x"], 1), round(one["y"], 1)): one["n"] for one in found} == expected


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_color_of_a_hexagon_follows_its_count(browser, tmp_path, dark):
    """Fails if hexagons are all alike, or the one that holds most is not the strongest: by the formula of its alpha."""
    opened(browser, tmp_path, MOST_POINTS + FEW, dark)
    pixels = browser.run(
        PANEL + "const c = panel.querySelector('canvas');"
        "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 3)",
        "What was learned",
    )
    inside = 0.5 * 1.5 * math.sqrt(3) * 5**2  # half of a hexagon's area: its edges are blended
    for n in (MOST_POINTS, FEW):
        alpha = 255 * (0.12 + 0.88 * math.log(1 + n) / math.log(1 + MOST_POINTS))
        assert sum(abs(pixel - alpha) < 2 for pixel in pixels) > inside, n
    assert browser.messages() == []


def test_what_is_said_of_points_is_not_said_of_hexagons(browser, tmp_path):
    """Fails if hexagons of counts are explained as colors and fillings of single channels, or points as hexagons."""
    for n, counted in ((MOST_POINTS, False), (MOST_POINTS + 1, True)):
        opened(browser, tmp_path, n)
        for title, says in (("What was learned", "Color: measured share"), ("Shift", "Filled: shift")):
            said = note(browser, title)
            assert ("Hexagons: the stronger the color, the more channels" in said) == counted, (n, said)
            assert (says in said) != counted, (n, said)


def test_numbers_of_channels_are_whole(browser, tmp_path):
    """Fails if the names of channels beside their distributions are cut at the edge of the panel."""
    opened(browser, tmp_path, MOST_POINTS + 1)
    cut = browser.run(
        """
        const labels = [...document.querySelectorAll('.stage text.ridge')];
        const left = (label) => label.getBoundingClientRect().left - label.closest('svg').getBoundingClientRect().left;
        return [labels.length, labels.filter((label) => left(label) < 0).map((label) => label.textContent)];
        """
    )
    assert cut[0] > 3
    assert cut[1] == []
