"""Tables as files of their own: CSV for everyone, Parquet where pyarrow is installed."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from bnprobe.errors import BnprobeError
from bnprobe.files import write_output


def save_tables(tables: Mapping[str, pd.DataFrame], folder: Path, format: str) -> list[Path]:
    """Write every table as `folder`/name.format, each whole or not at all; returns the paths.

    Raises BnprobeError for a format that there is not, or whose library is missing, and CannotWrite.
    """
    if format not in _FORMATS:
        raise BnprobeError(f"there is no format {format!r} for tables. Known formats: {', '.join(_FORMATS)}.")
    contents = {name: _FORMATS[format](table) for name, table in tables.items()}
    return [write_output(folder / f"{name}.{format}", whole) for name, whole in contents.items()]


def csv_of(table: pd.DataFrame) -> bytes:
    """A table as CSV, without the index."""
    return table.to_csv(index=False).encode()


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    try:
        table.to_parquet(buffer, engine="pyarrow", index=False)
    except ImportError as error:
        raise BnprobeError(
            "Parquet files need pyarrow, which is not installed. Run pip install pyarrow, or use format='csv'."
        ) from error
    return buffer.getvalue()


_FORMATS: dict[str, Callable[[pd.DataFrame], bytes]] = {"csv": csv_of, "parquet": _parquet}
