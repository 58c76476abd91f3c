"""Real samples beside made ones: a batch of the same size, and for each made image the nearest of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf, nan
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from bnprobe.errors import BnprobeError, NothingRecorded
from bnprobe.experiments.synthesize.inputs import Inputs
from bnprobe.printing import progress
from bnprobe.probe.batches import each_batch, parts
from bnprobe.probe.tensors import first_tensor


@dataclass(frozen=True)
class Real:
    """Pixels of the first n samples, and their classes where batches bring any."""

    pixels: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Nearest:
    """The nearest real sample to each made image: pixels (n, *shape), and a table of distances; `n_seen` were compared."""

    pixels: Tensor
    table: pd.DataFrame
    n_seen: int


def shape_of(batches: Iterable[Any]) -> tuple[int, ...] | None:
    """Of one input; None where there are none."""
    first = next((first_tensor(parts(batch)[0]) for batch in each_batch(batches)), None)
    return None if first is None else tuple(first.shape[1:])


def real_batch(batches: Iterable[Any], inputs: Inputs, n: int, classes: int | None) -> Real:
    """The first n samples. Raises BnprobeError where they are no inputs of this shape, NothingRecorded where there are
    none."""
    pixels: list[Tensor] = []
    labels: list[Tensor] = []
    for x, y in _samples(batches, inputs):
        pixels.append(x)
        labels += [] if y is None else [y]
        if sum(map(len, pixels)) >= n:
            break
    if not sum(map(len, pixels)):
        raise NothingRecorded(
            "data held no samples. A generator runs out after one use: pass a list or a DataLoader."
        )
    every = torch.cat(labels)[:n] if len(labels) == len(pixels) else None
    known = every is not None and classes is not None and bool(((every >= 0) & (every < classes)).all())
    return Real(torch.cat(pixels)[:n], every if known else None)


def nearest_of(batches: Iterable[Any], inputs: Inputs, made: Tensor, real: Real) -> Nearest:
    """To each made image the nearest of all real ones; beside it, how near others are to the first real ones themselves.

    Distances are root mean square differences of pixels of 0 to 1.
    """
    n, flat = len(made), torch.cat([made.flatten(1), real.pixels.flatten(1)])
    best = torch.full((len(flat),), torch.inf)
    found, seen = torch.zeros_like(made), 0
    with progress(None, "comparing with data") as bar:
        for x, _ in _samples(batches, inputs):
            far = torch.cdist(flat, x.flatten(1))
            own = torch.arange(min(seen, len(real.pixels)), min(seen + len(x), len(real.pixels)))
            far[n + own, own - seen] = torch.inf  # a real image is not its own neighbor
            least, at = far.min(1)
            closer = (least < best)[:n]
            found[closer] = x[at[:n][closer]]
            best = torch.minimum(best, least)
            seen += len(x)
            bar.update(len(x))
    distances = (best / flat.shape[1] ** 0.5).tolist()
    table = pd.DataFrame({"distance": distances[:n], "real_distance": [*distances[n:], *[nan] * n][:n]})
    return Nearest(found, table.replace(inf, nan), seen)


def _samples(batches: Iterable[Any], inputs: Inputs) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Pixels and classes of each batch, on the CPU."""
    for batch in each_batch(batches):
        x, y = parts(batch)
        images = first_tensor(x)
        if images is None or images.shape[1:] != inputs.shape:
            got = "no tensor" if images is None else f"inputs of shape {tuple(images.shape[1:])}"
            raise BnprobeError(
                f"data hold {got}, and images of shape {inputs.shape} are made. Pass shape=, or other data."
            )
        whole = isinstance(y, Tensor) and y.dim() == 1 and len(y) == len(images) and not y.is_floating_point()
        yield inputs.pixels(images.detach()).cpu(), y.cpu().long() if whole and len(y) else None
