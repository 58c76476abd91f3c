"""The walls of the house: who may import whom, inside bnprobe and outside, read from the source itself."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import bnprobe

PACKAGE = Path(bnprobe.__file__).parent


@dataclass(frozen=True)
class Room:
    """What a room may import: other rooms, and packages from outside."""

    inside: frozenset[str]
    outside: frozenset[str]


def room(inside: str, outside: str = "") -> Room:
    return Room(frozenset(inside.split()), frozenset(outside.split()))


EVERYTHING = room("*", "*")
ROOMS = {
    "errors": room(""),
    "stats": room("errors scipy_stats", "numpy"),
    "recording": room("neighbours certificate stats errors files", "numpy"),
    # what a run changed of the model, in words
    "certificate": room(""),
    "neighbours": room("stats errors", "numpy"),
    "files": room("recording sanity neighbours stats errors", "numpy safetensors"),
    "sanity": room("recording", "numpy"),
    "norms": room("recording errors", "torch"),
    "wiring": room("norms neighbours recording stats errors scipy_stats", "torch numpy"),
    "condense": room("stats", "torch numpy numba llvmlite triton"),
    "observation": room("norms condense recording stats", "torch numpy"),
    "graph": room("norms", "torch"),
    "backward": room("norms graph condense observation recording stats", "torch numpy"),
    "totals": room("condense observation backward recording stats", "numpy"),
    "ledger": room("norms observation recording", "torch"),
    "watch": room("norms observation ledger stats", "torch"),
    "probe": room(
        "norms neighbours wiring condense observation totals watch ledger graph backward labels recording certificate "
        "stats errors",
        "torch numpy",
    ),
    "labels": room("errors stats", "torch numpy"),
    "drive": room("probe labels interruption errors recording stats", "torch tqdm"),
    # when Ctrl-C may strike
    "interruption": room(""),
    "interventions": room("norms recording errors", "torch numpy"),
    "scipy_stats": room("", "scipy"),
    "measures": room("recording neighbours stats errors scipy_stats", "numpy pandas"),
    "findings": room("errors", "numpy pandas"),
    # two recordings against each other
    "comparison": room("recording stats measures errors scipy_stats", "numpy pandas"),
    # what may stand on a side of a comparison; a file of weights alone needs torch
    "sides": room("recording files report weights settings errors"),
    # what a user leaves out or sets otherwise, by the names of rules and thresholds
    "settings": room("findings errors"),
    # findings that were there before, so that only new ones count
    "baseline": room("errors files findings", "pandas"),
    # a checkpoint to a recording without calls, and from there to a report
    "weights": room("zoo probe neighbours recording stats report errors", "torch numpy PIL"),
    # markupsafe is the half of jinja2 that escapes
    "report": room(
        "recording files measures comparison findings settings baseline stats errors",
        "numpy pandas jinja2 markupsafe",
    ),
    # a histogram cannot be drawn without its edges
    "report.figures": room("stats measures comparison errors scipy_stats", "numpy pandas seaborn matplotlib"),
    "zoo": room("errors", "torch torchvision PIL tqdm safetensors numpy"),
    "images": room("errors", "torch torchvision PIL tqdm numpy"),
    "cli": EVERYTHING,
    "commands": EVERYTHING,
    "__init__": EVERYTHING,
    "__main__": EVERYTHING,
}
"""The table of the design, and this test is what holds it. An entry "room.module" is narrower than its room."""

WITHOUT_TORCH = (
    *("measures", "comparison", "findings", "settings", "baseline", "report"),
    *("errors", "stats", "neighbours", "certificate", "recording", "files"),
)
DRAWING = {"seaborn", "matplotlib"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    """`report.figures` for report/figures.py, and `report` for report/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module named by an import anywhere in the file: in functions, and under TYPE_CHECKING, too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import hides where it leads"
            # `from bnprobe import zoo` names the room in the second half
            bare = node.module == "bnprobe"
            yield from (f"bnprobe.{alias.name}" for alias in node.names) if bare else (str(node.module),)


