"""Samples that were standardized each by itself, where training did not."""

from __future__ import annotations

import numpy as np
import pytest
from measures.sites import site

from bnprobe.rules.standardized import each_by_itself
from rules.edited import evidence
from rules.firing import fired
from rules.test_running_stats import LEARNED, SHIFTED, moved

NOISE = np.random.default_rng(7).normal(size=(40, 3, 30))


def standardized(rows: np.ndarray) -> np.ndarray:
    mean, std = (of(rows, axis=2, keepdims=True) for of in (np.mean, np.std))
    return (rows - mean) / std


def mixed(share: float, rows: np.ndarray = NOISE) -> np.ndarray:
    """Samples whose means have this share of the variance that means of independent values have."""
    centered = rows - rows.mean(axis=2, keepdims=True)
    means = np.random.default_rng(8).normal(size=(*rows.shape[:2], 1))
    means -= means.mean(axis=0)
    unit = centered.std() / np.sqrt(rows.shape[2]) / means.std(axis=0, ddof=1)
    return np.asarray(centered + np.sqrt(share) * unit * means)


@pytest.mark.parametrize(
    ("rows", "spoken"),
    [
        (standardized(NOISE), True),
        (NOISE, False),
        (mixed(0.07), True),
        (mixed(0.14), False),
        (standardized(NOISE)[:8], True),
        (standardized(NOISE)[:7], False),
        (standardized(NOISE[:, :, :8]), True),
        (standardized(NOISE[:, :, :7]), False),
        (np.ones((40, 3, 30)), False),
    ],
    ids=["each", "noise", "nearly", "not quite", "8 samples", "7 samples", "8 positions", "7 positions", "constant"],
)  # fmt: skip
def test_means_that_differ_by_less_than_chance(rows: np.ndarray, spoken: bool) -> None:
    """Fails if noise, few samples or few positions are called standardized, or samples that were are not."""
    assert each_by_itself(evidence(site(rows, gamma=1.5, beta=0))) is spoken


@pytest.mark.parametrize(("rows", "spoken"), [(standardized(NOISE), True), (NOISE, False)])
def test_it_is_the_first_thing_to_check(rows: np.ndarray, spoken: bool) -> None:
    """Fails if a shift of such samples is put down to range and std alone, or any shift to their standardization."""
    (do,) = fired(SHIFTED, site(rows, **LEARNED, **moved(1, rows=rows)))["do"]
    assert do.startswith("Every sample has the same mean") is spoken
    assert "Check the preprocessing first" in do
