"""`bnprobe audit`: what the norms of many checkpoints hold, as one table."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnprobe.cli.listed import lines_of
from bnprobe.cli.paths import demand_writable, output_file
from bnprobe.cli.workers import add_engine, add_workers
from bnprobe.errors import BnprobeError
from bnprobe.files import Journal, Url, files_in, is_file, is_folder, place_of, write_output_by
from bnprobe.garbage import collector_paused
from bnprobe.printing import progress, say

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


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
        "list",
        metavar="LIST",
        help="text file with one checkpoint or address per line, or a folder of checkpoints; with --page also a table",
    )
    audit.add_argument(
        "-o", "--out", type=output_file, metavar="FILE", help="table.csv, or table.parquet with pyarrow"
    )
    audit.add_argument(
        "--page",
        type=output_file,
        metavar="FILE",
        help="write an atlas of the table: distributions over checkpoints, and which are unlike the others",
    )
    add_workers(audit, "check files")
    add_engine(audit, "files")
    audit.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Audit what the table does not hold yet, write it, and say what is in it; or a page of a table that is there."""
    from bnprobe.report.formats.tables import FORMATS

    page = Path(options.page) if options.page else None
    if Path(options.list).suffix[1:] in FORMATS and page is not None and not options.out:
        demand_writable([page], [options.list])
        _write_page(Path(options.list), page)
        return 0
    if not options.out:
        raise BnprobeError("the table needs a name. Give -o table.parquet, or a table and --page FILE.")
    _audit(Path(options.out), page, options)
    return 0


def _write_page(table: Path, page: Path) -> None:
    from bnprobe.report.atlas_page import page as atlas
    from bnprobe.report.audit import NAMES, WORDS, demand_audit
    from bnprobe.report.formats.html import to_html
    from bnprobe.report.formats.read_table import read_table

    rows = demand_audit(read_table(table, NAMES, WORDS), str(table))
    content = to_html(atlas(rows, table.name), None).encode()
    write_output_by(page, lambda file: file.write(content))
    say(f"page: {page}")


def _audit(out: Path, page: Path | None, options: argparse.Namespace) -> None:
    """The table, and the page where one is asked for."""
    from bnprobe.report.formats.tables import demand_format

    paths = listed(Path(options.list))
    demand_writable([out, page], [*paths, options.list])
    demand_format(out)
    marks = {shown(path): _mark(key) for path, key in zip(paths, _keys(paths), strict=True)}
    with Journal(out) as journal:
        _take_over(journal, out, marks)
        todo = [path for path in paths if journal.mark(shown(path)) != marks[shown(path)]]
        try:
            for rows in _audited(todo, options.workers, options.engine):
                _keep(journal, rows)
        finally:
            files = _write(out, marks, journal)
        journal.remove()
    say(f"table: {out} ({files})")
    if page is not None:
        _write_page(out, page)


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


def shown(path: str) -> str:
    """How a checkpoint is called in the table: an address without what may be secret in it."""
    place = place_of(path)
    return str(place) if isinstance(place, Url) else path


