"""Norms found by their output: modules of unknown classes whose output is their normalized input.

At the first call of each unknown class the output is compared with affine maps of the input, normalized over one
set of axes after another. If one fits, and fits better than any map without normalization, a note proposes to
register the class with `register_norm`, with its axes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bnprobe.errors import class_name
from bnprobe.norms import POOLS, ModuleTree, Pool, has_matrix
from bnprobe.norms.classes import home
from bnprobe.norms.module_tree import method
from bnprobe.probe.survey.unwrap import shown
from bnprobe.probe.tensors import first_tensor, has_values
from bnprobe.recording import BATCH, CHANNELS, GROUP, INSTANCE

MOST_VALUES = 1 << 21
"""Modules with larger inputs (number of values) are not examined."""

LOOKED_AT = 1 << 18
"""Number of values that are compared: whole samples, at least two."""

SOME_CHANNELS, SOME_POSITIONS = 8, 16
"""How many channels, and positions along each dimension, suffice where the others add no information."""

NEARLY = 0.01
"""How close a slope must be to a parameter: eps, which is unknown, makes it slightly smaller."""

FITS = 1e-3
"""Largest unexplained share of the output's energy, because eps is unknown."""

BETTER = 0.01
"""A normalization must leave less than this share of what a single affine map leaves."""


@dataclass(frozen=True)
class Proposal:
    """A module that normalizes its input over `axes`, in groups of channels if there are several."""

    path: str
    class_name: str
    axes: tuple[int, ...]
    pool: Pool
    n_groups: int
    centred: bool
    channels: str
    code: str = ""
    """The call that registers its class."""

    @property
    def pools(self) -> str:
        """The name of the pool."""
        return self.pool.recorded_as

    @property
    def says(self) -> str:
        """The note for the user: what was found, and how to record it."""
        groups = f" in {self.n_groups} groups of channels" if self.n_groups > 1 else ""
        by = (
            "mean subtracted, divided by the standard deviation"
            if self.centred
            else "divided by the root mean square"
        )
        return (
            f"{self.path} ({self.class_name}) behaves like a norm, although its class is not known as one: its output is "
            f"its input normalized along axes {self.axes}{groups} ({by}). To record it, call "
            f"{self.code}."
        )


KIND = {BATCH: "batch_norm", CHANNELS: "layer_norm", INSTANCE: "instance_norm", GROUP: "group_norm"}
"""What a norm that subtracts the mean is called, by its pool."""


def registration(module: nn.Module, found: Proposal) -> str:
    """The call that makes a class known as a norm, with the vectors and the eps that this module of it has."""
    over_channels = found.pools == CHANNELS
    vectors = [name for name, p in module.named_parameters(recurse=False) if p.dim() == 1]
    options = [
        f"kind={'rms_norm' if over_channels and not found.centred else KIND[found.pools]!r}",
        f"pools={found.pools!r}, channels={found.channels!r}",
        *([f"n_groups={found.n_groups}"] if found.n_groups > 1 else []),
        *([] if found.centred else ["centred=False"]),
        f"eps={'m.eps' if isinstance(getattr(module, 'eps', None), float) else '1e-6'}",
        f"n_channels={f'm.{vectors[0]}.numel()' if vectors else '...'}",
        *(f"{role}=m.{name}" for role, name in zip(("weight", "bias"), vectors, strict=False)),
    ]
    return f"bnprobe.register_norm({found.class_name}, lambda m: bnprobe.NormLayer({', '.join(options)}))"


def candidates(tree: ModuleTree, norms: Collection[int]) -> dict[str, nn.Module]:
    """The first module of each class that might be a norm, by path: not torch's own, and without a matrix inside.

    `norms` are the identities of the modules that are known to be norms; what holds one is none itself.
    """
    found: dict[type, tuple[str, nn.Module]] = {}
    for path, module in tree.modules.items():
        cls = type(module)
        if cls in found or not shown(path) or home(cls).startswith("torch."):
            continue
        inside = list(tree.inside(module))
        if not has_matrix(inside) and not any(id(inner) in norms for inner in inside):
            found[cls] = shown(path), module
    return dict(found.values())


def look(path: str, module: nn.Module, tell: Callable[[Proposal | None], None]) -> Callable[[], None]:
    """Examine the next call of a module and pass what it turns out to be to `tell`, None if it does not normalize; returns
    how to cancel."""
    first = First(path, tell)
    handles = [
        method(module, "register_forward_pre_hook")(first.before, with_kwargs=True),
        method(module, "register_forward_hook")(first.after),
    ]

    def stop() -> None:
        for handle in handles:
            handle.remove()

    first.stop = stop
    return stop


