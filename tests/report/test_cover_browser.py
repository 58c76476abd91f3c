"""What lies before the explorer, in a real browser: the spine answers, cards lead to the map, paper loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import bnprobe

pytest.importorskip("selenium", reason="the test extra brings selenium")

from selenium.webdriver.common.keys import Keys

from bnprobe.report.numbers import number
from bnprobe.report.page import blocks
from report.browser import Reader, reader
from report.test_browser import page, report

__all__ = ["page", "report"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with reader(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def reading(browser: Reader, page: Path) -> Reader:
    browser.look()
    browser.open(page)
    return browser


def card(reading: Reader, report: bnprobe.Report) -> tuple[str, set[str], set[tuple[str, int]]]:
    """The rules of the first card about channels, the layers that it names, and its channels."""
    rules = reading.run(
        "return document.querySelector('.finding .show[data-rules~=channels-constant]').dataset.rules"
    )
    rows = report.findings[report.findings["rule"].isin(rules.split())]
    channels = {(row.layer, c) for row in rows.itertuples() for c in row.channels}
    return rules, set(rows["layer"]), channels


def test_a_card_is_shown_on_the_map(reading, report):
    """Fails if the map keeps other layers, picks other channels than the card's, or does not go back."""
    rules, layers, channels = card(reading, report)
    assert len(rules.split()) > 1
    button = f"document.querySelector('.finding .show[data-rules=\"{rules}\"]')"
    reading.run(f"{button}.click()")
    assert f"{len(layers)} of 6 layers" in reading.words("[data-bnp=map] .tools") or len(layers) == 6
    assert reading.run("return document.querySelector('[data-bnp=map]').getBoundingClientRect().top < 300")
    reading.until("return !document.querySelector('.chip').hidden")
    assert f"{len(channels)} in the network" in reading.words(".chip")
    assert reading.run(f"return {button}.getAttribute('aria-pressed')") == "true"
    reading.run(f"{button}.click()")
    assert "layers" not in reading.run(
        "return document.querySelector('[data-bnp=map] .tools .note').textContent"
    )
    reading.until("return document.querySelector('.chip').hidden")


def test_code_is_copied(reading):
    """Fails if code of several lines has no button, or the button moves the lines."""
    assert reading.run("return document.querySelectorAll('code.lines').length") > 0
    boxes = reading.run(
        """
        const code = document.querySelector('code.lines');
        const [mine, button] = [code, code.previousElementSibling].map((e) => e.getBoundingClientRect());
        return [mine.left <= button.left && button.right <= mine.right, mine.top <= button.top];
        """
    )
    assert boxes == [True, True]


def test_sources_are_followed_in_the_reader_not_by_the_page(reading, page):
    """Fails if a link out is a request."""
    assert reading.run("return document.querySelectorAll('.finding a[href^=https]').length") > 0
    assert reading.requests() == [page.as_uri()]


def place_on_spine(reading: Reader, i: int, n: int = 6, figure: str = "figure.wide") -> tuple[float, float]:
    """The middle of a place, from the upper left corner of what the pointer meets."""
    read = (
        f"const f = document.querySelector('{figure}'), o = f.querySelector('.over').getBoundingClientRect();"
    )
    start, end, width, height, along = reading.run(
        f"{read} return [Number(f.dataset.from), Number(f.dataset.to), o.width, o.height, f.dataset.along]"
    )
    share = start + (end - start) * (i + 0.5) / n
    return (width / 2, share * height) if along == "down" else (share * width, height / 2)


def names(report: bnprobe.Report) -> list[str]:
    return report.layers["layer"].tolist()


