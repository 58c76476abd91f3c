"""An index of the pages in a folder: the network drawn once, a sentence and a link for each.

    python scripts/gallery.py                # reports/index.html for reports/*.html

The picture is that of the page's own answer, on scales that are the same for every network; the sentence is the first of
that answer that says what was found. Fails where pages and index are more than 15 MB.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path

FIRST = ("mobilenet_v2.html",)
"""Shown before the others: a network that everybody knows, on photographs. The others follow by name."""

MOST_BYTES = 15_000_000
NO_CARD = ("index.html", "api.html")
"""The index itself, and the API reference: neither is about a network."""
LARGEST_DRAWING = 100_000
N_PHOTOGRAPHS = 8

STYLE = """
:root { --ink: #1b1e23; --muted: #5f656e; --paper: #fdfdfb; --panel: #f3f3ef; --line: #dcdcd5; --link: #1f6a8f;
  --measured: #2f7fa6; --expected: #c2601f; --warning: #8a5c00; --critical: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e7e3; --muted: #a8adb5; --paper: #16181c; --panel: #1f2227; --line: #363a41; --link: #7cc2e4;
    --measured: #5fb3d9; --expected: #e08e55; --warning: #f0b849; --critical: #ff8a80; }
}
body { margin: 0 auto; max-width: 70rem; padding: 2.5rem 1.5rem 4rem; color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.015em; }
h2 { font-size: 1.05rem; margin: .7rem 0 .2rem; }
p { margin: .2rem 0; max-width: 46rem; }
.note { color: var(--muted); font-size: .86rem; }
ul { list-style: none; padding: 0; margin: 2rem 0 0; display: grid; gap: 2rem 1.6rem;
  grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); }
a { color: var(--link); text-underline-offset: .2em; }
.print { padding: 6px; background: var(--panel); border: 1px solid var(--line); border-radius: 6px; }
.print svg { width: 100%; height: auto; display: block; }
""".strip()


@dataclass(frozen=True)
class Entry:
    """A page as the index shows it; `drawing` is the SVG of its answer, or else its first one."""

    file: str
    title: str
    lead: str
    sentence: str
    drawing: str
    n_bytes: int


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Those named in FIRST, in that order, then the others by name."""
    places = {name: place for place, name in enumerate(FIRST)}
    return sorted(paths, key=lambda path: (places.get(path.name, len(FIRST)), path.name))


def entry(path: Path) -> Entry:
    """What a page says of itself."""
    page = path.read_text("utf-8")
    answer = paragraphs(part(page, "answer"))
    verdict = text(first(r'<p class="verdict">(.*?)</p>', page))
    lead = text(
        re.sub(r'<span class="badge">.*?</span>', "", first(r'<p class="lead">(.*?)(?: <a|</p>)', page))
    )
    data, mode = (text(first(rf"<dt>{name}</dt><dd>(.*?)</dd>", page)) for name in ("data", "mode"))
    return Entry(
        path.name,
        text(first(r"<title>(.*?)</title>", page)),
        " ".join(filter(None, [lead, f"{data}, {mode} mode." if data else ""])),
        verdict or sentence(answer[0] if answer else ""),
        apart(drawing(part(page, "answer")) or drawing(page) or photographs(page), path.stem),
        len(page.encode()),
    )


def part(page: str, name: str) -> str:
    """The section with this id, up to the next one."""
    start = page.find(f'<section id="{name}"')
    end = page.find("<section id=", start + 1)
    return page[start:end] if start >= 0 else ""


def first(pattern: str, page: str) -> str:
    found = re.search(pattern, page, re.DOTALL)
    return found[1] if found else ""


def paragraphs(section: str) -> list[str]:
    return [text(words) for words in re.findall(r"<p>(.*?)</p>", section, re.DOTALL)]


def text(markup: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", markup)).strip()


def sentence(words: str) -> str:
    """The first sentence; a stop inside a name or a number does not end it."""
    return re.split(r"(?<=[.!?]) (?=[A-Z])", words)[0]


def drawing(page: str) -> str:
    """The first figure that is small enough for an index; bars in tiles are none."""
    found = re.findall(r"<figure.*?(<svg .*?</svg>)", page, re.DOTALL)
    return next((svg for svg in found if len(svg) < LARGEST_DRAWING), "")


def photographs(page: str) -> str:
    """The first small images of a page that draws nothing."""
    found = re.findall(r'<img src="(data:image/\w+;base64,[\w+/=]+)"', page)[:N_PHOTOGRAPHS]
    return "".join(f'<img src="{uri}" alt="" width="64" height="64">' for uri in found)


def apart(svg: str, name: str) -> str:
    """The SVG with ids of its own: two pages may have the same, of other shapes."""
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{escape(name)}-", svg)


def card(one: Entry) -> str:
    return f"""<li>
<div class="print">{one.drawing}</div>
<h2><a href="{escape(one.file)}">{escape(one.title)}</a></h2>
<p>{escape(one.sentence)}</p>
<p class="note">{escape(one.lead)} {one.n_bytes / 1e6:.1f} MB.</p>
</li>"""


def index(entries: list[Entry]) -> str:
    cards = "\n".join(card(one) for one in entries)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<title>What normalization learned: pages made by bnprobe</title>
<link rel="icon" href="data:,">
<style>
{STYLE}
</style>
</head>
<body>
<header>
<h1>What normalization learned</h1>
<p>Pages made by bnprobe. Each picture is a network, its norms from left to right, on scales that are the same for all: how
far the data are from the running statistics, which channels do not work, and the learned |γ|.</p>
</header>
<main>
<ul>
{cards}
</ul>
</main>
</body>
</html>
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("reports"), help="default: reports")
    folder = parser.parse_args().folder
    paths = in_order(path for path in folder.glob("*.html") if path.name not in NO_CARD)
    page = index([entry(path) for path in paths])
    (folder / "index.html").write_text(page, "utf-8")
    total = len(page.encode()) + sum(path.stat().st_size for path in paths)
    print(f"{folder / 'index.html'}: {len(paths)} pages, {total / 1e6:.1f} MB of {MOST_BYTES / 1e6:g}")
    return 1 if total > MOST_BYTES else 0


if __name__ == "__main__":
    raise SystemExit(main())
