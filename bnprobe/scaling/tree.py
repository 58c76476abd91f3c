"""The one order in which parts are merged, so that the sums are the same to the last bit whoever computes them.

Neighbors are merged first, then their pairs, as a binary counter carries: parts 0 and 1, 2 and 3, then 0-1 and 2-3. An
aligned block of 2^k parts is a subtree, which any process may compute by itself; and of n parts only log2 n sums are held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

_Part = TypeVar("_Part")


def merge_in_order(parts: Iterable[_Part], join: Callable[[_Part, _Part], _Part]) -> _Part | None:
    """All parts as one; None where there are none."""
    open_: list[tuple[int, _Part]] = []  # sums of 2^level parts, whose levels fall
    for part in parts:
        level = 0
        while open_ and open_[-1][0] == level:
            part, level = join(open_.pop()[1], part), level + 1
        open_.append((level, part))
    while len(open_) > 1:
        (level, left), (_, right) = open_[-2], open_[-1]
        open_[-2:] = [(level, join(left, right))]
    return open_[0][1] if open_ else None