def test_the_pointer_is_told_what_is_below_it(reading, report):
    """Fails if the words are another norm's, a lane is missing, or a click opens another layer."""
    for i, aside in ((0, -10), (3, 10), (5, 10)):
        x, y = place_on_spine(reading, i)
        reading.point("figure.wide .over", x + aside, y).perform()
        said = reading.words(".tip").splitlines()
        assert said[0] == names(report)[i]
        gamma = report.channels[report.channels["layer"] == names(report)[i]]["gamma"].abs().median()
        assert f"learned |γ|: {number(gamma, 2)} (" in " ".join(said)
        assert len(said) == 1 + reading.run(
            "return document.querySelector('.as-table thead tr').cells.length - 1"
        )
    reading.point("figure.wide .over", *place_on_spine(reading, 4)).click().perform()
    reading.until(f"return document.querySelector('.stage').dataset.shown === '{names(report)[4]}'")


def test_a_finger_sees_the_value_first(browser, page, report):
    """Fails if a tap opens a layer before its values are read, or a second tap on it does not."""
    browser.look(380, 780)
    browser.open(page)
    browser.command("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        x, y = place_on_spine(browser, 2, figure="figure.narrow")
        box = browser.run(
            "const o = document.querySelector('figure.narrow .over'); o.scrollIntoView({ block: 'center' });"
            "const b = o.getBoundingClientRect(); return [b.left, b.top]"
        )
        opened = browser.run("return document.querySelector('.stage').dataset.shown")
        for tap in range(2):
            touch = [{"x": box[0] + x, "y": box[1] + y}]
            browser.command("Input.dispatchTouchEvent", type="touchStart", touchPoints=touch)
            browser.command("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
            if not tap:
                browser.until("return !document.querySelector('.tip').hidden")
                assert browser.words(".tip").splitlines()[0] == names(report)[2]
                assert browser.run("return document.querySelector('.stage').dataset.shown") == opened
        browser.until(f"return document.querySelector('.stage').dataset.shown === '{names(report)[2]}'")
    finally:
        browser.command("Emulation.setTouchEmulationEnabled", enabled=False)


def test_the_keyboard_walks_along_the_spine(reading, report):
    """Fails if arrows do not move, what they reach is not said, or Enter opens another layer."""
    over = reading.one("figure.wide .over")
    over.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.END, Keys.ARROW_LEFT)
    said = reading.run("return document.querySelector('figure.wide [aria-live]').textContent")
    assert said.startswith(names(report)[4])
    over.send_keys(Keys.ENTER)
    reading.until(f"return document.querySelector('.stage').dataset.shown === '{names(report)[4]}'")


def test_the_spine_has_a_role_and_a_name(reading):
    """Fails if what can be pointed at is hidden from a screen reader inside an image."""
    for figure in ("figure.wide", "figure.narrow"):
        role, label, inside = reading.run(
            f"const o = document.querySelector('{figure} .over');"
            "return [o.getAttribute('role'), o.getAttribute('aria-label'), Boolean(o.closest('[role=img]'))]"
        )
        assert (role, inside) == ("application", False)
        assert "Arrow keys" in label
    assert reading.run("return document.querySelectorAll('.as-table tbody tr').length") == 6


def test_a_cards_places_are_marked_on_the_spine(reading, report):
    """Fails if the spine does not show where a card's layers are."""
    rules, layers, _ = card(reading, report)
    reading.run(f"document.querySelector('.finding .show[data-rules=\"{rules}\"]').click()")
    marked = reading.run("return document.querySelectorAll('figure.wide .marked').length")
    assert marked == len(layers)


def test_paper_has_the_summary_on_two_pages(reading, report, tmp_path):
    """Fails if paper is flooded with every layer, loses a place of a finding, or shows a button."""
    pypdf = pytest.importorskip("pypdf", reason="the test extra brings pypdf")
    printed = pypdf.PdfReader(reading.print(tmp_path / "page.pdf"))
    assert len(printed.pages) <= 2
    words = " ".join(" ".join(page.extract_text() for page in printed.pages).split())
    for title in ("The answer", "Findings", "Trained?", "learned |γ|"):
        assert title in words
    for title in ("Layer by layer", "Glossary", "Show on map", "Print everything", "Copy"):
        assert title not in words
    (found,) = (
        b for section in report._page.sections for b in section.blocks if isinstance(b, blocks.Findings)
    )
    for one in found.cards[: found.most]:
        for place in one.places:
            assert place.name in words
