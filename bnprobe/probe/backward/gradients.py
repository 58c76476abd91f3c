"""Backward passes: which call of a norm a gradient belongs to, and when a pass is over."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from bnprobe.probe.backward.accumulators import GradientTotals
from bnprobe.probe.backward.autograd_route import Origin, route
from bnprobe.probe.backward.observe_gradient import BackwardCall
from bnprobe.probe.calls import InputReading, Key
from bnprobe.probe.masks import Kept
from bnprobe.recording import GradientRecord
from bnprobe.stats.moments import Array


class LossScaler(Protocol):
    """What is needed of a loss scaler, such as `torch.amp.GradScaler`."""

    def get_scale(self) -> float:
        """The factor by which the loss is multiplied now."""


MOST_RECOMPUTED = 64
"""At most this many calls of one layer without a graph are kept until a checkpoint recomputes them."""

SAME_INPUT = 1e-5
"""Means of one input, computed twice, differ by no more than this, relative to their size; those of two batches by more."""


@dataclass
class _Reached:
    """The norms that one backward pass has reached so far."""

    calls: list[BackwardCall] = field(default_factory=list)
    __hash__ = object.__hash__


class Gradients:
    """The gradients of all sites. Hooks in the autograd graph hold a reference to this, and to nothing else of a probe."""

    def __init__(self, wanted: bool, scaler: LossScaler | None, all_passes: bool = True) -> None:
        self.wanted = self.listening = wanted
        self.perhaps_scaled = self.missed = False
        self._scaler = scaler
        self._all_passes = all_passes
        self._totals: dict[Key, GradientTotals] = {}
        self._passes: WeakValueDictionary[int, _Reached] = WeakValueDictionary()
        self._graphless: dict[str, deque[tuple[int, Array, Kept | None]]] = {}
        self._lock = threading.Lock()

    @property
    def now(self) -> bool:
        """Whether gradients are wanted and a forward pass would build a graph now."""
        return self.wanted and torch.is_grad_enabled()

    def stop(self) -> None:
        """From now on hooks that are still in a graph do nothing."""
        self.listening, self._scaler = False, None
        self._graphless = {}

    def await_call(self, site: Key, before: InputReading, y: Tensor | None, origin: Origin | None) -> None:
        """Hook the graph of this call, if there is one."""
        if y is None or not self.now or not before.plan.fits(y):
            return
        way = route(y, origin, before.plan)
        if way is None:
            return
        BackwardCall(before, way, before.inverse_var, site, self, origin)
        if self._scaler is None and torch.is_autocast_enabled(y.device.type):
            self.perhaps_scaled |= torch.get_autocast_dtype(y.device.type) == torch.float16

    def backward_missed(self) -> None:
        """A backward pass has reached a norm after `stop`."""
        self.missed = True

    def backward_begins(self, call: BackwardCall) -> float:
        """A backward pass has reached a norm: finish its record when the pass ends, in whatever thread."""
        task = torch._C._current_graph_task_id()
        with self._lock:
            reached = self._passes.get(task)
            if reached is None:
                reached = self._passes[task] = _Reached()
                # only the engine holds it, so a pass that fails frees it
                engine = torch.autograd.Variable._execution_engine
                engine.queue_callback(partial(self._backward_ends, reached))
            reached.calls.append(call)
        return float(self._scaler.get_scale()) if self._scaler is not None else 1.0

    def _backward_ends(self, reached: _Reached) -> None:
        with self._lock:
            for call in reached.calls:
                seen = call.finish()
                if seen is not None:
                    self._totals.setdefault(call.site, GradientTotals()).add(seen)

    # Gradient checkpointing runs a part of the model without a graph, and again, with one, in the backward pass.

    def will_be_recomputed(self, name: str, call: int, mean: Array, mask: Kept | None) -> None:
        """A call without a graph in a pass that wants one: a checkpoint may recompute it."""
        kept = mean.copy()  # later calls are added to the first one's moments in place
        with self._lock:
            self._graphless.setdefault(name, deque(maxlen=MOST_RECOMPUTED)).append((call, kept, mask))

    def awaited_call(self, name: str) -> tuple[int, Kept | None] | None:
        """A call of this layer that may be recomputed, and the mask of its pass; None if there is none."""
        calls = self._graphless.get(name)
        return (calls[0][0], calls[0][2]) if calls else None

    def repeated_call(self, name: str, tries: Sequence[InputReading | None]) -> int | None:
        """The call that a recomputation repeats: among those without a graph, the one with the nearest input.

        Checkpointed parts are recomputed in another order, and maybe in another thread, than they ran in. Where some
        passes are not recorded, one with another input is of such a pass: None.
        """
        seen = next((tried.reading.moments.mean for tried in tries if tried is not None), None)
        with self._lock:
            calls = self._graphless[name]
            distances = [np.inf if seen is None else float(np.abs(mean - seen).sum()) for _, mean, _ in calls]
            nearest = int(np.argmin(distances))
            call, mean, _ = calls[nearest]
            if not self._all_passes and not distances[nearest] <= SAME_INPUT * np.abs(mean).sum():
                return None
            del calls[nearest]
        return call

    @property
    def seen(self) -> bool:
        """Whether a backward pass has reached a norm."""
        return bool(self._totals)

    def record(self, key: Key) -> GradientRecord | None:
        """What was recorded of backward passes at a site; None if there were none."""
        with self._lock:
            totals = self._totals.get(key)
            return totals.finished() if totals is not None else None
