"""What a norm does where it does not do what its kind says: the nearest formula that gives the output.

Deviations are tried one at a time, then in pairs, from the plain to the odd: the gain and an activation after the norm;
statistics over other axes, without centring, unbiased, eps beside the root or of another size; an addend. One that fits
to rounding is named. Among those that fit equally the first is taken, which deviates in fewer respects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from bnprobe.norms import NormLayer
from bnprobe.stats.moments import Array

At = tuple[npt.NDArray[np.intp], ...]
"""Which values of rows (N, C, P): their numbers along each axis."""

Formula = Callable[[At], Array]
"""The values of a candidate at some places."""

Gain = Callable[[Array, At], Array]
"""What multiplies and shifts normalized values at these places."""

Words = tuple[str, ...]

COMPARED = 2048
"""Values by which a candidate is judged before all are compared."""

OVER = {
    "channels": (1,),
    "channels, positions": (1, 2),
    "positions": (2,),
    "samples, positions": (0, 2),
    "samples, channels, positions": (0, 1, 2),
    "samples": (0,),
    "samples, channels": (0, 1),
}
"""Axes of rows (N, C, P) that one mean and variance may be taken over."""

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu (tanh)": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "leaky relu (0.01)": F.leaky_relu,
    "leaky relu (0.1)": lambda x: F.leaky_relu(x, 0.1),
    "leaky relu (0.2)": lambda x: F.leaky_relu(x, 0.2),
    "relu6": F.relu6,
    "elu": F.elu,
    "selu": F.selu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "mish": F.mish,
}
"""What may follow inside the module."""

PLAIN = ("relu", "gelu", "silu", "leaky relu (0.01)", "tanh")
"""Those tried together with other deviations."""

HALVES = (torch.bfloat16, torch.float16)
"""The coarser one first: most of its numbers are numbers of the other, too."""


@dataclass(frozen=True)
class Explanation:
    """Deviations that together give the output, and the difference that remains."""

    deviations: Words
    remaining: float


class Search:
    """The candidates for one output. `x` and `y` are rows (N, C, P) in float64, `plan` and its vectors what was expected.

    `usable` marks the values that count. `per_channel` are mean and variance (C,): of a norm that uses running statistics
    these, of others those of the whole call, of which x may hold the first samples only (`whole`).
    """

    def __init__(
        self,
        plan: NormLayer,
        x: Array,
        y: Array,
        gamma: Array,
        beta: Array,
        per_channel: tuple[Array, Array],
        usable: npt.NDArray[np.bool_],
        tolerance: float,
        whole: bool,
    ) -> None:
        self.plan, self.x, self.y, self.gamma, self.beta = plan, x, y, gamma, beta
        self.per_channel, self.whole, self.tolerance = per_channel, whole, tolerance
        self.stored = plan.uses_running
        at = np.flatnonzero(usable & np.isfinite(x) & np.isfinite(y))
        self.all = np.unravel_index(at, x.shape)
        few = at[:: max(len(at) // COMPARED, 1)]
        self.few = np.unravel_index(few, x.shape)
        self.largest = float(np.abs(y[self.all]).max(initial=0.0)) or 1e-30
        self._moments: dict[tuple[tuple[int, ...], bool], tuple[Array, Array, int]] = {}

    def run(self) -> Explanation | None:
        """The first candidate that gives the output; None if there is none."""
        if not len(self.few[0]):
            return None
        for deviations, candidate in self._candidates():
            if self._gap(candidate, self.few) <= self.tolerance:
                remaining = self._gap(candidate, self.all)
                if remaining <= self.tolerance:
                    return Explanation(deviations, remaining)
        return None

    def _gap(self, candidate: Formula, at: At) -> float:
        """Largest difference to the output, in units of the largest output; infinite where it is not defined."""
        with np.errstate(all="ignore"):
            gap = np.abs(candidate(at) - self.y[at]).max()
        return float(gap / self.largest) if np.isfinite(gap) else math.inf

    def _candidates(self) -> Iterator[tuple[Words, Formula]]:
        cores = list(self._cores())
        own = cores[0][1]
        for gain, after in self._gains():
            yield from self._activated((), own, gain, after, tuple(ACTIVATIONS))
        for deviations, core in cores[1:]:
            for gain, after in self._gains():
                yield (*deviations, *gain), self._after(core, after)
        for gain, after in self._gains():
            yield (*gain, "adds the input"), self._with_input(self._after(own, after))
        yield self._times(own)
        for deviations, core in cores[1:]:
            for gain, after in self._gains():
                yield from self._activated(deviations, core, gain, after, PLAIN)

    def _with_input(self, norm: Formula) -> Formula:
        def added(at: At) -> Array:
            found: Array = norm(at) + self.x[at]
            return found

        return added

    def _times(self, core: Formula) -> tuple[Words, Formula]:
        """The gain times one factor for all channels, as the output has it."""
        gamma, beta = self.gamma, self.beta
        z, r = core(self.few) * gamma[self.few[1]], self.y[self.few] - beta[self.few[1]]
        with np.errstate(all="ignore"):
            k = float((z * r).sum() / (z * z).sum())

        def scaled(at: At) -> Array:
            found: Array = k * core(at) * gamma[at[1]] + beta[at[1]]
            return found

        return (f"gain times {k:.3g}",), scaled

    def _activated(
        self,
        deviations: Words,
        core: Formula,
        gain: Words,
        after: Gain,
        names: Words,
    ) -> Iterator[tuple[Words, Formula]]:
        """The same norm with each of these activations after it, and cut off at the output's extremes."""
        plain = self._after(core, after)
        yield (*deviations, *gain), plain
        for name in names:
            yield (*deviations, *gain, name), self._followed(plain, ACTIVATIONS[name])
        low, high = (float(of(self.y[self.all])) for of in (np.min, np.max))
        yield (*deviations, *gain, f"clamp({low:.3g}, {high:.3g})"), lambda at: np.clip(plain(at), low, high)

    @staticmethod
    def _followed(norm: Formula, activation: Callable[[torch.Tensor], torch.Tensor]) -> Formula:
        def followed(at: At) -> Array:
            found: Array = activation(torch.from_numpy(norm(at))).numpy()
            return found

        return followed

    @staticmethod
    def _after(core: Formula, after: Gain) -> Formula:
        return lambda at: after(core(at), at)

    def _gains(self) -> Iterator[tuple[Words, Gain]]:
        """As described; then 1 + weight, no weight, no bias."""
        gamma, beta = self.gamma, self.beta
        yield (), lambda z, at: z * gamma[at[1]] + beta[at[1]]
        yield ("1 + weight",), lambda z, at: z * (1 + gamma[at[1]]) + beta[at[1]]
        yield ("no weight",), lambda z, at: z + beta[at[1]]
        if beta.any():
            yield ("no bias",), lambda z, at: z * gamma[at[1]]

    def _cores(self) -> Iterator[tuple[Words, Formula]]:
        """What may be multiplied by the gain, the described one first."""
        own = self._axes()
        grouped = self.plan.n_groups > 1
        if self.stored or (0 in own and not self.whole):
            mean, var = (vector[None, :, None] for vector in self.per_channel)
            yield (), self._core(mean, var, 0)
        for words, over in sorted(OVER.items(), key=lambda item: item[1] != own):
            other = over != own or self.stored
            if (0 in over and not self.whole) or (other and not self._differs(over, own)):
                continue
            of_axes = (f"over {words}",) if other else ()
            for groups in (True, False) if grouped and 1 in over else (False,):
                of_groups = ("no groups",) if grouped and 1 in over and not groups else ()
                mean, var, n = self._statistics(over, groups)
                where = (*of_axes, *of_groups)
                for centred in (self.plan.centred, not self.plan.centred):
                    of_mean = (
                        () if centred == self.plan.centred else ("centered" if centred else "not centered",)
                    )
                    yield from self._cores_of((*where, *of_mean), mean, var, n, centred)

    def _cores_of(
        self, words: Words, mean: Array, var: Array, n: int, centred: bool
    ) -> Iterator[tuple[Words, Formula]]:
        square = var if centred else var + mean**2
        taken = mean if centred else np.zeros_like(mean)
        yield words, self._core(taken, square, 0)
        if n > 1 and centred:
            yield (*words, "unbiased variance"), self._core(taken, square * n / (n - 1), 0)
            yield (
                (*words, "unbiased variance", "eps beside the root"),
                self._core(taken, square * n / (n - 1), 1),
            )
        yield (*words, "eps beside the root"), self._core(taken, square, 1)
        eps = self._eps(taken, square)
        if eps is not None:
            yield (*words, f"eps {eps:.2g}"), self._core(taken, square, 0, eps)

    def _core(self, mean: Array, square: Array, beside: int, eps: float | None = None) -> Formula:
        eps = self.plan.eps if eps is None else eps
        with np.errstate(all="ignore"):
            divisor = np.sqrt(square) + eps if beside else np.sqrt(square + eps)
        return lambda at: (self.x[at] - _of(mean, at)) / _of(divisor, at)

    def _eps(self, mean: Array, square: Array) -> float | None:
        """The eps that the largest outputs imply, as gain and bias are described; None where there is none."""
        gamma, beta = self.gamma[self.few[1]], self.beta[self.few[1]]
        with np.errstate(all="ignore"):
            ratio = (self.x[self.few] - _of(mean, self.few)) * gamma / (self.y[self.few] - beta)
            implied = ratio**2 - _of(square, self.few)
            strong = np.abs(self.y[self.few] - beta) > 0.1 * self.largest
        known = implied[strong & np.isfinite(implied)]
        eps = float(np.median(known)) if known.size else -1.0
        return eps if eps > 0 and not math.isclose(eps, self.plan.eps, rel_tol=1e-3) else None

    def _axes(self) -> tuple[int, ...]:
        pool = self.plan.pool
        return tuple(i for i, pooled in enumerate((pool.samples, pool.channels, pool.positions)) if pooled)

    def _differs(self, axes: tuple[int, ...], own: tuple[int, ...]) -> bool:
        """Whether statistics over these axes can be had, and are others than the described ones."""
        long = [i for i, size in enumerate(self.x.shape) if size > 1]
        here, there = ([i for i in long if i in which] for which in (axes, own))
        return bool(here) and (here != there or self.stored)

    def _statistics(self, axes: tuple[int, ...], groups: bool) -> tuple[Array, Array, int]:
        """Mean and variance over these axes, with channels in the groups of the plan, and of how many values."""
        if (axes, groups) not in self._moments:
            n, c, p = self.x.shape
            g = self.plan.n_groups if groups else 1
            x = self.x.reshape(n, g, c // g, p) if 1 in axes else self.x[:, :, None]
            dims = tuple({0: 0, 1: 2, 2: 3}[axis] for axis in axes)
            mean, var = x.mean(dims, keepdims=True), x.var(dims, keepdims=True)
            size = math.prod(x.shape[dim] for dim in dims)
            mean, var = (np.repeat(v, c // g if 1 in axes else 1, axis=1)[:, :, 0] for v in (mean, var))
            self._moments[axes, groups] = mean, var, size
        return self._moments[axes, groups]


def _of(values: Array, at: At) -> Array:
    """The entries of an array that broadcasts against rows."""
    return values[
        tuple(i if size > 1 else np.zeros_like(i) for i, size in zip(at, values.shape, strict=True))
    ]


def came_through_half(y: Array, gamma: Array, beta: Array) -> str:
    """The half precision that the output went through before it was multiplied by γ, or after; empty if none.

    Of float32 results one in a thousand looks so by chance.
    """
    with np.errstate(all="ignore"):
        for values in (y, (y - beta[None, :, None]) / gamma[None, :, None]):
            known = values[np.isfinite(values) & (values != 0)]
            for dtype in HALVES if known.size else ():
                rounded = torch.from_numpy(known).to(dtype).to(torch.float64).numpy()
                if np.mean(np.abs(rounded - known) <= 4e-7 * np.abs(known)) > 0.9:
                    return str(dtype).removeprefix("torch.")
    return ""
