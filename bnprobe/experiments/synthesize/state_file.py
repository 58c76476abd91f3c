"""A run that can be continued: the images on their way, in a safetensors file that only the same run takes up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save
from torch import Tensor

from bnprobe.errors import BadRecordingFile
from bnprobe.experiments.synthesize.drawing import Drawer, Drawing
from bnprobe.experiments.synthesize.recipe import WAYS
from bnprobe.files import open_input, write_output
from bnprobe.files.header import Entry, read_header

FORMAT = "bnprobe synthesis"
LARGEST = 2**32
"""Bytes that are read: four ways with three tensors each of 64 photographs of 500 pixels by side are a quarter of that."""
LONGEST_RUN = 1e9
"""Seconds, thirty years."""
PARTS = ("values", "mean", "square")
NAMES = {way.name for way in WAYS}


def write_state(path: Path, settings: Mapping[str, Any], drawings: Mapping[str, Drawing]) -> None:
    """Whole or not at all."""
    done = {name: (drawing.step, drawing.seconds, drawing.age) for name, drawing in drawings.items()}
    metadata = {"format": FORMAT, "settings": json.dumps(settings, sort_keys=True), "done": json.dumps(done)}
    tensors = {
        f"{name}/{part}": getattr(drawing, part).detach().cpu().contiguous()
        for name, drawing in drawings.items()
        for part in PARTS
    }
    write_output(path, save(tensors, metadata))


def read_state(path: Path, settings: Mapping[str, Any], drawer: Drawer) -> dict[str, Drawing]:
    """What was drawn, by the names of the ways; nothing where there is no file yet. Any `drawer` of the run knows the sizes.

    Raises BadRecordingFile for a file that is none of ours, or of another run; it is never written over.
    """
    try:
        with open_input(path, LARGEST) as file:
            header = read_header(file)
            if header.metadata.get("format") != FORMAT:
                raise ValueError("it is another kind of file")
            before, done = (_table(header.metadata.get(name, "")) for name in ("settings", "done"))
            differing = [
                name for name in settings if before.get(name) != json.loads(json.dumps(settings[name]))
            ]
            drawings = {} if differing else _drawings(file, header.entries, done, drawer, settings["n"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:150]
        raise BadRecordingFile(
            f"{path}: no state of such a run ({reason}). Name another file as state."
        ) from None
    if differing:
        raise BadRecordingFile(
            f"{path}: is the state of another run, which differs in {', '.join(differing)}. Name another file as state, or "
            "call with the same arguments."
        )
    return drawings


def _table(text: str) -> dict[str, Any]:
    """The table in a text of JSON. Raises ValueError where there is none."""
    try:
        table = json.loads(text)
    except RecursionError:
        raise ValueError("its settings are nested too deep") from None
    if not isinstance(table, dict):
        raise ValueError("its settings are no table")
    return table


def _drawings(
    file: BinaryIO, entries: Mapping[str, Entry], done: Mapping[str, Any], drawer: Drawer, n: int
) -> dict[str, Drawing]:
    """Every way as far as it came. Sizes are known to be right before a number is read; ValueError where they are not."""
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, progress in done.items():
        if name not in NAMES or not _is_progress(progress, drawer.steps):
            raise ValueError("what it says of its steps cannot be")
        expected |= {f"{name}/{part}": ("F32", (n, drawer.pyramid.size)) for part in PARTS}
    if {name: (entry.dtype, entry.shape) for name, entry in entries.items()} != expected:
        raise ValueError("what it holds does not fit together")
    device = drawer.inputs.device
    found = {}
    for name, (step, seconds, age) in done.items():
        values, mean, square = (_tensor(file, entries[f"{name}/{part}"]).to(device) for part in PARTS)
        found[name] = Drawing(values, mean, square, step, float(seconds), age)
    return found


def _is_progress(value: Any, steps: int) -> bool:
    """Whether it is (step, seconds, age) of a run of so many steps."""
    if not isinstance(value, list) or [type(number) for number in value] not in (
        [int, float, int],
        [int] * 3,
    ):
        return False
    step, seconds, age = value
    return bool(0 <= age <= step <= steps and 0 <= seconds < LONGEST_RUN)


def _tensor(file: BinaryIO, entry: Entry) -> Tensor:
    file.seek(entry.start)
    content = bytearray(file.read(entry.n_bytes))
    if len(content) < entry.n_bytes:
        raise ValueError("it was cut while it was read")
    tensor = torch.frombuffer(content, dtype=torch.float32).reshape(entry.shape)
    if not tensor.isfinite().all():
        raise ValueError("its numbers are not finite")
    return tensor
