"""Write the map of packages into CONTRIBUTING.md: the first docstring line of every package and top-level module.

python -m scripts.package_map            # rewrites the block in CONTRIBUTING.md
python -m scripts.package_map --check    # exits with 1 where the block is not what the docstrings say
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
PACKAGE = ROOT / "bnprobe"
BEGIN, END = "<!-- packages: python -m scripts.package_map -->", "<!-- end of packages -->"
WIDTH = 24
"""Columns of the tree, before the words."""


def package_map(package: Path = PACKAGE) -> str:
    """The tree of packages, a line each, with what its docstring says first."""
    lines = [f"{package.name}/"]
    for path, depth in _places(package, 1):
        name = "  " * depth + (path.name + "/" if path.is_dir() else path.stem)
        lines.append(f"{name:{WIDTH}}{_first_line(path)}")
    return "\n".join(lines)


def _places(folder: Path, depth: int) -> Iterator[tuple[Path, int]]:
    """Packages inside `folder`, each followed by its own; at the top also the modules beside them."""
    if depth == 1:
        yield from ((path, depth) for path in sorted(folder.glob("[a-z]*.py")))
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield inner, depth
        yield from _places(inner, depth + 1)


def _first_line(path: Path) -> str:
    source = (path / "__init__.py" if path.is_dir() else path).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def with_map(text: str) -> str:
    """The page with today's map between its marks. Raises ValueError where a mark is missing."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"CONTRIBUTING.md has no block between {BEGIN!r} and {END!r}.")
    return f"{before}{BEGIN}\n```\n{package_map()}\n```\n{END}{after}"


def main() -> int:
    """Write the map, or with --check compare it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    written = PAGE.read_text(encoding="utf-8")
    current = with_map(written)
    if parser.parse_args().check:
        if current != written:
            print("CONTRIBUTING.md: the map of packages is out of date. Run: python -m scripts.package_map")
        return int(current != written)
    PAGE.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
