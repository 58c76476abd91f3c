"""What was seen, where, and from what: plain frozen data that adds up.

A `Recording` knows nothing of torch. Whatever is shown later is arithmetic on it, so a report can
be made on a laptop from a file, and the recordings of two machines can be merged first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

from bnprobe.errors import BadRecordingFile, BnprobeError, CannotMerge
from bnprobe.files import write_output
from bnprobe.notebook import facts
from bnprobe.recording.about import About
from bnprobe.recording.arrow import to_arrow
from bnprobe.recording.codec import AGAIN, decode, decode_bytes, encode
from bnprobe.recording.integrity import IntegrityReport
from bnprobe.recording.layer_record import (
    EXEMPLARS_LOST,
    HISTOGRAMS_LOST,
    LayerRecord,
    loses_exemplars,
    loses_histograms,
)
from bnprobe.recording.names import said_passes, spelled
from bnprobe.recording.samples import SampleTable, check_samples, common_samples, without_unused
from bnprobe.recording.source import Source, digest, missing
from bnprobe.recording.tensors import Dropout, TensorTable, differing
from bnprobe.recording.validation import violations
from bnprobe.stats.moments import Moments

SHOWN = 10
"""Sites that a notebook cell lists."""


@dataclass(frozen=True)
class Recording:
    """Everything a probe saw, as plain frozen data that knows nothing of torch.

    Made by `record` and `Probe.recording`, written by `save` and read by `load`. Recordings of several machines, days or
    shards add up by `merge`. Pass one to `bnprobe.report` for tables and a page, or two to `bnprobe.compare`.

    Attributes:
        about: What was probed, on what, and when; `about.n_images` samples in `about.n_forwards` forward passes.
        layers: One record per site, that is per norm layer and call of it in a forward pass, in the order in which they
            were first reached. Statistics have shape (C,) and are float64.
        not_understood: Modules that look like norms but were not recognized; see `register_norm`.
        never_called: Paths of norms that no forward pass reached.
        folded: Paths where a norm was folded into the convolution before it.
        tensors: Checksum and size of every tensor of floats as they were when the probe was attached; None in old files.
        dropouts: Modules that drop values in train mode.
        integrity: What differs in the model between `attach` and `detach`; None before `detach`.
        parts: The recordings of phases, see `phases`.
        sources: The parts that were merged into it, with a digest of the samples of each; for one part at most its rank.
        samples: The samples that exemplars of channels are; None where none were kept.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4)).eval()
        >>> monday, tuesday = (bnprobe.record(model, [torch.randn(n, 6)]) for n in (5, 7))
        >>> both = monday.merge(tuesday)
        >>> both.about.n_images, [layer.layer for layer in both.layers]
        (12, ['1'])
    """

    about: About
    layers: tuple[LayerRecord, ...]
    not_understood: tuple[str, ...] = ()
    never_called: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    integrity: IntegrityReport | None = None
    tensors: TensorTable | None = None
    dropouts: tuple[Dropout, ...] = ()
    parts: tuple[Recording, ...] = ()
    sources: tuple[Source, ...] = ()
    samples: SampleTable | None = None

    @property
    def seen(self) -> tuple[Source, ...]:
        """The parts it was merged from with the digests of their samples; itself where it was not merged."""
        counted = len(self.sources) > 1 or any(source.samples for source in self.sources)
        if counted or self.about.phase or all(part.saw_nothing for part in (self, *self.parts)):
            return self.sources
        samples = digest(record for part in (self, *self.parts) for record in part.layers)
        return (replace((*self.sources, Source())[0], samples=samples),)

    @property
    def missing(self) -> str:
        """Which ranks or shards of the whole are not in it, in words; empty where none is missing, or nobody counted."""
        return missing(self.sources)

    @property
    def phases(self) -> dict[str, Recording]:
        """The recordings of the phases that `Probe.phase` kept apart, by name, in the order in which they began."""
        return {part.about.phase: part for part in self.parts}

    def __repr__(self) -> str:
        norms = {record.layer: record.n_channels for record in self.layers}
        words = [f"{len(norms):,} norm{'s' * (len(norms) != 1)}", f"{sum(norms.values()):,} channels"]
        words += ["weights only"] if self.weights_only else [f"{self.about.n_images:,} samples", *self._modes]
        words += [said_passes(self.about.n_forwards, self.about.n_skipped)] * bool(self.about.n_skipped)
        words += [f"phases {', '.join(self.phases)}"] * bool(self.parts)
        return f"Recording({self.about.model}: {', '.join(words)})"

    def _repr_html_(self) -> str:
        rows = [
            (record.site, f"{record.kind}, {record.n_channels:,} channels") for record in self.layers[:SHOWN]
        ]
        more = len(self.layers) - SHOWN
        return facts(repr(self), [*rows, *([("…", f"{more:,} more")] if more > 0 else [])])

    @property
    def _modes(self) -> list[str]:
        return sorted({record.mode for record in self.layers})

    def __post_init__(self) -> None:
        for name in ("not_understood", "never_called", "folded"):
            object.__setattr__(self, name, tuple(map(spelled, getattr(self, name))))
        seen = [(record.layer, record.call) for record in self.layers]
        if len(set(seen)) != len(seen):
            raise BnprobeError("A recording holds one record per site; this one holds a site twice.")
        if len(self.phases) != len(self.parts) or any(
            part.parts or not part.about.phase for part in self.parts
        ):
            raise BnprobeError("The phases of a recording have a name each, and none holds another.")
        check_samples(self.layers, self.samples)

    @property
    def saw_nothing(self) -> bool:
        """Whether not a single value reached a norm, as with empty batches."""
        return not any(record.pre.n.any() or record.pre_nonfinite.any() for record in self.layers)

    @property
    def weights_only(self) -> bool:
        """Whether this holds only what a checkpoint stores, without data."""
        return bool(self.layers) and all(record.n_calls == 0 for record in self.layers)

    def merge(self, other: Self) -> Self:
        """Add another recording of the same model, as if both had been recorded in one go.

        Moments, counts, extremes and exemplars are exact. Histograms, which count every fourth sample of long runs, agree
        within their sampling error. Histograms and exemplars are dropped where only one part has them; of parts with
        other numbers of exemplars the smaller number is kept. Samples that are in both are counted twice; `bnprobe merge`
        and `bnprobe.gather` refuse such parts.

        Args:
            other: A recording of the same weights, with other data.

        Returns:
            A new recording; neither part is changed.

        Raises:
            CannotMerge: Weights (also those of other layers, unless training was recorded), running statistics or layers
                differ, or `other` is not a recording.
        """
        if not isinstance(other, Recording):
            raise CannotMerge(
                f"merge needs another Recording, got {type(other).__name__}. Take probe.recording, or "
                "bnprobe.load(path) for a file."
            )
        my_layers, their_layers, samples = common_samples(
            self.layers, self.samples, other.layers, other.samples
        )
        mine = {(record.layer, record.call): record for record in my_layers}
        theirs = {(record.layer, record.call): record for record in their_layers}
        if self.about.phase != other.about.phase:
            raise CannotMerge(
                f"phases {self.about.phase!r} and {other.about.phase!r} are kept apart. Compare them instead, or merge the "
                "recordings that hold both."
            )
        phases = {**self.phases, **other.phases}
        phases |= {
            name: part.merge(other.phases[name]) for name, part in self.phases.items() if name in other.phases
        }
        if mine and theirs and not mine.keys() & theirs.keys():
            raise CannotMerge(
                f"{self.about.model} and {other.about.model} have no layer path in common. "
                "Merge recordings of one model; compare different ones instead."
            )
        both = {site: mine[site].merge(theirs[site]) for site in mine.keys() & theirs.keys()}
        trained = self._other_weights(other)
        layers = {**mine, **theirs, **both}
        kept, samples = without_unused(layers.values(), samples)
        about = self.about.merge(other.about).noting(trained)
        for note, loses in ((HISTOGRAMS_LOST, loses_histograms), (EXEMPLARS_LOST, loses_exemplars)):
            about = about.noting(note if any(loses(mine[site], theirs[site]) for site in both) else "")
        reached = {layer for layer, _ in layers}
        return type(self)(
            about=about,
            layers=kept,
            not_understood=tuple(sorted({*self.not_understood, *other.not_understood})),
            never_called=tuple(
                name for name in dict.fromkeys(self.never_called + other.never_called) if name not in reached
            ),
            folded=tuple(sorted({*self.folded, *other.folded})),
            integrity=None if self.integrity is None else self.integrity.merge(other.integrity),
            tensors=self.tensors or other.tensors,
            dropouts=self.dropouts or other.dropouts,
            parts=tuple(phases.values()),
            sources=self.seen + other.seen,
            samples=samples,
        )

    def _other_weights(self, other: Self) -> str:
        """That other tensors than those of norms differ, where training was recorded; otherwise CannotMerge.

        Those of ranks are not compared: each may hold its shard of them.
        """
        if all(source.kind == "rank" for source in (*self.sources, *other.sources)) and self.sources:
            return ""
        names = self.other_tensors(other)
        if not names:
            return ""
        which = f"{len(names):,} tensor{'s' * (len(names) != 1)}, the first is {names[0]}"
        if any(record.n_calls_training or record.gradient for record in (*self.layers, *other.layers)):
            return f"Other weights than those of norms differ between parts ({which}): they were trained in between."
        raise CannotMerge(
            f"weights differ ({which}), so the two recordings come from different networks. Record both from the same "
            "checkpoint."
        )

    def other_tensors(self, other: Self) -> list[str]:
        """Find what differs in the model beside the norms.

        Args:
            other: A recording of the same model.

        Returns:
            Names of tensors that are not the same in both; none where one of the recordings does not know its tensors.
        """
        norms = tuple(f"{record.layer}." for record in (*self.layers, *other.layers))
        return [name for name in differing(self.tensors, other.tensors) if not name.startswith(norms)]

    def with_training_batch(self, training_batch: int | None) -> Self:
        """Say how large the batches of training were, which sets the noise of the running statistics.

        Args:
            training_batch: Samples per batch and device in training; None if unknown.

        Returns:
            A new recording.

        Raises:
            BnprobeError: It is not a whole number of at least 1.
        """
        return replace(
            self,
            layers=tuple(replace(record, training_batch=training_batch) for record in self.layers),
            parts=tuple(part.with_training_batch(training_batch) for part in self.parts),
        )

    def with_integrity(self, integrity: IntegrityReport) -> Self:
        """Add what was compared of the model before and after.

        Args:
            integrity: What `Probe.detach` found.

        Returns:
            A new recording.
        """
        return replace(
            self, integrity=integrity, parts=tuple(part.with_integrity(integrity) for part in self.parts)
        )

    def save(self, path: str | Path) -> Path:
        """Write the recording to one file, without pickle (safetensors layout), whole or not at all.

        Args:
            path: The file to write, by convention with the suffix .bnp.

        Returns:
            The path.

        Raises:
            CannotWrite: The file cannot be written.
        """
        return write_output(Path(path), self.to_bytes())

    def to_bytes(self) -> bytes:
        """Give the content of the file that `save` would write, to send it elsewhere.

        Returns:
            The bytes; `bnprobe.recording.from_bytes` reads them.
        """
        return encode(self)

    def to_arrow(self) -> Any:
        """Give what was recorded of every channel as a table for other tools; needs pyarrow (`pip install pyarrow`).

        A row per channel of every site. Each field's metadata have its `description` and `unit`, and the table's the
        `schema` and, as JSON, what was probed (`about`). Histograms, gradients and phases are not in it; of a phase
        call it on `recording.phases[name]`.

        Returns:
            A `pyarrow.Table`.

        Raises:
            BnprobeError: pyarrow is not installed.
        """
        return to_arrow(self.about, self.layers)

    def check_sane(self) -> Self:
        """Check that every statistic obeys the inequalities that real samples obey.

        Returns:
            The recording itself.

        Raises:
            BnprobeError: A statistic is impossible, such as a variance below zero; the message names it.
        """
        sane = _moments_are_sane(self.layers)
        for record in self.layers:
            if not sane:
                record.check_sane()  # which says whose
            record.check_counts()
        for part in self.parts:
            part.check_sane()
        return self


def _moments_are_sane(layers: tuple[LayerRecord, ...]) -> bool:
    """Whether those of all layers obey their laws, asked at once: of each by itself it takes ten times as long."""
    together = [moments.reshape(-1) for record in layers for _, moments in record.moments()]
    try:
        if together:
            Moments.concatenate(together).check_sane()
    except BnprobeError:
        return False
    return True


class HasRecording(Protocol):
    """What holds a recording: a Probe, or a Report on one."""

    @property
    def recording(self) -> Recording:
        """The recording."""


def load(path: str | Path) -> Recording:
    """Read a recording that `Recording.save` wrote; needs no torch. Files of older versions can be read.

    Every field is checked: type, shape, digest, and whether any sample of values can have such statistics.

    Args:
        path: The file.

    Returns:
        The recording.

    Raises:
        BadRecordingFile: The file is missing, truncated, edited, not a recording, of a newer schema, or impossible; the
            message names the field.

    Example:
        >>> import tempfile, torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.LayerNorm(4))
        >>> recording = bnprobe.record(model, [torch.randn(5, 6)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = recording.save(f"{folder}/run.bnp")
        ...     again = bnprobe.load(path)
        >>> again.about == recording.about
        True
    """
    path = Path(path)
    return believed(decode(path, Recording), path.name)


def from_bytes(content: bytes | memoryview, name: str) -> Recording:
    """What `Recording.to_bytes` gave, with all checks of `load`. Raises BadRecordingFile, which calls it `name`."""
    return believed(decode_bytes(content, name, Recording), name)


def believed(recording: Recording, name: str) -> Recording:
    """The recording, unless no run can have written it. Raises BadRecordingFile, which calls it `name`."""
    try:
        recording = recording.check_sane()
    except BnprobeError as error:
        raise BadRecordingFile(f"{name}: {error} {AGAIN}") from error
    for part in (recording, *recording.parts):
        for odd in violations(part.about, part.layers):
            raise BadRecordingFile(f"{name}: {odd} {AGAIN}")
    return recording
