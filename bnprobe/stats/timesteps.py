"""What norms meet by timestep: sums over samples, in buckets of the timestep that a model was called with.

Buckets are intervals of one width, a power of 2, each beginning at a multiple of it. The width is the smallest with which
all timesteps take at most MOST_BUCKETS, so that it follows from the smallest and the largest alone: parts merge to the
buckets of the whole, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bnprobe.errors import BnprobeError, CannotMerge
from bnprobe.stats.moments import Array

MOST_BUCKETS = 20
"""Of timesteps from 0 to 999 there are 16, from 0 to 1 there are 17."""

NARROWEST = -20
"""Exponent of the narrowest bucket."""

DIGITS = 50
"""Binary digits of the number of a bucket, which a float64 holds."""

LOGARITHMIC = ("sigma", "sigmas")
"""Arguments that are noise levels: their buckets are of log2."""

SCALE, SHIFT, GATE = "scale", "shift", "gate"
PARTS = (SCALE, SHIFT, GATE)
"""What a norm's output is multiplied by, what is added to it, and what its branch is multiplied by."""


class Grid(NamedTuple):
    """The buckets from k 2^e to (k + 1) 2^e, for `n` whole numbers k from `first` on; e is the `exponent`."""

    exponent: int
    first: int
    n: int

    @classmethod
    def of(cls, values: Array) -> Self:
        """The buckets of finite values, at least one."""
        low, high = float(values.min()), float(values.max())
        widest = int(np.frexp(max(abs(low), abs(high)))[1])
        exponent = max(NARROWEST, widest - DIGITS)
        first, last = (int(np.floor(np.ldexp(end, -exponent))) for end in (low, high))
        return cls._narrowest(exponent, first, last)

    @classmethod
    def _narrowest(cls, exponent: int, first: int, last: int) -> Self:
        while last - first >= MOST_BUCKETS:
            exponent, first, last = exponent + 1, first >> 1, last >> 1
        return cls(exponent, first, last - first + 1)

    def join(self, other: Grid) -> Grid:
        """The buckets of both."""
        exponent = max(self.exponent, other.exponent)
        ends = [
            (one.first >> (exponent - one.exponent), (one.first + one.n - 1) >> (exponent - one.exponent))
            for one in (self, other)
        ]
        return self._narrowest(exponent, min(low for low, _ in ends), max(high for _, high in ends))

    def places(self, values: Array) -> NDArray[np.int64]:
        """The bucket of each value, counted from 0."""
        return np.floor(np.ldexp(values, -self.exponent)).astype(np.int64) - self.first

    def within(self, wider: Grid) -> NDArray[np.int64]:
        """The bucket of a wider grid that each bucket lies in."""
        return ((self.first + np.arange(self.n)) >> (wider.exponent - self.exponent)) - wider.first

    @property
    def edges(self) -> Array:
        """Where buckets begin, and where the last one ends, shape (n + 1,)."""
        return np.asarray(np.ldexp(self.first + np.arange(self.n + 1, dtype=np.float64), self.exponent))


