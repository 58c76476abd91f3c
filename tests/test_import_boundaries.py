"""Import boundaries: which package may import which, inside bnprobe and outside, read from the source itself."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import bnprobe

PACKAGE = Path(bnprobe.__file__).parent


@dataclass(frozen=True)
class Boundary:
    """What a package may import: other packages of ours, and libraries from outside."""

    inside: frozenset[str]
    outside: frozenset[str]


def may(inside: str, outside: str = "") -> Boundary:
    return Boundary(frozenset(inside.split()), frozenset(outside.split()))


EVERYTHING = may("*", "*")
BOUNDARIES = {
    "notebook": may(""),
    "errors": may("notebook"),
    "severity": may(""),
    "printing": may("errors", "tqdm"),
    "files": may("errors"),
    # where it is installed
    "files.arrow": may("errors", "pyarrow"),
    "files.fetch": may("errors", "fsspec aiohttp"),
    # object stores, on first use
    "files.remote": may("errors", "fsspec"),
    "version": may(""),
    "garbage": may(""),
    "stats": may("errors", "numpy scipy"),
    "recording": may("stats errors files notebook", "numpy"),
    "norms": may("recording errors notebook", "torch"),
    "graph": may("norms recording stats errors", "torch numpy"),
    "reductions": may("stats garbage", "torch numpy numba llvmlite triton"),
    "probe": may("norms graph reductions recording stats errors notebook printing version", "torch numpy"),
    # its tables are what users get, as those of a report, and a study is shown as a report is; what a rule advises is
    # data that it carries out
    "experiments": may(
        "probe graph reductions norms recording stats rules report errors notebook printing",
        "torch numpy pandas",
    ),
    # a run that can be continued, and the images for calibration
    "experiments.synthesize": may(
        "probe graph norms recording stats report errors files notebook printing",
        "torch numpy pandas safetensors",
    ),
    # torch on first use: for files that it alone can read, and for tensors in RAM
    "weights": may("errors files", "numpy"),
    "weights.with_torch": may("errors files", "torch"),
    # torch where ranks are gathered; files are merged without it
    "scaling": may("recording errors files printing", ""),
    "scaling.on_ray": may("errors files printing", "ray"),
    "scaling.gather": may("recording errors", "torch"),
    "scaling.ranks": may("errors", "torch"),
    "models": may("weights recording norms stats errors files printing", "torch torchvision PIL tqdm numpy"),
    # a file of weights becomes a recording without calls, and from there a report
    "checkpoints": may(
        "models weights probe recording norms graph report stats errors files version", "torch numpy PIL"
    ),
    "measures": may("recording stats errors", "numpy pandas"),
    # the vocabulary of recordings only; a baseline is a file of its own
    "rules": may("recording stats errors severity files", "numpy pandas"),
    # markupsafe is the half of jinja2 that escapes
    "report": may(
        "recording measures rules stats errors files garbage version notebook",
        "numpy pandas jinja2 markupsafe",
    ),
    # Parquet, where it is installed
    "report.formats.tables": may("measures errors files", "pandas pyarrow"),
    "report.formats.read_table": may("report errors files", "pandas pyarrow"),
    "report.atlas_page": may("rules stats severity version", "numpy pandas"),
    "report.audit": may("recording measures rules errors severity", "numpy pandas"),
    # a histogram cannot be drawn without its edges
    "report.figures.png": may("", "numpy PIL"),
    # images that are data, not drawings
    "report.figures.thumbnails": may("", "numpy PIL"),
    "report.figures.contact_sheet": may("files", "PIL"),
    "report.figures": may("stats measures recording errors files", "numpy pandas seaborn matplotlib"),
    # what may stand on a side of a comparison: a file of weights alone needs torch, on first use
    "comparison": may(
        "recording measures rules report checkpoints stats errors files version", "numpy pandas"
    ),
    "cli": EVERYTHING,
    "__init__": EVERYTHING,
    "__main__": EVERYTHING,
}
"""The table of the design, and this test is what holds it. An entry "package.part" is narrower than its package."""

WITHOUT_TORCH = (
    "measures",
    "comparison",
    "rules",
    "report",
    "errors",
    "stats",
    "recording",
    "files",
    "weights",
    "scaling",
)
WITH_TORCH = {
    *("norms", "graph", "probe", "reductions", "experiments", "models", "weights.with_torch"),
    *("scaling.gather", "scaling.ranks"),
}
LAZY = [
    ("comparison", "checkpoints"),
    ("weights", "weights.with_torch"),
    ("scaling", "scaling.gather"),
]
"""Imported inside a function, when a side turns out to be a file of weights, and a file one that torch alone can read."""
DRAWING = {"seaborn", "matplotlib"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


OURS = {
    ".".join(path.with_suffix("").relative_to(PACKAGE.parent).parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
}
"""Every module and package of ours, by its full name."""


def dotted(path: Path) -> str:
    """`report.figures` for report/figures.py, and `report` for report/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module named by an import anywhere in the file: in functions, and under TYPE_CHECKING, too.

    `from package import module` is an import of the module, and of nothing else in the package.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import hides where it leads"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = names & OURS
            yield from inner
            if names - inner:
                yield str(node.module)


