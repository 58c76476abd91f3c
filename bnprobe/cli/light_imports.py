"""Imports that a short command waits for, without what it has no use for: they are half of a check."""

from __future__ import annotations

import sys
from importlib import import_module

from bnprobe.garbage import collector_paused


def import_light(*modules: str) -> None:
    """Import modules without the collector's walks, and pandas without pyarrow, which it loads wherever that is installed:
    0.1 s and 40 MB. Whoever reads or writes Parquet afterwards imports pyarrow as ever."""
    taken = "pyarrow" not in sys.modules
    if taken:
        sys.modules["pyarrow"] = None  # type: ignore[assignment] # as if it were not installed
    try:
        with collector_paused():
            for module in modules:
                import_module(module)
    finally:
        if taken:
            del sys.modules["pyarrow"]
