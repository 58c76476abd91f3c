"""The README and the pages it leads to: their links, the paths they name, and the map of packages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.paths import ROOT

from scripts.package_map import package_map, with_map

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docs/guide.md", "docs/many_machines.md")]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
WRITTEN = ("reports/demo.html", "reports/mine.html", "reports/clean-vs-noisy.html")
"""What commands and code on these pages write."""


def found(pattern: str) -> list[tuple[Path, str]]:
    """Every match on every page."""
    return [
        (page, match)
        for page in PAGES
        for match in sorted(set(re.findall(pattern, page.read_text("utf-8"), re.M)))
    ]


def anchors(page: Path) -> set[str]:
    """What links to the headings of a page end in."""
    heads = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


def test_the_map_of_packages_is_what_the_docstrings_say():
    """Fails if a package was added, moved or described anew and the map was left behind."""
    assert with_map(CONTRIBUTING) == CONTRIBUTING, "run: python -m scripts.package_map"


def test_the_map_has_every_package():
    """Fails if the map skips a package: the folders are the second source."""
    named = {line.split()[0] for line in package_map().splitlines()}
    for init in (ROOT / "bnprobe").rglob("__init__.py"):
        assert f"{init.parent.name}/" in named
    assert {"errors", "severity"} <= named


@pytest.mark.parametrize(("page", "link"), found(r"\]\(([^)\s]+)\)"))
def test_links_lead_somewhere(page: Path, link: str):
    """Fails if a page links to a file that is not in the project, or to a section that was renamed."""
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.exists()
    assert not anchor or anchor in anchors(target)


@pytest.mark.parametrize(("page", "path"), found(r"`((?:bnprobe|scripts|tests|reports|docs)/[\w./-]+)`"))
def test_paths_in_the_text_exist(page: Path, path: str):
    """Fails if a page names a file or folder that was moved; what a command writes is not there before."""
    assert (ROOT / path).exists() or path in WRITTEN


def test_the_first_page_is_read_in_an_hour():
    """Fails if the README grows back to a manual: what a newcomer does not need first has pages of its own."""
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120
