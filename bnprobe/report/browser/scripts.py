"""The scripts of the page as text: d3 and ours in one closed function, which leaves no name behind."""

from __future__ import annotations

from functools import cache

from bnprobe.files import read_shipped

PARTS = (
    "numbers",
    "store",
    "colours",
    "state",
    "frame",
    "profiles",
    "cells",
    "map",
    "transfer",
    "ridges",
    "plane",
    "points",
    "roles",
    "exemplars",
    "table",
    "compare",
    "layer",
    "sheets",
    "cards",
    "spine",
    "route",
    "save",
    "desk",
    "start",
)
"""Our files, in the order in which they build on one another."""

TABLES = ("numbers", "frame", "sheets")
"""What a page without data of its own needs: tables that sort and can be searched."""

AWAKE = 'document.getElementById("%s").classList.add("live")'
"""Run before anything is painted: what only paper and readers without scripts need is never shown."""


@cache
def program(root: str) -> str:
    """One script for the page, whose root element has the id `root`."""
    ours = "\n".join(_read(f"{part}.js") for part in PARTS)
    # d3 looks for a module loader before it writes to the window: it is given one of its own
    loader = "const exports = {}, module = { exports };"
    d3 = f"const d3 = (function () {{ {loader}\n{_read('d3.min.js')}\nreturn exports; }})();"
    return f'(function () {{\n"use strict";\n{d3}\n{ours}\nstart(document.getElementById("{root}"));\n}})();'


@cache
def program_of_tables(root: str) -> str:
    """The script of a page that shows figures and tables only."""
    ours = "\n".join(_read(f"{part}.js") for part in TABLES)
    return f'(function () {{\n"use strict";\n{ours}\nwakeTables(document.getElementById("{root}"));\n}})();'


def _read(name: str) -> str:
    return read_shipped("bnprobe.report.browser", "js", name).strip()
