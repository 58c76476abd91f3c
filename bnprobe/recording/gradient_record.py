"""What backward passes did at one site."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from bnprobe.recording.merge import merge_optional
from bnprobe.stats import Moments
from bnprobe.stats.moments import Array


@dataclass(frozen=True)
class ProducerRecord:
    """The weights before a norm, per output channel and over backward passes; shapes (C,).

    `norm` is |w|, `grad_norm` |dL/dw|, `angle` the angle in radians by which a step of learning rate 1
    along the gradient turns w (to first order), `gap` the largest violation of the identity that ties
    <w, dL/dw> to gamma's gradient, relative to |w| |dL/dw|; NaN where it was not checked.
    """

    norm: Moments
    grad_norm: Moments
    angle: Moments
    gap: Array

    def __repr__(self) -> str:
        return f"ProducerRecord({self.gap.size:,} channels)"

    def merge(self, other: Self) -> Self:
        """Both parts together."""
        return replace(
            self,
            norm=self.norm.merge(other.norm),
            grad_norm=self.grad_norm.merge(other.grad_norm),
            angle=self.angle.merge(other.angle),
            gap=np.fmax(self.gap, other.gap),
        )


@dataclass(frozen=True)
class NonfiniteGradient:
    """Gradients that were NaN or infinite, by channel and by backward pass; arrays of shape (C,).

    `dx_values` counts values of dL/dx, and each `*_passes` the passes in which one of dL/dy, dL/dx, dL/dgamma or
    dL/dbeta was not finite in the channel. Of all passes, `n_arriving` brought a dL/dy that was not finite somewhere
    in the layer; in `n_arising` all of dL/dy was finite, and dL/dx, dL/dgamma or dL/dbeta was not. `n_scaled` of
    these ran under a loss scale: a scaler skips their step, and their gradients are in no other number.
    """

    dx_values: Array
    dy_passes: Array
    dx_passes: Array
    gamma_passes: Array
    beta_passes: Array
    n_arriving: int
    n_arising: int
    n_scaled: int

    def __repr__(self) -> str:
        return f"NonfiniteGradient({self.n_passes:,} backward passes)"

    @property
    def n_passes(self) -> int:
        """Passes in which a gradient was not finite."""
        return self.n_arriving + self.n_arising

    def merge(self, other: Self) -> Self:
        """Both parts together: everything here counts something."""
        theirs = vars(other)
        return replace(self, **{name: value + theirs[name] for name, value in vars(self).items()})


@dataclass(frozen=True)
class GradientRecord:
    """What backward passes did at one site; shapes (C,).

    `dy` and `dx` are moments of the gradient at the norm's output and input over all values; `gamma`,
    `beta` moments over backward passes of dL/dgamma and dL/dbeta, `importance` of |gamma dgamma + beta
    dbeta|. `energy` is the sum of (dy gamma / sqrt(var + eps))^2: what the energy of dx would be if the
    norm's mean and variance were constants, over the `n_passes_dx` passes that have a dx. `gap_centre`
    and `gap_map` are the largest violations of sum dx = 0 and of dx = dy gamma / sqrt(running_var +
    eps), relative; NaN where they do not apply.
    `stream` holds moments over passes of the sum of (dL/dx r)^2, of norms that divide each token by a scale r of its own:
    with all of the gradient at what the norm is given, also that of a residual stream beside it.
    None stands for gradients that autograd did not compute (a frozen parameter, an input without one).
    `nonfinite` is None in files from before it was counted.
    """

    n_passes: int
    n_passes_dx: int
    dy: Moments
    dy_nonfinite: Array
    dx: Moments | None
    gamma: Moments | None
    beta: Moments | None
    importance: Moments | None
    energy: Array
    gap_centre: Array
    gap_map: Array
    producer: ProducerRecord | None
    nonfinite: NonfiniteGradient | None = None
    stream: Moments | None = None

    def __repr__(self) -> str:
        return f"GradientRecord({self.energy.size:,} channels, {self.n_passes:,} backward passes)"

    def merge(self, other: Self) -> Self:
        """Both parts together; a gradient that only one part has is kept from that part."""
        kept: dict[str, Any] = {
            name: merge_optional(getattr(self, name), getattr(other, name), True)
            for name in ("dx", "gamma", "beta", "importance", "producer", "nonfinite", "stream")
        }
        return replace(
            self,
            **kept,
            n_passes=self.n_passes + other.n_passes,
            n_passes_dx=self.n_passes_dx + other.n_passes_dx,
            dy=self.dy.merge(other.dy),
            dy_nonfinite=self.dy_nonfinite + other.dy_nonfinite,
            energy=self.energy + other.energy,
            gap_centre=np.fmax(self.gap_centre, other.gap_centre),
            gap_map=np.fmax(self.gap_map, other.gap_map),
        )


def parts_of(
    record: ProducerRecord | NonfiniteGradient | GradientRecord, at: str
) -> Iterator[tuple[str, Array | Moments]]:
    """The arrays and moments of a record of gradients, with their names."""
    for name, value in vars(record).items():
        if isinstance(value, ProducerRecord | NonfiniteGradient):
            yield from parts_of(value, f"{at} / {name}")
        elif value is not None and not isinstance(value, int):
            yield f"{at} / {name}", value
