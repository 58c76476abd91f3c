"""Every variant on every batch: a batch is read once, runs unchanged, and then with each variant in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import nn

from bnprobe.errors import BnprobeError
from bnprobe.experiments.outputs import Metric, change, holds_nan, rest_loss, scores, token_loss
from bnprobe.experiments.positions import next_tokens
from bnprobe.experiments.prefix import Prefix
from bnprobe.experiments.preview import Trial, compared, measured
from bnprobe.experiments.put_back import RandomStates
from bnprobe.experiments.replacements import Variant
from bnprobe.experiments.run import Batches, Call, run
from bnprobe.printing import progress
from bnprobe.probe.batches import parts
from bnprobe.stats.moments import Array

SPARE = 0.9
"""Part of the time left that is planned for: what a run takes is known from one batch."""


IGNORED = -100
"""The target that losses leave out."""

INTERRUPTED, OUT_OF_TIME = "interrupted", "out of time"


class Deadline:
    """When to stop, `budget_s` seconds after it was made; never without a number."""

    def __init__(self, budget_s: float | None) -> None:
        self.budget_s = budget_s
        self._began = monotonic()

    @property
    def spent(self) -> float:
        """Seconds since it was made."""
        return monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds left; infinite without a budget."""
        return np.inf if self.budget_s is None else self.budget_s - self.spent


def target_of(batch: Any, metric: Metric | None) -> Any:
    """The target of a batch; for a loss the next tokens, where it brings none."""
    target = parts(batch)[1]
    return next_tokens(batch, IGNORED) if target is None and metric is token_loss else target


@dataclass
class Tally:
    """What one variant gave, batch after batch: the metric per sample, and sums over samples."""

    after: list[Array] = field(default_factory=list)
    rest: list[Array] = field(default_factory=list)
    """A loss of tokens without the first one of each sequence; empty for any other metric."""
    agreement: float = 0.0
    kl: float = 0.0

    def add(self, tried: Trial, rest: Array | None) -> None:
        """One batch more."""
        self.after.append(tried.after)
        self.rest += [] if rest is None else [rest]
        self.agreement += float(tried.change.agreement.sum())
        self.kl += float(tried.change.kl.sum())


@dataclass
class Measurements:
    """The metric of the unchanged model per sample, batch after batch, and a tally per variant, of as many or fewer."""

    metric: str = ""
    before: list[Array] = field(default_factory=list)
    rest: list[Array] = field(default_factory=list)
    tallies: dict[Variant, Tally] = field(default_factory=dict)
    n_nan: int = 0
    """Samples for which the output of the unchanged model holds NaN."""
    stopped: str = ""
    """Why it ended before all was measured, in words."""


@dataclass
class Measuring:
    """How variants are measured: on what, by what, and until when."""

    model: nn.Module
    batches: Batches
    n_batches: int
    metric: Metric | None
    call: Call | None
    prefix: Prefix
    deadline: Deadline

    def of(self, ranked: Sequence[Variant]) -> Measurements:
        """Run variants, the most important first, as many as the time allows.

        How many that are is decided at the first batch, by what the parts of the unchanged pass take, and again after each
        batch. After Ctrl-C, and where time runs out all the same, what was measured until then is returned.
        """
        found = Measurements(tallies={variant: Tally() for variant in ranked})
        chosen = list(ranked)
        try:
            with torch.no_grad(), progress(self.n_batches * len(chosen), "ablating", "runs") as bar:
                for i, batch in enumerate(self.batches):
                    left = self.n_batches - i
                    chosen = self._one_batch(batch, chosen, found, bar, left, first=i == 0)
                    bar.total = bar.n + (left - 1) * len(chosen)
                    if found.stopped:
                        break
        except KeyboardInterrupt:
            if not any(tally.after for tally in found.tallies.values()):
                raise
            found.stopped = INTERRUPTED
        finally:
            self.prefix.forget()
        return found

    def _one_batch(
        self, batch: Any, chosen: list[Variant], found: Measurements, bar: Any, left: int, first: bool
    ) -> list[Variant]:
        """Run a batch with the variants that are chosen; those for which there will be time for the `left` batches."""
        began, target = monotonic(), target_of(batch, self.metric)
        state = RandomStates()

        def go() -> Any:
            state.restore()
            return run(self.model, batch, self.call)

        output = self.prefix.record(go)
        took = monotonic() - began
        before = measured(self.metric, output, target)
        decides = scores(output)
        kept = None if decides is None else decides.clone()
        unchanged = compared(self.metric, before, before, change(kept, kept, target))
        if found.metric not in ("", unchanged.metric):
            raise BnprobeError(
                "some batches have targets that are classes and others have none. Give all of them targets, or none."
            )
        found.metric = unchanged.metric
        found.before.append(unchanged.before)
        found.n_nan += int(holds_nan(kept).sum())
        rest = self._rest(output, target)
        found.rest += [] if rest is None else [rest]
        if first:
            chosen = self._affordable(chosen, took * left)
        for variant in chosen:
            if self.deadline.left < took and found.tallies[chosen[0]].after:
                found.stopped = OUT_OF_TIME
                return chosen
            if variant.changes_nothing:
                found.tallies[variant].add(unchanged, rest)
            else:
                second = self.prefix.run(variant, go)
                after = measured(self.metric, second, target)
                tried = compared(self.metric, before, after, change(kept, second, target))
                found.tallies[variant].add(tried, self._rest(second, target))
            bar.update()
        needed = (left - 1) * (monotonic() - began)
        if left > 1 and needed > self.deadline.left:
            return chosen[: max(1, int(len(chosen) * SPARE * max(self.deadline.left, 0) / needed))]
        return chosen

    def _rest(self, output: Any, target: Any) -> Array | None:
        return rest_loss(output, target) if self.metric is token_loss else None

    def _affordable(self, ranked: list[Variant], whole: float) -> list[Variant]:
        """As many of the first as fit into the time left, where a pass of everything takes `whole` seconds; at least one."""
        if self.deadline.left == np.inf:
            return ranked
        needed = np.cumsum(
            [0.0 if variant.changes_nothing else whole * self.prefix.share(variant) for variant in ranked]
        )
        return ranked[
            : max(1, int(np.searchsorted(needed, SPARE * (self.deadline.left - whole), side="right")))
        ]
