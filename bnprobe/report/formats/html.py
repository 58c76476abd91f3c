"""Blocks to one self-contained HTML page: no request, one style sheet, and scripts that it can do without.

A policy in the page's head names the two scripts by their hash. Whatever else should ever get into a page, by a
name or a mistake, a browser would not run it, nor would it load anything.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import uuid
import warnings
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bnprobe.files import read_shipped
from bnprobe.report.browser import AWAKE, Data, program, program_of_tables
from bnprobe.report.figures.as_text import as_text
from bnprobe.report.figures.specs import Spine
from bnprobe.report.headings import heading, hint
from bnprobe.report.numbers import NARROW, visible
from bnprobe.report.page.blocks import Figure, Headline, Page, Section, Tiles

ROOT = "bnprobe"
"""Id of the page's root element; notebook cells, of which there may be many, have one of their own each."""

IN_A_CELL = (Headline, Tiles, Figure)
"""Of the answer: the verdict, the questions, and the network drawn once."""

_BLOCK = "lines"
"""Class of code that stands by itself."""
LONG = 1500
"""Letters of code that fill a good part of a page on paper."""
LONGEST_INLINE = 60
"""Letters of code that stay within the sentence."""


@dataclass(frozen=True)
class Scripts:
    """What stands in script elements: our programs, and between them the data, which some pages do without."""

    awake: Markup
    program: Markup
    manifest: Markup
    blobs: tuple[tuple[str, Markup], ...]


@dataclass(frozen=True)
class Layout:
    """Where sections stand: in `explorer` the layers beside the map, where scripts draw them.

    On paper, and for readers without scripts, the layers come after the chapters, before what is `later`.
    """

    first: tuple[Section, ...] = ()
    explorer: tuple[Section, ...] = ()
    chapters: tuple[Section, ...] = ()
    later: tuple[Section, ...] = ()

    @property
    def sections(self) -> tuple[Section, ...]:
        """All of them, as they follow each other on a screen."""
        return self.first + self.explorer + self.chapters + self.later


def to_html(page: Page, data: Data | None = None) -> str:
    """The whole page, from `<!doctype html>` on; `data` are what its scripts draw from, where anything moves."""
    return _render("page.html.j2", page, _scripts(data, ROOT), ROOT, layout=_layout(page.sections, data))


def to_fragment(page: Page) -> str:
    """What a notebook shows of the page: its headline, tiles and spine, with their style and without a script.

    Its ids are its own: two cells of a notebook do not get into each other's way.
    """
    root = f"bnprobe-{uuid.uuid4().hex[:12]}"
    answer = page.sections[0]
    kept = replace(answer, blocks=tuple(b for b in answer.blocks if isinstance(b, IN_A_CELL)), parts=())
    scripts = Scripts(Markup(), Markup(), Markup(), ())
    return _render("fragment.html.j2", replace(page, sections=(kept,)), scripts, root, prefix=f"{root}-")


def _render(
    template: str, page: Page, scripts: Scripts, root: str, prefix: str = "", layout: Layout | None = None
) -> str:
    """The page, or with a `prefix` of all ids a part of it."""
    trusted = [_fingerprint(script) for script in (scripts.awake, scripts.program) if script]
    return (
        _templates()
        .get_template(template)
        .render(
            page=page,
            layout=layout,
            root=root,
            prefix=prefix,
            whole=not prefix,
            has_cover=any(
                isinstance(block, Headline) for section in page.sections for block in section.blocks
            ),
            css=_css(),
            svg=lambda figure: _svg(figure, prefix),
            numbers=lambda figure: escape(as_text(figure.spec)),
            depth=_depth,
            kind=_kind,
            scripts=scripts,
            trusted=Markup(" ".join(trusted)),
        )
    )


def _layout(sections: tuple[Section, ...], data: Data | None) -> Layout:
    ids = [section.id for section in sections]
    if data is None or not {"network", "layers"} <= set(ids):
        return Layout(sections)
    network, layers = ids.index("network"), ids.index("layers")
    explorer = sections[network], sections[layers]
    return Layout(sections[:network], explorer, sections[network + 1 : layers], sections[layers + 1 :])


