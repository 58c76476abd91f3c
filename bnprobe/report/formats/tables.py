"""Tables as files of their own: CSV for everyone, Parquet where pyarrow is installed."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from bnprobe.errors import BnprobeError
from bnprobe.files.arrow import needed
from bnprobe.measures import Column

FORMATS = ("csv", "parquet")

PIECE = 20_000
"""Rows that are written at a time."""


def to_files(
    tables: Mapping[str, pd.DataFrame], format: str, columns: Sequence[Column] = ()
) -> dict[str, bytes]:
    """What the file of every table holds, by the name of the file. Parquet files say what their `columns` mean.

    Raises BnprobeError for a format that there is not, or whose library is missing.
    """
    if format not in FORMATS:
        raise BnprobeError(f"there is no format {format!r} for tables. Known formats: {', '.join(FORMATS)}.")
    return {
        f"{name}.{format}": csv_of(table) if format == "csv" else parquet_of(table, columns, name)
        for name, table in tables.items()
    }


def csv_of(table: pd.DataFrame) -> bytes:
    """A table as CSV, without the index."""
    return table.to_csv(index=False).encode()


def parquet_of(table: pd.DataFrame, columns: Sequence[Column], name: str) -> bytes:
    """A table as Parquet, without the index; each field says its meaning, formula and unit, the file its schema."""
    needed("Parquet files", "format='csv'")
    buffer = io.BytesIO()
    write_pieces(buffer, [table], "parquet", columns, name)
    return buffer.getvalue()


def write_pieces(
    file: BinaryIO, pieces: Iterable[pd.DataFrame], format: str, columns: Sequence[Column], name: str
) -> None:
    """A table that comes in pieces of equal columns: as CSV one after the other, as Parquet a row group each."""
    if format == "csv":
        for i, piece in enumerate(pieces):
            file.write(piece.to_csv(index=False, header=i == 0).encode())
        return
    from pyarrow import parquet

    writer = None
    try:
        for piece in pieces:
            arrow = arrow_of(piece, columns, name)
            writer = writer or parquet.ParquetWriter(file, arrow.schema)
            writer.write_table(arrow.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()


def arrow_of(table: pd.DataFrame, columns: Sequence[Column], name: str) -> Any:
    """A table of Arrow's; each field says its meaning, formula and unit, the table its schema."""
    pyarrow = needed("Parquet files", "a table of pandas")
    means = {column.name: _described(column) for column in columns}
    arrow = pyarrow.Table.from_pandas(table, preserve_index=False)
    fields = [field.with_metadata(means.get(field.name)) for field in arrow.schema]
    schema = pyarrow.schema(fields, {**(arrow.schema.metadata or {}), "schema": f"bnprobe/tables/{name}"})
    return arrow.cast(schema)


def _described(column: Column) -> dict[str, str]:
    said = {"description": column.meaning, "formula": column.formula, "unit": column.unit}
    return {key: text for key, text in said.items() if text}


def demand_format(path: Path) -> None:
    """Raises BnprobeError where a table cannot be written to, or read from, a file of this name."""
    if path.suffix[1:] not in FORMATS:
        raise BnprobeError(f"{path}: tables end in .csv or .parquet. Name one of these.")
    if path.suffix == ".parquet":
        needed("Parquet files", "a .csv file")
