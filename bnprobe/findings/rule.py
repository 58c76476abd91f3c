"""The form of a rule and of what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self

import pandas as pd

from bnprobe.findings.limits import DEFAULT, Limits

SEVERITIES = ("critical", "warning", "info")


class Measured(Protocol):
    """The three tables of a report."""

    @property
    def layers(self) -> pd.DataFrame:
        """A row per site."""

    @property
    def channels(self) -> pd.DataFrame:
        """A row per channel of every site."""

    @property
    def unread(self) -> pd.DataFrame:
        """Layers that gave no numbers, and why."""


@dataclass(frozen=True)
class Evidence:
    """What a rule may look at: the three tables of a report, and the thresholds."""

    layers: pd.DataFrame
    channels: pd.DataFrame
    unread: pd.DataFrame
    limits: Limits = DEFAULT

    @classmethod
    def of(cls, measured: Measured, limits: Limits = DEFAULT) -> Self:
        """The tables of a report, to be judged by these thresholds."""
        return cls(measured.layers, measured.channels, measured.unread, limits)


@dataclass(frozen=True)
class Finding:
    """One thing found: where, in words, on which numbers, and what to do about it.

    `says` is the sentence, `because` gives the numbers and the threshold, `do` a command or lines of
    code that run. `channels` are indices within the layer, empty when the whole layer is meant.
    """

    severity: str
    layer: str
    says: str
    because: str
    do: str
    channels: tuple[int, ...] = ()
    call: int = 0


@dataclass(frozen=True)
class Rule:
    """A named question to the tables, with its source and what makes it silent."""

    id: str
    asks: str
    source: str
    silent: str
    find: Callable[[Evidence], Iterable[Finding]]


def sites(evidence: Evidence) -> Iterator[tuple[pd.Series, pd.DataFrame]]:
    """Each site's row of the layer table with its channels."""
    groups = dict(list(evidence.channels.groupby(["layer", "call"], sort=False)))
    for _, row in evidence.layers.iterrows():
        yield row, groups[row["layer"], row["call"]]


def indices(channels: pd.DataFrame) -> tuple[int, ...]:
    """Channel numbers of the rows."""
    return tuple(int(c) for c in channels["channel"])


def share_severity(found: pd.DataFrame, channels: pd.DataFrame, limits: Limits) -> str:
    """A warning where a good part of the layer's channels are meant, a note where it is a few."""
    return "warning" if len(found) >= limits.many_channels * len(channels) else "info"