def _keys(paths: Sequence[str]) -> list[Row]:
    """Those of addresses are asked for, several at a time."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_key, paths))


def _key(path: str) -> Row:
    """Path, size and time of a checkpoint, of an address the etag; of a folder those of its files together."""
    source = place_of(path)
    if isinstance(source, Url):
        try:
            ranges = source.ranges()
        except BnprobeError:  # which will be said when it is checked
            return {"path": str(source), "size": 0, "modified": 0, "etag": ""}
        return {"path": str(source), "size": ranges.size, "modified": 0, "etag": ranges.version}
    try:
        inside = files_in(source, "") if is_folder(source) else [source]
        found = [file.stat() for file in inside]
    except (OSError, ValueError):
        found = []
    size, modified = sum(one.st_size for one in found), max((one.st_mtime_ns for one in found), default=0)
    return {"path": path, "size": size, "modified": modified, "etag": ""}


def _mark(row: Row) -> list[Any]:
    """What a file that was audited is known by again."""
    return [int(row["size"]), int(row["modified"]), row["etag"]]


def _keep(journal: Journal, rows: list[Row]) -> None:
    """Write down the rows of a checkpoint; a server that failed is asked again the next time."""
    path = str(rows[0]["path"])
    journal.add(path, None if "://" in path and rows[0]["error"] else _mark(rows[0]), rows)


def _take_over(journal: Journal, out: Path, marks: Mapping[str, list[Any]]) -> None:
    """The rows of the table that is there already, of files that are as they were. Raises BnprobeError where it is another
    table."""
    from bnprobe.report.audit import FILE, NAMES, WORDS, demand_audit
    from bnprobe.report.formats.read_table import read_pieces

    def keep(rows: list[Row]) -> None:
        mark = marks.get(str(rows[0]["path"])) if rows else None
        if mark is not None and mark == _mark(rows[0]) != journal.mark(rows[0]["path"]):
            _keep(journal, rows)

    held: list[Row] = []
    for piece in read_pieces(out, NAMES, WORDS) if is_file(out) else ():
        table = demand_audit(piece, str(out))
        for row in table.astype(object).where(table.notna(), None).to_dict("records"):
            if row["row"] == FILE:
                keep(held)
                held = []
            held.append({str(name): value for name, value in row.items() if value is not None})
    keep(held)


def _audited(paths: Sequence[str], workers: int, engine: str) -> Iterator[list[Row]]:
    """The rows of each file, as they come."""
    audited = _by_ray if engine == "ray" else _by_processes
    with progress(len(paths), "checking", "files") as bar:
        for rows in audited(paths, workers):
            bar.update(1)
            yield rows


def _by_processes(paths: Sequence[str], workers: int) -> Iterator[list[Row]]:
    from bnprobe.scaling.processes import processes

    with processes(workers) if workers > 1 and len(paths) > 1 else nullcontext() as pool:
        yield from pool.map(audit_file, paths, chunksize=4) if pool else map(audit_file, paths)


def _by_ray(paths: Sequence[str], workers: int) -> Iterator[list[Row]]:
    from bnprobe.scaling.on_ray import Tasks, results_on_ray

    tasks = Tasks(partial(_audit_from, os.getcwd()), shown, "give fewer --workers")
    for _, rows in results_on_ray(paths, tasks, workers):
        yield rows


def _audit_from(folder: str, path: str) -> list[Row]:
    """As `audit_file`, in a process that began elsewhere: a list names files as they are named where the command runs."""
    with suppress(OSError):  # of a machine that has no such folder: what is named in full may be there
        os.chdir(folder)
    return audit_file(path)


def audit_file(path: str) -> list[Row]:
    """The rows of one checkpoint: what a worker process does. What cannot be checked is a row, too."""
    from bnprobe.checkpoints.check import check
    from bnprobe.report.audit import FILE, rows_of

    key = _key(path)
    try:
        with collector_paused():
            return rows_of(check(path), key)
    except Exception as error:  # one odd file must not end a day of work
        kind = "" if isinstance(error, BnprobeError) else f"unexpected {type(error).__name__}: "
        return [{**key, "row": FILE, "error": kind + " ".join(str(error).split())}]


def _write(out: Path, paths: Iterable[str], journal: Journal) -> str:
    """The table of all results there are, in the order of the list, and what is in it, in words."""
    from bnprobe.report.audit import COLUMNS, FILE, table_of
    from bnprobe.report.formats.tables import PIECE, write_pieces
    from bnprobe.report.numbers import count

    n = {"files": 0, "norms": 0, "bad": 0, "critical": 0}

    def pieces() -> Iterator[pd.DataFrame]:
        rows: list[Row] = []
        for path in paths:
            if path not in journal:
                continue
            rows += (found := journal.result(path))
            n["files"] += 1
            n["norms"] += sum(row["row"] != FILE for row in found)
            n["bad"] += bool(found[0]["error"])
            n["critical"] += found[0].get("critical", 0) > 0
            if len(rows) >= PIECE:
                yield table_of(rows)
                rows = []
        yield table_of(rows)

    write_output_by(out, lambda file: write_pieces(file, pieces(), out.suffix[1:], COLUMNS, "audit"))
    return (
        f"{count(n['files'], 'file')}, {count(n['norms'], 'norm')}; {n['bad']:,} could not be checked, "
        f"{n['critical']:,} with critical findings"
    )
