"""The programs that put experiments to the test: power, and what is said of a limit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from scripts import ablation_intervals
from scripts.performance import experiments


def test_power_is_how_often_the_test_of_matched_pairs_detects() -> None:
    """Against 20,000 draws; fails if the errors under the null and under the alternative are exchanged or forgotten."""
    rng, n = np.random.default_rng(0), 1000
    for worse, better in ((0.037, 0.017), (0.03, 0.01), (0.046, 0.026)):
        lost, won, _ = rng.multinomial(n, [worse, better, 1 - worse - better], size=20_000).T
        z = np.abs(lost - won) / np.sqrt(lost + won)
        share = (z > norm.ppf(0.975)).mean()
        assert ablation_intervals.power(worse, better, n) == pytest.approx(share, abs=0.02)
    assert ablation_intervals.power(0.02, 0.02, n) == pytest.approx(0.025, abs=0.001)  # one side of 5 %


def test_limits_are_compared_on_their_side() -> None:
    """Fails if a share that must be reached passes below it, or the cache is counted as waste."""
    found = {
        "bare mobilenet_v2": {"peak_mb": 1000.0},
        "budget": {"seconds": 131.0, "peak_mb": 1512.0 + 400.0},
        "planted": {"accuracy": 0.77, "loss": 1.0},
    }
    table = experiments.table_of(found).set_index(["line", "value"])
    kept = table["kept"].to_dict()
    assert kept["budget", "seconds"] == "no"
    assert table.loc[("budget", "ram_over_bare"), "number"] == pytest.approx(1.4)
    assert kept["budget", "ram_over_bare"] == "yes"
    assert (kept["planted", "accuracy"], kept["planted", "loss"]) == ("no", "yes")
    assert kept["bare mobilenet_v2", "peak_mb"] == ""
    text = experiments.markdown(table.reset_index(), 2)
    assert "| ≥ 0.8 | 0.77 | no |" in text
    assert "| ≤ 130 | 131 | no |" in text
