"""The README: its map of packages, its links, and its table of where things are added."""

from __future__ import annotations

import re

import pytest
from support.paths import ROOT

from scripts.package_map import package_map, with_map

README = (ROOT / "README.md").read_text(encoding="utf-8")
LINKS = sorted(set(re.findall(r"\]\(([^)#\s]+)\)", README)))
PATHS = sorted(set(re.findall(r"`((?:bnprobe|scripts|tests|reports)/[\w./-]+)`", README)))


def test_the_map_of_packages_is_what_the_docstrings_say():
    """Fails if a package was added, moved or described anew and the README was left behind."""
    assert with_map(README) == README, "run: python -m scripts.package_map"


def test_the_map_has_every_package():
    """Fails if the map skips a package: the folders are the second source."""
    named = {line.split()[0] for line in package_map().splitlines()}
    for init in (ROOT / "bnprobe").rglob("__init__.py"):
        assert f"{init.parent.name}/" in named
    assert {"errors", "atomic_write"} <= named


@pytest.mark.parametrize("link", LINKS)
def test_links_lead_somewhere(link: str):
    """Fails if the README links to a file that is not in the project."""
    assert (ROOT / link).exists()


@pytest.mark.parametrize("path", PATHS)
def test_paths_in_the_text_exist(path: str):
    """Fails if the README names a file or folder that was moved; what a command writes is not there before."""
    assert (ROOT / path).exists() or path in ("reports/demo.html", "reports/mine.html")


def test_links_inside_the_readme_have_their_heading():
    """Fails if a link leads to a section that was renamed."""
    heads = {
        re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-")
        for head in re.findall(r"^#+ (.+)$", README, re.M)
    }
    for anchor in re.findall(r"\]\(#([\w-]+)\)", README):
        assert anchor in heads
