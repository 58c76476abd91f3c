"""The explorer in a real browser: fixed colors, the transfer plot, pins, addresses, what is taken along, two sides."""

from __future__ import annotations

import csv
import math
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from measures.sites import memory_of, recording, site, some_rows

import bnprobe

pytest.importorskip("selenium", reason="the test extra brings selenium")
from report.browser import Reader, reader
from report.test_browser import network, place_on_map
from report.test_browser_data import script

LAYER = "stage1.1.1"


def probed(model: torch.nn.Module, x: torch.Tensor) -> bnprobe.Recording:
    with torch.no_grad(), bnprobe.attach(model) as probe:
        model(x)
    return probe.recording


@pytest.fixture(scope="module")
def report() -> bnprobe.Report:
    """Batch norms that know their data, but for one whose running means are off by half a standard deviation."""
    model = network()
    x = torch.randn(32, 3, 8, 8)
    bnprobe.recalibrate(model, [x]).apply()
    with torch.no_grad():
        norm = model.get_submodule(LAYER)
        norm.running_mean += 0.5 * norm.running_var.sqrt()
    return bnprobe.report(probed(model, x))


@pytest.fixture(scope="module")
def page(report: bnprobe.Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.to_html(tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with reader(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def reading(browser: Reader, page: Path) -> Reader:
    browser.look(1280, 900)
    browser.open(page)
    return browser


def mine(report: bnprobe.Report):
    return report.channels[report.channels["layer"] == LAYER].reset_index(drop=True)


def pixel(reading: Reader, x: float, y: float) -> list[int]:
    """Red, green and blue of the map at a place of the board."""
    return reading.run(
        "const c = document.querySelector('.board canvas').getContext('2d');"
        "return [...c.getImageData(arguments[0], arguments[1], 1, 1).data].slice(0, 3)",
        round(x),
        round(y),
    )


def palette(name: str, share: float) -> list[float]:
    import matplotlib as mpl
    import seaborn  # noqa: F401

    return [255 * v for v in mpl.colormaps[name](share)[:3]]


# Order


def test_channels_stand_by_value_and_then_by_number(reading):
    """Fails if a sign, a zero with one, an infinity or what is not defined stands elsewhere than in a stable sort, or the
    profile above is not the quartiles of what is finite."""
    inf, nan = math.inf, math.nan
    values = [0.5, nan, -1, -0.0, 0.0, inf, -3e-8, -inf, 2, 0.5, nan, 3e-39, -2e20, 1.5, -1]
    known = np.array([-inf if math.isnan(v) else v for v in values])
    ours = "".join(script(f"{part}.js") + "\n" for part in ("numbers", "profiles", "cells"))
    told = (
        "const values = Float32Array.from(arguments[0], Number); const layers = [{ start: 1, n: values.length - 1 }];"
        "const found = ['value', 'gamma'].map((by) => ranks(layers, by, values, values));"
        "return [...found.map(([one]) => [...one]), quartiles(layers, values, false, found[0])[0]];"
    )
    by_value, by_size, quartiles = reading.run(
        ours + told, ["7", *(str(v).replace("inf", "Infinity") for v in values)]
    )
    assert by_value == sorted(range(len(values)), key=lambda c: (-known[c], c))
    sizes = [-inf if math.isnan(v) else abs(v) for v in values]
    assert by_size == sorted(range(len(values)), key=lambda c: (-sizes[c], c))
    finite = np.float32([v for v in values if math.isfinite(v)])
    np.testing.assert_allclose(quartiles, np.quantile(finite.astype(float), (0.25, 0.5, 0.75)))


# Colors


@pytest.mark.parametrize(("dark", "name"), [(False, "vlag"), (True, "icefire")])
def test_the_colors_of_a_measure_are_fixed(browser, page, report, dark, name):
    """Fails if colors follow the values, so that every network looks alike, or the middle glares on a dark page."""
    browser.look(1280, 900, dark=dark)
    browser.open(page, "#color=shift")
    browser.until("return document.querySelector('.legend').innerText.startsWith('shift')")
    values = np.sort(mine(report)["shift"])[::-1]
    seen = pixel(browser, *place_on_map(browser, 3, 0.5 / len(values)))
    np.testing.assert_allclose(seen, palette(name, (values[0] + 1) / 2), atol=6)
    assert "the same colors on every page" in browser.words(".legend")
    browser.run("document.querySelector('[data-bnp=map] input[type=checkbox]').click()")
    browser.until("return document.querySelector('.legend').innerText.includes('stretched')")
    assert pixel(browser, *place_on_map(browser, 3, 0.5 / len(values))) != seen


def test_no_extreme_value_is_lost(browser, tmp_path):
    """Fails if one channel of thousands has no pixel: the bands above and below hold the extremes of each layer."""
    rows = some_rows(4, 3500, 2)
    gamma = np.full(3500, 0.5)
    gamma[1234], gamma[2345] = -2.0, 2.0
    wide = recording(site(rows, "wide", gamma=gamma, beta=0.1, **memory_of(rows)))
    page = bnprobe.report(wide).to_html(tmp_path / "wide.html")
    browser.look(1280, 900)
    browser.open(page, "#color=gamma&order=channel")
    browser.until("return document.querySelector('.legend').innerText.startsWith('γ')")
    board = browser.run("return { ...document.querySelector('.board').dataset }")
    x, top, tall = float(board["left"]) + 20, float(board["top"]), float(board["tall"])
    np.testing.assert_allclose(pixel(browser, x, top - 4), palette("vlag", 1.0), atol=3)
    np.testing.assert_allclose(pixel(browser, x, top + tall + 4), palette("vlag", 0.0), atol=3)
    browser.point(".board", x, top - 3).perform()
    assert "channel 2345" in browser.words(".tip")
    # thousands of points are counted in hexagons
    browser.until("return document.querySelector('.stage')?.dataset.shown")
    assert "Hexagons" in browser.words(".trio")


# The layer beside the map


@pytest.mark.parametrize(("width", "beside"), [(1280, True), (1000, False)])
def test_the_layer_stands_beside_the_map_where_there_is_room(browser, page, width, beside):
    """Fails if the map and what it drives are screens apart on a wide window, or crushed on a narrow one."""
    browser.look(width, 900)
    browser.open(page)
    box = "const b = document.querySelector(arguments[0]).getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]"
    left, _, right, bottom = browser.run(box, ".board")
    layer = browser.run(box, "#layers")
    assert (layer[0] >= right) == beside
    assert (layer[1] >= bottom) != beside
    assert right - left > 500


def test_a_finger_reads_first_and_opens_second(browser, page):
    """Fails if a tap leaves at once with its value unread, or the layer does not come up from below on a phone."""
    browser.look(380, 780)
    browser.open(page)
    tap = """
    const [x, y] = arguments, board = document.querySelector('.board'), box = board.getBoundingClientRect();
    for (const type of ['pointerdown', 'pointerup'])
      board.dispatchEvent(new PointerEvent(type, {
        pointerType: 'touch', bubbles: true, clientX: box.left + x, clientY: box.top + y,
      }));
    """
    browser.run(tap, *place_on_map(browser, 4, 0.5))
    words = browser.words(".reading")
    assert words.startswith("stage2.0.1")
    assert re.search(r"channel \d+", words)
    assert browser.run("return location.hash") == ""
    sizes = browser.run(
        "return [...document.querySelectorAll('.reading button')]"
        ".map((b) => b.getBoundingClientRect()).map((r) => Math.min(r.width, r.height))"
    )
    assert min(sizes) >= 24
    browser.run("document.querySelector('.reading button.strong').click()")
    browser.until("return document.querySelector('.stage').dataset.shown === 'stage2.0.1'")
    top, bottom = browser.run(
        "const b = document.querySelector('#layers').getBoundingClientRect(); return [b.top, b.bottom]"
    )
    assert 100 < top < 400
    assert bottom == pytest.approx(780, abs=1)
    browser.run("document.querySelector('#layers .close').click()")
    assert browser.run("return getComputedStyle(document.querySelector('#layers')).position") != "fixed"


def test_the_layer_opens_with_facts_and_from_input_to_output(browser, page, report):
    """Fails if the line has another slope than γ, or the part that the ReLU cuts is another share than was measured."""
    channel = 7
    browser.look(1280, 900)
    browser.open(page, f"#layer={LAYER}&channel={channel}")
    row = mine(report).iloc[channel]
    note = browser.words(".stage .panel .note")
    slope, beta = (float(re.search(rf"{name} = (−?[\d.]+)", note)[1].replace("−", "-")) for name in "γβ")
    assert (slope, beta) == pytest.approx((row["gamma"], row["beta"]), rel=5e-3)
    cut = float(re.search(r"the ReLU cuts ([\d.]+)%", note)[1])
    assert cut == pytest.approx(100 * (1 - row["fires"]), abs=0.1)
    facts = browser.words(".layer.chosen .facts")
    for name in ("mean off by", "variance", "|γ|", "outputs positive", "pass nothing on", "followed by"):
        assert name in facts
    # the bold line is flat where outputs are cut, and nowhere below 0
    heights = browser.run(
        "return document.querySelector('.after-line').getAttribute('d').match(/,[\\d.-]+/g).map((t) => Number(t.slice(1)))"
    )
    zero = browser.run("return Number(document.querySelector('.stage .zero').getAttribute('y1'))")
    assert max(heights) == pytest.approx(zero, abs=0.5)


# Pins and addresses


def test_pins_stay_and_travel(browser, page):
    """Fails if a pinned channel is forgotten when another layer is opened, is not in the address, or a fifth one stays."""
    browser.look(1280, 900)
    browser.open(page, f"#layer={LAYER}&channel=7")
    pin = "document.querySelector('#layers button[aria-pressed]').click()"
    browser.run(pin)
    assert "pin=3:7" in browser.run("return location.hash")
    browser.choose("Layer", "4")
    browser.until("return document.querySelector('.stage').dataset.shown === 'stage2.0.1'")
    assert f"{LAYER} channel 7" in browser.words("#layers .pins")
    assert f"Pinned: {LAYER} channel 7" in browser.words(".stage .panel .note")
    assert browser.run("return document.querySelectorAll('.stage .pin-line').length") == 1
    for layer in "0124":
        browser.choose("Layer", layer)
        browser.run(pin)
    address = browser.run("return location.hash")
    assert address.endswith("pin=0:-1,1:-1,2:-1,4:-1")
    browser.open(page, address)
    assert browser.run("return document.querySelectorAll('#layers .pins .chip').length") == 4


def test_the_address_holds_what_is_seen_and_back_undoes_it(reading):
    """Fails if a link opens another color, order, filter or selection than was shown, or Back leaves some of it."""
    state = """
    const labels = [...document.querySelectorAll('[data-bnp=map] label')];
    const field = (words) => labels.find((l) => l.textContent.startsWith(words)).querySelector('select, input');
    return [field('Color').value, field('Channels by').value, field('Stretch').checked, field('Filter').value,
            document.querySelector('[data-bnp=map] [role=status]:not(p)').textContent];
    """
    fresh = reading.run(state)
    x0, y0 = place_on_map(reading, 1, 0.2)
    reading.point(".board", x0, y0).click_and_hold().move_by_offset(0, 100).release().perform()
    reading.choose("Color", "beta")
    reading.choose("Channels by", "channel")
    reading.run("document.querySelector('[data-bnp=map] input[type=checkbox]').click()")
    reading.choose("Filter layers", "stage0")
    seen, address = reading.run(state), reading.run("return location.hash")
    assert seen[:4] == ["beta", "channel", True, "stage0"]
    assert re.search(r"2 of 6 layers, \d+ channels selected", seen[4])
    for part in ("color=beta", "order=channel", "stretch=1", "filter=stage0", "pick=1:"):
        assert part in address
    page = Path(reading.run("return decodeURIComponent(location.pathname)"))
    for _ in range(4):
        reading.driver.back()
    reading.until("return location.hash === ''")
    reading.until(f"return JSON.stringify((() => {{ {state} }})()) === arguments[0] || true")
    time.sleep(0.2)
    assert reading.run(state) == fresh
    reading.open(page, address)
    assert reading.run(state) == seen


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("#layer=stage1.9.1", "no layer “stage1.9.1”; the nearest is stage1."),
        ("#layer=stage1.1.1&channel=999", "no channel 999 in stage1.1.1 (0 to 23)"),
        ("#nowhere", "no part “nowhere”"),
        ("#color=mauve", "no color “mauve”"),
    ],
)
def test_an_unknown_address_says_so(browser, page, address, words):
    """Fails if a link with a mistake shows something else without a word."""
    browser.look(1280, 900)
    browser.open(page, address)
    assert words in browser.words(".bnprobe > .notice")
    assert browser.messages() == []


def test_back_to_the_bare_address_closes_what_was_opened(reading):
    """Fails if the layer that a reader opened stays when the address no longer names it."""
    first = reading.run("return document.querySelector('.stage').dataset.shown")
    reading.choose("Layer", "5")
    reading.until("return document.querySelector('.stage').dataset.shown === 'stage2.1.1'")
    reading.driver.back()
    reading.until(f"return document.querySelector('.stage').dataset.shown === {first!r}")


# The line that stays


def test_a_slash_searches(reading):
    """Fails if a layer or chapter cannot be reached by its name from anywhere on the page."""
    search = """
    document.body.dispatchEvent(new KeyboardEvent('keydown', { key: '/', bubbles: true }));
    const input = document.querySelector('.search input');
    if (document.activeElement !== input) return 'no focus';
    input.value = arguments[0];
    input.dispatchEvent(new Event('input'));
    const hits = [...document.querySelectorAll('.hits li')].map((li) => li.textContent);
    input.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' }));
    return hits;
    """
    assert reading.run(search, "stage2.1") == ["stage2.1.1 layer"]
    reading.until("return document.querySelector('.stage').dataset.shown === 'stage2.1.1'")
    assert "Glossary chapter" in reading.run(search, "gloss")
    reading.until("return document.querySelector('#glossary').getBoundingClientRect().top < 200")
    assert reading.run(search, "xyzzy") == ["nothing has this name"]
    assert reading.run("return document.querySelector('nav').getBoundingClientRect().top") == 0


def test_light_and_dark_are_the_readers_choice(reading):
    """Fails if the button turns the page and leaves what is drawn in the other style."""
    paper = "return getComputedStyle(document.body).backgroundColor"
    before, drawn = (
        reading.run(paper),
        reading.run("return document.querySelector('.board canvas').toDataURL()"),
    )
    reading.run("document.querySelector('nav button[aria-label=\"dark style\"]').click()")
    reading.until(
        "return document.querySelector('.board canvas').toDataURL() !== arguments[0]".replace(
            "arguments[0]", repr(drawn)
        )
    )
    assert reading.run(paper) != before
    reading.run("document.querySelector('nav button[aria-label=\"light style\"]').click()")
    assert reading.run(paper) == before


# To take along


def saved(reading: Reader, folder: Path, menu: str, kind: str) -> Path:
    """What the button of a menu writes."""
    reading.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    reading.run(
        "const menu = document.querySelector(arguments[0]); menu.open = true;"
        "[...menu.querySelectorAll('button')].find((b) => b.textContent.trim() === arguments[1]).click()",
        menu,
        kind,
    )
    end = time.monotonic() + 10
    while not (found := [p for p in folder.glob(f"*.{kind.lower()}") if p.stat().st_size]):
        assert time.monotonic() < end, f"no {kind} came"
        time.sleep(0.05)
    return found[0]


def test_panels_are_saved(reading, report, tmp_path):
    """Fails if a file is empty, holds other numbers than the report, or leaves out the cells behind the axes."""
    reading.choose("Color", "gamma")
    text = saved(reading, tmp_path, "[data-bnp=map] .save", "CSV").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [float(row["gamma"]) for row in rows] == pytest.approx(list(report.channels["gamma"]), rel=3e-4)
    assert [row["layer"] for row in rows] == list(report.channels["layer"])
    (tmp_path / "spine").mkdir()
    text = saved(reading, tmp_path / "spine", "figure[data-along=right] .save", "CSV").read_text("utf-8")
    heads, *lines = csv.reader(text.splitlines())
    assert len(lines) == len(report.layers)
    assert "learned |γ|" in heads
    (tmp_path / "chapter").mkdir()
    text = saved(reading, tmp_path / "chapter", "#running-stats figure .save", "CSV").read_text("utf-8")
    heads, *lines = csv.reader(text.splitlines())
    assert [line[0] for line in lines] == list(report.layers["layer"])
    both = heads.index(
        "distance of the data from the running statistics (root mean square over channels): both"
    )
    assert [float(line[both]) for line in lines] == pytest.approx(list(report.layers["w2_rms"]), rel=6e-4)
    svg = ET.parse(saved(reading, tmp_path, "[data-bnp=map] .save", "SVG")).getroot()
    (image,) = svg.iter("{http://www.w3.org/2000/svg}image")
    assert image.attrib["href"].startswith("data:image/png")
    png = saved(reading, tmp_path, ".stage .panel .save", "PNG").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20]) > 600
    assert reading.messages() == []


