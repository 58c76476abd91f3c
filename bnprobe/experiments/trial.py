"""One remedy on trial: the model with it and without it, its findings and its outputs, and the model as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import pandas as pd
import torch
from torch import nn

from bnprobe.errors import BnprobeError
from bnprobe.experiments.carry_out import Subject, carry_out
from bnprobe.experiments.effect import Effect
from bnprobe.experiments.feeding import Fed, fed
from bnprobe.experiments.outputs import Metric
from bnprobe.experiments.preview import Version, preview
from bnprobe.experiments.run import Batches, Call, run
from bnprobe.experiments.snapshot import Snapshot
from bnprobe.probe import attach
from bnprobe.probe.record import Loss, record
from bnprobe.recording import Recording
from bnprobe.rules.edits import Edit, OfInputs, OfModel, Remedy


class Judged(Protocol):
    """What a report of one recording offers, without its package."""

    @property
    def recording(self) -> Recording:
        """What it is about."""

    @property
    def layers(self) -> pd.DataFrame:
        """A row per site."""

    @property
    def findings(self) -> pd.DataFrame:
        """A row per finding."""

    @property
    def remedies(self) -> tuple[Remedy | None, ...]:
        """What can be carried out for each finding."""

    def again(self, recording: Recording) -> Self:
        """The same of another recording."""


class Outcome(NamedTuple):
    """The report after the remedy, what it does to the outputs, and the report after the cause was undone."""

    report: Judged
    effect: Effect
    without_cause: Judged | None


@dataclass(frozen=True)
class Bench:
    """A model that is put back after each use to `before`, and how it is run, judged and measured."""

    model: nn.Module
    before: Snapshot
    batches: Iterable[Any]
    of: Judged
    metric: Metric | None = None
    loss: Loss | None = None
    call: Call | None = None

    def look(self, edits: tuple[OfInputs, ...] = ()) -> Judged:
        """The report on the model as it stands, with the inputs changed; the model is as it stood."""
        batches: Iterable[Any] = Fed(self.batches, edits) if edits else self.batches
        stands = Snapshot(self.model, self.before)
        try:
            return self.of.again(self._recorded(batches))
        finally:
            self.before.restore()
            stands.restore()

    def try_out(self, remedy: Remedy) -> Outcome:
        """What a remedy comes to. Raises what the model raises with it."""
        of_model, of_inputs = _apart(remedy.edits)
        try:
            carry_out(of_model, Subject(self.model, self.batches, self.call))
            after = Snapshot(self.model, self.before)
            report = self.look(of_inputs)
            effect = self._effect(after, of_inputs)
        finally:
            self.before.restore()
        same = remedy.cause == remedy.edits
        return Outcome(report, effect, report if same else self._without(remedy.cause))

    def _without(self, cause: tuple[Edit, ...]) -> Judged | None:
        """The report once a cause is undone; None where there is none to undo."""
        if not cause:
            return None
        of_model, of_inputs = _apart(cause)
        try:
            carry_out(of_model, Subject(self.model, self.batches, self.call))
            return self.look(of_inputs)
        finally:
            self.before.restore()

    def _effect(self, after: Snapshot, edits: tuple[OfInputs, ...]) -> Effect:
        def become(version: Version) -> None:  # with its modes, too
            self.before.restore(only=after)
            if version == "new":
                after.restore()

        feed: Callable[[Any], Any] | None = (lambda batch: fed(edits, batch)) if edits else None
        return preview(self.model, become, self.batches, self.metric, self.call, feed=feed)

    def _recorded(self, batches: Iterable[Any]) -> Recording:
        about = self.of.recording.about
        normalize = None if about.normalize is None else (about.normalize.mean, about.normalize.std)
        if self.call is None:
            return record(
                self.model,
                batches,
                self.loss,
                model_name=about.model,
                normalize=normalize,
                unit=about.unit or None,
            )
        if self.loss is not None:
            raise BnprobeError("call= and loss= cannot be used together. Leave one of them out.")
        with attach(self.model, normalize=normalize, gradients=False) as probe, torch.no_grad():
            for batch in Batches(self.model, batches, "recording"):
                run(self.model, batch, self.call)
        return probe.recording


def _apart(edits: tuple[Edit, ...]) -> tuple[list[OfModel], tuple[OfInputs, ...]]:
    """The edits of the model, and those of its inputs."""
    of_inputs = tuple(edit for edit in edits if isinstance(edit, OfInputs))
    return [edit for edit in edits if not isinstance(edit, OfInputs)], of_inputs
