"""Tables of our own that come back from files: only the columns that are asked for, and never more rows than are stated.

A file may say anything of itself: a header of a million columns, or a word that stands in a Parquet file once and in every
row of its table. So both are looked at before the numbers, and words that repeat are kept once.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pandas as pd

from bnprobe.errors import BnprobeError
from bnprobe.files import read_input
from bnprobe.report.formats.tables import demand_format, needed

LARGEST, MOST_ROWS = 2**30, 2**22
"""Bytes and rows of a table: a row takes 200 bytes."""

LONGEST_HEAD, LONGEST_FOOTER = 2**16, 2**20
"""Bytes of what a file says of its columns, as CSV and as Parquet."""


def read_table(path: Path, columns: Sequence[str], words: Sequence[str]) -> pd.DataFrame:
    """Those of the `columns` that a file has, read by its ending; `words` are text, whatever they look like, the others
    numbers. Raises BnprobeError."""
    demand_format(path)
    read = _parquet if path.suffix == ".parquet" else _csv
    try:
        content = read_input(path, LARGEST)
        table = read(content, columns, words)
        table = table.assign(
            **{name: pd.to_numeric(table[name]) for name in columns if name in table and name not in words}
        )
    except Exception as error:  # what a damaged file makes a reader raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise BnprobeError(f"{path}: {reason.rstrip('.')}. Give a table that bnprobe wrote.") from None
    return table


def _csv(content: bytes, columns: Sequence[str], words: Sequence[str]) -> pd.DataFrame:
    if b"\n" not in content[:LONGEST_HEAD]:
        raise ValueError("it does not begin with the names of columns")
    _demand_few(content.count(b"\n"))
    return pd.read_csv(
        BytesIO(content),
        usecols=lambda name: name in columns,
        dtype=dict.fromkeys(words, str),
        keep_default_na=False,
        na_values=[""],
    )


def _parquet(content: bytes, columns: Sequence[str], words: Sequence[str]) -> pd.DataFrame:
    types = needed("a .csv file").types
    from pyarrow import parquet

    # a footer grows with columns and row groups, and its reader makes objects of all of them
    if int.from_bytes(content[-8:-4], "little") > LONGEST_FOOTER:
        raise ValueError("its footer is too long")
    schema = parquet.read_schema(BytesIO(content))
    found = [name for name in columns if name in schema.names]
    for name in found:
        kinds = (
            (types.is_string, types.is_large_string)
            if name in words
            else (types.is_integer, types.is_floating)
        )
        if not any(kind(schema.field(name).type) for kind in kinds):
            raise ValueError(f"its column {name} is of another type")
    file = parquet.ParquetFile(BytesIO(content), read_dictionary=[name for name in found if name in words])
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    if sum(group.total_byte_size for group in groups) > LARGEST:
        raise ValueError("its numbers unpack to more than a gigabyte")
    _demand_few(file.metadata.num_rows)
    frame: pd.DataFrame = file.read(found, use_threads=False).to_pandas(ignore_metadata=True)
    return frame.assign(**{name: frame[name].astype(object) for name in found if name in words})


def _demand_few(n_rows: int) -> None:
    if n_rows > MOST_ROWS:
        raise ValueError(f"it has more than {MOST_ROWS:,} rows")