def test_what_chapters_draw_by_depth_can_be_read_as_a_table(reading, report):
    """Fails if those who do not see a chapter's picture have no numbers, or other ones, or a table without a name."""
    cells = reading.run(
        """
        const part = document.querySelector('#running-stats .numbers');
        part.open = true;
        return new Promise((done) => setTimeout(() => done(
          [...part.querySelectorAll('tr')].map((row) => [...row.cells].map((cell) => cell.textContent))), 300));
        """
    )
    assert [row[0] for row in cells] == ["layer", *report.layers["layer"]]
    assert [float(row[1]) for row in cells[1:]] == pytest.approx(list(report.layers["w2_rms"]), rel=6e-4)
    label = reading.one("#running-stats .numbers .scroll").get_attribute("aria-label")
    assert label.startswith("table: ")
    assert not reading.one("#running-stats .numbers pre").is_displayed()
    axe_of = pytest.importorskip("axe_core_python.selenium", reason="the test extra brings axe-core").Axe
    found = axe_of().run(reading.driver)["violations"]
    assert [f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in found] == []


def test_links_and_the_summary_are_copied(reading):
    """Fails if what is copied is not the state that is shown, or the summary lacks the verdict."""
    reading.run(
        "window.kept = []; navigator.clipboard.writeText = async (text) => { window.kept.push(text) }"
    )
    reading.choose("Color", "beta")
    reading.run(
        "for (const where of ['[data-bnp=map] .save button', 'nav button'])"
        " [...document.querySelectorAll(where)].find((b) => b.textContent.startsWith('copy')).click()"
    )
    link, summary = reading.until("return window.kept.length === 2 && window.kept")
    assert link.endswith("page.html#color=beta")
    assert reading.words(".headline .verdict") in summary
    for finding in reading.run(
        "return [...document.querySelectorAll('.finding h3')].map((h) => h.lastChild.textContent.trim())"
    ):
        assert finding in summary


