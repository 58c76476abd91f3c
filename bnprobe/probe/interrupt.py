"""Ctrl-C between batches: a batch that has begun is finished first, so that it counts everywhere or nowhere."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """While `begun`, the first Ctrl-C waits for the end and the second does not."""

    def __init__(self) -> None:
        self._busy = self._asked = False

    @contextmanager
    def begun(self) -> Iterator[None]:
        """What is inside is finished; raises KeyboardInterrupt after it where that was asked for meanwhile."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._asked:
            raise KeyboardInterrupt

    def ask(self, number: int, frame: FrameType | None) -> None:
        """What SIGINT calls."""
        if self._asked or not self._busy:
            raise KeyboardInterrupt
        self._asked = True


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Take SIGINT over for a while, where it is Python's own to give: in the main thread, with no other handler."""
    stop = Stop()
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield stop
        return
    signal.signal(signal.SIGINT, stop.ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
