"""The API reference: everything public, in the words of today's docstrings, on one page that asks for nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from report import pages
from support.paths import ROOT

import bnprobe
from scripts.api_reference.surface import Entry, entries, signature

PAGE = ROOT / "reports" / "api.html"
ENTRIES = tuple(entries())


def articles(path: Path) -> dict[str, ET.Element]:
    document = pages.parsed(path.read_text("utf-8"))
    return {node.attrib["id"]: node for node in pages.elements(document, "article")}


@pytest.fixture(scope="module")
def committed() -> dict[str, ET.Element]:
    return articles(PAGE)


def test_the_committed_page_is_of_today(committed):
    """Fails if a docstring, a name or a signature was changed and the page was left behind."""
    there = {name: node.attrib["data-docs"] for name, node in committed.items()}
    assert there == {entry.name: entry.digest for entry in ENTRIES}, "run: python -m scripts.api_reference"


def test_the_committed_page_shows_every_signature(committed):
    """Fails if the digests above were kept and the page shows something else."""
    for entry in ENTRIES:
        shown = [
            "".join(pre.itertext())
            for pre in pages.elements(committed[entry.name], "pre")
            if pre.attrib.get("class") == "signature"
        ]
        expected = [entry.short + entry.signature] if entry.signature else []
        assert shown[: len(expected)] == expected
    assert f"bnprobe {bnprobe.__version__}: API reference" in PAGE.read_text("utf-8")


def test_everything_public_is_on_the_page(committed):
    """Fails if the list of sections forgets a name that the package exports, or a public method of its classes."""
    for name in set(bnprobe.__all__) - {"__version__"}:
        assert name in committed
        value = getattr(bnprobe, name)
        if isinstance(value, type) and not issubclass(value, BaseException):
            own = [short for short, what in vars(value).items() if short[0] != "_" and is_documented(what)]
            assert {f"{name}.{short}" for short in own} <= committed.keys()
    assert {"Probe.labels", "Report.to_html", "Comparison.findings", "Recording.merge"} <= committed.keys()


def is_documented(what: object) -> bool:
    return callable(what) or hasattr(what, "fget") or hasattr(what, "func")


def test_signatures_are_as_written():
    """Fails if annotations are quoted or resolved, a star is lost, or a context manager is called an iterator."""
    assert signature(bnprobe.load) == "(path: str | Path) -> Recording"
    attach = signature(bnprobe.attach).splitlines()
    assert attach[:4] == [
        "(",
        "    model: nn.Module,",
        "    *,",
        "    layers: str | Sequence[str] | None = None,",
    ]
    assert attach[-1] == ") -> Probe"
    assert signature(bnprobe.Probe.labels) == "(labels: Labels) -> AbstractContextManager[None]"


def test_a_digest_moves_with_every_part():
    """Fails if a change of the words or of the signature alone would go unnoticed."""
    one = Entry("a", "function", "(x)", "Says.")
    others = (
        Entry("b", "function", "(x)", "Says."),
        Entry("a", "function", "(y)", "Says."),
        Entry("a", "function", "(x)", "Said."),
    )
    assert one.digest == Entry("a", "function", "(x)", "Says.").digest
    assert one.digest not in {other.digest for other in others}


def test_the_page_asks_for_nothing():
    """Fails if the page loads a font, a script or a style, or a link on it leads nowhere."""
    document = pages.parsed(PAGE.read_text("utf-8"))
    pages.assert_loads_nothing(document)
    pages.assert_ids_are_sound(document)
    assert not pages.elements(document, "script")


def test_contents_lead_to_every_name(committed):
    """Fails if a name stands on the page and not in its table of contents."""
    (contents,) = pages.elements(pages.parsed(PAGE.read_text("utf-8")), "nav")
    links = {node.attrib["href"] for node in pages.elements(contents, "a")}
    assert {f"#{name}" for name in committed} <= links


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text)) - {"Args", "Arguments"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pdoc", reason="the docs extra, which the test extra includes, brings pdoc")
    path = tmp_path_factory.mktemp("api") / "api.html"
    run = [sys.executable, "-m", "scripts.api_reference", str(path)]
    subprocess.run(run, cwd=ROOT, check=True, capture_output=True)
    return path


def test_the_program_writes_every_word(made):
    """Fails if a part of a docstring is lost on the way to the page, or taken for markup."""
    found = articles(made)
    assert list(found) == [entry.name for entry in ENTRIES]
    for entry in ENTRIES:
        assert words(entry.doc) <= words(" ".join(found[entry.name].itertext())), entry.name


def test_names_in_the_text_are_links(made):
    """Fails if a reader must look for what a docstring refers to."""
    found = articles(made)
    links = {node.attrib["href"] for node in pages.elements(found["attach"], "a")}
    assert {"#Probe.detach", "#report", "#register_norm", "#NoNormLayers", "#CannotProbe"} <= links
    assert "#Probe.labels" in {node.attrib["href"] for node in pages.elements(found["record"], "a")}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    pytest.importorskip("selenium", reason="the test extra brings selenium")
    from report.browser import reader

    with reader(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [380, 1280])
def test_it_can_be_read(browser, width: int, dark: bool):
    """Fails if the page runs out of a phone's screen, text is too faint, or a browser asks the network for something."""
    axe_of = pytest.importorskip("axe_core_python.selenium", reason="the test extra brings axe-core").Axe
    browser.look(width, dark=dark)
    browser.open(PAGE, wait=False)
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.requests() == [PAGE.as_uri()]
    assert not browser.messages()
    found = axe_of().run(browser.driver)["violations"]
    assert not [one for one in found if one["impact"] in ("serious", "critical")], [
        (one["id"], one["nodes"][0]["html"][:200]) for one in found
    ]