# On a phone


def test_the_figures_of_chapters_are_read_on_a_phone(browser, page):
    """Fails if a figure is wider than the window, or its words are smaller than eight pixels."""
    browser.look(380, 780)
    browser.open(page)
    found = browser.run(
        """
        return [...document.querySelectorAll('main figure svg')].filter((svg) => svg.clientWidth).map((svg) => {
          const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
          const sizes = [...svg.querySelectorAll('text')].map((t) => scale * parseFloat(getComputedStyle(t).fontSize));
          return [svg.getBoundingClientRect().right, Math.min(...sizes, 99)];
        });
        """
    )
    assert len(found) >= 5
    assert max(right for right, _ in found) <= 380
    assert min(size for _, size in found) >= 8, found


# Two sides


def test_a_comparison_shows_each_side_and_the_difference(browser, report, tmp_path):
    """Fails if A, B and their difference are confused, or the page of a comparison does not move."""
    model = network()
    other = probed(model, torch.randn(32, 3, 8, 8) * 0.3)
    comparison = bnprobe.compare(report.recording, other)
    page = comparison.to_html(tmp_path / "compared.html")
    browser.look(1280, 900)
    browser.open(page, "#color=fires_a&order=channel")
    assert browser.messages() == []
    for side, name in (("A", "fires_a"), ("B", "fires_b"), ("B − A", "fires_change")):
        browser.run(
            "[...document.querySelectorAll('.segments button')].find((b) => b.textContent === arguments[0]).click()",
            side,
        )
        browser.until(
            "return document.querySelector('.segments [aria-pressed=true]').textContent === arguments[0]".replace(
                "arguments[0]", repr(side)
            )
        )
        browser.point(".board", *place_on_map(browser, 0, 2.5 / 16)).perform()
        words = browser.words(".tip")
        assert "channel 2 " in words
        shown = float(words.split("\n")[2].rpartition(": ")[2].replace("−", "-"))
        assert shown == pytest.approx(comparison.channels[name][2], rel=6e-3, abs=1e-6)
    assert browser.run("return document.querySelectorAll('.pair .panel').length") == 2


