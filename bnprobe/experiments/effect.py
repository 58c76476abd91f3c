"""What a change of the model does to its outputs: before, after, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from bnprobe.experiments.outputs import Change
from bnprobe.notebook import facts
from bnprobe.recording.terms import ACCURACY, AGREEMENT, OUTPUT
from bnprobe.stats.bootstrap import Interval, paired_interval
from bnprobe.stats.moments import Array


@dataclass(frozen=True)
class Effect:
    """The same samples through the model before and after a change.

    Attributes:
        metric: Name of what was measured. Without targets that are classes, and without a metric, it is the
            agreement with the decisions of the unchanged model, or, where the output is no scores of classes, the
            relative change of the output.
        before: Mean of the metric over samples, before the change.
        after: The same, after it.
        difference: after - before.
        low: Lower end of the 95% interval of `difference`: paired bootstrap over samples.
        high: Upper end of it.
        n: Number of samples.
        agreement: Share of samples (positions) decided as before, 0 to 1; NaN where nothing is decided.
        kl: Mean Kullback-Leibler divergence of the softmax after from the softmax before, in nats; NaN likewise.
        output_change: Mean over samples of the norm of the output's change over the norm of the output.
        largest_change: Largest change of one number of the outputs.
        largest_relative: Largest over samples of the norm of the output's change over the norm of the output.
        n_fitted: How many of these samples the change was made from, as far as that is known.
        notes: What else a reader should know, in sentences.
    """

    metric: str
    before: float
    after: float
    difference: float
    low: float
    high: float
    n: int
    agreement: float
    kl: float
    output_change: float
    largest_change: float = float("nan")
    largest_relative: float = float("nan")
    n_fitted: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        metric: str,
        before: Array,
        after: Array,
        change: Change,
        n_fitted: int = 0,
        notes: tuple[str, ...] = (),
    ) -> Self:
        """From values per sample, shape (n,) each."""
        interval = paired_interval(after - before)
        return cls(
            metric=metric,
            before=_mean(before),
            after=_mean(after),
            difference=_mean(after - before),
            low=interval.low,
            high=interval.high,
            n=len(before),
            agreement=_mean(change.agreement),
            kl=_mean(change.kl),
            output_change=_mean(change.relative),
            largest_change=float(np.max(change.largest)),
            largest_relative=float(np.max(change.relative)),
            n_fitted=n_fitted,
            notes=notes,
        )

    @property
    def sure(self) -> bool:
        """Whether the 95% interval of the difference leaves out zero."""
        return Interval(self.low, self.high).excludes_zero

    @property
    def says(self) -> str:
        """The result in a sentence."""
        show = _percent if self.metric in (ACCURACY, AGREEMENT) else _number
        n = f"{self.n:,} sample{'s' * (self.n != 1)}"
        if self.metric in (AGREEMENT, OUTPUT):
            value = show(self.after)
            return (
                f"{self.metric}: {value} of decisions stay, on {n}"
                if show is _percent
                else f"{self.metric}: {value} on {n}"
            )
        points = " points" if show is _percent else ""
        low, high, gap = (_signed(100 * v if points else v) for v in (self.low, self.high, self.difference))
        verdict = "" if self.sure else ": the interval includes 0"
        return (
            f"{self.metric} {show(self.before)} → {show(self.after)} ({gap}{points}, 95% interval {low} to {high}, {n})"
            f"{verdict}"
        )

    def __repr__(self) -> str:
        return f"Effect({self.says})"

    def _repr_html_(self) -> str:
        rows = [
            ("agreement", _percent(self.agreement)),
            ("KL", _number(self.kl)),
            ("output", _percent(self.output_change)),
        ]
        return facts(self.says, [*rows, *(("note", note) for note in self.notes)])


def _mean(values: Array) -> float:
    return float(np.mean(values)) if len(values) and not np.isnan(values).all() else float("nan")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _signed(value: float) -> str:
    if value == 0:
        return "0.0"
    return (f"{value:+.1f}" if abs(value) >= 0.05 else f"{value:+.2g}").replace("-", "−")
