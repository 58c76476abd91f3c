"""What the first call of a norm showed of the formula that it is described by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True)
class OutputCheck:
    """The output of a site's first call, on its first samples, against the formula of its kind.

    `dtype` is the input's. `fits` says whether output and formula agree within its rounding. If not, `deviations` are the
    changes to the formula that together give the output, in the words of `probe.calls.alternatives`; `remaining` is the
    largest difference that is left then, in units of the largest output. Without one that does, there are none, and it is
    None. Shares, 0 to 1: `constant_rows` of the statistics of single samples that were taken of equal values;
    `zero_positions` of the positions of a sequence where all channels are 0, of norms that pool positions; `zero_rows` of
    the positions whose inputs differ although their outputs are all 0 or β; `saturated` of the outputs that are exactly
    the largest or the smallest one; `repeated` of the samples that have an equal one in the call, and `largest` of
    those that are all equal, from 4 on, of norms that use their batch.
    """

    dtype: str
    fits: bool
    deviations: tuple[str, ...] = ()
    remaining: float | None = None
    constant_rows: float = 0.0
    zero_positions: float = 0.0
    zero_rows: float = 0.0
    saturated: float = 0.0
    repeated: float = 0.0
    largest: float = 0.0

    def __repr__(self) -> str:
        return f"OutputCheck({'fits' if self.fits else ', '.join(self.deviations) or 'not explained'}, {self.dtype})"

    def merge(self, other: Self) -> Self:
        """Both first calls; of the explanations the one of the call that needed it."""
        one = self if other.fits or not self.fits else other
        return replace(
            one,
            fits=self.fits and other.fits,
            **{name: max(getattr(self, name), getattr(other, name)) for name in _SHARES},
        )


_SHARES = ("constant_rows", "zero_positions", "zero_rows", "saturated", "repeated", "largest")
