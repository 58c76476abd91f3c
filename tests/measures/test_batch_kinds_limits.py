"""Two kinds of batches exactly as far apart as chance may put them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bnprobe.measures.batch_kinds import kinds
from bnprobe.stats import Folds
from measures.drawn import record_of


@pytest.mark.parametrize(("apart", "found"), [(4.0, True), (3.99, False)])
def test_four_times_what_chance_gives_is_far_enough(apart: float, found: bool) -> None:
    """Fails if the limit itself is chance: four and four batches, whose means have a noise of √2; 4 √(2/4 + 2/4) = 4."""
    n = np.full((8, 2), 32.0)
    means = np.arange(8)[:, None] % 2 * np.full((1, 2), apart)
    within = np.full(2, 2.0 * 32 * (256 - 8))
    folds = Folds(np.zeros(2), n, n * means, n * (means**2 + 64), within, 8)
    rows = 8 * np.random.default_rng(2).normal(size=(256, 2, 1))
    record = replace(record_of(rows, np.zeros(2), np.ones(2), batch=32), n_calls_running=0, pre_folds=folds)
    assert np.isfinite(kinds(record).apart) == found
