"""What was probed, on what, and when."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Self

from bnprobe.errors import BnprobeError


@dataclass(frozen=True)
class Normalize:
    """How pixels in 0 to 1 became the model's inputs: (pixel - mean) / std, one entry per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean or not all(0 < s < inf for s in self.std):
            raise BnprobeError(
                f"normalize: mean {self.mean} and std {self.std} do not go together. Give one number of each "
                "per channel of the input, every std above zero."
            )


@dataclass(frozen=True)
class About:
    """What was probed, on what, and when.

    What `Recording.about` is.

    Attributes:
        model: Name of the model.
        weights: Which weights, in words.
        data: Which data, in words.
        preprocessing: How inputs were made, in words.
        device: Where the model ran, such as "cpu".
        versions: Versions of bnprobe, torch and Python.
        started: When the probe was attached, UTC, ISO 8601.
        n_parameters: Number of parameters of the model.
        n_forwards: Number of completed forward passes that were recorded.
        n_images: Number of samples in them.
        seconds: Time of these passes, probe included.
        notes: What a reader must know to judge the numbers, in sentences.
        normalize: Constants of the preprocessing, or None if unknown.
        n_positions: Number of positions (tokens, pixels) that masks kept; 0 without a mask.
        n_masked: Number of positions that masks left out, as padding.
        phase: Name of the phase that was recorded, such as "val"; empty outside all phases.
        unit: What samples are called, such as "sequences"; empty if nobody said so.
        n_skipped: Number of completed forward passes that were not recorded, as `attach(every=)` or `until=` asked.
        n_learning: Number of parameters that required a gradient when the probe was attached; None in old files.
    """

    model: str
    weights: str = "not stated"
    data: str = "not stated"
    preprocessing: str = "not stated"
    device: str = "cpu"
    versions: str = ""
    started: str = ""
    n_parameters: int = 0
    n_forwards: int = 0
    n_images: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    normalize: Normalize | None = None
    n_positions: int = 0
    n_masked: int = 0
    phase: str = ""
    unit: str = ""
    n_skipped: int = 0
    n_learning: int | None = None

    def noting(self, note: str) -> Self:
        """Add a note; an empty one is ignored.

        Args:
            note: A sentence.

        Returns:
            A new object.
        """
        return replace(self, notes=tuple(sorted({*self.notes, note}))) if note else self

    def merge(self, other: Self) -> Self:
        """Put two descriptions together: numbers add up, words that differ stand side by side.

        Args:
            other: The description of another part of the same recording.

        Returns:
            A new object.
        """
        words = ("model", "weights", "data", "preprocessing", "device", "versions")
        return replace(
            self,
            **{name: _side_by_side(getattr(self, name), getattr(other, name)) for name in words},
            started=min(self.started, other.started),
            n_parameters=max(self.n_parameters, other.n_parameters),
            n_forwards=self.n_forwards + other.n_forwards,
            n_skipped=self.n_skipped + other.n_skipped,
            n_images=self.n_images + other.n_images,
            n_positions=self.n_positions + other.n_positions,
            n_masked=self.n_masked + other.n_masked,
            seconds=self.seconds + other.seconds,
            notes=tuple(sorted({*self.notes, *other.notes})),
            # of inputs made in two ways, or in one that is not known, there is no one colour
            normalize=self.normalize if self.normalize == other.normalize else None,
            unit=self.unit if self.unit == other.unit else "",
            n_learning=self.n_learning if self.n_learning == other.n_learning else None,
        )


def _side_by_side(mine: str, theirs: str) -> str:
    return " + ".join(sorted({*mine.split(" + "), *theirs.split(" + ")}))
