"""`bnprobe audit`: what the norms of many checkpoints hold, as one table."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnprobe.cli.listed import lines_of
from bnprobe.cli.merge import add_workers
from bnprobe.cli.paths import demand_writable
from bnprobe.errors import BnprobeError
from bnprobe.files import files_in, is_file, is_folder, write_output
from bnprobe.printing import progress, say

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

SAVED_EVERY = 30.0
"""Seconds of work that a killed command loses at most."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    audit = commands.add_parser(
        "audit",
        help="check many checkpoints and write one table: a row per file, a row per norm",
        description="Check every checkpoint of a list (weights only, nothing executed) and write one table: a row per file "
        "with its findings by severity, and a row per norm with its γ and its running statistics. A file that cannot be "
        "read is a row with an error. Files that the table holds already, by path, size and time, are not read again, so a "
        "command that was interrupted goes on where it was.",
    )
    audit.add_argument(
        "list", metavar="LIST", help="text file with one checkpoint per line, or a folder of checkpoints"
    )
    audit.add_argument(
        "-o", "--out", metavar="FILE", required=True, help="table.csv, or table.parquet with pyarrow"
    )
    add_workers(audit, "check files")
    audit.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Audit what the table does not hold yet, write it, and say what is in it."""
    from bnprobe.report.audit import FILE, NORM, table_of
    from bnprobe.report.numbers import count

    out, paths = Path(options.out), listed(Path(options.list))
    demand_writable([out], [*paths, options.list])
    known = _known(out)
    keys = [_key(path) for path in paths]
    todo = [path for path, key in zip(paths, keys, strict=True) if _mark(key) not in known]

    def whole() -> pd.DataFrame:
        return table_of([row for key in keys for row in known.get(_mark(key), [])])

    saved = time.monotonic()
    try:
        for rows in _audited(todo, options.workers):
            known[_mark(rows[0])] = rows
            if time.monotonic() - saved > SAVED_EVERY:
                _write(whole(), out)
                saved = time.monotonic()
    finally:
        table = whole()
        _write(table, out)
    files = table[table["row"] == FILE]
    bad, critical = int((files["error"] != "").sum()), int((files["critical"].fillna(0) > 0).sum())
    say(
        f"table: {out} ({count(len(files), 'file')}, {count(int((table['row'] == NORM).sum()), 'norm')}; {bad:,} could not "
        f"be checked, {critical:,} with critical findings)"
    )
    return 0


def listed(path: Path) -> list[str]:
    """The checkpoints of a list or a folder. Raises BnprobeError where there are none."""
    from bnprobe.recording.codec import CHECKPOINTS

    if is_folder(path):
        paths = sorted(str(file) for ending in CHECKPOINTS for file in files_in(path, ending))
    else:
        paths = lines_of(path, "checkpoint")
    if not paths:
        raise BnprobeError(f"{path} lists no checkpoints. Write one file per line ({' '.join(CHECKPOINTS)}).")
    return list(dict.fromkeys(paths))


def _known(out: Path) -> dict[tuple[Any, ...], list[Row]]:
    """The rows of a table that is there already, by the file that they are about."""
    from bnprobe.report.audit import NAMES, WORDS, demand_audit
    from bnprobe.report.formats.read_table import read_table
    from bnprobe.report.formats.tables import demand_format

    demand_format(out)
    held = demand_audit(read_table(out, NAMES, WORDS), str(out)).to_dict("records") if is_file(out) else []
    known: dict[tuple[Any, ...], list[Row]] = {}
    for row in ({str(name): value for name, value in one.items()} for one in held):
        known.setdefault(_mark(row), []).append(row)
    return known


def _key(path: str) -> Row:
    """Path, size and time of a checkpoint; of a folder those of its files together."""
    source = Path(path)
    try:
        inside = files_in(source, "") if is_folder(source) else [source]
        found = [file.stat() for file in inside]
    except (OSError, ValueError):
        found = []
    size, modified = sum(one.st_size for one in found), max((one.st_mtime_ns for one in found), default=0)
    return {"path": path, "size": size, "modified": modified}


def _mark(row: Row) -> tuple[Any, ...]:
    return row["path"], int(row["size"]), int(row["modified"])


def _audited(paths: Sequence[str], workers: int) -> Iterator[list[Row]]:
    """The rows of each file, as they come."""
    from bnprobe.scaling.processes import processes

    with (
        progress(len(paths), "checking", "files") as bar,
        processes(workers) if workers > 1 and len(paths) > 1 else nullcontext() as pool,
    ):
        for rows in pool.map(audit_file, paths, chunksize=4) if pool else map(audit_file, paths):
            bar.update(1)
            yield rows


def audit_file(path: str) -> list[Row]:
    """The rows of one checkpoint: what a worker process does. What cannot be checked is a row, too."""
    from bnprobe.checkpoints.check import check
    from bnprobe.report.audit import FILE, rows_of

    key = _key(path)
    try:
        return rows_of(check(path), key)
    except Exception as error:  # one odd file must not end a day of work
        kind = "" if isinstance(error, BnprobeError) else f"unexpected {type(error).__name__}: "
        return [{**key, "row": FILE, "error": kind + " ".join(str(error).split())}]


def _write(table: pd.DataFrame, out: Path) -> None:
    from bnprobe.report.audit import COLUMNS
    from bnprobe.report.formats.tables import to_files

    (content,) = to_files({"audit": table}, out.suffix[1:], COLUMNS).values()
    write_output(out, content)
