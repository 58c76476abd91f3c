"""The index of the committed pages: every page once, in its own words, and nothing of it run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from measures.sites import memory_of, recording, site, some_rows
from report import pages
from support.paths import ROOT

import bnprobe

SCRIPT = ROOT / "scripts" / "gallery.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = some_rows(12, 9, 5)
    for name, model in (("one", "Net"), ("two", "<script>alert(1)</script>")):
        sites = [site(rows * k, f"l{k}", gamma=[k] * 9, beta=0, **memory_of(rows)) for k in (1, 2, 3)]
        bnprobe.report(recording(*sites, model=model)).to_html(tmp_path / f"{name}.html")
    return tmp_path


def made(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False)


def test_every_page_is_shown_in_its_own_words(folder):
    """Fails if a page is missing, its sentence is another's, or a model's name is taken for markup."""
    run = made(folder)
    assert run.returncode == 0, run.stderr
    document = pages.parsed((folder / "index.html").read_text("utf-8"))
    links = [node.attrib["href"] for node in pages.elements(document, "a")]
    assert links == ["one.html", "two.html"]
    words = pages.text_of(document)
    assert "What the norms of <script>alert(1)</script> learned" in words
    assert words.count("match the training data") == 2
    assert not pages.elements(document, "script")


def test_the_pretrained_network_stands_first(folder):
    """Fails if the pages stand by name alone, or the one that is put first loses its place or stands twice."""
    (folder / "one.html").rename(folder / "a.html")
    (folder / "two.html").rename(folder / "mobilenet_v2.html")
    made(folder)
    document = pages.parsed((folder / "index.html").read_text("utf-8"))
    links = [node.attrib["href"] for node in pages.elements(document, "a")]
    assert links == ["mobilenet_v2.html", "a.html"]


def test_every_page_has_the_picture_of_its_answer(folder):
    """Fails if a tile's bars or the map are taken for the network drawn once, or the picture is loaded from elsewhere."""
    made(folder)
    document = pages.parsed((folder / "index.html").read_text("utf-8"))
    for card in pages.elements(document, "li"):
        (drawing,) = pages.elements(card, "svg")
        assert "distance of the data from the running statistics" in pages.text_of(drawing)
        assert not pages.elements(card, "img")
    ids = [node.attrib["id"] for node in document.iter() if "id" in node.attrib]
    assert len(set(ids)) == len(ids)
    page = (folder / "index.html").read_text("utf-8")
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= set(ids)


def test_the_api_reference_has_no_card(folder):
    """Fails if the index shows a page without a network as if it were about one."""
    (folder / "api.html").write_text("<!doctype html><title>bnprobe: API reference</title>", "utf-8")
    made(folder)
    document = pages.parsed((folder / "index.html").read_text("utf-8"))
    assert "api.html" not in [node.attrib["href"] for node in pages.elements(document, "a")]


def test_the_index_does_not_list_itself_and_can_be_made_again(folder):
    """Fails if a second run finds the first one's index among the pages."""
    made(folder)
    first = (folder / "index.html").read_bytes()
    made(folder)
    assert (folder / "index.html").read_bytes() == first


def test_a_page_of_images_is_shown_by_some_of_them(tmp_path):
    """Fails if a page without drawings has an empty card, or its card all its images."""
    page = "".join(f'<img src="data:image/webp;base64,UklGR{i}+/=" alt="a cat">' for i in range(20))
    (tmp_path / "made.html").write_text(f"<title>Made</title>{page}")
    assert made(tmp_path).returncode == 0
    document = pages.parsed((tmp_path / "index.html").read_text("utf-8"))
    shown = [image.attrib["src"] for image in pages.elements(document, "img")]
    assert shown == [f"data:image/webp;base64,UklGR{i}+/=" for i in range(8)]
