"""All ways in turn, under a bar, until the last step, the deadline or Ctrl-C; what was done is kept in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from bnprobe.errors import BnprobeError
from bnprobe.experiments.measure_variants import INTERRUPTED, OUT_OF_TIME, Deadline
from bnprobe.experiments.synthesize.drawing import Drawer, Drawing
from bnprobe.experiments.synthesize.state_file import write_state
from bnprobe.printing import progress

SAVED_EVERY = 30.0
"""Seconds between two states on the disk."""


@dataclass
class Making:
    """What is made and how far it came; `stopped` is why it ended early, empty where it did not."""

    drawers: Sequence[Drawer]
    n: int
    deadline: Deadline
    path: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    drawings: dict[str, Drawing] = field(default_factory=dict)
    stopped: str = ""
    _saved: float = field(default_factory=monotonic)

    @property
    def steps(self) -> int:
        """Of each way."""
        return self.drawers[0].steps

    def draw(self) -> None:
        """Draw every way to its end, as far as the time allows.

        Raises BnprobeError where it ends before a first step, and KeyboardInterrupt where there is nothing to keep.
        """
        todo = sum(drawer.steps for drawer in self.drawers)
        done = sum(drawing.step for drawing in self.drawings.values())
        try:
            with progress(todo, "making images", "steps") as bar:
                bar.update(done)
                for drawer in self.drawers:
                    if not self.stopped:
                        self._draw(drawer, bar)
        except KeyboardInterrupt:
            if not self.drawings:
                raise
            self.stopped = INTERRUPTED
        self._save()

    def _draw(self, drawer: Drawer, bar: Any) -> None:
        name, distances = drawer.way.name, drawer.distances()
        drawing = self.drawings.get(name) or drawer.start(self.n)
        with distances.watching() if drawer.way.statistics else nullcontext():
            while drawing.step < drawer.steps:
                if self.drawings and self.deadline.left <= 0:
                    self.stopped = OUT_OF_TIME
                    break
                began = monotonic()
                drawing = drawer.advance(drawing, distances)
                drawing.seconds += monotonic() - began
                if not self.drawings and self.deadline.left <= 0:
                    raise BnprobeError(
                        f"budget_s={self.deadline.budget_s:g} is too short for one step, which took "
                        f"{drawing.seconds:.2g} s. "
                        "Give more time, or make fewer or smaller images."
                    )
                self.drawings[name] = drawing
                bar.update()
                if monotonic() - self._saved > SAVED_EVERY:
                    self._save()

    def _save(self) -> None:
        if self.path is not None and self.drawings:
            write_state(self.path, self.settings, self.drawings)
        self._saved = monotonic()
