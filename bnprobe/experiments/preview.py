"""A change of the model tried on samples: each batch runs without it and with it, and the model is as it was."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from bnprobe.errors import BnprobeError
from bnprobe.experiments.effect import Effect
from bnprobe.experiments.outputs import Change, Metric, change, correct, holds_nan, per_sample, said_of_nan
from bnprobe.experiments.put_back import RandomStates, in_eval_mode, put_back
from bnprobe.experiments.run import Batches, Call, run
from bnprobe.probe.batches import parts
from bnprobe.probe.integrity.checksums import Digest
from bnprobe.recording.terms import ACCURACY, AGREEMENT, OUTPUT
from bnprobe.stats.moments import Array

Version = Literal["old", "new"]

Feed = Callable[[Any], Any]
"""From a batch to the batch that is fed in its place."""


class Trial(NamedTuple):
    """One batch: the metric's name and its values before and after, shape (N,), and the change of the output."""

    metric: str
    before: Array
    after: Array
    change: Change


def preview(
    model: nn.Module,
    become: Callable[[Version], None],
    batches: Iterable[Any],
    metric: Metric | None,
    call: Call | None,
    fitted: Collection[Digest] = (),
    feed: Feed | None = None,
    set_modes: Callable[[nn.Module], None] = in_eval_mode,
) -> Effect:
    """The effect of what `become` writes into the model; `fitted` are the checksums of the samples it was made from.

    Both versions of a batch start from the same random state. The first output is measured before the second pass, which
    may write into it. `feed` makes of a batch what the new version is given; `set_modes` runs once, before all passes.
    """
    demand_callable(metric)
    seen = Batches(model, batches, "trying")
    tried: list[Trial] = []
    n_nan = 0
    with put_back(model) as afterwards, torch.no_grad():
        set_modes(model)
        try:
            for batch in seen:
                target = parts(batch)[1]
                state = RandomStates()
                become("old")
                first = run(model, batch, call)
                before, undecided = measured(metric, first, target), holds_nan(first)
                state.restore()
                become("new")
                second = run(model, batch if feed is None else feed(batch), call)
                after = measured(metric, second, target)
                tried.append(compared(metric, before, after, change(first, second, target)))
                n_nan += int((undecided | holds_nan(second)).sum())
        finally:
            become("old")
    names = {one.metric for one in tried}
    if len(names) > 1:
        raise BnprobeError(
            "some batches have targets that are classes and others have none. Give all of them targets, or none."
        )
    same = len(seen.samples.intersection(fitted))
    notes = [f"The model itself changed: {words}." for words in afterwards.changes]
    notes += said_of_nan(n_nan, seen.n_samples, "before the change or after it")
    if same:
        notes.append(
            f"{same:,} of these {seen.n_samples:,} samples are among those the statistics were made from, so the effect is "
            "flattered. Preview on other samples."
        )
    return Effect.of(
        names.pop(),
        np.concatenate([one.before for one in tried]),
        np.concatenate([one.after for one in tried]),
        Change(*(np.concatenate(values) for values in zip(*(one.change for one in tried), strict=True))),
        same,
        tuple(notes),
    )


def demand_callable(metric: Metric | None) -> None:
    """Raises BnprobeError where a metric is no function."""
    if metric is not None and not callable(metric):
        raise BnprobeError(
            f"metric must be a function of (output, target), got {type(metric).__name__}. Pass a function."
        )


def measured(metric: Metric | None, output: Any, target: Any) -> Array | None:
    """What the metric says of an output, else whether it is correct; None where neither can be said."""
    return correct(output, target) if metric is None else per_sample(metric, output, target)


def compared(metric: Metric | None, before: Array | None, after: Array | None, moved: Change) -> Trial:
    """By the metric, else by the accuracy, else by the agreement with the first version, else by the output's size."""
    if before is not None and after is not None:
        name = ACCURACY if metric is None else getattr(metric, "__name__", type(metric).__name__)
        return Trial(name, before, after, moved)
    if not np.isnan(moved.agreement).any():
        return Trial(AGREEMENT, np.ones_like(moved.agreement), moved.agreement, moved)
    return Trial(OUTPUT, np.zeros_like(moved.relative), moved.relative, moved)