def _scripts(data: Data | None, root: str) -> Scripts:
    if data is None:
        return Scripts(Markup(), Markup(program_of_tables(root)), Markup(), ())
    return Scripts(
        Markup(AWAKE % root),
        Markup(program(root)),
        Markup(data.manifest),
        tuple((name, Markup(text)) for name, text in data.blobs),
    )


def _fingerprint(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("bnprobe.report.formats", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["code"] = with_code
    templates.filters["heading"], templates.filters["hint"] = heading, hint
    return templates


def with_code(text: str) -> Markup:
    """What stands between backticks as code; without a partner a backtick is one."""
    parts = _finalize(text).split("`")
    if len(parts) % 2 == 0:
        parts[-2:] = ["`".join(parts[-2:])]
    shown = [_code(p) if i % 2 else escape(p) for i, p in enumerate(parts)]
    for i in range(1, len(shown) - 1, 2):
        if f'class="{_BLOCK}' in shown[i]:  # lines of their own end the sentence
            shown[i + 1] = Markup(shown[i + 1].removeprefix("."))
    return Markup().join(shown)


def _code(line: str) -> Markup:
    """Code within a sentence, or where it is long Python, as lines of its own."""
    lines = _as_lines(line) if len(line) > LONGEST_INLINE else ""
    if not lines:
        return Markup("<code>{}</code>").format(line)
    return Markup('<code class="{}" tabindex="0">{}</code>').format(
        " ".join((_BLOCK, "long")[: 1 + (len(lines) > LONG)]), lines
    )


def _as_lines(line: str) -> str:
    """Python with a statement per line; empty where it is no Python, or has no lines to part."""
    try:
        lines = ast.unparse(ast.parse(line))
    except (SyntaxError, ValueError):
        return ""
    return lines if "\n" in lines else ""


def _finalize(value: Any) -> Any:
    """Names come from outside: what cannot be seen must not turn, hide or break what can."""
    return NARROW.join(map(visible, value.split(NARROW))) if type(value) is str else value


@cache
def _css() -> Markup:
    return Markup(read_shipped("bnprobe.report.formats", "templates", "page.css"))


def _kind(block: Any) -> str:
    return type(block).__name__


def _depth(figure: Figure) -> Markup:
    """For the scripts, where on a picture of the network by depth which layers are."""
    from bnprobe.report.figures.spine import depth_axis

    if not isinstance(figure.spec, Spine):
        return Markup()
    start, end = depth_axis(figure.spec)
    rows = " ".join(f"{rows[0]}-{rows[-1]}" for rows in figure.rows)
    along = "down" if figure.spec.upright else "right"
    return Markup(' data-along="{}" data-from="{:.5f}" data-to="{:.5f}" data-rows="{}"').format(
        along, start, end, rows
    )


def _svg(figure: Figure, prefix: str = "") -> Markup:
    """The drawn picture in its pieces; one that cannot be drawn costs a sentence, never the page."""
    from bnprobe.report import figures

    try:
        drawn = [
            (title, Markup(figures.to_svg(f"{prefix}{figure.name} {k}", partial(figures.draw, spec))))
            for k, (title, spec) in enumerate(figures.panels_of(figure.spec))
        ]
        if len(drawn) == 1 and not drawn[0][0]:
            return drawn[0][1]
        return Markup("<div class='pieces'>{}</div>").format(
            Markup("").join(
                Markup("<div class='piece'>{}{}</div>").format(
                    Markup("<p>{}</p>").format(visible(title)) if title else "", svg
                )
                for title, svg in drawn
            )
        )
    except Exception as error:
        warnings.warn(
            f"the picture {figure.name!r} could not be drawn: {error}", RuntimeWarning, stacklevel=2
        )
        return Markup("<p class='note'>This picture could not be drawn: {}</p>").format(error)
