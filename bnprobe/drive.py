"""The loop: run a model over batches with a probe attached and a progress bar, and return what was seen."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from bnprobe.errors import NothingRecorded
from bnprobe.probe import attach
from bnprobe.recording import Recording


def record(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    layers: str | Sequence[str] | None = None,
    histograms: bool = True,
    n_images: int | None = None,
    model_name: str | None = None,
    weights: str = "not stated",
    data: str = "not stated",
    preprocessing: str = "not stated",
) -> Recording:
    """Run `model` on `batches` in the mode it is in, without gradients, and record every norm.

    A batch is x or (x, y), where y is not used; x is a tensor, a tuple of positional arguments, or a
    dict of keyword arguments. Tensors are moved to the device of the model. A progress bar shows
    images per second where a person can see it; `n_images` gives it an end. The words `model_name`,
    `weights`, `data` and `preprocessing` are printed in the report.

    Raises NoNormLayers, and NothingRecorded when `batches` is empty.
    """
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    quiet = not (sys.stderr.isatty() or "ipykernel" in sys.modules)
    with (
        attach(model, layers=layers, histograms=histograms) as probe,
        torch.no_grad(),
        tqdm(total=n_images, unit=" images", desc="probing", disable=quiet) as bar,
    ):
        for batch in batches:
            args, kwargs = _arguments(_move(batch, device))
            seen = probe.n_images
            model(*args, **kwargs)
            bar.update(probe.n_images - seen)
    recording = probe.recording
    if not recording.about.n_forwards:
        raise NothingRecorded(
            "the batches held nothing, so the model was not run. Give at least one batch of inputs."
        )
    name = model_name or recording.about.model
    return replace(
        recording,
        about=replace(recording.about, model=name, weights=weights, data=data, preprocessing=preprocessing),
    )


def _arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What to call the model with; see `record` for what a batch is."""
    x = batch[0] if isinstance(batch, tuple | list) and len(batch) in (1, 2) else batch
    if isinstance(x, Mapping):
        return (), dict(x)
    return (x, {}) if isinstance(x, tuple) else ((x,), {})


def _move(value: Any, device: torch.device) -> Any:
    """The same containers, with tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _move(item, device) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_move(item, device) for item in value)
    return value
