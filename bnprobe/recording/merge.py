"""Merging of what only one of two parts may have."""

from __future__ import annotations

from typing import Protocol, Self, TypeVar


class Mergeable(Protocol):
    """A statistic that adds up."""

    def merge(self, other: Self) -> Self:
        """Both parts together."""
        ...


_Statistic = TypeVar("_Statistic", bound=Mergeable)


def merge_optional(mine: _Statistic | None, theirs: _Statistic | None, keep: bool) -> _Statistic | None:
    """Merge where both have it.

    Otherwise the one that is there is kept where the other part had nothing to give (`keep`), and left
    out where it did not look: a part recorded without histograms leaves the whole without.
    """
    if mine is None or theirs is None:
        return (mine or theirs) if keep else None
    return mine.merge(theirs)