def rule_for(module: str) -> Boundary:
    parts = module.split(".")
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in BOUNDARIES:
            return BOUNDARIES[".".join(parts[:n])]
    raise AssertionError(f"{module} is in no row of the table: say in BOUNDARIES what it may import")


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_a_package_imports_only_what_the_design_allows(path: Path):
    """Fails if a package reaches for another that the design keeps apart, at the top or inside a function."""
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


def test_what_works_on_files_never_names_torch():
    """Fails if the table above were loosened: a report must be made on a laptop without torch."""
    for name, rule in BOUNDARIES.items():
        if name.partition(".")[0] in WITHOUT_TORCH and name not in WITH_TORCH:
            assert not rule.outside & {"torch", "torchvision"}, name
            assert not rule.inside & WITH_TORCH, name


@pytest.mark.parametrize(("package", "imported"), LAZY)
def test_what_needs_torch_is_imported_on_first_use(package: str, imported: str):
    """Fails if the one step across the boundary is taken when the package is imported."""
    for path in (PACKAGE / package).rglob("*.py"):
        if dotted(path).startswith(imported):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            at_the_top = isinstance(node, ast.ImportFrom) and str(node.module).startswith(
                f"bnprobe.{imported}"
            )
            assert not at_the_top, f"{dotted(path)}:{node.lineno}"


def test_only_figures_draws():
    """Fails if another module than the figures of the report imports seaborn or matplotlib."""
    drawing = {
        dotted(path) for path in modules() for name in imports(path) if name.partition(".")[0] in DRAWING
    }
    assert all(module.startswith("report.figures") for module in drawing), drawing


def graph_of(package: str) -> dict[str, set[str]]:
    """Which child of a package imports which other child of it, "" for the package's own `__init__`."""
    edges: dict[str, set[str]] = {}
    depth = package.count(".") + 1
    for path in modules():
        module = f"bnprobe.{dotted(path)}".removesuffix(".__init__")
        if not module.startswith(f"{package}."):
            continue
        own = module.split(".")[depth]
        found = {
            name.split(".")[depth]
            for name in imports(path)
            if name.startswith(f"{package}.") and name in OURS
        }
        edges.setdefault(own, set()).update(found - {own})
    return edges


def circle_in(edges: Mapping[str, set[str]]) -> set[str]:
    """What is left when everything that needs nothing, and everything that nothing needs, is taken away again and again."""
    left = {name: needs & edges.keys() for name, needs in edges.items()}
    while left:
        needed = set().union(*left.values())
        ends = {name for name, needs in left.items() if not needs or name not in needed}
        if not ends:
            break
        left = {name: needs - ends for name, needs in left.items() if name not in ends}
    return set(left)


PACKAGES = sorted({name for name in OURS if any(other.startswith(f"{name}.") for other in OURS)})


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_do_not_run_in_a_circle(package: str):
    """Fails if two children of one package need one another, at any level."""
    edges = graph_of(package)
    assert not circle_in(edges), {name: edges[name] & circle_in(edges) for name in circle_in(edges)}


def test_modules_do_not_import_in_a_circle():
    """Fails if two files need one another, whatever packages they are in."""
    edges: dict[str, set[str]] = {}
    for path in modules():
        module = f"bnprobe.{dotted(path)}".removesuffix(".__init__")
        edges[module] = set(imports(path)) & OURS - {module}
    assert len(edges) > 200
    assert not circle_in(edges), {name: edges[name] & circle_in(edges) for name in circle_in(edges)}


def test_a_circle_would_be_found():
    """Fails if the search above finds nothing in a circle, or a circle where there is none."""
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"a", "e"}, "d": {"a"}, "e": set()}) == {"a", "b", "c"}
    assert not circle_in({"a": {"b"}, "b": {"c"}, "c": set()})


def test_the_table_names_packages_that_exist():
    """Fails if a package is renamed and its row is left behind, or a new one has none."""
    there = {dotted(path).partition(".")[0] for path in modules()}
    assert {name.partition(".")[0] for name in BOUNDARIES} == there


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
    """Fails if a program, in whatever folder of scripts/, reaches for a name with an underscore."""
    programs = sorted((PACKAGE.parent / "scripts").rglob("*.py"))
    assert any(path.parent.name != "scripts" for path in programs)
    for path in programs:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "bnprobe":
                names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
                assert not any(name.startswith("_") for name in names), f"{path.name}:{node.lineno}: {names}"


def test_the_public_api_is_there():
    """Fails if `__all__` names something that cannot be had, or a lazy name has no home."""
    for name in bnprobe.__all__:
        assert getattr(bnprobe, name) is not None, name
    assert set(bnprobe._HOMES) <= set(bnprobe.__all__)
    assert len(bnprobe.__all__) == len(set(bnprobe.__all__))
    with pytest.raises(AttributeError, match="has no attribute 'atach'"):
        bnprobe.atach  # noqa: B018
