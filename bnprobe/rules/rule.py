"""The form of a rule and of what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd

from bnprobe.rules.edits import Edit, Remedy
from bnprobe.rules.newness import (
    FEWEST_DRAWN,
    FIRST_BATCHES_UNMOVED,
    begun_again,
    beyond_first_steps,
    drawn_and_new,
    network_is_new,
)
from bnprobe.rules.thresholds import DEFAULT, Limits


class Measured(Protocol):
    """The tables of a report."""

    @property
    def layers(self) -> pd.DataFrame:
        """A row per site."""

    @property
    def channels(self) -> pd.DataFrame:
        """A row per channel of every site."""

    @property
    def unread(self) -> pd.DataFrame:
        """Layers that gave no numbers, and why."""

    @property
    def preprocessing(self) -> pd.DataFrame:
        """Mistakes of preprocessing that explain what the first norm measures, the best first."""

    @property
    def causes(self) -> pd.DataFrame:
        """What else explains the discrepancy of each norm, the best first."""


@dataclass(frozen=True)
class Evidence:
    """What a rule may look at: the tables of a report or of a comparison, and the thresholds.

    Of a comparison `tensors` are those that differ beside the norms, and `apart` the correlations across channels where
    channels do not correspond; `misplaced` are norms of B whose vectors A holds elsewhere, `folds` norms of A that B
    holds in the weights before them, and `gguf` is the side, "A" or "B", that alone is a GGUF file. `invariances` is the
    table of what moves outputs, where that was tried.
    """

    layers: pd.DataFrame
    channels: pd.DataFrame
    unread: pd.DataFrame
    limits: Limits = DEFAULT
    preprocessing: pd.DataFrame = field(default_factory=pd.DataFrame)
    tensors: pd.DataFrame = field(default_factory=pd.DataFrame)
    apart: Mapping[str, float] = field(default_factory=dict)
    causes: pd.DataFrame = field(default_factory=pd.DataFrame)
    invariances: pd.DataFrame = field(default_factory=pd.DataFrame)
    misplaced: pd.DataFrame = field(default_factory=pd.DataFrame)
    folds: pd.DataFrame = field(default_factory=pd.DataFrame)
    gguf: str = ""

    @classmethod
    def of(cls, measured: Measured, limits: Limits = DEFAULT) -> Self:
        """The tables of a report, to be judged by these thresholds."""
        return cls(
            measured.layers,
            measured.channels,
            measured.unread,
            limits,
            measured.preprocessing,
            causes=measured.causes,
        )

    @cached_property
    def rows(self) -> list[pd.Series]:
        """Each site's row of the layer table; the rules share them, and change none: to make them takes milliseconds."""
        return [row for _, row in self.layers.iterrows()]

    @cached_property
    def sites(self) -> list[tuple[pd.Series, pd.DataFrame]]:
        """The same with the channels of each, which the rules share as well."""
        return [
            (row, self.channels.iloc[_run(places)])
            for row, places in zip(self.rows, self._places, strict=True)
        ]

    @cached_property
    def _places(self) -> list[Any]:
        """Where in the table of channels those of each site are."""
        if self.layers.empty:
            return []
        found = self.channels.groupby(["layer", "call"]).indices
        return [found[key] for key in zip(self.layers["layer"], self.layers["call"], strict=True)]

    @cached_property
    def _site_of_channel(self) -> Any:
        """The position in `sites` of each channel's site."""
        numbers = np.zeros(len(self.channels), dtype=np.int64)
        for i, places in enumerate(self._places):
            numbers[places] = i
        return numbers

    def sites_with(
        self, channels: pd.Series, layers: pd.Series | None = None
    ) -> Iterator[tuple[pd.Series, pd.DataFrame]]:
        """The sites of which one channel is marked, or the layer itself: to look at each of thousands takes minutes."""
        marked = np.zeros(len(self.layers), dtype=bool)
        marked[self._site_of_channel[channels.to_numpy(bool)]] = True
        if layers is not None:
            marked |= layers.to_numpy(bool)
        yield from (self.sites[i] for i in np.flatnonzero(marked))

    @cached_property
    def weights_only(self) -> bool:
        """Whether no norm was called."""
        return bool((self.layers["n_calls"] == 0).all())

    @cached_property
    def is_new(self) -> bool:
        """Whether the network was not trained, or has just begun."""
        if self.channels.empty:
            return False
        if beyond_first_steps(self.channels):
            # mostly without a look at each norm, of which there may be thousands
            counted = self.layers["n_batches_tracked"].between(1, FIRST_BATCHES_UNMOVED)
            return bool(counted.all()) and len(counted) >= FEWEST_DRAWN and drawn_and_new(self.sites)
        return network_is_new(self.sites)

    @cached_property
    def begun_again(self) -> bool:
        """Whether γ and β of all norms are as initialized, beside running statistics of many batches."""
        return begun_again(self.sites)


