"""What was seen, where, and from what: plain frozen data that adds up.

A `Recording` knows nothing of torch. Whatever is shown later is arithmetic on it, so a report can
be made on a laptop from a file, and the recordings of two machines can be merged first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bnprobe.atomic_write import write_whole
from bnprobe.errors import BadRecordingFile, BnprobeError, CannotMerge
from bnprobe.recording.about import About
from bnprobe.recording.codec import AGAIN, decode, encode
from bnprobe.recording.integrity import IntegrityReport
from bnprobe.recording.layer_record import HISTOGRAMS_LOST, LayerRecord, loses_histograms
from bnprobe.recording.validation import violations


@dataclass(frozen=True)
class Recording:
    """Everything a probe saw, as plain data: a snapshot that stays usable after `detach()`.

    `layers` stand in the order in which they were first reached. `not_understood` names modules
    that look like norms but could not be read, `never_called` norms that no forward pass reached, `folded`
    places where a norm's name stands for nothing any more, behind a convolution that took the norm in.
    `integrity` says what of the model was not the same after the probe; None before `detach()`.
    """

    about: About
    layers: tuple[LayerRecord, ...]
    not_understood: tuple[str, ...] = ()
    never_called: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    integrity: IntegrityReport | None = None

    def __post_init__(self) -> None:
        seen = [(record.layer, record.call) for record in self.layers]
        if len(set(seen)) != len(seen):
            raise BnprobeError("A recording holds one record per site; this one holds a site twice.")

    @property
    def saw_nothing(self) -> bool:
        """Whether not one value reached a norm, as with batches of no images."""
        return not any(record.pre.n.any() or record.pre_nonfinite.any() for record in self.layers)

    @property
    def weights_only(self) -> bool:
        """Whether no norm was called: what a checkpoint says, without data."""
        return bool(self.layers) and all(record.n_calls == 0 for record in self.layers)

    def merge(self, other: Self) -> Self:
        """Both recordings together, as if made in one go; CannotMerge when the weights differ."""
        if not isinstance(other, Recording):
            raise CannotMerge(
                f"merge needs another Recording, got {type(other).__name__}. Take probe.recording, or "
                "bnprobe.load(path) for a file."
            )
        mine = {(record.layer, record.call): record for record in self.layers}
        theirs = {(record.layer, record.call): record for record in other.layers}
        if mine and theirs and not mine.keys() & theirs.keys():
            raise CannotMerge(
                f"{self.about.model} and {other.about.model} have no layer path in common. "
                "Merge recordings of one model; compare different ones instead."
            )
        both = {site: mine[site].merge(theirs[site]) for site in mine.keys() & theirs.keys()}
        layers = {**mine, **theirs, **both}
        lost = [site for site in both if loses_histograms(mine[site], theirs[site])]
        reached = {layer for layer, _ in layers}
        return type(self)(
            about=self.about.merge(other.about).noting(HISTOGRAMS_LOST if lost else ""),
            layers=tuple(layers.values()),
            not_understood=tuple(sorted({*self.not_understood, *other.not_understood})),
            never_called=tuple(
                name for name in dict.fromkeys(self.never_called + other.never_called) if name not in reached
            ),
            folded=tuple(sorted({*self.folded, *other.folded})),
            integrity=None if self.integrity is None else self.integrity.merge(other.integrity),
        )

    def save(self, path: str | Path) -> Path:
        """Write the recording to one file without pickle (safetensors layout), atomically."""
        return write_whole(Path(path), encode(self))

    def check_sane(self) -> Self:
        """Raise unless every statistic obeys the inequalities that real samples obey."""
        for record in self.layers:
            record.check_sane()
        return self


def load(path: str | Path) -> Recording:
    """Read a recording; every field is checked before it is believed.

    Raises BadRecordingFile, naming the field, when the file is missing, truncated, foreign, of a newer
    schema, edited, or holds statistics that no sample of values can have.
    """
    path = Path(path)
    recording = decode(path, Recording)
    try:
        recording = recording.check_sane()
    except BnprobeError as error:
        raise BadRecordingFile(f"{path.name}: {error} {AGAIN}") from error
    for odd in violations(recording.about, recording.layers):
        raise BadRecordingFile(f"{path.name}: {odd} {AGAIN}")
    return recording
