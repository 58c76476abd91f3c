"""What layer and RMS norms divide each token by, and their output if it were another number, or centered otherwise.

N samples, C channels, P positions. A scale is √(mean of squares over channels + eps), after the mean is subtracted where the
norm does that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bnprobe.experiments.positions import PADDING, Positions
from bnprobe.norms import FIRST, NormLayer, describe

LOUD = 5.0
"""Times the median scale, above which a token is loud."""

MOST_KEPT = 2**16
"""Scales of a norm that its median is taken of."""

Output = Callable[[Tensor, Tensor], Tensor]
"""From a norm's input and its output to the output that stands in its place."""


def is_feature_norm(layer: NormLayer) -> bool:
    """Whether each position is divided by a number of its own, over all its channels, and nothing else multiplies it."""
    pool = layer.pool
    return (
        pool.channels and not (pool.positions or pool.samples) and layer.n_groups == 1 and layer.gate is None
    )


@dataclass
class SeenScales:
    """The scales that one norm divided by: log of their geometric means, over all tokens and by position."""

    sums: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    counts: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    """By position; what has no position counts as the first."""
    placed: bool = True
    """Whether positions are known in all calls."""
    kept: list[Tensor] = field(default_factory=list)

    def add(self, scales: Tensor, places: Tensor | None) -> None:
        """One call: scales and places of shape (N, P)."""
        logs = scales.double().log().cpu().flatten()
        self.placed = self.placed and places is not None
        at = torch.zeros(len(logs), dtype=torch.long) if places is None else places.flatten()
        logs, at = logs[at != PADDING], at[at != PADDING]
        n = max(len(self.sums), int(at.max()) + 1 if len(at) else 1)
        for name, values in (("sums", logs), ("counts", torch.ones_like(logs))):
            old = getattr(self, name)
            setattr(self, name, torch.cat([old, old.new_zeros(n - len(old))]).index_add(0, at, values))
        if sum(map(len, self.kept)) < MOST_KEPT:
            self.kept.append(logs)

    @property
    def constant(self) -> float:
        """The geometric mean over all tokens."""
        return float((self.sums.sum() / self.counts.sum()).exp())

    @property
    def two(self) -> Tensor:
        """Of the first token, and of all others, shape (2,)."""
        rest = self.sums[1:].sum() / self.counts[1:].sum().clamp_min(1)
        return torch.stack([self.sums[0] / self.counts[0].clamp_min(1), rest]).exp()

    @property
    def by_position(self) -> Tensor:
        """Of each position, shape (T,)."""
        return (self.sums / self.counts.clamp_min(1)).exp()

    @property
    def loud_from(self) -> float:
        """The scale above which a token is loud."""
        return LOUD * float(torch.cat(self.kept).median().exp())

    @property
    def quiet(self) -> float:
        """The geometric mean over tokens that are not loud."""
        logs = torch.cat(self.kept)
        return float(logs[logs.exp() <= self.loud_from].mean().exp())

    @property
    def has_loud(self) -> bool:
        """Whether there are loud tokens."""
        return bool((torch.cat(self.kept).exp() > self.loud_from).any())


