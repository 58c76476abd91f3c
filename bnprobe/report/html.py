"""Blocks to one self-contained HTML page: no script, no request, one style sheet."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bnprobe.report.blocks import Figure, Page
from bnprobe.report.words import NARROW, visible


def to_html(page: Page) -> str:
    """The whole page, from `<!doctype html>` on."""
    return _render("page.html.j2", page)


def to_fragment(page: Page) -> str:
    """The page's first sections for a notebook cell, with their style inside."""
    return _render("fragment.html.j2", page)


def _render(template: str, page: Page) -> str:
    return _templates().get_template(template).render(page=page, css=_css(), svg=_svg, kind=_kind)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("bnprobe.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalize(value: Any) -> Any:
    """Names come from outside: what cannot be seen must not turn, hide or break what can."""
    return NARROW.join(map(visible, value.split(NARROW))) if type(value) is str else value


@cache
def _css() -> Markup:
    return Markup(resources.files("bnprobe.report").joinpath("page.css").read_text("utf-8"))


def _kind(block: Any) -> str:
    return type(block).__name__


def _svg(figure: Figure) -> Markup:
    """The drawn picture; one that cannot be drawn costs a sentence, never the page."""
    from bnprobe.report.figures import to_svg

    try:
        return Markup(to_svg(figure.name, figure.draw))
    except Exception as error:
        warnings.warn(
            f"the picture {figure.name!r} could not be drawn: {error}", RuntimeWarning, stacklevel=2
        )
        return Markup("<p class='note'>This picture could not be drawn: {}</p>").format(error)
