"""The running totals of a probe, one per site: a layer and the number of its call in the forward pass."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from bnprobe.graph.modulation import Modulation, modulations_of
from bnprobe.graph.neighbours import UNKNOWN, neighbours_of
from bnprobe.graph.producer import Known
from bnprobe.graph.trace import Trace
from bnprobe.norms import NormLayer
from bnprobe.probe.calls import CallStats, HistogramScale, Key, Last, Vectors, last_of, vectors_of
from bnprobe.probe.calls.accumulators import Totals
from bnprobe.probe.calls.call_log import CallLogTotals, PassContext, count_of
from bnprobe.probe.calls.tokens import TokenTotals
from bnprobe.probe.places import Places
from bnprobe.probe.timesteps import LayerSums, Timesteps, TimestepTotals
from bnprobe.recording import GradientRecord, LayerRecord, OutputCheck
from bnprobe.recording.merge import merge_optional
from bnprobe.recording.names import site_name
from bnprobe.recording.neighbours import Neighbours
from bnprobe.stats import Exemplars

Settled = tuple[int, str]
"""The index of the plan that fits, and how the output is obtained: "derived" or "read"."""


@dataclass
class Site:
    """The running totals of one (layer, call), and what its first call determined.

    `settled` holds the plan and the way to the output by the layer's training flag: a layer frozen in
    a way of its own may follow another plan in each mode.
    """

    settled: dict[bool, Settled]
    mismatch: float
    reference: HistogramScale
    first: Vectors
    plan: NormLayer
    last: Last
    n_calls: int = 0
    n_calls_training: int = 0
    n_calls_running: int = 0
    n_images: int = 0
    n_masked: int = 0
    output: str = "derived"
    neighbours: Neighbours | None = None
    check: OutputCheck | None = None
    totals: Totals = field(default_factory=Totals)
    call_log: CallLogTotals = field(default_factory=CallLogTotals)
    tokens: TokenTotals | None = None
    timesteps: TimestepTotals | None = None

    def add(self, seen: CallStats, context: PassContext) -> None:
        """Merge the statistics of one call into the totals."""
        before = seen.before
        self.totals.add(seen, context.continues)
        self.call_log.add(seen, context)
        self.n_calls += 1
        # a norm that normalizes with running statistics is not training, whatever its flag
        self.n_calls_training += before.training and not before.plan.uses_running
        self.n_calls_running += before.plan.uses_running
        self.n_images += seen.n_images
        self.n_masked += 0 if before.valid is None else before.valid.n_left_out
        self.plan, self.last = before.plan, last_of(before)
        self.output = "read" if "read" in (seen.output, self.output) else "derived"
        self.mismatch = float(np.fmax(self.mismatch, seen.mismatch))
        if seen.check is not None:
            self.check = merge_optional(self.check, seen.check, True)

    def record(
        self,
        key: Key,
        class_name: str,
        gradient: GradientRecord | None,
        counted_at_first: int | None,
        changed_elsewhere: bool = False,
        exemplars: Exemplars | None = None,
    ) -> LayerRecord:
        """What was recorded so far, as plain data; `counted_at_first` is num_batches_tracked before the first call.

        Where another phase trained the layer, as `changed_elsewhere` says, its running statistics are as of the last call,
        and updates of them are not counted.
        """
        plan, last = self.plan, self.last.vectors
        # the storage of a sharded layer is freed after its call, and must not be read
        there = all(map(_is_there, _tensors(plan))) and not changed_elsewhere
        now = vectors_of(plan) if there else last
        call_log = self.call_log.finished(plan, now, None if changed_elsewhere else counted_at_first)
        if changed_elsewhere:
            call_log = replace(call_log, running_mean_after=None, running_var_after=None)
        moved = [not _same(a, b) for a, b in zip(vars(self.first).values(), vars(now).values(), strict=True)]
        return LayerRecord(
            layer=key[0],
            call=key[1],
            kind=plan.kind,
            class_name=class_name,
            pools=plan.pool.recorded_as,
            eps=plan.eps,
            eps_assumed=plan.eps_assumed,
            momentum=plan.momentum,
            n_batches_tracked=count_of(plan),
            gamma=last.gamma,
            gamma_offset=plan.weight_offset,
            beta=last.beta,
            running_mean=self.first.running_mean,
            running_var=self.first.running_var,
            parameters_moved=moved[0] or moved[1],
            buffers_moved=moved[2] or moved[3],
            n_calls=self.n_calls,
            n_calls_training=self.n_calls_training,
            n_calls_running=self.n_calls_running,
            n_images=self.n_images,
            n_masked=self.n_masked,
            output=self.output,
            mismatch=self.mismatch,
            neighbours=self.neighbours or UNKNOWN,
            gradient=gradient,
            call_log=call_log,
            output_check=self.check,
            parameter_dtype=_dtype_of(plan),
            tokens=None if self.tokens is None else self.tokens.finished(),
            timesteps=None if self.timesteps is None else self.timesteps.finished(),
            exemplars=exemplars,
            **self.totals.finished(),
        )


@dataclass(frozen=True)
class PendingCall:
    """One call, which counts once its forward pass has ended without an exception."""

    key: Key
    settled: Settled
    seen: CallStats


class Sites:
    """All sites, in the order in which they were first reached, and the vectors of each layer before the run.

    `initial` has one entry per module, at its first call, and one per call of a function.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.initial: dict[Key, Vectors] = {}
        self._sites: dict[Key, Site] = {}
        self._layers: dict[tuple[str, int], LayerSums] = {}
        """What layers made that modulate norms, by their path and the number of the call."""

    def get(self, key: Key) -> Site | None:
        """The site, once one of its calls has counted; else None."""
        return self._sites.get(key)

    def add(
        self, waiting: Sequence[PendingCall], initial: Mapping[Key, Vectors], context: PassContext
    ) -> None:
        """Add the calls of one forward pass to the totals. The caller holds the lock."""
        self.initial = {**initial, **self.initial}
        for call in waiting:
            site = self._sites.get(call.key)
            if site is None:
                site = self._sites[call.key] = self._new(call)
            site.settled.setdefault(call.seen.before.training, call.settled)
            site.add(call.seen, context)

    def _new(self, call: PendingCall) -> Site:
        initial = self.initial.get(call.key) or self.initial[call.key[0], 0]  # of a function, or of a module
        before = call.seen.before
        first = replace(before.vectors, running_mean=initial.running_mean, running_var=initial.running_var)
        return Site({}, call.seen.mismatch, before.reference, first, before.plan, last_of(before))

    def wire(self, keys: Sequence[Key], trace: Trace | None) -> bool:
        """Find the neighbors of new sites in the trace; returns whether a trace was needed and missing."""
        missing = [key for key in keys if self._sites[key].neighbours is None]
        if missing and trace is not None:
            norms = {key: Known(self._sites[key].plan, **vars(self._sites[key].first)) for key in keys}
            for key, neighbours in neighbours_of(trace, norms, missing).items():
                self._sites[key].neighbours = neighbours
        return bool(missing) and trace is None

    @property
    def modulating(self) -> set[str]:
        """The paths of layers whose outputs modulate norms."""
        return {path for path, _ in self._layers}

    def add_timesteps(
        self,
        waiting: Sequence[PendingCall],
        timesteps: Timesteps,
        modulating: Mapping[str, Sequence[Tensor | None]],
        trace: Trace | None,
    ) -> None:
        """Add by timestep what norms computed in each sample of one pass, and what modulated them."""
        wanted = []
        for call in waiting:
            site = self._sites[call.key]
            if site.timesteps is None:
                site.timesteps = TimestepTotals(timesteps.argument, site.plan)
            if not site.timesteps.parts:
                wanted.append((call.key, site.plan.n_channels))
            site.timesteps.add(timesteps, call.seen.before)
        made = {(path, i): one for path, calls in modulating.items() for i, one in enumerate(calls)}
        if trace is not None:
            found = modulations_of(trace.graph, wanted)
            made = {**found.made, **made}
            for key, parts in found.parts.items():
                self._modulated(key, parts)
        for layer, sums in self._layers.items():
            values = made.get(layer)
            if values is not None:
                sums.add(timesteps, values)

    def _modulated(self, key: Key, parts: Mapping[str, Modulation]) -> None:
        """Keep what modulates a norm."""
        totals = self._sites[key].timesteps
        assert totals is not None
        for part, found in parts.items():
            sums = self._layers.setdefault(found.layer, LayerSums(found.n_made))
            totals.parts[part] = found, sums

    def add_tokens(self, waiting: Sequence[PendingCall], places: Places) -> None:
        """Add what norms over channels do to each token of one pass, each beside the previous norm of its stream."""
        read = {site_name(*call.key): call.seen.before.tokens for call in waiting}
        for call in waiting:
            tokens, site = call.seen.before.tokens, self._sites[call.key]
            if tokens is None:
                continue
            placed = places.of(call.key[0]).on(tokens.places, tokens.x.device)
            site.tokens = site.tokens or TokenTotals(tokens.plan.n_channels, tokens.x.device)
            site.tokens.add(tokens, placed, read.get(site.neighbours.stream if site.neighbours else ""))
        for call in waiting:
            call.seen.before.tokens = None

    def snapshot(self) -> dict[Key, Site]:
        """All sites, with everything fetched from the device."""
        with self.lock:
            sites = dict(self._sites)
            for site in sites.values():
                site.totals.fetch()
        return sites

    def by_layer(self) -> list[tuple[str, Site]]:
        """Each site with the path of its layer."""
        return [(layer, site) for (layer, _), site in list(self._sites.items())]

    def forget(self) -> None:
        """Drop every reference, including plans with the model's tensors."""
        self._sites, self.initial, self._layers = {}, {}, {}


def _tensors(plan: NormLayer) -> tuple[Tensor | None, ...]:
    return plan.weight, plan.bias, plan.running_mean, plan.running_var


def _dtype_of(plan: NormLayer) -> str:
    """The type of gamma, or of beta; empty without either."""
    tensor = plan.bias if plan.weight is None else plan.weight
    return "" if tensor is None else str(tensor.dtype).removeprefix("torch.")


def _is_there(tensor: Tensor | None) -> bool:
    """Whether a tensor has storage for all of its values."""
    return tensor is None or tensor.untyped_storage().nbytes() >= tensor.nbytes


def _same(a: Any, b: Any) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b, equal_nan=True)
