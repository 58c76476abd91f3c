"""The probe that users hold: attached, asked for labels and recordings, and detached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self
from weakref import ref

from torch import nn

from bnprobe.errors import BnprobeError
from bnprobe.norms import folded_away
from bnprobe.norms.functional import leave, listen
from bnprobe.probe.about import Subject
from bnprobe.probe.backward.gradients import Gradients
from bnprobe.probe.forward import Forward
from bnprobe.probe.hooks import register
from bnprobe.probe.integrity.expected_changes import ExpectedChanges
from bnprobe.probe.integrity.fingerprint import Fingerprint
from bnprobe.probe.labels import labels_of
from bnprobe.probe.notes import LATE_BACKWARD, notes
from bnprobe.probe.survey.compiled import Eager, runs_compiled
from bnprobe.probe.survey.detect_by_output import Proposal, candidates, look
from bnprobe.probe.survey.functional_calls import Unhooked
from bnprobe.probe.survey.select import choose, not_understood, patterns_of
from bnprobe.probe.survey.unwrap import unwrap
from bnprobe.recording import Normalize, Recording
from bnprobe.recording.integrity import IntegrityReport


def attach(
    model: nn.Module,
    *,
    layers: str | Sequence[str] | None = None,
    histograms: bool = True,
    gradients: bool = True,
    scaler: Any = None,
    normalize: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Probe:
    """Hook every normalization layer of `model` and return the probe that records them.

    Use it as a context manager, or call `detach()`. `layers` narrows it to paths that match one of
    these shell patterns ("layer4.*"); `histograms=False` leaves out the distributions, `gradients=False`
    what backward passes do. With a loss scaler (torch.amp.GradScaler) give it as `scaler`, so that
    gradients are recorded unscaled. `normalize` is (mean, std) per input channel where the inputs are
    (pixel - mean) / std of pixels in 0 to 1: with it `report.stem` tells colours, else only units of the input.

    Raises NoNormLayers when the model holds no layer that is understood, or none that matches, and
    CannotProbe for TorchScript and exported graphs.
    """
    if not isinstance(model, nn.Module):
        raise BnprobeError(
            f"attach needs a torch.nn.Module, got {type(model).__name__}. Pass the model itself."
        )
    constants = None if normalize is None else Normalize(*(tuple(map(float, part)) for part in normalize))
    return Probe(model, patterns_of(layers), histograms, Gradients(gradients, scaler), constants)


class Probe:
    """What `attach` returns: it records until `detach()`, and its `recording` is a snapshot at any time."""

    def __init__(
        self,
        model: nn.Module,
        patterns: Sequence[str] | None,
        histograms: bool,
        gradients: Gradients,
        normalize: Normalize | None,
    ) -> None:
        self._eager = Eager()
        wrapped, model = model, unwrap(model)
        self._model = ref(model)
        self._fingerprint = Fingerprint.of(model)
        layers = choose(model, patterns)
        self._doings = ExpectedChanges(_paths(model, layers))
        self._doings.look(model)
        self._classes = {name: type(module).__name__ for name, module in layers.items()}
        self._subject = Subject.of(model, normalize)
        self._not_understood = not_understood(model)
        self._folded = folded_away(model)
        self._forward = Forward(gradients, histograms)
        self._unhooked = Unhooked(model, layers, patterns, self._forward)
        self._proposals: list[Proposal] = []
        self._final: Recording | None = None
        with ExitStack() as undo:
            undo.callback(self._eager.release)
            if runs_compiled(wrapped, layers.values()):
                self._eager.hold()
            undo.callback(leave, self._unhooked)
            listen(self._unhooked)
            for path, module in candidates(model) if patterns is None else ():
                undo.callback(look(path, module, self._proposals.append))
            register(model, layers, self._forward, self._eager, undo)
            self._undo = undo.pop_all()

    def detach(self) -> None:
        """Remove the hooks; may be called any number of times. The recording stays as it is then."""
        if self._final is not None:
            return
        try:
            self._final = self.recording
        finally:
            self._undo.close()
            # nothing of the model is ours to hold any longer
            self._forward.gradients.stop()
            self._forward.forget()
        model = self._model()
        if model is not None:
            self._final = replace(self._final, integrity=self._compare(model, self._final))

    def _notes(self) -> Iterator[str]:
        yield from notes(self._forward, self._unhooked, self._eager)
        yield from (proposal.says for proposal in self._proposals)

    def _noted(self, recording: Recording) -> Recording:
        """The last recording, with what came too late for it."""
        if not self._forward.gradients.missed:
            return recording
        about = recording.about
        return replace(recording, about=replace(about, notes=(*about.notes, LATE_BACKWARD)))

    def _compare(self, model: nn.Module, recording: Recording) -> IntegrityReport:
        """What is not as it was when the probe was attached."""
        doings = self._doings
        doings.look(model)
        doings.trained = {record.layer for record in recording.layers if record.n_calls_training}
        doings.updated = self._unhooked.updated(model)
        doings.backward = any(record.gradient is not None for record in recording.layers)
        return self._fingerprint.compare(Fingerprint.of(model), doings.explain)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    @contextmanager
    def labels(self, labels: Any) -> Iterator[None]:
        """Say to which classes the samples of the batches inside belong, for the variance between classes.

        `labels` is a 1-D tensor, array or list of whole numbers, one per sample of every batch that passes
        inside; a negative number or None stands for a sample without a label. They hold for forward passes
        of this thread and end with the block, however it ends; inside another block they take its place.

        Raises BadLabels for another form, and from the model's forward for a batch of another length.
        """
        run = self._forward.run
        outer, run.labels = run.labels, labels_of(labels)
        try:
            yield
        finally:
            run.labels = outer

    @property
    def n_images(self) -> int:
        """Samples of the completed forward passes so far."""
        return self._forward.n_images

    def __repr__(self) -> str:
        state = "attached to" if self._final is None else "detached from"
        return (
            f"<Probe {state} {len(self._classes)} norm layers of {self._subject.model}, "
            f"{self._forward.n_forwards} forward passes>"
        )

    @property
    def recording(self) -> Recording:
        """What was seen so far, as plain data; usable after `detach()` and not changed by later passes."""
        if self._final is not None:
            return self._noted(self._final)
        forward, classes = self._forward, {**self._classes, **self._unhooked.classes}
        sites = forward.sites.snapshot()
        reached = {name for name, _ in sites}
        return Recording(
            about=self._subject.about(forward, sites.values(), self._notes()),
            layers=tuple(
                site.record(
                    key,
                    classes[key[0]],
                    forward.gradients.record(key),
                    forward.counted_at_first(key[0]),
                )
                for key, site in sites.items()
            ),
            not_understood=tuple(
                f"{name} ({class_name})"
                for name, class_name in self._not_understood.items()
                if name not in self._unhooked.inside
            ),
            never_called=tuple(name for name in self._classes if name not in reached),
            folded=self._folded,
        )


def _paths(model: nn.Module, layers: Mapping[str, nn.Module]) -> dict[str, str]:
    """The names of the probed layers by the path that torch gives their module."""
    names = {id(module): name for name, module in layers.items()}
    return {path: names[id(module)] for path, module in model.named_modules() if id(module) in names}
