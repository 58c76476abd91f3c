"""pyarrow, the library of Arrow tables and Parquet files, which is an extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bnprobe.errors import BnprobeError


def needed(
    what: str, instead: str = "", module: str = "pyarrow", raises: type[BnprobeError] = BnprobeError
) -> Any:
    """The library, or a module of it. Where it is not installed, the error says that `what` needs it, and what to use
    `instead` if there is such a thing."""
    try:
        return import_module(module)
    except ImportError as error:
        otherwise = f", or use {instead}" if instead else ""
        raise raises(
            f"{what} need pyarrow, which is not installed. Run pip install pyarrow{otherwise}."
        ) from error