def _run(places: Any) -> Any:
    """Rows that follow one another as a slice: what is taken by it is a view, and no second copy of a large table."""
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first + 1 == len(places) else places


@dataclass(frozen=True)
class Finding:
    """One thing found: where, in words, on which numbers, and what to do about it.

    `says` is the sentence, `because` gives the numbers and the threshold. What stands between backticks in
    `do` is a command, or Python that runs as it stands where `model` is the model, `loader` gives batches of
    training images, `batches` are those recorded, `x` and `y` are one batch and `loss(output, y)` is the loss;
    code that sets `x` belongs into the preprocessing. `channels` are indices within the layer, empty when the
    whole layer is meant. `remedy` is what the advice changes, where `bnprobe.try_remedies` can carry it out.
    """

    severity: str
    layer: str
    says: str
    because: str
    do: str
    channels: tuple[int, ...] = ()
    call: int = 0
    remedy: Remedy | None = None


@dataclass(frozen=True)
class Rule:
    """A named question to the tables, with its source and what makes it silent.

    `edits` are the kinds that the remedies of its findings may be; a rule without any says in `by_hand` why its advice is
    not carried out. A finding may have no remedy all the same, where its tables do not say what to do.
    A rule `of_calls` speaks of nothing but what calls showed, and is not asked of a file of weights.
    """

    id: str
    asks: str
    source: str
    silent: str
    find: Callable[[Evidence], Iterable[Finding]]
    edits: tuple[type[Edit], ...] = ()
    by_hand: str = ""
    of_calls: bool = False


def follows_batches(row: pd.Series) -> bool:
    """Whether the norm normalized by its input's own statistics and updated its running ones meanwhile: these were not
    in use, and are on their way to what is fed now."""
    return bool(row["normalized_by"] in ("batch", "sample") and row["memory_moved"] > 0)


def while_training(row: pd.Series) -> bool:
    """Whether the model as a whole was being trained in every call: what it is fed are augmented training samples."""
    return bool(row["n_calls_model_training"] == row["n_calls"] and row["n_calls_learning"] > 0)


def frozen(row: pd.Series) -> bool:
    """Whether the norm is kept as it is on purpose, while other parts of the model may learn."""
    kept = row["frozen"] == 1 or "Frozen" in str(row["class_name"])
    return bool(kept and row["normalized_by"] == "running")


def settled(row: pd.Series, limits: Limits) -> bool:
    """Whether running statistics that are in use hold next to nothing of their initial 0 and 1."""
    return bool(row["mode"] == "eval" and row["initial_weight"] < limits.initial_weight)


def takes_inputs(evidence: Evidence, row: pd.Series) -> bool:
    """Whether a norm is the first, and no weights were seen before it: it takes the model's inputs, or embeddings."""
    return bool(
        row["layer"] == evidence.layers["layer"].iloc[0] and not row["feeder"] and row["follows"] != "unknown"
    )


def unsound(channels: pd.DataFrame, *names: str) -> pd.Series:
    """Channels of which one of these columns is NaN or infinite."""
    sound = pd.Series(True, channels.index)
    for name in names:
        sound &= channels[name].abs() < np.inf
    return ~sound


def indices(channels: pd.DataFrame) -> tuple[int, ...]:
    """Channel numbers of the rows."""
    return tuple(int(c) for c in channels["channel"])


def numbers_where(channels: pd.DataFrame, marked: pd.Series) -> tuple[int, ...]:
    """Channel numbers of the marked rows, which are not taken: of a hundred columns that takes milliseconds a layer."""
    return tuple(channels["channel"].to_numpy()[marked.to_numpy(bool)].tolist())


def share_severity(found: pd.DataFrame, channels: pd.DataFrame, limits: Limits) -> str:
    """A warning where a good part of the layer's channels are meant, a note where it is a few."""
    return "warning" if len(found) >= limits.many_channels * len(channels) else "info"
