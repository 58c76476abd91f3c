"""The rows of a study, from what was measured and estimated of each variant, and what else a reader should know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from bnprobe.experiments.measure_variants import Measurements, Tally
from bnprobe.experiments.outputs import said_of_nan
from bnprobe.experiments.replacements import Variant
from bnprobe.stats.bootstrap import paired_interval
from bnprobe.stats.moments import Array


def table_of(
    made: Sequence[Variant], measured: Measurements, estimates: Mapping[Variant, float]
) -> pd.DataFrame:
    """A row per variant that was measured or estimated."""
    rows = []
    for variant in made:
        tally = measured.tallies.get(variant, Tally())
        n_batches = len(tally.after)
        if not n_batches and variant not in estimates:
            continue
        before = np.concatenate(measured.before[: n_batches or None])
        row = {
            "level": variant.level,
            "layer": variant.layer,
            "vector": variant.vector,
            "replacement": variant.replacement,
            "before": float(before.mean()),
            **_effect(before, tally),
            "difference_rest": _rest(measured, tally),
            "estimated": not n_batches,
            "estimate": estimates.get(variant, float("nan")),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _rest(measured: Measurements, tally: Tally) -> float:
    """The difference without first tokens; NaN where there is no such loss."""
    if not tally.rest:
        return float("nan")
    before = np.concatenate(measured.rest[: len(tally.rest)])
    return float((np.concatenate(tally.rest) - before).mean())


def _effect(before: Array, tally: Tally) -> dict[str, float | int]:
    """What a variant does to the metric and to the decisions; NaN where it was not measured."""
    if not tally.after:
        nothing = ("after", "difference", "low", "high", "agreement", "kl")
        return {**dict.fromkeys(nothing, float("nan")), "n": 0}
    after = np.concatenate(tally.after)
    low, high = paired_interval(after - before)
    n = len(after)
    return {
        "after": float(after.mean()),
        "difference": float((after - before).mean()),
        "low": low,
        "high": high,
        "agreement": tally.agreement / n,
        "kl": tally.kl / n,
        "n": n,
    }


def notes(measured: Measurements, n_samples: int, changes: Sequence[str]) -> Iterator[str]:
    """What a reader should know, in sentences."""
    done = sum(len(values) for values in measured.before)
    if measured.stopped:
        yield f"{measured.stopped.capitalize()} on sample {done:,} of {n_samples:,}: column n says how many each row is of."
    yield from said_of_nan(measured.n_nan, done, "without any replacement")
    yield from (f"The model itself changed: {words}." for words in changes)
    yield (
        'The statistics of "data", and constant scales, are made from the samples on which they are tried, without labels.'
    )
