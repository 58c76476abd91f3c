"""Which forward passes are recorded: every k-th, until enough have been."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bnprobe.errors import BnprobeError
from bnprobe.probe.batches import each_batch

Called = int | str
"""What a pass is a call of: the model, a part by its id, or a norm that is called by itself, by its path."""

MODEL = ""
"""The whole model; all replicas of it are this one."""


@dataclass(frozen=True)
class Schedule:
    """The first of `every` passes is recorded, the next of the following `every`, and so on, `until` so many have been.

    Raises BnprobeError unless both are whole numbers from 1.
    """

    every: int = 1
    until: int | None = None

    def __post_init__(self) -> None:
        if not _counts(self.every):
            raise BnprobeError(
                f"every={self.every!r:.40} is not a whole number from 1. Pass 10 to record every tenth forward pass."
            )
        if self.until is not None and not _counts(self.until):
            raise BnprobeError(
                f"until={self.until!r:.40} is not a whole number from 1. Pass 100 to record no more than 100 forward passes."
            )

    @property
    def takes_all(self) -> bool:
        """Whether no pass is left out, however many there are."""
        return self.every == 1 and self.until is None

    def of(self, batches: Any) -> Iterator[Any]:
        """The batches whose turn it is; the others are not run, and after the last none is asked for."""
        last = None if self.until is None else (self.until - 1) * self.every + 1
        return islice(each_batch(batches), 0, last, self.every)


class Turns:
    """The passes of one phase, counted apart for the model, for each part, and for each norm that is called by itself."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._lock = threading.Lock()
        self._begun: Counter[Called] = Counter()
        self.recorded: Counter[Called] = Counter()
        self.skipped: Counter[Called] = Counter()

    def over(self, called: Called) -> bool:
        """Whether enough passes have been recorded."""
        until = self._schedule.until
        return until is not None and self.recorded[called] >= until

    @property
    def all_over(self) -> bool:
        """Whether enough has been recorded of all that was called."""
        return all(map(self.over, self.recorded))

    def next(self, called: Called) -> bool:
        """A pass begins; whether it is to be recorded."""
        with self._lock:
            turn = self._begun[called]
            self._begun[called] = turn + 1
            return turn % self._schedule.every == 0 and not self.over(called)

    def failed(self, called: Called) -> None:
        """A pass has ended by an exception: the next one takes its turn."""
        with self._lock:
            self._begun[called] -= 1


def _counts(value: object) -> bool:
    return type(value) is int and value > 0
