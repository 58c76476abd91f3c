"""The timesteps that a model is called with, and what its norms meet by timestep, added up."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bnprobe.graph.modulation import Modulation
from bnprobe.norms import NormLayer
from bnprobe.probe.calls import InputReading
from bnprobe.probe.tensors import is_block, is_transformed
from bnprobe.stats.moments import Array
from bnprobe.stats.timesteps import LOGARITHMIC, PARTS, Grid, TimestepStats, regrouped

NAMES = ("timestep", "timesteps", "t", "time", *LOGARITHMIC)
"""Names under which models take one timestep, or noise level, per sample."""


class Timesteps:
    """The timesteps of a pass, one per sample; of noise levels their log2.

    `known` are the samples whose timestep is finite, `values` theirs; `seen` (N, 2) holds for each sample 1 and its
    timestep.
    """

    def __init__(self, argument: str, given: Array) -> None:
        self.argument, self.n = argument, len(given)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log2(given) if argument in LOGARITHMIC else given
        finite = np.isfinite(values)
        self.known: NDArray[np.int64] = np.flatnonzero(finite)
        self.values: Array = values[finite]
        self.seen: Array = np.stack([np.ones(self.n), np.where(finite, values, 0.0)], axis=1)


class TimestepArgument:
    """The argument of a model's forward that holds timesteps."""

    def __init__(self, name: str, place: int) -> None:
        self.name, self._place = name, place

    @classmethod
    def of_model(cls, model: nn.Module) -> Self | None:
        """The one that it has by its name; None where it has none."""
        try:
            names = list(inspect.signature(model.forward).parameters)
        except (TypeError, ValueError):  # a forward without a signature
            return None
        name = next((name for name in NAMES if name in names), None)
        return None if name is None else cls(name, names.index(name))

    def of_call(self, args: Sequence[Any], kwargs: Mapping[str, Any], n_samples: int) -> Timesteps | None:
        """The timesteps of a call with so many samples: one for each, or one for all of them; None for anything else."""
        given = args[self._place] if self._place < len(args) else kwargs.get(self.name)
        if isinstance(given, bool) or not isinstance(given, Tensor | int | float) or is_transformed():
            return None
        if not isinstance(given, Tensor):
            values = np.array([given], dtype=np.float64)
        elif _is_plain(given) and (given.numel() == 1 or given.shape[0] == given.numel() == n_samples):
            values = given.detach().to("cpu", torch.float64, copy=True).reshape(-1).numpy()
        else:
            return None
        found = Timesteps(self.name, np.broadcast_to(values, (n_samples,)))
        return found if len(found.values) else None


def _is_plain(tensor: Tensor) -> bool:
    """Whether it holds real numbers that can be read."""
    return is_block(tensor) and not tensor.is_complex() and tensor.dtype != torch.bool


class BucketSums:
    """Sums of values of samples by the bucket of their timestep, where the values are."""

    def __init__(self) -> None:
        self.grid: Grid | None = None
        self._total = torch.zeros(0)

    def add(self, at: Timesteps, values: Tensor) -> None:
        """Add values (N, ...), float64, of the samples of a pass."""
        self._widen(Grid.of(at.values), values)
        assert self.grid is not None
        known = values if len(at.known) == at.n else values[_there(at.known, values)]
        self._total.index_add_(0, _there(self.grid.places(at.values), values), known)

    def _widen(self, new: Grid, like: Tensor) -> None:
        """Let the buckets hold those of a pass, too."""
        grid = new if self.grid is None else self.grid.join(new)
        if grid == self.grid:
            return
        old, self._total = self._total, like.new_zeros((grid.n, *like.shape[1:]))
        if self.grid is not None:
            self._total.index_add_(0, _there(self.grid.within(grid), old), old)
        self.grid = grid

    def on(self, grid: Grid) -> Array | None:
        """The sums in the buckets of a wider grid, on the host; None without any."""
        return None if self.grid is None else regrouped(self._total.cpu().numpy(), self.grid, grid)


