"""A checkpoint with its architecture: kinds, eps and neighbors come from the model, not from names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from bnprobe.checkpoints.records import without_calls
from bnprobe.errors import BadCheckpoint, BnprobeError
from bnprobe.models import Subject, subject
from bnprobe.probe import attach
from bnprobe.recording import Recording

PREFIX = "torchvision:"
SIDE = 256
"""Pixels of the blank image that is sent through the model once: no number of it is kept."""


def wired(path: Path, arch: str) -> Recording:
    """The norms of `path` in the model `arch` after one blank input, without its statistics."""
    model = subject(arch.removeprefix(PREFIX), checkpoint=path)
    with attach(model.model, histograms=False) as probe, torch.no_grad():
        _blank(model, arch)
    seen = probe.recording
    about = replace(
        seen.about,
        model=f"{path.name} as {model.name}",
        weights=model.weights,
        data="none",
        preprocessing="none",
        n_forwards=0,
        n_images=0,
        seconds=0.0,
        notes=(
            "What surrounds each norm was found with one blank image; nothing else of that pass is kept.",
        ),
    )
    return replace(seen, about=about, layers=tuple(without_calls(record) for record in seen.layers))


def _blank(model: Subject, arch: str) -> None:
    """One forward pass on a gray image, which only shows the order of operations."""
    image = Image.new("RGB", (SIDE, SIDE), (127, 127, 127))
    try:
        model.model(*model.to_inputs([model.preprocess(image)]))
    except BnprobeError:
        raise
    except Exception as error:  # the user's model may raise anything
        reason = " ".join(str(error).split())[:200]
        raise BadCheckpoint(
            f"{arch} does not run on one blank image ({type(error).__name__}: {reason}). Check without --arch."
        ) from error
