"""Batches through a model, as every experiment runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from bnprobe.errors import BnprobeError, NothingRecorded
from bnprobe.norms import ModuleTree
from bnprobe.printing import progress
from bnprobe.probe.batches import arguments, each_batch, moved, parts
from bnprobe.probe.integrity.checksums import Digest, digests
from bnprobe.probe.tensors import first_tensor

Call = Callable[[nn.Module, Any], Any]
"""How to run one batch, where `model(x)` is not it: from the model and the batch to the output."""


NO_TENSOR: Digest = ("", (), 0)
"""In place of the checksum of a sample that holds no tensor."""


class Batches:
    """The batches of one use: moved to the model's device, counted, remembered by the checksums of their samples."""

    def __init__(self, model: nn.Module, batches: Iterable[Any], words: str, n_passes: int = 1) -> None:
        if n_passes > 1 and isinstance(batches, Iterator):
            raise BnprobeError(
                f"batches is a {type(batches).__name__}, which runs out after one use, and {n_passes:,} passes are "
                "needed. Pass a list or a DataLoader."
            )
        parameters = ModuleTree.of(model).parameters().values()
        self._device = next((p.device for p in parameters), torch.device("cpu"))
        self._batches, self._words = batches, words
        self.quiet = False
        """Without a bar of its own, where what is done with each batch has one."""
        self.look: Callable[[Any], None] = lambda batch: None
        """What else wants to see each batch before it is run."""
        self.samples: set[Digest] = set()
        self.n_samples = 0

    def __iter__(self) -> Iterator[Any]:
        self.samples.clear()
        self.n_samples = 0
        shown = nullcontext() if self.quiet else progress(_length(self._batches), self._words, "batches")
        with shown as bar:
            for batch in each_batch(self._batches):
                sums = checksums(batch)
                self.samples.update(sums)
                self.n_samples += len(sums)
                self.look(batch)
                yield moved(batch, self._device)
                if bar is not None:
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


def checksums(batch: Any) -> list[Digest]:
    """One per sample, from the bytes of the first tensor: equal samples have equal ones."""
    first = first_tensor(parts(batch)[0])
    if first is None:
        return [NO_TENSOR]
    return digests(first.unbind() if first.dim() else [first])


def _length(batches: Any) -> int | None:
    try:
        return len(batches)
    except TypeError:
        return None
