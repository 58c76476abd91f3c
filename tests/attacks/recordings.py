"""Recordings whose manifest lies, with every digest made to fit: what an attacker can do who has read the source."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save as pack
from torch import nn

import bnprobe

Tree = dict[str, Any]
Arrays = dict[str, np.ndarray]


@cache
def base() -> tuple[str, dict[str, tuple[tuple[int, ...], bytes]]]:
    """The text and the numbers of a sound recording in which every field is in use."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.Flatten()
    )
    batches = [(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])) for _ in range(2)]
    normalize = ((0.5,) * 3, (0.2,) * 3)
    recording = bnprobe.record(
        model,
        batches,
        nn.functional.cross_entropy,
        normalize=normalize,
        exemplars=2,
        captions=[Path(f"{i}.png") for i in range(8)],
    )
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = recording.save(Path(folder, "a.bnp"))
        with safe_open(path, framework="numpy") as file:
            # counts may lie in fewer bytes, and may as well have eight
            arrays = {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}  # noqa: SIM118
            text = file.metadata()["recording"]
    return text, {name: (array.shape, array.tobytes()) for name, array in arrays.items()}


def sound() -> tuple[Tree, Arrays]:
    text, arrays = base()
    return json.loads(text), {n: np.frombuffer(b).reshape(shape).copy() for n, (shape, b) in arrays.items()}


def forged(folder: Path, change: Callable[[Tree, Arrays], None], text: str | None = None) -> Path:
    tree, arrays = sound()
    change(tree, arrays)
    text = json.dumps(tree) if text is None else text
    digests = {name: _digest(array.tobytes()) for name, array in arrays.items()}
    metadata = {
        "format": "bnprobe recording",
        "schema": "1",
        "recording": text,
        "digest": _digest(text.encode()),
        "digests": json.dumps(digests),
    }
    (folder / "a.bnp").write_bytes(pack(arrays, metadata=metadata))
    return folder / "a.bnp"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def put(*path: Any, value: Any) -> Callable[[Path], Path]:
    """A recording with one entry of its manifest replaced."""

    def change(tree: Any, arrays: Arrays) -> None:
        for step in path[:-1]:
            tree = tree[step]
        tree[path[-1]] = value

    return lambda folder: forged(folder, change)


def fill(name: str, value: float) -> Callable[[Path], Path]:
    """A recording with all numbers of an array replaced."""

    def change(tree: Tree, arrays: Arrays) -> None:
        arrays[name][:] = value

    return lambda folder: forged(folder, change)


def written(content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "a.bnp").write_bytes(content)
        return folder / "a.bnp"

    return write


def raw(text: str) -> Callable[[Path], Path]:
    return lambda folder: forged(folder, lambda tree, arrays: None, text)


def named(folder: Path, place: tuple[Any, ...], name: str) -> Path:
    """A recording with one text replaced."""

    def change(tree: Any, arrays: Arrays) -> None:
        tree["about"]["notes"] = [""]
        for step in place[:-1]:
            tree = tree[step]
        tree[place[-1]] = name

    return forged(folder, change)