class First:
    """Examines the first call of a module."""

    def __init__(self, path: str, tell: Callable[[Proposal | None], None]) -> None:
        self.path, self.tell = path, tell
        self.stop: Callable[[], None] = lambda: None
        self._x: Tensor | None = None

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Keep a copy of the input: the module may work in place."""
        if torch.compiler.is_compiling():
            return
        x = first_tensor(args, kwargs)
        if x is not None and has_values(x) and x.dim() > 1 and 0 < x.numel() <= MOST_VALUES:
            self._x = x.detach().to(torch.float64, copy=True)

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        """Compare once, then stop."""
        x, self._x = self._x, None
        if torch.compiler.is_compiling() or x is None:
            return
        self.stop()
        y = first_tensor((output,))
        if y is not None and y.shape == x.shape and y.is_floating_point() and torch.isfinite(x).all():
            vectors = [
                p.detach().to(torch.float64).flatten() for p in ModuleTree.of(module).parameters().values()
            ]
            found = proposal(self.path, class_name(module), x, y.detach().to(torch.float64), vectors)
            self.tell(None if found is None else replace(found, code=registration(module, found)))


def proposal(
    path: str, class_name: str, x: Tensor, y: Tensor, vectors: Sequence[Tensor] = ()
) -> Proposal | None:
    """The first normalization of x of which y is an affine map, in float64; None if there is none.

    `vectors` are the module's parameters: over a whole batch any affine map normalizes, so there slope and
    offset must be among them, or 1 and 0.
    """
    if torch.equal(x, y) or not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        return None  # such as dropout in eval mode
    lines = x.dim() == 2 or _rows_are_lines(x, y)
    if lines and (x.dim() > 2 or len(x) > 2):
        batch = POOLS[BATCH]
        axes = batch.axes(x.dim(), 1)
        for centred in (True, False):
            over_batch = normalized(x, axes, 1, centred)
            # an input that is normalized already, as after another norm, proves nothing
            if (over_batch - x).square().mean() > NEARLY**2 and _is_normalized(over_batch, y, vectors):
                return Proposal(path, class_name, axes, batch, 1, centred, "first")
    n_samples = max(LOOKED_AT // x[0].numel(), 2)
    x, y = x[:n_samples], y[:n_samples]
    sides = ((1, "first"), (x.dim() - 1, "last"))
    # untrained gammas do not show their axis by their values, but by their number
    for axis, channels in sorted(sides, key=lambda side: all(len(v) != x.shape[side[0]] for v in vectors)):
        for pool, n_groups in _hypotheses(x, axis):
            if pool.positions and not lines:
                continue
            axes = pool.axes(x.dim(), axis)
            some_x, some_y = (x, y) if pool.positions else (_some_positions(v, axis) for v in (x, y))
            fixed = left_over(some_x, some_y, axis)
            for centred in (True, False):
                left = left_over(normalized(some_x, axes, n_groups, centred), some_y, axis)
                if left < FITS and left < BETTER * fixed:
                    return Proposal(path, class_name, axes, pool, n_groups, centred, channels)
    return None


def _rows_are_lines(x: Tensor, y: Tensor) -> bool:
    """Whether y is an affine map of x within each row, as it is if positions are pooled; a few rows suffice."""
    x, y = (t[:2, :SOME_CHANNELS].flatten(0, 1).flatten(1) for t in (x, y))
    return left_over(x, y, 0) < FITS


def _some_positions(x: Tensor, axis: int) -> Tensor:
    """A part that suffices for a norm over channels: each position has statistics of its own."""
    for i in range(1, x.dim()):
        x = x if i == axis else x.narrow(i, 0, min(x.shape[i], SOME_POSITIONS))
    return x


def _hypotheses(x: Tensor, axis: int) -> Iterator[tuple[Pool, int]]:
    """What may be pooled in each sample, and in how many groups of channels, which are dimension `axis`."""
    yield POOLS[CHANNELS], 1
    if x.dim() > 2 and axis == 1:
        yield POOLS[INSTANCE], 1
        for n_groups in (n for n in range(1, x.shape[1]) if x.shape[1] % n == 0):
            yield POOLS[GROUP], n_groups


def normalized(x: Tensor, axes: tuple[int, ...], n_groups: int, centred: bool) -> Tensor:
    """x minus its mean along axes, divided by its standard deviation; if not centered, x divided by its root mean square."""
    if n_groups > 1:
        grouped = x.reshape(len(x), n_groups, -1, *x.shape[2:])
        along = (2, *(i + 1 for i in axes if i > 1))
        return normalized(grouped, along, 1, centred).flatten(1, 2)
    x = x - x.mean(axes, keepdim=True) if centred else x
    return x / x.square().mean(axes, keepdim=True).sqrt().clamp(min=1e-30)


def _is_normalized(x: Tensor, y: Tensor, vectors: Sequence[Tensor]) -> bool:
    """Whether y is x times one of these vectors, or 1, plus another, or 0; one entry per channel."""
    if left_over(x, y, 1) > FITS:
        return False
    x, y = (t.movedim(1, 0).flatten(1) for t in (x, y))
    slope = ((x - x.mean(1, keepdim=True)) * y).mean(1) / x.var(1, correction=0).clamp(min=1e-30)
    offset = y.mean(1) - slope * x.mean(1)
    known = [v for v in vectors if v.shape == slope.shape]
    ones, zeros = torch.ones_like(slope), torch.zeros_like(slope)
    return _is_one_of(slope, [ones, *known, *(1 + v for v in known)]) and _is_one_of(offset, [zeros, *known])


def _is_one_of(vector: Tensor, known: Sequence[Tensor]) -> bool:
    return any(torch.allclose(vector, other, rtol=NEARLY, atol=NEARLY) for other in known)


def left_over(x: Tensor, y: Tensor, axis: int) -> float:
    """The share of y's energy that the best affine map of x, one per index along `axis`, leaves unexplained."""
    x, y = (t.movedim(axis, 0).flatten(1) for t in (x, y))
    x, centred = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    slope = (x * centred).sum(1, keepdim=True) / x.square().sum(1, keepdim=True).clamp(min=1e-30)
    energy = float(centred.square().sum())
    return float((centred - slope * x).square().sum()) / energy if energy > 0 else 1.0
