"""Tables as files of their own: CSV for everyone, Parquet where pyarrow is installed."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import pandas as pd

from bnprobe.errors import BnprobeError


def to_files(tables: Mapping[str, pd.DataFrame], format: str) -> dict[str, bytes]:
    """What the file of every table holds, by the name of the file.

    Raises BnprobeError for a format that there is not, or whose library is missing.
    """
    if format not in _FORMATS:
        raise BnprobeError(f"there is no format {format!r} for tables. Known formats: {', '.join(_FORMATS)}.")
    return {f"{name}.{format}": _FORMATS[format](table) for name, table in tables.items()}


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
