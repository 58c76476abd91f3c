"""pyarrow, the library of Arrow tables and Parquet files, which is an extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bnprobe.errors import BnprobeError


def needed(what: str, instead: str) -> Any:
    """The library. Raises BnprobeError where it is not installed, which says `what` needs it and what to do `instead`."""
    try:
        return import_module("pyarrow")
    except ImportError as error:
        raise BnprobeError(
            f"{what} need pyarrow, which is not installed. Run pip install pyarrow, or use {instead}."
        ) from error
