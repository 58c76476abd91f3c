"""Write the API reference, one page made from the docstrings of everything public.

    python -m scripts.api_reference            # reports/api.html
    python -m scripts.api_reference FILE

Needs pdoc, which turns docstrings into HTML: pip install -e ".[docs]"
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.api_reference.page import page
from scripts.api_reference.surface import sections


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, default=Path("reports/api.html"), help="the page")
    path = parser.parse_args().file
    found = sections()
    path.write_text(page(found), "utf-8")
    n = sum(1 + len(entry.members) for section in found for entry in section.entries)
    print(f"{path}: {n} entries")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
