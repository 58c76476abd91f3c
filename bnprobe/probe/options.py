"""The options of `attach`, checked in one place. To add one, see CONTRIBUTING.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bnprobe.errors import BnprobeError
from bnprobe.probe.backward.gradients import LossScaler
from bnprobe.probe.phases import GENERATION
from bnprobe.probe.schedule import Schedule
from bnprobe.recording import UNITS, Normalize, training_batch

MOST_EXEMPLARS = 1000
"""Samples on either side of each channel: memory is taken for all of them."""


@dataclass(frozen=True, kw_only=True)
class AttachOptions:
    """What `attach` was asked for, as it was given; see there for what each option means.

    Attributes:
        patterns: The shell patterns of `layers`; None for every layer.
        constants: `normalize` as plain data; None where it was not given.
        schedule: Which passes are recorded, by `every` and `until`.

    Raises:
        BnprobeError: An option is not what it should be.
    """

    layers: str | Sequence[str] | None = None
    histograms: bool = True
    gradients: bool = True
    scaler: LossScaler | None = None
    normalize: tuple[Sequence[float], Sequence[float]] | None = None
    training_batch: int | None = None
    exemplars: int = 0
    mask: str | None = None
    sample_dim: int = 0
    unit: str | None = None
    every: int = 1
    until: int | None = None
    phase: str | None = None
    patterns: tuple[str, ...] | None = field(init=False)
    constants: Normalize | None = field(init=False)
    schedule: Schedule = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patterns", _patterns_of(self.layers))
        object.__setattr__(self, "constants", _constants_of(self.normalize))
        object.__setattr__(self, "schedule", Schedule(self.every, self.until))
        training_batch.checked(self.training_batch)
        if type(self.exemplars) is not int or not 0 <= self.exemplars <= MOST_EXEMPLARS:
            raise BnprobeError(
                f"exemplars={self.exemplars!r:.40} is not a number of samples from 0 to {MOST_EXEMPLARS:,}. Pass a whole "
                "number such as 8, or 0 for none."
            )
        for name in ("histograms", "gradients"):
            if not isinstance(getattr(self, name), bool):
                raise BnprobeError(
                    f"{name}={getattr(self, name)!r} is neither True nor False. Pass one of them."
                )
        if self.mask is not None and not isinstance(self.mask, str):
            raise BnprobeError(
                f"mask must be the name of an argument of the model, got {type(self.mask).__name__}. The mask of one batch "
                "goes around its pass: with probe.mask(m): model(x)."
            )
        if type(self.sample_dim) is not int or self.sample_dim < 0:
            raise BnprobeError(
                f"sample_dim={self.sample_dim!r} is not the number of a dimension, counted from 0. Pass 1 for inputs of "
                "shape (positions, samples, features)."
            )
        if self.unit is not None and self.unit not in UNITS:
            raise BnprobeError(f"unit={self.unit!r} is no name for samples. Pass one of {', '.join(UNITS)}.")
        if self.phase not in (None, GENERATION):
            raise BnprobeError(
                f"phase={self.phase!r:.40} is no way to choose phases. Pass {GENERATION!r} to keep prefill and decode "
                'apart; for others run the passes inside with probe.phase("val").'
            )
        if self.scaler is not None and not callable(getattr(self.scaler, "get_scale", None)):
            raise BnprobeError(
                f"scaler must have a method get_scale(), got {type(self.scaler).__name__}. Pass the loss scaler itself, "
                "such as torch.amp.GradScaler()."
            )


def _patterns_of(layers: Any) -> tuple[str, ...] | None:
    if layers is None:
        return None
    several = isinstance(layers, Iterable) and not isinstance(layers, str)
    patterns = tuple(layers) if several else (layers,)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise BnprobeError(
            f"layers={layers!r} is not a path. Pass a path or a shell-style pattern such as "
            '"layer4.*", or a list of them.'
        )
    if not patterns:
        raise BnprobeError("layers is empty, so there is nothing to record. Omit it to record all norms.")
    return patterns


def _constants_of(normalize: Any) -> Normalize | None:
    if normalize is None:
        return None
    try:
        mean, std = (tuple(map(float, part)) for part in normalize)
    except (TypeError, ValueError):
        raise BnprobeError(
            f"normalize={normalize!r} is not a pair of sequences. Pass (mean, std), each with one number per input "
            "channel, such as ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))."
        ) from None
    return Normalize(mean, std)