def rule_for(module: str) -> Room:
    parts = module.split(".")
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in ROOMS:
            return ROOMS[".".join(parts[:n])]
    raise AssertionError(f"{module} is in no room of the table: say in ROOMS what it may import")


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_a_room_imports_only_what_its_walls_allow(path: Path):
    """Fails if a room reaches for another that the design keeps apart, at the top or inside a function."""
    module = dotted(path)
    rule, own = rule_for(module), module.partition(".")[0]
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "bnprobe":
            other = rest.partition(".")[0]
            allowed = other == own or other in rule.inside or "*" in rule.inside
            assert allowed, f"{module} may not import {name}"
        elif top not in sys.stdlib_module_names:
            assert top in rule.outside or "*" in rule.outside, f"{module} may not import {name}"


def test_the_right_hand_rooms_never_name_torch():
    """Fails if the table above were loosened: a report must be made on a laptop without torch."""
    for name, rule in ROOMS.items():
        if name.partition(".")[0] in WITHOUT_TORCH:
            assert not rule.outside & {"torch", "torchvision"}, name
            assert not rule.inside & {
                "norms",
                "observation",
                "probe",
                "condense",
                "wiring",
                "drive",
                "labels",
                "zoo",
                "weights",
            }, name


def test_only_figures_draws():
    """Fails if another module than the figures of the report imports seaborn or matplotlib."""
    drawing = {
        dotted(path) for path in modules() for name in imports(path) if name.partition(".")[0] in DRAWING
    }
    assert all(module.startswith("report.figures") for module in drawing), drawing


def test_imports_do_not_run_in_a_circle():
    """Fails if two rooms import one another; `save` reaching for `files` from inside is the one exception."""
    edges: dict[str, set[str]] = {}
    for path in modules():
        own = dotted(path).partition(".")[0]
        if own not in ("__init__", "cli", "commands", "__main__"):
            found = {n.split(".")[1] for n in imports(path) if n.startswith("bnprobe.")}
            edges.setdefault(own, set()).update(found - {own})
    assert edges["recording"] >= {"files"}
    edges["recording"] -= {"files"}
    done: set[str] = set()
    while edges:
        free = {name for name, needs in edges.items() if needs - set(edges) == needs}
        assert free, f"a circle among {sorted(edges)}"
        done |= free
        edges = {name: needs for name, needs in edges.items() if name not in free}
    assert {"stats", "recording", "probe"} <= done


def test_the_table_describes_rooms_that_exist_or_are_planned():
    """Fails if a room is renamed and its row is left behind."""
    there = {dotted(path).partition(".")[0] for path in modules()}
    planned = {"wiring", "interventions", "backward", "__main__", "cli", "zoo", "images", "drive"}
    assert {name.partition(".")[0] for name in ROOMS} - there <= planned


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_every_module_says_what_it_is(path: Path):
    """Fails if a module has no docstring, or one that does not end its first line as a sentence."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text, f"{dotted(path)} has no docstring"
    assert len(text.split()) >= 4
    assert any(mark in text for mark in ".:?"), "a sentence"


def test_no_module_is_called_utils():
    """Fails if a drawer for everything is opened."""
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "base", "core"}
    for path in PACKAGE.rglob("*"):
        assert path.stem.strip("_") not in vague, path.name


def test_files_stay_small_enough_to_hold_one_idea():
    """Fails if a file grows beyond what one sitting can read."""
    long = {dotted(path): n for path in modules() if (n := len(path.read_text().splitlines())) > 800}
    assert not long


def test_programs_use_public_names_only():
    """Fails if a script reaches for a name with an underscore, or into a room behind the window."""
    scripts = PACKAGE.parent / "scripts"
    for path in sorted(scripts.glob("*.py")):
        for name in imports(path):
            if name.startswith("bnprobe."):
                assert not any(part.startswith("_") for part in name.split(".")), f"{path.name}: {name}"


def test_the_window_shows_what_is_there():
    """Fails if `__all__` names something that cannot be had, or a lazy name has no home."""
    for name in bnprobe.__all__:
        assert getattr(bnprobe, name) is not None, name
    assert set(bnprobe._HOMES) <= set(bnprobe.__all__)
    assert len(bnprobe.__all__) == len(set(bnprobe.__all__))
    with pytest.raises(AttributeError, match="has no attribute 'atach'"):
        bnprobe.atach  # noqa: B018
