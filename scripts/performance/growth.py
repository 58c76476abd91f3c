"""How time and RAM of `bnprobe check` grow with norms, channels and tensors: whole processes, from start to exit.

    python -m scripts.performance.growth                       # writes reports/growth.csv
    python -m scripts.performance.growth --only norms 1000     # one of its lines, printed and made again there

Files are made in a temporary folder, with vectors that no two norms share. Those of a 70B language model are sparse: true
headers and norms, and holes where its 141 GB of matrices would be. CPU seconds, since a machine may be shared.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save_file

REPORT = Path("reports/growth.csv")
CHANNELS = 8

WIDTH, HIDDEN, KEYS, VOCABULARY, BLOCKS, SHARDS = 8192, 28672, 1024, 128_256, 80, 30
"""Sizes of a Llama of 70B parameters."""


def norms(n: int, folder: Path, channels: int = CHANNELS) -> Path:
    """Batch norms of a few channels each."""
    rng = np.random.default_rng(0)
    state = {}
    for i in range(n):
        for name in ("weight", "bias", "running_mean"):
            state[f"l{i}.{name}"] = rng.normal(size=channels).astype(np.float32)
        state[f"l{i}.running_var"] = (rng.random(channels) + 0.5).astype(np.float32)
    save_file(state, folder / "model.safetensors")
    return folder / "model.safetensors"


def channels(n: int, folder: Path) -> Path:
    """Ten batch norms, with so many channels in all."""
    return norms(10, folder, n // 10)


def tensors(n: int, folder: Path) -> Path:
    """Two norms and a header of so many tensors, without a number each."""
    entries = {f"layers.{i}.weight": ("F32", [0]) for i in range(n - 4)}
    vectors = {f"norm{i}.{name}": ("F32", [CHANNELS]) for i in range(2) for name in ("weight", "bias")}
    return _sparse(folder / "model.safetensors", entries | vectors, np.ones(CHANNELS, np.float32))


def shards(n: int, folder: Path) -> Path:
    """An index of so many shards of a large language model; holes in place of matrices."""
    vector = (np.random.default_rng(0).normal(1, 0.1, WIDTH).astype(np.float32).view(np.uint32) >> 16).astype(
        np.uint16
    )
    names = {"model.embed_tokens.weight": [VOCABULARY, WIDTH]}
    for i in range(BLOCKS):
        block = f"model.layers.{i}"
        names |= {f"{block}.self_attn.{x}_proj.weight": [WIDTH, WIDTH] for x in "qo"}
        names |= {f"{block}.self_attn.{x}_proj.weight": [KEYS, WIDTH] for x in "kv"}
        names |= {f"{block}.mlp.{x}_proj.weight": [HIDDEN, WIDTH] for x in ("gate", "up")}
        names[f"{block}.mlp.down_proj.weight"] = [WIDTH, HIDDEN]
        names |= {f"{block}.{x}_layernorm.weight": [WIDTH] for x in ("input", "post_attention")}
    names |= {"model.norm.weight": [WIDTH], "lm_head.weight": [VOCABULARY, WIDTH]}
    place = {
        name: f"model-{1 + n * i // len(names):05}-of-{n:05}.safetensors" for i, name in enumerate(names)
    }
    for file in sorted(set(place.values())):
        entries = {name: ("BF16", shape) for name, shape in names.items() if place[name] == file}
        _sparse(folder / file, entries, vector)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    return folder / "model.safetensors.index.json"


def _sparse(path: Path, entries: dict[str, tuple[str, list[int]]], vector: np.ndarray) -> Path:
    """A file whose tensors of one dimension are `vector`, and whose others are holes."""
    header, end = {}, 0
    for name, (dtype, shape) in entries.items():
        size = int(np.prod(shape)) * vector.itemsize
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in header.values():
            if entry["shape"] == [len(vector)]:
                file.seek(8 + len(text) + entry["data_offsets"][0])
                file.write(vector.tobytes())
        file.truncate(8 + len(text) + end)
    return path


MAKERS: dict[str, Callable[[int, Path], Path]] = {
    "norms": norms,
    "channels": channels,
    "tensors": tensors,
    "shards": shards,
}
LINES = (
    *(("norms", n) for n in (1_000, 5_000, 20_000)),
    *(("channels", n) for n in (10_000, 100_000, 1_000_000)),
    *(("tensors", n) for n in (10_000, 100_000, 1_000_000)),
    ("shards", SHARDS),
)


class Cost(NamedTuple):
    """What one process took, and what it said last if it refused."""

    what: str
    n: int
    cpu_s: float
    wall_s: float
    peak_mb: int
    file_gb: float
    refused: str


def cost(what: str, n: int) -> Cost:
    """`bnprobe check` of one file, from start to exit."""
    with tempfile.TemporaryDirectory() as place:
        path, said = MAKERS[what](n, Path(place)), Path(place, "said.txt")
        size = sum(file.stat().st_size for file in Path(place).iterdir())
        began = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
            os.execv(sys.executable, [sys.executable, "-m", "bnprobe", "check", str(path)])
        _, status, usage = os.wait4(pid, 0)
        refused = (
            said.read_text().replace(place, "").strip() if os.waitstatus_to_exitcode(status) == 2 else ""
        )
        return Cost(
            what,
            n,
            round(usage.ru_utime + usage.ru_stime, 2),
            round(time.perf_counter() - began, 2),
            usage.ru_maxrss // 1024,
            round(size / 1e9, 3),
            refused,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs=2, metavar=("WHAT", "N"), help=f"one of {', '.join(MAKERS)}, and how many"
    )
    options = parser.parse_args()
    if options.only:
        lines: Sequence[tuple[str, int]] = [(options.only[0], int(options.only[1]))]
    else:
        lines = LINES
    for what, n in lines:
        row = cost(what, n)
        print(row, flush=True)
        if (what, n) in LINES:
            write_row(row)


def write_row(row: Cost) -> None:
    """Put a row in its place in the report, which has those of `LINES` in their order, as far as they were made."""
    with REPORT.open(newline="") as file:
        _, *known = csv.reader(file)
    rows = {(what, int(n)): [what, n, *rest] for what, n, *rest in known} | {
        (row.what, row.n): list(map(str, row))
    }
    with REPORT.open("w", newline="") as file:
        csv.writer(file).writerows([Cost._fields, *(rows[line] for line in LINES if line in rows)])


if __name__ == "__main__":
    main()
