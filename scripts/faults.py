"""Plant known faults, one at a time, in a copy of the package and demand that the named test fails.

A test that cannot fail proves nothing. tests/faults*.toml list what must be noticed; each entry is a

    [[fault]]
    name    = "a word to select it by"
    file    = "bnprobe/stats/moments.py"
    find    = "text that stands exactly once in the file"
    replace = "what stands there instead"
    breaks  = "what a user would see"
    test    = "tests/stats/test_moments.py::test_merge_weighs_by_count"
    also    = [["more text in the same file", "what stands there instead"]]     # optional

The tree itself is never touched: every worker has its own copy of package and tests. Exits with 1 when a
fault survives, with 2 when the list itself is wrong (text not found, or a test that fails without a fault).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from queue import SimpleQueue

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("bnprobe", "tests", "scripts", "pyproject.toml", "README.md")
PASSED, FAILED, NOT_THE_COPY = 0, 1, 99
"""What a run returns; anything else means that pytest could not run the test at all."""
HEAVY = [
    "numpy",
    "scipy.stats",
    "torch",
    "torchvision",
    "pandas",
    "hypothesis",
    "pytest",
    "safetensors.numpy",
]
"""Imported once for all runs; none of them is ours, so a planted fault is always seen."""


class BadList(Exception):
    """An entry of the list does not fit the code or the tests."""


@dataclass(frozen=True)
class Fault:
    """One planted fault, and the test that must notice it."""

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]
    breaks: str
    test: str

    def plant(self, source: str) -> str:
        """The source with the fault in it; every text must stand there exactly once."""
        for find, replace in self.edits:
            if source.count(find) != 1:
                raise BadList(
                    f"{self.name}: {find!r} stands {source.count(find)} times in {self.file}, not once."
                )
            source = source.replace(find, replace)
        return source


def main() -> int:
    """Read the list, check it against the code, plant every fault, print what became of it."""
    options = parse()
    # some of these import triton, which must know by then that kernels for a GPU run on the CPU here
    os.environ["TRITON_INTERPRET"] = "1"
    multiprocessing.get_context("forkserver").set_forkserver_preload(HEAVY)
    try:
        faults = [fault for path in options.lists for fault in read(path) if chosen(fault, options.pattern)]
        if not faults:
            raise BadList(f"no fault matches {options.pattern!r}.")
        check(faults)
        with copies(options.workers) as desks:
            demand_green(desks[0], faults)
            outcomes = try_all(faults, desks)
    except BadList as error:
        print(f"faults: {error}", file=sys.stderr)
        return 2
    print_table(faults, outcomes)
    return int(any(outcome != "caught" for outcome in outcomes.values()))


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", help='only faults whose name or file matches, as "m4*"'
    )
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="faults tried at a time (default 2)"
    )
    parser.add_argument(
        "--lists",
        type=Path,
        nargs="+",
        default=sorted((ROOT / "tests").glob("faults*.toml")),
        metavar="TOML",
        help="lists of faults (default: every tests/faults*.toml)",
    )
    return parser.parse_args()


def read(path: Path) -> Iterator[Fault]:
    """The faults of one list."""
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("fault", []):
        try:
            edits = (
                (entry["find"], entry["replace"]),
                *((find, text) for find, text in entry.get("also", ())),
            )
            name = entry.get("name") or entry["breaks"]
            yield Fault(name, entry["file"], edits, entry["breaks"], entry["test"])
        except KeyError as missing:
            raise BadList(f"{path.name}: an entry has no {missing}: {entry}") from missing


def chosen(fault: Fault, pattern: str) -> bool:
    """Whether the pattern names the fault or its file."""
    return any(fnmatchcase(text, pattern) for text in (fault.name, fault.file, Path(fault.file).name))


def check(faults: list[Fault]) -> None:
    """Refuse a list that does not fit the code, before anything is run."""
    names = [fault.name for fault in faults]
    for name in names:
        if names.count(name) > 1:
            raise BadList(f"two faults are called {name!r}.")
    for fault in faults:
        planted = fault.plant((ROOT / fault.file).read_text(encoding="utf-8"))
        if fault.file.endswith(".py"):
            compile(planted, fault.file, "exec")


@contextmanager
def copies(n: int) -> Iterator[list[Path]]:
    """Copies of the tree for n workers, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        desks = [Path(folder).resolve() / str(i) for i in range(n)]
        for desk in desks:
            for name in COPIED:
                copy(ROOT / name, desk / name)
        yield desks