FIRST = "recording/layers/0"
RECORDINGS: dict[str, Callable[[Path], Path]] = {
    "nothing": written(b""),
    "a page": written(b"<!DOCTYPE html><script>alert(1)</script>"),
    "a pickle": written(b"cos\nsystem\n(S'touch ran'\ntR."),
    "a zip": written(b"PK\3\4" + bytes(99)),
    "a header of 2^60 bytes": written(struct.pack("<Q", 2**60) + b"{}"),
    "a header that is not there": written(struct.pack("<Q", 99)),
    "brackets": raw("[" * 500_000),
    "objects": raw('{"a":' * 200_000 + "1" + "}" * 200_000),
    "a number of a million digits": raw('{"about": 1' + "0" * 10**6 + "}"),
    "a number": raw("7"),
    "null": raw("null"),
    "half a character": raw('{"about": "\\ud800"}'),
    "a name that is half a character": put("about", "model", value="\ud800"),
    "more calls than can be counted": put("layers", 0, "n_calls", value=10**300),
    "fewer than no calls": put("layers", 0, "n_calls", value=-3),
    "more images than can be counted": put("about", "n_images", value=10**300),
    "fewer than no images": put("layers", 0, "n_images", value=-1),
    "eps is no number": put("layers", 0, "eps", value=float("nan")),
    "eps is endless": put("layers", 0, "eps", value=float("inf")),
    "eps is negative": put("layers", 0, "eps", value=-1.0),
    "momentum is endless": put("layers", 0, "momentum", value=float("inf")),
    "negative time": put("about", "seconds", value=-1.0),
    "no time": put("about", "seconds", value=float("nan")),
    "no layer": put("layers", 0, value=None),
    "a layer is a list": put("layers", 0, value=[]),
    "another pool": put("layers", 0, "pools", value="ocean"),
    "another output": put("layers", 0, "output", value="guessed"),
    "counts are negative": fill(f"{FIRST}/pre_histogram/counts", -1.0),
    "counts are no numbers": fill(f"{FIRST}/pre_histogram/counts", float("nan")),
    "values are endless": fill(f"{FIRST}/pre/mean", float("inf")),
    "fewer than no values": fill(f"{FIRST}/pre/n", -1.0),
    "half a value": fill(f"{FIRST}/pre/n", 0.5),
    "negative positives": fill(f"{FIRST}/n_positive", -1.0),
    "fewer than no bad values": fill(f"{FIRST}/pre_nonfinite", -1.0),
    "negative squares": fill(f"{FIRST}/pre_images/aa", -1.0),
    "images that are no numbers": fill(f"{FIRST}/pre_images/n", float("nan")),
    "fewer than no images in a fold": fill(f"{FIRST}/pre_folds/n", -1.0),
    "a fold's mean without its square": fill(f"{FIRST}/pre_folds/b", 0.0),
    "negative squares within batches": fill(f"{FIRST}/pre_folds/within", -1.0),
    "more batches than calls": put("layers", 0, "pre_folds", "n_batches", value=10**15),
    "fewer than no batches": put("layers", 0, "pre_folds", "n_batches", value=-1),
    "an exemplar that is no sample": fill(f"{FIRST}/exemplars/sample", 10.0**6),
    "half an exemplar": fill(f"{FIRST}/exemplars/sample", 0.5),
    "an exemplar before the first": fill(f"{FIRST}/exemplars/sample", -7.0),
    "an exemplar without a value": fill(f"{FIRST}/exemplars/value", float("nan")),
    "a place before the first": fill(f"{FIRST}/exemplars/position", -1.0),
    "a label below 0": fill("recording/samples/labels", -3.0),
    "samples without a number": fill("recording/samples/numbers", float("nan")),
    "one sample many times": fill("recording/samples/numbers", 1.0),
    "exemplars without samples": put("samples", value=None),
    "negative energy": fill(f"{FIRST}/gradient/energy", -1.0),
}
"""Each is refused."""

EXTREMES: tuple[Any, ...] = (
    *(0, -1, 1, 10**9, 2**63, 10**300, True, None, "", "x" * 50_000, "<script>alert(1)</script>", "\x1b[2J"),
    *(
        0.0,
        -0.0,
        5e-324,
        1.7e308,
        -1.7e308,
        float("nan"),
        float("inf"),
        -float("inf"),
        [],
        {},
        [[]],
        {"array": "x"},
    ),
)


def mutations(n: int, seed: int) -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """Entries and numbers, chosen by chance, replaced with extremes, chosen by chance."""
    rng = random.Random(seed)
    tree, arrays = sound()
    places = list(_places(tree))
    for _ in range(n):
        if rng.random() < 0.6:
            place, value = rng.choice(places), rng.choice(EXTREMES)
            yield f"{'/'.join(map(str, place))} = {str(value)[:30]!r}", put(*place, value=value)
        else:
            name, one = rng.choice(sorted(arrays)), rng.random() < 0.5
            number = rng.choice([value for value in EXTREMES if type(value) is float])
            yield f"{name}[{'0' if one else ':'}] = {number!r}", _number(name, one, number)


def _number(name: str, one: bool, number: float) -> Callable[[Path], Path]:
    def change(tree: Tree, arrays: Arrays) -> None:
        flat = arrays[name].reshape(-1)
        flat[: 1 if one else None] = number

    return lambda folder: forged(folder, change)


def _places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every entry of a manifest, leaves and branches."""
    if at:
        yield at
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from _places(value, (*at, key))
