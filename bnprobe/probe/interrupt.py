"""Ctrl-C during `record`: the running batch is completed first, so that it counts for every layer or for none."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """While `begun`, the first Ctrl-C waits for the end of the block; a second one interrupts at once."""

    def __init__(self) -> None:
        self._busy = self._asked = False

    @contextmanager
    def begun(self) -> Iterator[None]:
        """The block is completed; raises KeyboardInterrupt after it if Ctrl-C was pressed meanwhile."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._asked:
            raise KeyboardInterrupt

    def ask(self, number: int, frame: FrameType | None) -> None:
        """The handler of SIGINT."""
        if self._asked or not self._busy:
            raise KeyboardInterrupt
        self._asked = True


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Handle SIGINT inside the block, if this is the main thread and nobody else handles it."""
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
