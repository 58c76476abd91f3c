"""What the advice of a finding changes, as data: an edit of a model or of its inputs, which an experiment can carry out.

A rule gives its finding a `Remedy` beside the words of its advice; `bnprobe.experiments.carry_out` has a function for each
kind of edit. Each rule names those that its findings may bring, or says why there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Channels = tuple[int, ...]


@dataclass(frozen=True)
class Recalibrate:
    """Running statistics of every batch norm re-estimated as plain averages, as torch's `update_bn` does.

    `dropout` is whether dropout is on meanwhile, as in training.
    """

    dropout: bool = True


@dataclass(frozen=True)
class RecalibrateOne:
    """The same for one norm that `update_bn` passes over; `of_samples` averages the statistics of single samples."""

    layer: str
    of_samples: bool = False


@dataclass(frozen=True)
class SetAttribute:
    """An attribute of a module set to a number or None, as eps or momentum."""

    layer: str
    name: str
    value: float | None


@dataclass(frozen=True)
class Rescale:
    """The weights before a norm, and its running statistics, times a factor; eps alike, or γ corrected for it."""

    producer: str
    layer: str
    factor: float
    with_eps: bool = False
    with_gamma: bool = False


@dataclass(frozen=True)
class Reinitialize:
    """The weight of γ at a number and β at 0 in these channels; with the `producer`'s filters made again at random, and new
    running statistics."""

    layer: str
    channels: Channels
    producer: str = ""
    statistics: bool = False
    weight: float = 1.0


@dataclass(frozen=True)
class SetMode:
    """Train or eval mode of a part, "" being the model."""

    part: str
    training: bool


@dataclass(frozen=True)
class Freeze:
    """No gradient for the parameters of these parts; with `eval_mode` they are put into eval mode, too."""

    parts: tuple[str, ...]
    eval_mode: bool = False


@dataclass(frozen=True)
class Swap:
    """Two vectors of each of these norms exchanged, by the names of their attributes."""

    layers: tuple[str, ...]
    one: str
    other: str


@dataclass(frozen=True)
class DivideStatistics:
    """Running mean and variance of a norm divided by a number."""

    layer: str
    by: float


@dataclass(frozen=True)
class TakeOutInitial:
    """Running mean and variance of a norm without their initial 0 and 1, of which `left` is still in them."""

    layer: str
    left: float


@dataclass(frozen=True)
class DropStatistics:
    """A norm without running statistics: it normalizes by those of its input in eval mode, too."""

    layer: str


@dataclass(frozen=True)
class TrackStatistics:
    """Every batch norm updates its running statistics in train mode."""


@dataclass(frozen=True)
class UpdateOnce:
    """A norm that is run again by gradient checkpointing does not update its running statistics then."""

    layer: str


@dataclass(frozen=True)
class Remove:
    """An identity in the place of a module."""

    layer: str


@dataclass(frozen=True)
class SetGamma:
    """Every γ of a norm set to one number."""

    layer: str
    value: float = 1.0


@dataclass(frozen=True)
class ScaleDown:
    """The weights that produce these channels divided by their ratios."""

    producer: str
    channels: Channels
    by: tuple[float, ...]


@dataclass(frozen=True)
class MoveBias:
    """Biases moved into the running means of the norms after them: pairs of producer and norm."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class InFloat32:
    """A part in float32, "" being the model; its input is cast, and its output cast back, where it is a norm."""

    layer: str


@dataclass(frozen=True)
class PlainBatchNorm:
    """A SyncBatchNorm as a plain batch norm."""

    layer: str


@dataclass(frozen=True)
class UndoMap:
    """Inputs x for which (x - offset) / gain is taken, per input channel, and then the channels in reverse order."""

    gain: tuple[float, ...]
    offset: tuple[float, ...]
    reverse: bool = False


@dataclass(frozen=True)
class CleanInputs:
    """0 in the place of inputs that are not finite."""


@dataclass(frozen=True)
class ResizeInputs:
    """Images enlarged by a factor, or shrunk."""

    factor: float


@dataclass(frozen=True)
class SmoothInputs:
    """Each pixel of the images replaced by the mean of the 3 × 3 around it, zeros beyond the border."""


OfInputs = UndoMap | CleanInputs | ResizeInputs | SmoothInputs
OfModel = (
    Recalibrate
    | RecalibrateOne
    | SetAttribute
    | Rescale
    | Reinitialize
    | SetMode
    | Freeze
    | Swap
    | DivideStatistics
    | TakeOutInitial
    | DropStatistics
    | TrackStatistics
    | UpdateOnce
    | Remove
    | SetGamma
    | ScaleDown
    | MoveBias
    | InFloat32
    | PlainBatchNorm
)
Edit = OfInputs | OfModel

RENEWED = (Recalibrate, RecalibrateOne)
"""How running statistics are made again, of all norms or of one."""


@dataclass(frozen=True)
class Remedy:
    """The edits that a piece of advice makes, in their order.

    Where the finding names a cause, the edits of `cause` undo that: if the discrepancy stays, the cause is another.
    """

    edits: tuple[Edit, ...]
    cause: tuple[Edit, ...] = ()


def remedy(*edits: Edit | None) -> Remedy | None:
    """The remedy of these edits; None where there are none."""
    there = tuple(edit for edit in edits if edit is not None)
    return Remedy(there) if there else None


def undoing(*edits: Edit) -> Remedy:
    """The remedy of a finding that names a cause, which these edits undo."""
    return Remedy(edits, edits)


def all_of(remedies: Sequence[Remedy]) -> Remedy:
    """Those of several places, carried out together, each edit once."""
    edits = dict.fromkeys(edit for one in remedies for edit in one.edits)
    cause = dict.fromkeys(edit for one in remedies for edit in one.cause)
    return Remedy(tuple(edits), tuple(cause))
