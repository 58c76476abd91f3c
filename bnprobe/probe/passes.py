"""One thread's forward pass of the whole model: its state, what has been called, and what waits for its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import Tensor

from bnprobe.graph.trace import Trace
from bnprobe.probe.backward.autograd_route import Origin
from bnprobe.probe.backward.gradients import Gradients
from bnprobe.probe.calls import InputReading, Key, Vectors
from bnprobe.probe.calls.call_log import NO_PASS
from bnprobe.probe.captions import Captions
from bnprobe.probe.masks import Kept
from bnprobe.probe.places import Places
from bnprobe.probe.schedule import MODEL, Called
from bnprobe.probe.sites import PendingCall
from bnprobe.probe.timesteps import Timesteps
from bnprobe.recording import NO_PHASE
from bnprobe.stats.moments import Array

NO_MODULE = 0
"""The id of no object."""


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call of a norm that has begun: its input, read by every plan that may fit (None if it is not recorded), where it
    came from, and the gradients of its phase."""

    key: Key
    tries: Sequence[InputReading | None] | None
    origin: Origin | None
    gradients: Gradients


class PassState(Enum):
    """Where a thread stands; see the members of this module with the same names."""

    OUTSIDE = "outside"
    RECORDED = "recorded"
    SKIPPED = "skipped"


OUTSIDE, RECORDED, SKIPPED = PassState
"""In no pass of the whole model, so that a norm that is called counts by itself; in a pass that counts when it has
ended well; or in a pass of which nothing is recorded, whatever is called in it."""


class Pass(threading.local):
    """The state of one thread, and the pass that it is in.

    `entry` is the id of the module whose call the pass is, `called` what it is counted as, and `depth` how many calls of it
    are under way, one inside the other. `takes` says whether the last pass that began a sequence was recorded: those that
    continue it, with a cache that does not tell, follow it. `cache` is that of the pass. `modulating` holds by layer what
    each of its calls made that modulates norms, None where that has no values. `chosen` says whether the pass
    itself chose its phase, which ends with it, and `decodes` whether the sequences that are continued were counted where
    they are.
    """

    state: PassState
    handling: BaseException | None
    called: Called

    def __init__(self) -> None:
        self.labels: Array | None = None
        self.captions: Captions | None = None
        self.given_mask: Kept | None = None
        self.phase = NO_PHASE
        self.chosen = self.decodes = False
        self.takes = True
        self.leave()

    def enter(self, state: PassState, handling: BaseException | None, entry: int, called: Called) -> None:
        """A pass of the model or a part begins; `handling` is the exception being handled at that moment."""
        self.leave()
        self.state, self.depth, self.handling, self.entry = state, 1, handling, entry
        self.called = called

    def leave(self) -> None:
        """The pass is over, or a call outside one: forget what was there."""
        self.state, self.depth, self.handling, self.entry = OUTSIDE, 0, None, NO_MODULE
        self.called = MODEL
        self.wants_graph = False
        self.context = NO_PASS
        self.started = time.perf_counter()
        self.n_images = 0
        self.cache: Any = None
        self.called_with: Kept | None = None
        self.places = Places()
        self.timesteps: Timesteps | None = None
        self.modulating: dict[str, list[Tensor | None]] = {}
        self.calls: dict[str, int] = {}
        self.initial: dict[Key, Vectors] = {}
        self.open: list[OpenCall] = []
        self.waiting: list[PendingCall] = []
        self.trace: Trace | None = None

    @property
    def mask(self) -> Kept | None:
        """The positions that count: those that were given around the pass, else those that the model was called with."""
        return self.given_mask or self.called_with

    def next_call(self, name: str) -> int:
        """The number of this call of a layer. Outside a pass there is no end that would restart the count."""
        call = 0 if self.state is OUTSIDE else self.calls.get(name, 0)
        self.calls[name] = call + 1
        return call

    def close(self, name: str) -> OpenCall | None:
        """The call of this layer that ends now."""
        while self.open and self.open[-1].key[0] != name:
            self.open.pop()  # calls that an exception cut short
        return self.open.pop() if self.open else None
