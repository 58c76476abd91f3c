"""Commands that read many files: what is odd among them is refused in a line, or is a row of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attacks import many
from attacks.sandbox import Sandbox
from attacks.test_checkpoints import assert_cheap, assert_left_nothing, assert_one_line
from bnprobe.errors import BnprobeError
from bnprobe.report.audit import NAMES, WORDS
from bnprobe.report.formats import read_table


@pytest.mark.parametrize("name", many.REFUSED)
def test_refused_in_a_line(sandbox: Sandbox, name, tmp_path):
    """Fails if a part, a list or a table is believed, and a wait, a traceback or half a file is what comes of it."""
    make, advice = many.REFUSED[name]
    arguments, before = make(tmp_path), contents(tmp_path)
    verdict = sandbox.run(*arguments, writes=tmp_path)
    assert contents(tmp_path) == before
    assert_left_nothing(verdict, tmp_path)
    assert_one_line(verdict, advice)
    assert_cheap(verdict)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder; None for what is no file."""
    found = sorted(folder.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


@pytest.mark.parametrize("name", many.JUDGED)
def test_worked_on(sandbox: Sandbox, name, tmp_path):
    """Fails if a file's word for how many there are is believed, or one odd file ends the work on the others."""
    verdict = sandbox.run(*many.JUDGED[name](tmp_path), writes=tmp_path / "out")
    assert verdict.code == 0, verdict.err[-2000:]
    assert_left_nothing(verdict, tmp_path)
    assert_cheap(verdict)
    assert all(line.isprintable() for line in (verdict.out + verdict.err).split("\n"))


def test_missing_parts_are_counted_and_not_listed(sandbox: Sandbox, tmp_path):
    """Fails if the sentence about a billion parts is wrong, now that they are not gone through."""
    verdict = sandbox.run(*many.counted(index=3, of=10**9)(tmp_path), writes=tmp_path / "out")
    assert (
        "Of 1,000,000,000 ranks 999,999,999 are missing: 0, 1, 2, 4, 5, 6, 7, 8 and 999,999,991 more"
        in verdict.err
    )


def test_every_odd_checkpoint_is_a_row(sandbox: Sandbox, tmp_path):
    """Fails if the table lacks a file that could not be read, or does not say why."""
    sandbox.run(*many.odd_checkpoints(tmp_path), writes=tmp_path / "out")
    files = pd.read_csv(tmp_path / "out" / "t.csv", keep_default_na=False).query("row == 'file'")
    assert len(files) == 8
    assert list(files["error"] == "") == [True, *[False] * 7]


def forged(name: str, make: Callable[[Any, int], Any]) -> Callable[[Any, Any], Any]:
    """A change of one column of a table of Arrow."""

    def change(arrow: Any, pyarrow: Any) -> Any:
        return arrow.set_column(arrow.schema.get_field_index(name), name, make(pyarrow, len(arrow)))

    return change


PARQUET: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "lists": (forged("row", lambda pa, n: pa.array([["file"]] * n)), "row is of another type"),
    "structs": (forged("error", lambda pa, n: pa.array([{"a": 1}] * n)), "error is of another type"),
    "numbers for words": (forged("layer", lambda pa, n: pa.array([1.0] * n)), "layer is of another type"),
    "words for numbers": (forged("size", lambda pa, n: pa.array(["x"] * n)), "size is of another type"),
    "five million rows": (
        lambda arrow, pa: pa.table({"row": pa.array(["file"]).take([0] * 5_000_000)}),
        "4,194,304 rows",
    ),
    "a footer of columns": (
        lambda arrow, pa: pa.table({f"c{i}": [0] for i in range(10_000)}),
        "footer is too long",
    ),
}


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_that_unpacks_to_more_or_to_other_things(name, tmp_path):
    """Fails if a small file fills the RAM, or brings objects where words and numbers belong."""
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow import parquet

    change, said = PARQUET[name]
    path = tmp_path / "t.parquet"
    arrow = pyarrow.Table.from_pandas(many.table(tmp_path), preserve_index=False)
    parquet.write_table(change(arrow, pyarrow), path, compression="zstd")
    assert path.stat().st_size < 10_000_000
    with pytest.raises(BnprobeError, match=said):
        read_table.read_table(path, NAMES, WORDS)


def test_a_long_word_in_every_row_is_held_once(tmp_path: Path):
    """Fails if a word that a file has once becomes a gigabyte of copies."""
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    from pyarrow import parquet

    words = pyarrow.array(["x" * 100_000]).take([0] * 20_000)
    parquet.write_table(pyarrow.table({"error": words}), tmp_path / "t.parquet", store_schema=False)
    table = read_table.read_table(tmp_path / "t.parquet", NAMES, WORDS)
    assert len(table) == 20_000
    assert len({id(word) for word in table["error"]}) == 1
