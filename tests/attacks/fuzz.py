"""Files and arguments at random: whatever comes in, the answer is a report or one line, soon and within a gigabyte.

python -m attacks.fuzz [SECONDS] [SEED], run in tests/: ten minutes unless another number is given.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from attacks import recordings
from attacks.pickles import STATE, zipped
from attacks.sandbox import Sandbox, Verdict

SECONDS, MEGABYTES = 10, 1000
"""What a command may take at most."""

SEED_STATE = {f"{i}.{name}": value.clone() for i in range(2) for name, value in STATE.items()}


ENDINGS = (".pt", ".th", ".safetensors", ".bnp", ".toml", ".baseline", ".index.json")


def seeds(folder: Path) -> dict[str, bytes]:
    """Healthy files of every kind, by the ending that goes with them."""
    zipped_file, legacy = io.BytesIO(), io.BytesIO()
    torch.save(SEED_STATE, zipped_file)
    torch.save(SEED_STATE, legacy, _use_new_zipfile_serialization=False)
    from safetensors.torch import save

    baseline = {
        "format": "bnprobe baseline",
        "schema": 1,
        "findings": [{"fingerprint": "0" * 16, "severity": "info"}],
    }
    return {
        ".pt": zipped_file.getvalue(),
        ".th": legacy.getvalue(),
        ".safetensors": save(SEED_STATE),
        ".bnp": recordings.forged(folder, lambda tree, arrays: None).read_bytes(),
        ".toml": b'ignore = ["data-shifted:a.*"]\n[thresholds]\nshift = 0.3\n',
        ".baseline": json.dumps(baseline).encode(),
        ".index.json": json.dumps({"weight_map": {"0.bn.weight": "a.pt"}}).encode(),
    }


mutation = st.tuples(
    st.sampled_from(["flip", "cut", "insert", "drop", "repeat", "number"]),
    st.floats(0, 1, exclude_max=True),
    st.one_of(
        st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7])
    ),
)


def mutated(content: bytes, changes: Sequence[tuple[str, float, bytes]]) -> bytes:
    for kind, share, part in changes:
        at = int(share * len(content))
        head, tail = content[:at], content[at:]
        content = {
            "flip": head + part + tail[len(part) :],
            "cut": head,
            "insert": head + part + tail,
            "drop": head + tail[len(part) :],
            "repeat": head + tail[:64] * 3 + tail,
            "number": head + struct.pack("<Q", 2 ** (8 * len(part)) - 1) + tail[8:],
        }[kind]
    return content


names = st.one_of(
    st.text(max_size=12), st.sampled_from(["bn.running_mean", "\x1b[2J", "\ud800", "9" * 30, "a.weight"])
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), names, st.integers(2**60, 2**64))
trees: SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)
dtypes = st.sampled_from(["F32", "F64", "F16", "BF16", "I64", "F8_E4M3", "F4", "BOOL", "C64", "X"])
entries = st.fixed_dictionaries(
    {
        "dtype": st.one_of(dtypes, leaves),
        "shape": st.one_of(st.lists(st.integers(0, 9), max_size=3), trees),
        "data_offsets": st.one_of(st.lists(st.integers(0, 80), min_size=2, max_size=2), trees),
    }
)


@st.composite
def pickles(draw: DrawFn) -> bytes:
    """Operations in any order, some of them with arguments of a checkpoint."""
    plain = [bytes([code]) for code in b"().0}]NKatsuebRQ\x85\x86\x87\x88\x89\x81c"]
    made = [
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch\nFloatStorage\n",
        b"ccollections\nOrderedDict\n",
        b"X\x07\x00\x00\x00storage",
        b"K\x04",
        b"\x8a\x08" + b"\xff" * 8,
        b"r\xff\xff\xff\x7f",
        b"q\x00h\x00",
    ]
    body = draw(
        st.lists(st.one_of(st.sampled_from(plain), st.sampled_from(made), st.binary(max_size=3)), max_size=40)
    )
    return b"\x80\x02" + b"".join(body) + b"."


@st.composite
def hostile(draw: DrawFn) -> tuple[str, bytes | list[Any]]:
    """An ending and a content, or how to change a healthy file of that ending."""
    kind = draw(st.sampled_from(["mutated", "mutated", "pickle", "tree", "header", "json"]))
    if kind == "mutated":
        ending = draw(st.sampled_from(ENDINGS))
        return ending, draw(st.lists(mutation, min_size=1, max_size=4))
    if kind == "pickle":
        return ".pkl.pt", draw(pickles())
    if kind == "tree":
        return ".pkl.pt", pickle.dumps(draw(trees), 2)
    if kind == "header":
        header = json.dumps({draw(names): draw(entries) for _ in range(draw(st.integers(0, 4)))}).encode()
        return ".safetensors", struct.pack("<Q", len(header)) + header + draw(st.binary(max_size=80))
    ending = draw(st.sampled_from([".index.json", ".baseline", ".toml"]))
    return ending, json.dumps(draw(trees)).encode()


OPTIONS = {
    ".toml": ("check", "a.pt", "--config", "FILE"),
    ".baseline": ("check", "a.pt", "--baseline", "FILE"),
    ".bnp": ("report", "FILE", "-o", "out.html"),
}


def command(folder: Path, ending: str, content: bytes, form: str) -> list[str]:
    """The file written, and a command that reads it."""
    path = folder / f"f{ending.removeprefix('.pkl')}"
    if ending.startswith(".pkl"):
        zipped(content, path)
    else:
        path.write_bytes(content)
    arguments = OPTIONS.get(ending, ("check", "FILE", "--format", form))
    return [
        str(path) if word == "FILE" else str(folder / word) if word in ("a.pt", "out.html") else word
        for word in arguments
    ]


words = st.one_of(
    st.sampled_from(
        ["a.pt", "a.bnp", "empty", "nothing", "attacks.sandbox:tiny", "-", "--", ".", "", "a.toml"]
    ),
    st.sampled_from(
        ["text", "json", "sarif", "html", "warning", "0", "-1", "1e999", "nan", "9" * 400, "0.5,0.5"]
    ),
    st.text(st.characters(blacklist_characters="/\0"), max_size=12),
    st.sampled_from(
        ["\x1b[2J", "\ud800", "x" * 5000, "a\nb", "a:b:c", "..:x", "*", "[", "out.html", "o.json"]
    ),
)


@st.composite
def commands(draw: DrawFn) -> list[str]:
    """A command with options of its own and of others, each with or without a value. None that trains or fetches."""
    options = st.sampled_from(sorted(OF_COMMANDS))
    given = [draw(st.sampled_from(["check", "report", "compare", "recalibrate", "ablate", "rules", "list"]))]
    given += draw(st.lists(words, max_size=2))
    for option in draw(st.lists(options, max_size=3)):
        given += [option] if draw(st.booleans()) else [option, draw(words)]
    return draw(st.permutations(given)) if draw(st.integers(0, 9)) == 0 else given


OF_COMMANDS = {
    *(
        "--format",
        "-o",
        "--out",
        "--fail-on",
        "--baseline",
        "--write-baseline",
        "--config",
        "--arch",
        "--batches",
    ),
    *(
        "--data",
        "--checkpoint",
        "--limit",
        "--size",
        "--mean",
        "--std",
        "--layers",
        "--loss",
        "--no-histograms",
    ),
    *(
        "--train-mode",
        "--training-batch",
        "--try",
        "--ablate",
        "--budget",
        "--save",
        "--modes",
        "--apply",
        "--debug",
    ),
    *(
        "--help",
        "--version",
        "--batch-size",
        "--workers",
        "--mask",
        "--unit",
        "--phase",
        "--text",
        "--x",
        "--",
    ),
}
"""Options of any command, and some of none."""


def demand_answer(verdict: Verdict) -> None:
    """Raises AssertionError for a traceback, a mistake of ours, a long wait or much RAM."""
    assert verdict.code in (0, 1, 2), verdict.err[-1500:]
    assert "Traceback" not in verdict.err
    assert "unexpected " not in verdict.err.partition("(")[0], verdict.err
    assert all(line.isprintable() for line in (verdict.out + verdict.err).split("\n"))
    assert verdict.code != 2 or verdict.err.count("\n") == 1, verdict.err
    assert verdict.seconds < SECONDS, verdict.seconds
    assert verdict.megabytes < MEGABYTES, verdict.megabytes


def fuzz(sandbox: Sandbox, folder: Path, seconds: float, number: int = 0, most: int = 10**6) -> int:
    """Try for so long, and so many at most; returns how many commands ran."""
    healthy, end, n = seeds(folder), time.monotonic() + seconds, 0
    (folder / "a.pt").write_bytes(healthy[".pt"])

    (folder / "empty").mkdir()
    for name, ending in (("a.bnp", ".bnp"), ("a.toml", ".toml")):
        (folder / name).write_bytes(healthy[ending])

    @seed(number)
    @settings(max_examples=most, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(hostile(), hostile(), hostile(), commands()), st.sampled_from(["text", "json", "sarif"]))
    def one(case: tuple[str, Any] | list[str], form: str) -> None:
        nonlocal n
        if time.monotonic() > end:
            raise _Enough
        n += 1
        if isinstance(case, list):
            demand_answer(
                sandbox.run(*(word for word in case if word != "--debug"), writes=folder, inside=folder)
            )
            return
        ending, what = case
        content = mutated(healthy[ending], what) if isinstance(what, list) else what
        demand_answer(sandbox.run(*command(folder, ending, content, form), writes=folder))

    with contextlib.suppress(_Enough):
        one()
    return n


class _Enough(BaseException):
    """The time is over."""


if __name__ == "__main__":
    box = Sandbox()
    try:
        with tempfile.TemporaryDirectory() as place:
            allowed = [float(word) for word in sys.argv[1:]]
            ran = fuzz(
                box, Path(place), allowed[0] if allowed else 600, int(allowed[1]) if allowed[1:] else 0
            )
        print(f"{ran:,} commands, and each gave an answer")
    finally:
        box.close()
