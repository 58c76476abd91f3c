"""Batches through a model, as every experiment runs them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError, NothingRecorded
from bnprobe.norms import ModuleTree
from bnprobe.printing import progress
from bnprobe.probe.batches import arguments, each_batch, first_tensor, moved, parts

Call = Callable[[nn.Module, Any], Any]
"""How to run one batch, where `model(x)` is not it: from the model and the batch to the output."""


class Batches:
    """The batches of one use: moved to the model's device, counted, remembered by the checksums of their samples."""

    def __init__(self, model: nn.Module, batches: Iterable[Any], words: str, n_passes: int = 1) -> None:
        if n_passes > 1 and iter(batches) is batches:
            raise BnprobeError(
                f"batches is a {type(batches).__name__}, which runs out after one use, and {n_passes:,} passes are "
                "needed. Pass a list or a DataLoader."
            )
        parameters = ModuleTree.of(model).parameters().values()
        self._device = next((p.device for p in parameters), torch.device("cpu"))
        self._batches, self._words, self._n_passes = batches, words, n_passes
        self.samples: set[int] = set()
        self.n_samples = 0

    def __iter__(self) -> Iterator[Any]:
        self.samples.clear()
        self.n_samples = 0
        with progress(_length(self._batches), self._words, "batches") as bar:
            for batch in each_batch(self._batches):
                sums = checksums(batch)
                self.samples.update(sums)
                self.n_samples += len(sums)
                yield moved(batch, self._device)
                bar.update()
        if not self.n_samples:
            raise NothingRecorded(
                "batches held no samples, so the model was not run. A generator runs out after one use: pass a list or a "
                "DataLoader."
            )


def run(model: nn.Module, batch: Any, call: Call | None) -> Any:
    """The output for one batch."""
    if call is not None:
        return call(model, batch)
    args, kwargs = arguments(parts(batch)[0])
    return model(*args, **kwargs)


def checksums(batch: Any) -> list[int]:
    """One number per sample, from the bytes of the first tensor: equal samples have equal numbers."""
    first = first_tensor(parts(batch)[0])
    if first is None or not first.dim():
        return [0]
    rows = _bytes(first)
    return [zlib.crc32(row) for row in rows]


def _bytes(tensor: Tensor) -> np.ndarray[Any, Any]:
    rows = tensor.detach().cpu().contiguous()
    return (
        rows.reshape(len(rows), -1).view(torch.uint8).numpy()
        if rows.numel()
        else np.zeros((len(rows), 0), np.uint8)
    )


def _length(batches: Any) -> int | None:
    try:
        return len(batches)
    except TypeError:
        return None