class Scales:
    """What the norms of a model divide by, by path; filled while `watching`."""

    def __init__(self, norms: Mapping[str, tuple[nn.Module, NormLayer]], positions: Positions) -> None:
        self.positions = positions
        self.seen = {path: SeenScales() for path in norms}
        self.layers = {path: layer for path, (_, layer) in norms.items()}
        """How each norm reads its input; of a class whose channels may be first or last, as the first input shows."""
        self._modules = {path: module for path, (module, _) in norms.items()}

    def watching(self) -> ExitStack:
        """Hooks, until the stack is closed."""
        stack = ExitStack()
        for path, module in self._modules.items():
            stack.callback(module.register_forward_pre_hook(self._hook(path), with_kwargs=True).remove)
        return stack

    def _hook(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            plans = (self.layers[path], *filter(is_feature_norm, describe(module)))
            layer = next((plan for plan in plans if input_of(plan, args, kwargs) is not None), plans[0])
            x = input_of(layer, args, kwargs)
            if x is not None:
                self.layers[path] = layer
                self.seen[path].add(scales_of(layer, x), self.positions.of(layer, x))

        return hook

    def replacements(self, path: str) -> tuple[str, ...]:
        """What the scale of a norm can be replaced by; empty where it was not run."""
        seen = self.seen[path]
        if not seen.counts.sum():
            return ()
        placed = seen.placed and len(seen.counts) > 1
        return ("constant", *(("two", "position") if placed else ()), *(("loud",) if seen.has_loud else ()))

    def frozen(self, path: str, replacement: str) -> Output:
        """The output of a norm that divides by constants."""
        layer, new_for = self.layers[path], self._new(path, replacement)

        def output(x: Tensor, y: Tensor) -> Tensor:
            scales = scales_of(layer, x)
            shift = _beta(layer, x)
            factor = spread(layer, scales / new_for(x, scales), x)
            return (shift + (_wide(y) - shift) * factor).to(y.dtype)

        return output

    def _new(self, path: str, replacement: str) -> Callable[[Tensor, Tensor], Tensor]:
        """From an input and its scales to those that stand in their place."""
        seen, layer = self.seen[path], self.layers[path]
        if replacement == "constant":
            constant = seen.constant
            return lambda x, scales: torch.full_like(scales, constant)
        if replacement == "loud":
            loud_from, quiet = seen.loud_from, seen.quiet
            return lambda x, scales: torch.where(scales > loud_from, scales, quiet)
        known = seen.two if replacement == "two" else seen.by_position

        def by_place(x: Tensor, scales: Tensor) -> Tensor:
            places = self.positions.of(layer, x)
            if places is None:
                return scales
            places = places.to(scales.device)
            new = known.to(scales)[places.clamp(0, len(known) - 1)]
            return torch.where(places == PADDING, scales, new)

        return by_place


def recentered(layer: NormLayer) -> Output:
    """The output of a norm that subtracts the mean if it does not, and does not if it does."""

    def output(x: Tensor, y: Tensor) -> Tensor:
        rows = _wide(layer.rows(x))
        if not layer.centred:
            rows = rows - rows.mean(1, keepdim=True)
        scales = (rows.square().mean(1) + layer.eps).sqrt()
        moved = _wide(x) if layer.centred else _wide(x) - spread(layer, _wide(layer.rows(x)).mean(1), x)
        gamma = 1.0 if layer.weight is None else _as_channels(layer, layer.weight, x) + layer.weight_offset
        return (_beta(layer, x) + gamma * moved / spread(layer, scales, x)).to(y.dtype)

    return output


def input_of(layer: NormLayer, args: Any, kwargs: Any) -> Tensor | None:
    """The input of a call, where it is one."""
    x = args[0] if args else next(iter(kwargs.values()), None)
    return x if isinstance(x, Tensor) and x.is_floating_point() and layer.fits(x) and x.numel() else None


def scales_of(layer: NormLayer, x: Tensor) -> Tensor:
    """What each position is divided by, shape (N, P), float32 or wider."""
    rows = _wide(layer.rows(x.detach()))
    if layer.centred:
        rows = rows - rows.mean(1, keepdim=True)
    return (rows.square().mean(1) + layer.eps).sqrt()


def spread(layer: NormLayer, rows: Tensor, x: Tensor) -> Tensor:
    """A number per position, shape (N, P), so that it multiplies an input."""
    if layer.channels == FIRST:
        return (
            rows.reshape(1, *x.shape[1:])
            if x.dim() == layer.unbatched_dims
            else rows.reshape(len(x), 1, *x.shape[2:])
        )
    lead = list(x.shape[: x.dim() - layer.n_channel_dims])
    if 0 < layer.sample_dim < len(lead):
        first = [lead.pop(layer.sample_dim), *lead]
        rows = rows.reshape(first).movedim(0, layer.sample_dim)
        lead = list(rows.shape)
    return rows.reshape(*lead, *[1] * layer.n_channel_dims)


def _beta(layer: NormLayer, x: Tensor) -> Tensor | float:
    return 0.0 if layer.bias is None else _as_channels(layer, layer.bias, x)


def _as_channels(layer: NormLayer, vector: Tensor, x: Tensor) -> Tensor:
    vector = _wide(vector.detach())
    if layer.channels == FIRST:
        shape = [-1, *[1] * (x.dim() - (1 if x.dim() == layer.unbatched_dims else 2))]
        return vector.reshape(shape)
    return vector.reshape(x.shape[x.dim() - layer.n_channel_dims :])


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
