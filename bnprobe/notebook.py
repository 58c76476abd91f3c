"""How an object shows itself in a notebook cell: what it is, and a small table of facts."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def facts(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """HTML of a heading and a row per fact; everything is escaped, and colors are the notebook's own."""
    lines = "".join(_row(name, value) for name, value in rows)
    return f"<div><p><strong>{escape(title)}</strong></p>{f'<table>{lines}</table>' if lines else ''}</div>"


def _row(name: str, value: object) -> str:
    return (
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(str(value))}</td></tr>'
    )
