"""The probe that users hold: attached, asked for labels and recordings, and detached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self
from weakref import finalize, ref

from torch import nn

from bnprobe.errors import BnprobeError, class_name
from bnprobe.norms import ModuleTree
from bnprobe.norms.functional import leave, listen
from bnprobe.notebook import facts
from bnprobe.probe.about import Subject
from bnprobe.probe.captions import Captions, captions_of
from bnprobe.probe.forward import Forward
from bnprobe.probe.functional_calls import Unhooked
from bnprobe.probe.hooks import register
from bnprobe.probe.integrity.expected_changes import ExpectedChanges
from bnprobe.probe.integrity.fingerprint import Fingerprint
from bnprobe.probe.integrity.tensor_table import tensor_table
from bnprobe.probe.labels import Labels, labels_of
from bnprobe.probe.masks import Mask, Positions
from bnprobe.probe.notes import LATE_BACKWARD, notes
from bnprobe.probe.options import AttachOptions
from bnprobe.probe.phases import Phase, checked_name, trained_elsewhere
from bnprobe.probe.ranks import own_part
from bnprobe.probe.survey.compiled import Eager
from bnprobe.probe.survey.detect_by_output import Proposal, look
from bnprobe.probe.survey.dropout import dropouts
from bnprobe.probe.survey.survey import ModelSurvey
from bnprobe.recording import NO_PHASE, Recording
from bnprobe.recording.integrity import IntegrityReport
from bnprobe.recording.names import NO_NORM, said_passes


class Probe:
    """What `attach` returns: it records until `detach` is called or its `with` block ends.

    Pass it to `bnprobe.report` or `bnprobe.compare`, or take its `recording`, at any time, also after `detach`.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.LayerNorm(4))
        >>> probe = bnprobe.attach(model)
        >>> output = model(torch.randn(5, 6))
        >>> probe
        Probe(Sequential: 1 norm attached, 1 forward pass)
        >>> probe.detach()
        >>> probe
        Probe(Sequential: 1 norm detached, 1 forward pass)
    """

    def __init__(self, survey: ModelSurvey, options: AttachOptions) -> None:
        # the survey holds the model, and is not kept
        self._model = ref(survey.model)
        self._fingerprint = Fingerprint.of(survey.tree)
        self._tensors = tensor_table(survey.parameters(), self._fingerprint.of_parameters())
        self._dropouts = dropouts(survey)
        self._expected = ExpectedChanges(survey.layer_names())
        self._expected.look(survey.tree)
        self._classes = {name: class_name(module) for name, module in survey.layers.items()}
        self._subject = Subject.of(survey.tree, options.constants, options.unit)
        self._not_understood = survey.not_understood
        self._folded = survey.folded
        self._training_batch, self._until = options.training_batch, options.until
        self._eager = Eager()
        self._forward = Forward(options, survey.tree)
        self._unhooked = Unhooked(survey, options.patterns, self._forward)
        self._examined: dict[str, Proposal | None] = {}
        self._final: Recording | None = None
        with ExitStack() as undo:
            undo.callback(self._eager.release)
            if survey.compiled:
                self._eager.hold()
            undo.callback(leave, self._unhooked)
            listen(self._unhooked)
            for path, module in survey.candidates.items():
                undo.callback(look(path, module, partial(self._examined.__setitem__, class_name(module))))
            register(survey, self._forward, self._eager, undo)
            self._undo = undo.pop_all()
        # a probe that nobody holds any longer, as where each epoch attaches anew, can give nothing: its hooks go as well
        finalize(self, self._undo.close).atexit = False

    def detach(self) -> None:
        """Remove the hooks; the recording stays as it is then.

        May be called any number of times. The recording then also has an `integrity` report of what in the model
        differs from before `attach`.
        """
        if self._final is not None:
            return
        try:
            self._final = self.recording
        finally:
            self._undo.close()
            self._forward.stop()
        model = self._model()
        if model is not None:
            self._final = self._final.with_integrity(self._compare(model, self._final))

    def _is_no_norm(self, class_name: str) -> bool:
        """Whether a module of this class was examined, and does not normalize its input."""
        return class_name in self._examined and self._examined[class_name] is None

    def _notes(self, phase: Phase) -> Iterator[str]:
        apart, shares = len(self._forward.phases) > 1, self._forward.shares
        yield from notes(phase, apart, self._unhooked, self._eager, self._until, shares)
        yield from (proposal.says for proposal in self._examined.values() if proposal is not None)

    def _noted(self, recording: Recording) -> Recording:
        """The last recording, with what came too late for it."""
        if not any(phase.gradients.missed for phase in self._forward.phases.values()):
            return recording
        about = recording.about
        return replace(recording, about=replace(about, notes=(*about.notes, LATE_BACKWARD)))

    def _compare(self, model: nn.Module, recording: Recording) -> IntegrityReport:
        """What is not as it was when the probe was attached."""
        expected, tree = self._expected, ModuleTree.of(model)
        expected.look(tree)
        records = [record for part in (recording, *recording.parts) for record in part.layers]
        expected.trained = {record.layer for record in records if record.n_calls_training}
        expected.updated = self._unhooked.updated(tree)
        self._forward.outside.ends()
        expected.drawn_outside = self._forward.outside.generators
        expected.backward = any(record.gradient is not None for record in records)
        for phase in self._forward.phases.values():
            # of a pass that was not recorded only the mode is known
            expected.trained |= set(self._classes) if phase.n_skipped_training else set()
            expected.backward |= phase.n_skipped_learning > 0
        return self._fingerprint.compare(Fingerprint.of(tree), expected.reason_for)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    @contextmanager
    def labels(self, labels: Labels) -> Iterator[None]:
        """Give the class labels of the batches run inside a `with` block, for the variance between classes.

        They hold for forward passes of this thread and end with the block; an inner block replaces the labels of an
        outer one. `bnprobe.record` takes labels from its batches by itself.

        Args:
            labels: Shape (N,): one integer per sample, as a 1-D tensor, array or list. A negative number or None is a
                sample without a label.

        Returns:
            A context manager without a value.

        Raises:
            BadLabels: `labels` is not one integer per sample; also raised by the model's forward pass for a batch of
                another length.

        Example:
            >>> import torch, bnprobe
            >>> model, y = torch.nn.BatchNorm1d(6).eval(), torch.arange(90) % 3
            >>> with bnprobe.attach(model) as probe, probe.labels(y):
            ...     output = model(torch.randn(90, 6) + 3 * y[:, None])
            >>> (bnprobe.report(probe).channels["share_class"] > 0.5).all().item()
            True
        """
        run = self._forward.run
        outer, run.labels = run.labels, labels_of(labels)
        try:
            yield
        finally:
            run.labels = outer

    @contextmanager
    def mask(self, mask: Positions) -> Iterator[None]:
        """Say which positions of the batches run inside a `with` block count, so that padding is left out.

        Every norm whose input has the positions of the mask is recorded without the others: (N, T) fits inputs of shape
        (N, T, C), (N, C, T), (N, T, heads, C). A norm whose input does not have them, such as one after pooling, is
        recorded whole, with a note. What a norm itself computes is not changed: the statistics of a batch norm in train
        mode, or of a group norm, are of all positions, padding included.

        It holds for forward passes of this thread and ends with the block; an inner mask replaces an outer one, and the
        one that `attach(mask=)` names.

        Args:
            mask: Shape (N,), (N, T) or (N, H, W): True or 1 for positions that count, False or 0 for padding. A tensor or
                array of booleans, integers or floats, or lists.

        Returns:
            A context manager without a value.

        Raises:
            BadMask: `mask` has other values or keeps no position; also raised by the model's forward pass, before it
                begins, for a batch of another length.

        Example:
            >>> import torch, bnprobe
            >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.LayerNorm(4))
            >>> with bnprobe.attach(model) as probe, probe.mask([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]):
            ...     output = model(torch.randn(2, 5, 6))
            >>> bnprobe.report(probe).channels["n_values"].tolist()
            [7, 7, 7, 7]
        """
        run = self._forward.run
        outer, run.given_mask = run.given_mask, Mask(mask)
        try:
            yield
        finally:
            run.given_mask = outer

    @contextmanager
    def captions(self, captions: Captions) -> Iterator[None]:
        """Say what the samples of the batches run inside a `with` block are, for exemplars.

        They hold for forward passes of this thread and end with the block; an inner block replaces those of an outer one.
        Samples without captions have running numbers. A file is one sample wherever it is seen, also in other parts of a
        run that are merged; a text only describes its sample.

        Args:
            captions: One per sample: a `pathlib.Path` of a file, or a text.

        Returns:
            A context manager without a value.

        Raises:
            BnprobeError: `captions` is no list of paths and texts, or the probe keeps no exemplars; also raised by the
                model's forward pass for a batch of another length.

        Example:
            >>> import torch, bnprobe
            >>> model = torch.nn.BatchNorm1d(1).eval()
            >>> with bnprobe.attach(model, exemplars=1) as probe, probe.captions(["low", "high"]):
            ...     output = model(torch.tensor([[-1.0], [1.0]]))
            >>> bnprobe.report(probe).exemplars[["side", "sample", "caption"]].values.tolist()
            [['high', 1, 'high'], ['low', 0, 'low']]
        """
        run = self._forward.run
        if self._forward.phase.exemplars is None:
            raise BnprobeError(
                "captions say what exemplars are, and none are kept. Pass attach(model, exemplars=8)."
            )
        outer, run.captions = run.captions, captions_of(captions)
        try:
            yield
        finally:
            run.captions = outer

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record the passes run inside a `with` block as a phase of their own, apart from all others.

        For training and validation, or real and fake images, in one probe. Each phase is a
        recording, `probe.recording.phases["val"]`, and a report, `bnprobe.report(probe).phases["val"]`; two of them can be
        compared with `bnprobe.compare`. What runs in no phase is in `probe.recording` itself. Blocks of one name add
        up. A phase holds for forward passes of this thread; a backward pass belongs to the phase of its forward pass.

        Args:
            name: Name of the phase, such as "train".

        Returns:
            A context manager without a value.

        Raises:
            BnprobeError: The block begins inside another phase, or `name` is not a word.

        Example:
            >>> import torch, bnprobe
            >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4))
            >>> with bnprobe.attach(model) as probe:
            ...     with probe.phase("train"):
            ...         output = model.train()(torch.randn(8, 6))
            ...     with probe.phase("val"):
            ...         output = model.eval()(torch.randn(5, 6))
            >>> {name: part.about.n_images for name, part in probe.recording.phases.items()}
            {'train': 8, 'val': 5}
        """
        run = self._forward.run
        self._forward.begin(checked_name(name, NO_PHASE if run.chosen else run.phase))
        run.chosen = False
        try:
            yield
        finally:
            run.phase = NO_PHASE

    @property
    def n_images(self) -> int:
        """Number of samples in the forward passes completed so far, in all phases."""
        return sum(phase.n_images for phase in self._forward.phases.values())

    def __repr__(self) -> str:
        n, phases = len({**self._classes, **self._unhooked.classes}), self._forward.phases.values()
        norms = f"{n:,} norm{'s' * (n != 1)} {'attached' if self._final is None else 'detached'}"
        passes = said_passes(sum(one.n_forwards for one in phases), sum(one.n_skipped for one in phases))
        begun = [one.turns for one in phases if one.turns.recorded]
        over = bool(begun) and all(turns.all_over for turns in begun) and self._final is None
        passes += ", no more are recorded" * over
        return f"Probe({self._subject.model}: {norms}, {passes})"

    def _repr_html_(self) -> str:
        classes = Counter({**self._classes, **self._unhooked.classes}.values())
        odd = [name for name in self._not_understood if name not in self._unhooked.inside]
        rows = [*classes.items(), ("samples", f"{self.n_images:,}"), ("not recognized", ", ".join(odd))]
        return facts(repr(self), [(name, value) for name, value in rows if value != ""])

    @property
    def recording(self) -> Recording:
        """What was recorded so far, as plain data: a snapshot that later passes do not change."""
        if self._final is not None:
            return self._noted(self._final)
        main, *others = (self._recording_of(name) for name in list(self._forward.phases))
        return replace(main, parts=tuple(others), sources=own_part())

    def _recording_of(self, name: str) -> Recording:
        """What was recorded in one phase."""
        phase, classes = self._forward.phases[name], {**self._classes, **self._unhooked.classes}
        sites = phase.sites.snapshot()
        reached = {layer for layer, _ in sites}
        changed = trained_elsewhere(self._forward.phases, name)
        layers = tuple(
            site.record(
                key,
                classes[key[0]],
                phase.gradients.record(key),
                None if phase.n_skipped else phase.counted.get((key[0], 0)),
                key[0] in changed,
                None if phase.exemplars is None else phase.exemplars.of(key),
            )
            for key, site in sites.items()
        )
        layers, samples = (layers, None) if phase.exemplars is None else phase.exemplars.with_samples(layers)
        return Recording(
            about=self._subject.about(self._forward.device, phase, name, sites.values(), self._notes(phase)),
            layers=layers,
            not_understood=tuple(
                f"{module} ({class_name})" + f" {NO_NORM}" * self._is_no_norm(class_name)
                for module, class_name in self._not_understood.items()
                if module not in self._unhooked.inside
            ),
            never_called=tuple(layer for layer in self._classes if layer not in reached),
            folded=self._folded,
            tensors=self._tensors,
            dropouts=self._dropouts,
            samples=samples,
        ).with_training_batch(self._training_batch)
