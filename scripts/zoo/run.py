"""Try the probe on every architecture of a library: attach, forward, backward, tables, page, and nothing changed.

    python -m scripts.zoo                          # all of torchvision: some seven minutes on two cores
    python -m scripts.zoo "resnet*" swin_t         # these; other rows of the table stay as they are
    python -m scripts.zoo --library timm           # a sample by family; transformers likewise

Weights are random, inputs the smallest that an architecture accepts, every model has a process of its own.
Each is run bare and with the probe: outputs, gradients, buffers and random state must be the same to the bit.
No rule may warn of a network that was never trained, but for those that speak of the batch.
Writes OUT.csv, a row per model, and OUT.md, a row per family. Exits with 1 when a model is not as expected.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import multiprocessing
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tqdm import tqdm

from scripts.zoo.entries import Entry, torchvision_entries
from scripts.zoo.samples import timm_entries, transformers_entries
from scripts.zoo.table import merge, read, write_csv, write_markdown
from scripts.zoo.trial import ATTACHED, OK, REFUSED, Row, try_model

LIBRARIES = {"torchvision": torchvision_entries, "timm": timm_entries, "transformers": transformers_entries}
AS_EXPECTED = (OK, REFUSED, ATTACHED)

LOADED_ONCE = (
    "bnprobe.reductions.cpu.engine",
    "bnprobe.report.result",
    "bnprobe.report.formats.html",
    "bnprobe.report.figures",
    "seaborn",
)
"""What every trial comes to need, and what takes as long to load as a small model to be tried."""


def main() -> int:
    options = _options()
    if importlib.util.find_spec(options.library) is None:
        print(f"{options.library} is not installed: pip install bnprobe[zoo]", file=sys.stderr)
        return 2
    entries = LIBRARIES[options.library]()
    wanted = [e for e in entries if any(fnmatchcase(e.name, pattern) for pattern in options.patterns)]
    if not wanted:
        print(f"no model of {options.library} matches {' '.join(options.patterns)}", file=sys.stderr)
        return 2
    rows, started, table = [], time.perf_counter(), options.out.with_suffix(".csv")
    with tqdm(total=len(wanted), unit=" models", disable=None) as bar:
        for row in trials(wanted, options.jobs, options.threads, options.timeout, options.whole_pages):
            rows.append(row)
            bar.update()
            bar.write(
                f"{row.model:<42} {row.norms:>4} norms {row.seconds:>6.1f} s  {row.outcome}  {_why(row)}".rstrip()
            )
            # at once, so that an interrupted run keeps what it has
            write_csv(merge(read(table), [row], [e.name for e in entries]), table)
    write_markdown(
        read(table), options.out.with_suffix(".md"), f"python -m scripts.zoo --library {options.library}"
    )
    odd = [row.model for row in rows if row.outcome not in AS_EXPECTED]
    print(
        f"{len(rows) - len(odd)} of {len(rows)} as expected in {time.perf_counter() - started:.0f} s; "
        f"{options.out.with_suffix('.md')}" + (f"; not as expected: {', '.join(odd)}" if odd else "")
    )
    return 1 if odd else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "patterns", nargs="*", default=["*"], metavar="PATTERN", help="names or shell patterns (default: all)"
    )
    parser.add_argument(
        "--library",
        choices=sorted(LIBRARIES),
        default="torchvision",
        help="whose models (default torchvision)",
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="models at a time (default 2)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads per model (default 1)")
    parser.add_argument(
        "--timeout", type=float, default=300, metavar="SECONDS", help="per model (default 300)"
    )
    parser.add_argument(
        "--whole-pages", action="store_true", help="draw every site of every page (an hour), not a dozen each"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="the tables, without a suffix (default reports/zoo[_LIBRARY])",
    )
    options = parser.parse_args()
    options.out = options.out or Path(
        "reports", "zoo" if options.library == "torchvision" else f"zoo_{options.library}"
    )
    return options


def _why(row: Row) -> str:
    return row.says if row.outcome not in AS_EXPECTED else ""


def trials(entries: list[Entry], jobs: int, threads: int, timeout: float, whole: bool) -> Iterator[Row]:
    """A row per entry as they end, each from a process of its own: memory goes back, and a crash costs one row."""
    # forked, so that libraries are loaded once; nothing here has computed, so there are no threads to lose
    fork = multiprocessing.get_context("fork")
    for name in LOADED_ONCE:
        importlib.import_module(name)
    queue, running = list(entries), {}
    while queue or running:
        while queue and len(running) < jobs:
            entry = queue.pop(0)
            ours, theirs = fork.Pipe(duplex=False)
            process = fork.Process(target=_child, args=(entry, threads, whole, theirs))
            process.start()
            theirs.close()
            running[ours] = entry, process, time.perf_counter()
        ready = wait(list(running), timeout=1.0)
        for ours in list(running):
            entry, process, since = running[ours]
            late = time.perf_counter() - since > timeout
            if ours not in ready and not late:
                continue
            row = _received(ours, entry, process, time.perf_counter() - since) if ours in ready else None
            if row is None:
                process.kill()
                row = Row(entry.name, entry.library, entry.family, f"failed: took more than {timeout:g} s")
            process.join()
            del running[ours]
            yield row


def _received(ours: Connection, entry: Entry, process: multiprocessing.Process, seconds: float) -> Row:
    try:
        return ours.recv()
    except EOFError:
        process.join()
        return Row(
            entry.name,
            entry.library,
            entry.family,
            f"failed: ended with {process.exitcode}",
            seconds=round(seconds, 1),
        )


def _child(entry: Entry, threads: int, whole: bool, theirs: Connection) -> None:
    import torch

    torch.set_num_threads(threads)
    theirs.send(try_model(entry, whole))


if __name__ == "__main__":
    sys.exit(main())