def test_a_layer_that_did_not_change_has_its_name(browser, report, tmp_path):
    """Fails if a layer without a part of its own is drawn below no heading, or one that has it is named twice."""
    heading = "const h = document.querySelector('.stage > h3'); return [h.hidden, h.textContent]"
    same = bnprobe.compare(report.recording, report.recording).to_html(tmp_path / "same.html")
    browser.look(1280, 900)
    browser.open(same)
    assert browser.run(heading) == [False, report.layers["layer"][0]]
    browser.open(report.to_html(tmp_path / "page.html"))
    assert browser.run(heading)[0]


def test_roles_are_shown_where_one_is_known(browser: Reader, report: bnprobe.Report, tmp_path: Path) -> None:
    """Fails if a page of weights alone counts all channels as unknown, or a page with data shows no roles."""
    shown = "return [...document.querySelectorAll('.roles-panel')].some((panel) => panel.checkVisibility())"
    state = network().state_dict()
    # none is constant, so that nothing is known of what channels do
    weights = bnprobe.check({name: t.abs() + 0.5 if t.ndim == 1 else t for name, t in state.items()})
    for one, expected in ((report, True), (weights, False)):
        browser.open(one.to_html(tmp_path / f"{expected}.html"))
        browser.until("return document.querySelector('.stage')?.dataset.shown")
        assert browser.run(shown) is expected
