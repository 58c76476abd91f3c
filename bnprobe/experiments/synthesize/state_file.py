"""A run that can be continued: the images on their way, in a safetensors file that only the same run takes up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from bnprobe.errors import BadRecordingFile
from bnprobe.experiments.synthesize.drawing import Drawing
from bnprobe.files import is_file, open_input, read_input, write_output
from bnprobe.files.header import read_header

FORMAT = "bnprobe synthesis"
LARGEST = 2**32
"""Bytes that are read: four ways with three tensors each of 64 photographs of 500 pixels by side are a quarter of that."""
PARTS = ("pixels", "mean", "square")


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


def read_state(path: Path, settings: Mapping[str, Any], like: Tensor) -> dict[str, Drawing]:
    """What was drawn, on the device of `like`; nothing where there is no file yet.

    Raises BadRecordingFile for a file that is none of ours, or of another run; it is never written over.
    """
    if not path.exists():
        return {}
    if not is_file(path):
        raise BadRecordingFile(f"{path}: is no file. Name another as state.")
    try:
        with open_input(path, LARGEST) as file:
            metadata = read_header(file).metadata
        if metadata.get("format") != FORMAT:
            raise ValueError("it is another kind of file")
        before, done = json.loads(metadata["settings"]), json.loads(metadata["done"])
        tensors = load(read_input(path, LARGEST))
        drawings = {name: _drawing(tensors, name, progress, like) for name, progress in done.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:150]
        raise BadRecordingFile(
            f"{path}: no state of such a run ({reason}). Name another file as state."
        ) from None
    differing = [name for name in settings if before.get(name) != json.loads(json.dumps(settings[name]))]
    if differing:
        raise BadRecordingFile(
            f"{path}: is the state of another run, which differs in {', '.join(differing)}. Name another file as state, or "
            "call with the same arguments."
        )
    return drawings


def _drawing(tensors: Mapping[str, Tensor], name: str, progress: Any, like: Tensor) -> Drawing:
    """One way as far as it came. Raises ValueError where that cannot be."""
    step, seconds, age = progress
    parts = [tensors[f"{name}/{part}"].to(like.device) for part in PARTS]
    same = all(part.shape == parts[0].shape and part.dtype == torch.float32 for part in parts)
    if not same or type(step) is not int or type(age) is not int or not 0 <= age <= step:
        raise ValueError(f"what it holds of {name} does not fit together")
    pixels, mean, square = parts
    return Drawing(pixels, mean, square, step, float(seconds), age)