class LayerSums:
    """Sums of what a layer made, by timestep: numbers of samples, and for each channel values and squares."""

    def __init__(self, n_made: int) -> None:
        self._n_made = n_made
        self._n, self._values = BucketSums(), BucketSums()

    def add(self, at: Timesteps, made: Tensor) -> None:
        """Add what it made in a pass, a row for each sample or one for all; anything else is left out."""
        n_rows, rest = divmod(made.numel(), self._n_made)
        if rest or n_rows not in (1, at.n):
            return
        values = made.reshape(n_rows, self._n_made).to(torch.float64)
        both = torch.stack([values, values * values], dim=1).expand(at.n, -1, -1)
        self._n.add(at, both.new_ones(at.n))
        self._values.add(at, both)

    @property
    def grid(self) -> Grid | None:
        """The buckets of its samples; None without any."""
        return self._n.grid

    def of(self, part: Modulation, grid: Grid, n_groups: int) -> tuple[Array, Array, Array] | None:
        """Of a modulation the number of samples (B,), the sums (B, C), and those of squares by group (B, G); None where it
        is not known."""
        n, values = self._n.on(grid), self._values.on(grid)
        if n is None or values is None or not part.holds:
            return None
        first, second = values[:, :, part.columns].transpose(1, 0, 2)
        factor, constant, times = part.factor, part.constant, n[:, None]
        squares = factor**2 * second + 2 * factor * constant * first + constant**2 * times
        return n, factor * first + constant * times, squares.reshape(len(n), n_groups, -1).sum(-1)


class TimestepTotals:
    """What a site met by timestep; `parts` are what modulates it, each with the sums of the layer that makes it."""

    def __init__(self, argument: str, plan: NormLayer) -> None:
        self._argument, self._n_channels = argument, plan.n_channels
        per_sample = plan.pool.positions and not plan.pool.samples
        self._n_groups = (plan.n_groups if plan.pool.channels else plan.n_channels) if per_sample else 1
        self._seen, self._groups = BucketSums(), BucketSums()
        self.parts: dict[str, tuple[Modulation, LayerSums]] = {}

    def add(self, at: Timesteps, before: InputReading) -> None:
        """Add a call, where its samples are those of the pass."""
        values = _in_samples(before)
        n = before.reading.n_images if values is None else len(values)
        if n != at.n:
            return
        if values is None:
            values = torch.zeros((n, 5, self._n_groups), dtype=torch.float64)
        self._seen.add(at, torch.from_numpy(at.seen))
        self._groups.add(at, values)

    def finished(self) -> TimestepStats | None:
        """A snapshot, on the host; None where no call had the samples of its pass."""
        grid = self._seen.grid
        if grid is None:
            return None
        for _, sums in self.parts.values():
            grid = grid if sums.grid is None else grid.join(sums.grid)
        seen, groups = self._seen.on(grid), self._groups.on(grid)
        assert seen is not None
        assert groups is not None
        place = np.array([grid.exponent, grid.first], dtype=np.float64)
        return TimestepStats(self._argument, place, seen, groups, **self._modulated(grid))

    def _modulated(self, grid: Grid) -> dict[str, Array]:
        """The sums over what modulates the norm; nothing where nothing does."""
        known = {}
        for i, part in enumerate(PARTS):
            modulation, sums_of_layer = self.parts.get(part, (None, None))
            if modulation is None or sums_of_layer is None:
                continue
            found = sums_of_layer.of(modulation, grid, self._n_groups)
            if found is not None:
                known[i] = found
        if not known:
            return {}
        sizes: tuple[tuple[int, ...], ...] = ((), (self._n_channels,), (self._n_groups,))
        n, sums, squares = (np.zeros((grid.n, len(PARTS), *size)) for size in sizes)
        for i, found in known.items():
            n[:, i], sums[:, i], squares[:, i] = found
        return {"n_modulated": n, "sums": sums, "squares": squares}


def _in_samples(before: InputReading) -> Tensor | None:
    """What `TimestepStats.groups` adds up, by sample of a call, (N, 5, G); None where a norm computes nothing by sample."""
    if before.by_sample is not None:
        mean, log_var = torch.from_numpy(before.by_sample).chunk(2, dim=1)
        return _summed(mean, log_var / 2)
    if before.tokens is None:
        return None
    mean, log_square = before.tokens.seen.mean, before.tokens.seen.log_square
    there = torch.isfinite(log_square)
    n = there.sum(dim=1, keepdim=True)
    mean, log = (
        torch.where(there, part, 0.0).sum(dim=1, keepdim=True) / n for part in (mean, log_square / 2)
    )
    return _summed(mean, log)


def _summed(mean: Tensor, log: Tensor) -> Tensor:
    finite = torch.isfinite(mean) & torch.isfinite(log)
    mean, log = (torch.where(finite, part, 0.0).to(torch.float64) for part in (mean, log))
    return torch.stack([finite.to(torch.float64), mean, mean * mean, log, log * log], dim=1)


def _there(index: NDArray[np.int64], like: Tensor) -> Tensor:
    return torch.from_numpy(index).to(like.device)
