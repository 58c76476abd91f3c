"""The page: docstrings to HTML by pdoc, set in our template, as one file without any request."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from pdoc.docstrings import convert
from pdoc.render_helpers import to_html

import bnprobe
from scripts.api_reference.surface import Entry, Section

HEADING = re.compile(r'<h6 id="[^"]*">(.*?):</h6>')
"""How pdoc sets "Args:" and the like; the ids would be there many times."""

NAME = re.compile(r"<code>((?:bnprobe\.)?[A-Za-z_][\w.]*)</code>|<strong>([A-Z]\w*):</strong>")
"""A name between backticks, or an error under "Raises:"."""


def page(sections: Sequence[Section]) -> str:
    """The whole page, from `<!doctype html>` on."""
    anchors = {
        one.name: one.name
        for section in sections
        for entry in section.entries
        for one in (entry, *entry.members)
    }
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Path(__file__).with_name("page.css").read_text("utf-8")
    return templates.get_template("page.html.j2").render(
        sections=sections,
        version=bnprobe.__version__,
        first=Markup(linked(convert_one(bnprobe.__doc__ or ""), anchors, "")),
        style=Markup(style),
        words=lambda entry: Markup(linked(convert_one(entry.doc), anchors, entry.name)),
        heading=heading,
    )


def convert_one(doc: str) -> str:
    """A docstring as HTML; the heads of its parts are no headings of the page."""
    html = str(to_html(convert(doc, "google", None)))
    html = HEADING.sub(r'<p class="part">\1</p>', html)
    return html.replace("<pre>", '<pre tabindex="0">')  # what scrolls must be reached by keyboard


def linked(html: str, anchors: Mapping[str, str], at: str) -> str:
    """Public names between backticks lead to their entry; inside a class also the names of its members."""
    owner = at.partition(".")[0]

    def link(found: re.Match[str]) -> str:
        name = (found[1] or found[2]).removeprefix("bnprobe.")
        target = anchors.get(f"{owner}.{name}") or anchors.get(name)
        if target is None or target == at:
            return found[0]
        return f'<a href="#{escape(target)}">{found[0]}</a>'

    return NAME.sub(link, html)


def heading(entry: Entry) -> str:
    """What stands before the name in small print."""
    return "" if entry.kind in ("function", "method") else entry.kind
