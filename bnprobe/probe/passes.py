"""One thread's forward pass of the whole model: what has been called, and what waits for its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bnprobe.graph import Trace
from bnprobe.probe.backward.autograd_route import Origin
from bnprobe.probe.calls import InputReading, Key, Vectors
from bnprobe.probe.calls.call_log import ALONE
from bnprobe.probe.sites import PendingCall
from bnprobe.stats.moments import Array


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call of a norm that has begun: its input, read by every plan that may fit, and where it came from."""

    key: Key
    tries: Sequence[InputReading | None]
    origin: Origin | None


class Pass(threading.local):
    """The state of one thread; outside a pass of the whole model its `depth` is 0."""

    def __init__(self) -> None:
        self.depth = 0
        self.labels: Array | None = None
        self.begin(None)

    def begin(self, handling: BaseException | None) -> None:
        """Forget what was there: a pass begins, or one is over. `handling` is the exception being handled."""
        self.handling = handling
        self.wants_graph = False
        self.situation = ALONE
        self.started = time.perf_counter()
        self.n_images = 0
        self.calls: dict[str, int] = {}
        self.memory: dict[Key, Vectors] = {}
        self.open: list[OpenCall] = []
        self.waiting: list[PendingCall] = []
        self.trace: Trace | None = None

    def next_call(self, name: str) -> int:
        """The number of this call of a layer. Outside a pass there is no end that would restart the count."""
        call = self.calls.get(name, 0) if self.depth else 0
        self.calls[name] = call + 1
        return call

    def close(self, name: str) -> OpenCall | None:
        """The call of this layer that ends now."""
        while self.open and self.open[-1].key[0] != name:
            self.open.pop()  # calls that an exception cut short
        return self.open.pop() if self.open else None
