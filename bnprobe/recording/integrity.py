"""What a run changed of the model, as plain data: compared bit for bit, before and after, and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

MOST_NAMED = 3
"""Names spelled out in a sentence."""

OUTSIDE = "changed outside the model's forward passes"
"""What is said of a change that nothing the model does explains."""


@dataclass(frozen=True)
class Change:
    """Things of one sort that are not what they were.

    `what` is "parameters", "buffers", "gradients", "modes", "hooks", "hooks of state dicts", "attributes",
    "modules" or "random state";
    `names` are paths in the model (for random state, whose). `because` says what of the model's own doing
    explains it, "" where nothing does: then it was the code around the model, an optimizer say, or a fault of ours.
    """

    what: str
    names: tuple[str, ...]
    because: str = ""

    @property
    def says(self) -> str:
        """A few words."""
        shown = ", ".join(self.names[:MOST_NAMED])
        more = len(self.names) - MOST_NAMED
        names = f"{shown} and {more} more" if more > 0 else shown
        return f"{self.what} ({names}): {self.because or OUTSIDE}"


@dataclass(frozen=True)
class IntegrityReport:
    """The model before the probe was attached, held against the model after it was detached.

    Compared were the bytes of `n_parameters` parameters, `n_buffers` buffers (`n_bytes` in all) and every
    gradient, the modes, hooks and attributes of `n_modules` modules, and the states of the random number
    generators. `seconds` is what both looks took together.
    """

    n_parameters: int
    n_buffers: int
    n_bytes: int
    n_modules: int
    seconds: float
    changes: tuple[Change, ...] = ()

    @property
    def unexplained(self) -> tuple[Change, ...]:
        """Changes that the model did not make by itself."""
        return tuple(change for change in self.changes if not change.because)

    @property
    def says(self) -> str:
        """The result in one or two sentences."""
        compared = (
            f"Compared before and after the probe: {self.n_parameters} parameters and {self.n_buffers} buffers "
            f"({self.n_bytes / 1e6:.1f} MB), gradients, random number generators, and the modes, hooks and attributes of "
            f"{self.n_modules} modules"
        )
        if not self.changes:
            return f"{compared}. All are bit for bit the same."
        return f"{compared}. Not the same: {'; '.join(change.says for change in self.changes)}."

    def merge(self, other: Self | None) -> Self | None:
        """Both runs together; None where one was not compared."""
        if other is None:
            return None
        pairs = dict.fromkeys((change.what, change.because) for change in self.changes + other.changes)
        changes = tuple(
            Change(what, tuple(sorted(_names(self, what, because) | _names(other, what, because))), because)
            for what, because in pairs
        )
        return type(self)(
            max(self.n_parameters, other.n_parameters),
            max(self.n_buffers, other.n_buffers),
            max(self.n_bytes, other.n_bytes),
            max(self.n_modules, other.n_modules),
            self.seconds + other.seconds,
            changes,
        )


def _names(integrity: IntegrityReport, what: str, because: str) -> set[str]:
    """What is named of one sort and explanation."""
    return {
        name
        for change in integrity.changes
        if (change.what, change.because) == (what, because)
        for name in change.names
    }