def copy(source: Path, target: Path) -> None:
    """A file or a folder, without what Python cached: stale bytecode would hide a fault."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def demand_green(desk: Path, faults: list[Fault]) -> None:
    """Without a fault every named test must pass: else its failure would prove nothing."""
    code, printed = run(desk, sorted({fault.test for fault in faults}))
    if code != PASSED:
        raise BadList(f"tests fail without any fault:\n{printed[-3000:]}")


def try_all(faults: list[Fault], desks: list[Path]) -> dict[str, str]:
    """Plant every fault on whichever desk is free; what became of each, by name."""
    free: SimpleQueue[Path] = SimpleQueue()
    for desk in desks:
        free.put(desk)

    def job(fault: Fault) -> str:
        desk = free.get()
        try:
            return outcome(fault, desk)
        finally:
            free.put(desk)

    with ThreadPoolExecutor(len(desks)) as pool:
        jobs = {pool.submit(job, fault): fault for fault in faults}
        done = tqdm(as_completed(jobs), total=len(jobs), desc="faults", disable=None, unit="fault")
        return {jobs[one].name: one.result() for one in done}


def outcome(fault: Fault, desk: Path) -> str:
    """`caught` when the test fails, `SURVIVED` when it passes, `ERROR` when it could not run."""
    path = desk / fault.file
    original = path.read_text(encoding="utf-8")
    path.write_text(fault.plant(original), encoding="utf-8")
    try:
        code, _ = run(desk, [fault.test])
    finally:
        path.write_text(original, encoding="utf-8")
    return {PASSED: "SURVIVED", FAILED: "caught"}.get(code, "ERROR")


def run(desk: Path, tests: list[str]) -> tuple[int, str]:
    """What pytest returns for these tests, stopping at the first failure, and what it printed.

    A fork of a process that has imported the heavy packages, but nothing of ours: a second instead of six.
    """
    log = desk / "log.txt"
    process = multiprocessing.get_context("forkserver").Process(target=in_child, args=(desk, tests, log))
    process.start()
    process.join()
    return process.exitcode if process.exitcode is not None else -1, log.read_text(encoding="utf-8")


def in_child(desk: Path, tests: list[str], log: Path) -> None:
    """Run pytest on the copy: it comes first on the path, and leaves no bytecode to outlive a fault."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(desk)
    sys.path.insert(0, str(desk))
    os.environ["PYTHONPATH"] = str(desk)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    import pytest

    import bnprobe

    if not Path(bnprobe.__file__).is_relative_to(desk):
        print(f"the copy is not what Python imports, but {bnprobe.__file__}")
        sys.exit(NOT_THE_COPY)
    # what is imported for all runs cannot be rewritten by pytest, and need not be
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "--tb=line", *quiet]
    sys.exit(int(pytest.main([*options, *tests])))


def print_table(faults: list[Fault], outcomes: dict[str, str]) -> None:
    """A line per fault, the survivors last, where they are seen."""
    width = max(len(fault.name) for fault in faults)
    for fault in sorted(faults, key=lambda fault: outcomes[fault.name] != "caught"):
        print(f"{outcomes[fault.name]:9} {fault.name:{width}}  {fault.breaks}")
        if outcomes[fault.name] != "caught":
            print(f"{'':9} {'':{width}}  {fault.file}, expected to fail: {fault.test}")
    n_caught = sum(outcome == "caught" for outcome in outcomes.values())
    print(f"{n_caught} of {len(faults)} faults caught")


if __name__ == "__main__":
    sys.exit(main())