@dataclass(frozen=True)
class TimestepStats:
    """Sums over the samples of one site by timestep. Float64; B buckets, G groups of channels, C channels.

    `argument` is the name under which the model was given timesteps; of noise levels, `LOGARITHMIC`, log2 stands for them.
    `grid` (2,) holds the exponent and the first number of `Grid`. `seen` (B, 2): number of samples, sum of timesteps.
    `groups` (B, 5, G): number of samples whose statistics are finite, then the sums of the mean m of the group in a sample,
    of m^2, of the log of the standard deviation that the norm divides by, and of its square. Of a norm over channels the
    group is all of them, and m and the log are means over the sample's tokens.

    `n_modulated` (B, 3) is the number of samples by part of PARTS, `sums` (B, 3, C) their sums by channel, and `squares`
    (B, 3, G) the sums of squares over samples and the channels of a group; None where nothing modulates the norm.
    """

    argument: str
    grid: Array
    seen: Array
    groups: Array
    n_modulated: Array | None = None
    sums: Array | None = None
    squares: Array | None = None

    def __post_init__(self) -> None:
        b, g = len(self.seen), self.groups.shape[-1] if self.groups.ndim == 3 else 0
        wanted: dict[str, tuple[int, ...]] = {
            "grid": (2,),
            "seen": (b, 2),
            "groups": (b, 5, g),
            "n_modulated": (b, 3),
        }
        wanted |= {"squares": (b, 3, g)}
        if self.sums is not None:
            wanted["sums"] = (b, 3, self.sums.shape[-1] if self.sums.ndim else 0)
        for name, shape in wanted.items():
            found = getattr(self, name)
            if found is not None and found.shape != shape:
                raise BnprobeError(f"timesteps / {name}: expected shape {shape}, found {found.shape}.")
        if not b or b > MOST_BUCKETS:
            raise BnprobeError(f"timesteps / seen: expected 1 to {MOST_BUCKETS} buckets, found {b}.")
        if len({part is None for part in (self.n_modulated, self.sums, self.squares)}) > 1:
            raise BnprobeError("timesteps: sums of modulations without their number.")

    @property
    def buckets(self) -> Grid:
        """The buckets, one per row of each array."""
        return Grid(int(self.grid[0]), int(self.grid[1]), len(self.seen))

    @property
    def n_channels(self) -> int | None:
        """Channels that are modulated; None where none are."""
        return None if self.sums is None else int(self.sums.shape[-1])

    def merge(self, other: Self) -> Self:
        """Samples of both; CannotMerge where they were called by other arguments."""
        if self.argument != other.argument:
            raise CannotMerge(
                f"timesteps were given as {self.argument!r} in one part and as {other.argument!r} in the other. Record both "
                "with the same call of the model."
            )
        grid = self.buckets.join(other.buckets)
        mine, theirs = self._on(grid), other._on(grid)
        added: dict[str, Any] = {name: _sum(getattr(mine, name), getattr(theirs, name)) for name in _ADDED}
        return replace(mine, **added)

    def _on(self, grid: Grid) -> Self:
        """The same sums in wider buckets."""
        moved: dict[str, Any] = {name: regrouped(getattr(self, name), self.buckets, grid) for name in _ADDED}
        return replace(self, grid=np.array([grid.exponent, grid.first], dtype=np.float64), **moved)

    def check_sane(self, where: str = "timesteps") -> Self:
        """Raise unless these are sums over real samples."""
        whole = all(value == np.floor(value) for value in self.grid) and np.isfinite(self.seen).all()
        n = self.seen[:, 0]
        counts = [n, *self.groups[:, 0].T, *(() if self.n_modulated is None else self.n_modulated.T)]
        if not whole or any((one < 0).any() or (one != np.floor(one)).any() for one in counts):
            raise BnprobeError(f"{where}: no samples have such counts.")
        if (self.groups[:, 0] > n[:, None]).any():
            raise BnprobeError(f"{where}: more samples with statistics than samples.")
        squares = [self.groups[:, (2, 4)], *(() if self.squares is None else [self.squares])]
        if any((one < 0).any() for one in squares):
            raise BnprobeError(f"{where}: sums of squares are not negative.")
        return self


_ADDED = ("seen", "groups", "n_modulated", "sums", "squares")


def regrouped(sums: Array | None, grid: Grid, wider: Grid) -> Array | None:
    """Sums by the buckets of a grid, in those of a wider one."""
    if sums is None:
        return None
    made = np.zeros((wider.n, *sums.shape[1:]))
    np.add.at(made, grid.within(wider), sums)
    return made


def _sum(mine: Array | None, theirs: Array | None) -> Array | None:
    """Sums of both parts; a part that nothing modulates has none."""
    if mine is None or theirs is None:
        return theirs if mine is None else mine
    return mine + theirs
