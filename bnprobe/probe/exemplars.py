"""The exemplars of a phase while passes come in: each channel's samples with the highest and lowest outputs.

Samples have running numbers; files, which may come again in another order or process, have a checksum of their path in
place of it, so that every machine gives a file the same number, by which equal values are put in order.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from bnprobe.probe.calls import Key
from bnprobe.probe.calls.row_values import NOT_PER_SAMPLE, RowValues, why_no_exemplars
from bnprobe.probe.captions import Captions, kept_caption
from bnprobe.probe.places import Places
from bnprobe.probe.sites import PendingCall
from bnprobe.recording import SampleTable
from bnprobe.recording.names import site_name
from bnprobe.recording.samples import Layers, in_table, used_by
from bnprobe.stats.exemplars import NOBODY, SIGNS, Exemplars, best, once
from bnprobe.stats.moments import Array

FORGET = 1 << 12
"""Samples without whose names no look is taken at which of them are still needed."""


class ExemplarTotals:
    """The exemplars of one site among `n_samples`: those kept so far, as scores, shape (2, C, K)."""

    def __init__(self, n_channels: int, k: int) -> None:
        self.n_samples = 0
        self._score = np.full((2, n_channels, k), -np.inf)
        self._sample = np.full((2, n_channels, k), NOBODY)
        self._position = np.full((2, n_channels, k), np.nan)

    @property
    def floor(self) -> Array:
        """The scores (2, C) that a sample has to reach to be kept."""
        return self._score[:, :, -1]

    def add(self, values: RowValues, numbers: Array, seen_before: bool) -> None:
        """Add the samples with these numbers, some of which may have been `seen_before`."""
        self.n_samples += len(numbers)
        k = self._score.shape[2]
        for side, shown in enumerate((values.high, values.low)):
            score = shown.T * SIGNS[side, 0]
            score = np.where(np.isfinite(score), score, -np.inf)
            # most samples change nothing
            rows = np.flatnonzero(score.max(axis=1, initial=-np.inf) >= self.floor[side])
            score = score[rows]
            sample = np.where(score > -np.inf, numbers, NOBODY)
            position = np.full_like(score, np.nan)
            if values.position is not None:
                position = values.position[side].T[rows]
            score, sample, position = (
                np.concatenate([mine[side, rows], new], axis=1)
                for mine, new in zip(self._kept, (score, sample, position), strict=True)
            )
            if seen_before:
                score, sample, position = once(score, sample, position)
            found = best(score, sample, position, k)
            for mine, new in zip(self._kept, found, strict=True):
                mine[side, rows] = new

    @property
    def _kept(self) -> tuple[Array, Array, Array]:
        return self._score, self._sample, self._position

    def used(self) -> Array:
        """The numbers of the samples that are kept."""
        return np.unique(self._sample)

    def finished(self) -> Exemplars:
        """A snapshot."""
        value = np.where(np.isneginf(self._score), np.nan, self._score) * SIGNS
        return Exemplars(value, self._sample.copy(), np.where(self._sample == NOBODY, np.nan, self._position))


@dataclass(frozen=True)
class Named:
    """What is known of a sample: its path or text, which of the two, and its label (NaN for none)."""

    caption: str
    is_path: bool
    label: float


_NO_NAME = Named("", False, np.nan)


class PhaseExemplars:
    """The exemplars of all sites of one phase, `k` on either side of a channel, and what is known of their samples.

    `left_out` says why sites have none.
    """

    def __init__(self, k: int) -> None:
        self._k = k
        self._sites: dict[Key, ExemplarTotals] = {}
        self._named: dict[float, Named] = {}
        self._most = FORGET
        self._n_samples = 0
        # parts of a run that was cut in pieces count from 0 each; uuid4 leaves the user's random numbers alone
        self._part = f"{datetime.now(UTC).isoformat(timespec='seconds')} {uuid.uuid4().hex[:8]}"
        self.left_out: dict[str, str] = {}

    def floor(self, key: Key) -> Array | None:
        """The scores that a sample of this site has to reach; None where none was seen."""
        return self._sites[key].floor if key in self._sites else None

    def add(
        self,
        waiting: Iterable[PendingCall],
        n_samples: int,
        captions: Captions | None,
        labels: Array | None,
        places: Places,
    ) -> None:
        """Add the calls of one pass over so many samples; 0 where norms ran without the model, each with its own batch."""
        if places.continues:
            return  # of samples that were counted when they began
        numbers, repeated = self._numbers(self._n_samples, n_samples, captions, labels)
        self._n_samples += n_samples
        for call in waiting:
            shown, plan = call.seen.row_values, call.seen.before.plan
            values = None if shown is None else shown.values()
            if not n_samples and values is not None:
                first = self._sites[call.key].n_samples if call.key in self._sites else 0
                n = len(values.high)
                numbers, repeated = self._numbers(first, n, _if_each(captions, n), _if_each(labels, n))
            why = why_no_exemplars(plan)
            if values is None or len(values.high) != len(numbers):
                why = why or NOT_PER_SAMPLE
            if why or values is None:
                self.left_out.setdefault(site_name(*call.key), why)
                continue
            if call.key not in self._sites:
                self._sites[call.key] = ExemplarTotals(plan.n_channels, self._k)
            self._sites[call.key].add(_in_sequences(values, places.of(call.key[0])), numbers, repeated)
        if len(self._named) > self._most:
            self._forget()

    def _numbers(
        self, first: int, n: int, captions: Captions | None, labels: Array | None
    ) -> tuple[Array, bool]:
        """The numbers of `n` samples, `first` of which came before, and whether some of them are no new ones."""
        numbers, repeated = np.arange(first, first + n, dtype=np.float64), False
        for i in range(n) if captions is not None or labels is not None else ():
            caption, is_path = ("", False) if captions is None else kept_caption(captions[i])
            label = float(labels[i]) if labels is not None and labels[i] >= 0 else np.nan
            if is_path:
                numbers[i] = _checksum(caption)
            number = float(numbers[i])
            repeated |= is_path and number in self._named
            self._named[number] = Named(caption, is_path, label)
        return numbers, repeated

    def _forget(self) -> None:
        """Drop the names of samples that are no exemplar any more."""
        used = {number for site in self._sites.values() for number in site.used().tolist()}
        self._named = {number: named for number, named in self._named.items() if number in used}
        self._most = max(FORGET, 2 * len(self._named))

    def of(self, key: Key) -> Exemplars | None:
        """Those of a site, by numbers that `with_samples` turns into places in a table; None where it has none."""
        return self._sites[key].finished() if key in self._sites else None

    def with_samples(self, layers: Layers) -> tuple[Layers, SampleTable | None]:
        """The records with samples by their places in a table, and that table; None where there are no exemplars."""
        if not self._sites:
            return layers, None
        used = used_by(layers)
        named = [self._named.get(number, _NO_NAME) for number in used.tolist()]
        table = SampleTable(
            numbers=used,
            parts=tuple("" if one.is_path else self._part for one in named),
            captions=tuple(one.caption for one in named),
            is_path=np.array([float(one.is_path) for one in named]),
            labels=np.array([one.label for one in named]),
        )
        return in_table(layers, used), table

    def notes(self) -> Iterator[str]:
        """Which sites have no exemplars, and why."""
        for why in sorted(set(self.left_out.values())):
            sites = [site for site, reason in self.left_out.items() if reason == why]
            more = f" and {len(sites) - 3:,} more" if len(sites) > 3 else ""
            yield f"No exemplars at {', '.join(sites[:3])}{more}: {why}"


def _if_each(given: Any, n: int) -> Any:
    """What was given of a batch, where it is one of each of `n` samples."""
    return given if given is not None and len(given) == n else None


def _in_sequences(values: RowValues, places: Places) -> RowValues:
    """With positions as the model counts them, where it is known: those of padding and of earlier calls are not the same."""
    if values.position is None or values.places is None:
        return values
    n = values.places[0]
    counted = places.on(values.places, torch.device("cpu")).names[:, 1].numpy().reshape(n, -1)
    known = ~np.isnan(values.position)
    samples, at = np.nonzero(known)[1], values.position[known].astype(np.int64)
    values.position[known] = np.where(counted[samples, at] < 0, at, counted[samples, at])
    return values


def _checksum(path: str) -> float:
    """A number of 53 bits, which float64 holds, the same on every machine."""
    return float(int.from_bytes(blake2b(path.encode(), digest_size=8).digest()) >> 11)
