"""Attacks on commands that read many files: parts of a whole, lists of checkpoints and of shards, and tables of an audit."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from attacks import recordings
from attacks.found import Attack, checkpoint
from bnprobe.cli.audit import audit_file
from bnprobe.report.audit import table_of

ESCAPES = "a\x1b[2J\nbnprobe: fine\u202e"


def part(folder: Path, name: str = "a.bnp", **changes: Any) -> Path:
    """A sound recording, but for entries of its manifest."""
    return recordings.forged(folder, lambda tree, arrays: tree.update(changes)).rename(folder / name)


def merged(*names: str, out: str = "whole.bnp", before: Callable[[Path], object] = id) -> Attack:
    """Parts of these names, of which the first is a recording."""

    def attack(folder: Path) -> Sequence[str | Path]:
        part(folder)
        before(folder)
        return "merge", folder / "a.bnp", *(folder / name for name in names), "-o", folder / out

    return attack


def counted(**source: Any) -> Attack:
    """A part that says of itself that it is one of very many."""

    def attack(folder: Path) -> Sequence[str | Path]:
        path = part(folder, sources=[{"name": ESCAPES, "kind": "rank", **source}])
        return "merge", path, "-o", folder / "out" / "whole.bnp"

    return attack


def of_many_parts(folder: Path) -> Sequence[str | Path]:
    """As many parts as there is room for, of three bytes each."""
    return "merge", part(folder, sources=[{}] * 300_000), "-o", folder / "whole.bnp"


def same_samples(folder: Path) -> Sequence[str | Path]:
    """Two parts that may not be merged, one of them with a name that a terminal obeys."""
    one = part(folder, f"{ESCAPES}.bnp")
    return "merge", one, part(folder), "-o", folder / "whole.bnp"


def shards(lines: bytes, out: str = "out", before: Callable[[Path], object] = id) -> Attack:
    """A list of shards."""

    def attack(folder: Path) -> Sequence[str | Path]:
        (folder / "list").write_bytes(lines)
        before(folder)
        model = ("record", "attacks.sandbox:tiny", "--size", "16")
        return *model, "--shards", folder / "list", "--out", folder / out

    return attack


def in_place(kind: Callable[[Path], object], name: str) -> Callable[[Path], None]:
    """What puts something else where a file belongs."""

    def put(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).parent.mkdir(exist_ok=True)
        kind(folder / name)

    return put


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def audited(out: str, before: Callable[[Path], object]) -> Attack:
    def attack(folder: Path) -> Sequence[str | Path]:
        checkpoint(folder)
        before(folder)
        (folder / "list").write_text(f"{folder / 'a.pt'}\n")
        return "audit", folder / "list", "-o", folder / out

    return attack


def against(name: str, before: Callable[[Path], object]) -> Attack:
    def attack(folder: Path) -> Sequence[str | Path]:
        checkpoint(folder)
        before(folder)
        return "check", folder / "a.pt", "--against", folder / name

    return attack


def table(folder: Path) -> pd.DataFrame:
    return table_of(audit_file(str(checkpoint(folder))))


def column(name: str, value: Any) -> Callable[[Path], None]:
    """A table of an audit with another column."""

    def write(folder: Path) -> None:
        table(folder).astype(object).assign(**{name: value}).to_csv(folder / "t.csv", index=False)

    return write


def text(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "t.csv").write_bytes(content)


def odd_checkpoints(folder: Path) -> Sequence[str | Path]:
    """A list of everything that is no checkpoint, and of one."""
    checkpoint(folder)
    os.mkfifo(folder / "pipe.pt")
    (folder / "folder.pt").mkdir()
    device(folder / "device.pt")
    (folder / "loop.pt").symlink_to(folder / "loop.pt")
    names = ("a", "pipe", "folder", "device", "loop", "zero\0byte", "x" * 5000, ESCAPES.replace("\n", ""))
    (folder / "list").write_text("".join(f"{folder / name}.pt\n" for name in names))
    return "audit", folder / "list", "-o", folder / "out" / "t.csv"


REFUSED: dict[str, tuple[Attack, str]] = {
    "a pipe among parts": (
        merged("p.bnp", before=in_place(os.mkfifo, "p.bnp")),
        "not a regular file but a pipe",
    ),
    "a device among parts": (
        merged("p.bnp", before=in_place(device, "p.bnp")),
        "not a regular file but a device",
    ),
    "a whole that is a link to a part": (
        merged(out="l.bnp", before=lambda folder: (folder / "l.bnp").symlink_to(folder / "a.bnp")),
        "is what is read, and would be replaced",
    ),
    "a whole on a full disk": (
        merged(out="../../../../../../../../dev/full"),
        "not a regular file but a device",
    ),
    "a part of very many": (of_many_parts, "a list of 300,000, and 262,144 are the most"),
    "samples twice": (same_samples, r"a\\x1b\[2J bnprobe: fine\\u202e.bnp and a.bnp hold the same samples"),
    "a list that is a pipe": (
        shards(b"", before=in_place(os.mkfifo, "list")),
        "not a regular file but a pipe",
    ),
    "a list without end": (shards(b"", before=in_place(device, "list")), "not a regular file but a device"),
    "a list of bytes": (shards(b"\xff\xfe\0\0"), "no text"),
    "a list of two million": (shards(b"a\n" * 2**21), "more than the 1,048,576 lines that are read"),
    "a shard that nothing can be called": (
        shards(b"a\0b\n"),
        r"a\\x00b: there is no such folder and no such regular file",
    ),
    "an output that nothing can be called": (shards(b".\n", out="a\0b"), "no file can have this name"),
    "a whole that is a pipe": (
        shards(b".\n", before=in_place(os.mkfifo, "out/whole.bnp")),
        "not a regular file but a pipe",
    ),
    "a table that is a pipe": (
        audited("t.csv", in_place(os.mkfifo, "t.csv")),
        "not a regular file but a pipe",
    ),
    "a table without sizes": (audited("t.csv", column("size", None)), "a row is not as one writes it"),
    "a table of infinite files": (audited("t.csv", column("size", "inf")), "a row is not as one writes it"),
    "a table of large files": (audited("t.csv", column("size", 10**30)), "a row is not as one writes it"),
    "a table of other rows": (audited("t.csv", column("row", "x")), "a row is not as one writes it"),
    "a table of words": (against("t.csv", column("gamma_abs_median", "<script>")), "Unable to parse string"),
    "a table that never begins": (against("t.csv", text(bytes(10**6))), "does not begin with the names of"),
    "a table of ten million columns": (
        against("t.csv", text(b"," * 10**7 + b"\n")),
        "does not begin with the",
    ),
    "a table of five million rows": (
        against("t.csv", text(b"row\n" + b"\n" * 5_000_000)),
        "more than 4,194,304 rows",
    ),
    "a table without end": (against("t.csv", in_place(device, "t.csv")), "not a regular file but a device"),
}
"""Each ends in one line that says so."""

JUDGED: dict[str, Attack] = {
    "one of a billion": counted(index=7, of=10**9),
    "one beyond counting": counted(index=10**30, of=10**31),
    "one before the first": counted(index=-1, of=4),
    "odd checkpoints": odd_checkpoints,
}
"""Each is worked on like any other file."""
