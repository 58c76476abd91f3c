"""Tables of our own that come back from files: only the columns that are asked for, and never more rows than are stated.

A file may say anything of itself: a header of a million columns, or a word that stands in a Parquet file once and in every
row of its table. So both are looked at before the numbers, and words that repeat are kept once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from bnprobe.errors import BnprobeError
from bnprobe.files import open_input
from bnprobe.files.arrow import needed
from bnprobe.report.formats.tables import demand_format

LARGEST, MOST_ROWS = 2**30, 2**22
"""Bytes and rows of a table: a row takes 200 bytes."""

LARGEST_IN_PIECES, LONGEST_FOOTER_IN_PIECES = 2**36, 2**26
"""Bytes of a Parquet file, and of what it says of itself, that is gone through piece by piece."""

LONGEST_HEAD, LONGEST_FOOTER = 2**16, 2**20
"""Bytes of what a file says of its columns, as CSV and as Parquet."""


def read_table(path: Path, columns: Sequence[str], words: Sequence[str]) -> pd.DataFrame:
    """Those of the `columns` that a file has, read by its ending; `words` are text, whatever they look like, the others
    numbers. Raises BnprobeError."""
    return pd.concat(_checked(path, columns, words, MOST_ROWS), ignore_index=True)


def read_pieces(path: Path, columns: Sequence[str], words: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The same, of Parquet a row group at a time, of which there may be any number."""
    yield from _checked(path, columns, words, None)


def _checked(
    path: Path, columns: Sequence[str], words: Sequence[str], most: int | None
) -> Iterator[pd.DataFrame]:
    demand_format(path)
    read = _parquet if path.suffix == ".parquet" else _csv
    try:
        with open_input(path, LARGEST if most else LARGEST_IN_PIECES) as file:
            for table in read(file, columns, words, most):
                numbers = [name for name in columns if name in table and name not in words]
                yield table.assign(**{name: pd.to_numeric(table[name]) for name in numbers})
    except BnprobeError:
        raise
    except Exception as error:  # what a damaged file makes a reader raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise BnprobeError(f"{path}: {reason.rstrip('.')}. Give a table that bnprobe wrote.") from None


def _csv(
    file: BinaryIO, columns: Sequence[str], words: Sequence[str], most: int | None
) -> Iterator[pd.DataFrame]:
    content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError("it is larger than a gigabyte, and CSV is read as a whole: use Parquet")
    if b"\n" not in content[:LONGEST_HEAD]:
        raise ValueError("it does not begin with the names of columns")
    _demand_few(content.count(b"\n"), MOST_ROWS)
    yield pd.read_csv(
        BytesIO(content),
        usecols=lambda name: name in columns,
        dtype=dict.fromkeys(words, str),
        keep_default_na=False,
        na_values=[""],
    )


def _parquet(
    file: BinaryIO, columns: Sequence[str], words: Sequence[str], most: int | None
) -> Iterator[pd.DataFrame]:
    types = needed("Parquet files", "a .csv file").types
    from pyarrow import parquet

    # a footer grows with columns and row groups, and its reader makes objects of all of them
    size = file.seek(-8, os.SEEK_END)
    if int.from_bytes(file.read(4), "little") > min(
        size, LONGEST_FOOTER if most else LONGEST_FOOTER_IN_PIECES
    ):
        raise ValueError("its footer is too long")
    schema = parquet.read_schema(file)
    found = [name for name in columns if name in schema.names]
    for name in found:
        kinds = (
            (types.is_string, types.is_large_string)
            if name in words
            else (types.is_integer, types.is_floating)
        )
        if not any(kind(schema.field(name).type) for kind in kinds):
            raise ValueError(f"its column {name} is of another type")
    opened = parquet.ParquetFile(file, read_dictionary=[name for name in found if name in words])
    groups = [opened.metadata.row_group(i) for i in range(opened.metadata.num_row_groups)]
    _demand_few(opened.metadata.num_rows, most)
    if most and sum(group.total_byte_size for group in groups) > LARGEST:
        raise ValueError("its numbers unpack to more than a gigabyte")
    for i, group in enumerate(groups):
        _demand_few(group.num_rows, MOST_ROWS)
        if group.total_byte_size > LARGEST:
            raise ValueError("its numbers unpack to more than a gigabyte")
        frame: pd.DataFrame = opened.read_row_group(i, found, use_threads=False).to_pandas(
            ignore_metadata=True
        )
        yield frame.assign(**{name: frame[name].astype(object) for name in found if name in words})
    if not groups:
        yield pd.DataFrame(columns=found)


def _demand_few(n_rows: int, most: int | None) -> None:
    if most and n_rows > most:
        raise ValueError(f"it has more than {most:,} rows")
