"""The interval of a paired difference: its coverage by simulation, few changes, and its edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bnprobe.stats import bootstrap
from bnprobe.stats.bootstrap import Interval, _quantiles, paired_interval


def test_it_agrees_with_scipys_bootstrap_on_many_values() -> None:
    """A second source: with many samples the two added ones do not matter."""
    d = np.random.default_rng(0).gamma(2, size=3000) - 1.5
    theirs = stats.bootstrap(
        (d,), np.mean, method="percentile", n_resamples=2000, random_state=1
    ).confidence_interval
    low, high = paired_interval(d)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


@pytest.mark.parametrize("flips", [1, 2, 3, 4])
def test_few_changes_all_one_way_are_not_sure(flips: int) -> None:
    """The sign test of four changes has p = .125; the plain bootstrap excludes zero from four on."""
    d = np.zeros(1000)
    d[:flips] = 1
    assert not paired_interval(d).excludes_zero


@pytest.mark.parametrize("largest", [1.0, 0.3])
def test_of_hits_and_misses_it_excludes_zero_where_the_mid_p_test_does(largest: float) -> None:
    """A second source: McNemar's test by the binomial distribution, in which ties count by half.

    Fails if samples are added in full or ties count in full: either costs two points of power. Of 1,000 samples, 60
    differ; only where the p-value is within the error of 2,000 resamples of .05 may the two disagree.
    """
    for better in range(30, 61):
        worse = 60 - better
        p = 2 * stats.binom.cdf(worse, 60, 0.5) - stats.binom.pmf(worse, 60, 0.5)
        d = largest * np.repeat([1.0, -1.0, 0.0], [better, worse, 940])
        if not 0.04 < p < 0.06:
            assert paired_interval(d).excludes_zero == (p < 0.05), (better, p)
            assert paired_interval(-d).excludes_zero == (p < 0.05), (better, p)


def test_nothing_changed_is_zero_to_zero() -> None:
    assert paired_interval(np.zeros(10)) == (0, 0)
    assert np.isnan(paired_interval(np.zeros(0)).low)


def test_null_and_power() -> None:
    """Changes in either direction alike exclude zero in about 5 %; two points of 1,000 samples are found in 80 % or more."""
    rng = np.random.default_rng(0)
    null = planted = 0
    for draw in range(200):
        both = rng.choice([-1, 0, 1], size=1000, p=[0.01, 0.98, 0.01])
        null += paired_interval(both.astype(float), seed=draw).excludes_zero
        better = rng.choice([-1, 0, 1], size=1000, p=[0.01, 0.96, 0.03])
        planted += paired_interval(better.astype(float), seed=draw).excludes_zero
    assert null <= 0.05 * 200 + 3 * np.sqrt(200 * 0.05 * 0.95)
    assert planted >= 0.8 * 200


class Watched:
    """A generator that writes down how much is drawn at once."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.sizes = rng, list[tuple[int, int]]()

    def integers(self, high: int, size: tuple[int, int]) -> np.ndarray:
        self.sizes.append(size)
        return self.rng.integers(high, size=size)


@pytest.mark.parametrize(
    ("at_a_time", "rows"), [(1, 1), (12, 1), (35, 2), (36, 3), (12 * 2000, 2000), (12 * 9999, 2000)]
)
def test_parts_of_any_size_are_the_same_draws(
    at_a_time: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if more is held at once than is allowed, a draw is lost between parts, or their number changes the interval."""
    d = np.random.default_rng(1).normal(size=10)
    expected = paired_interval(d)
    made: list[Watched] = []
    real = np.random.default_rng

    def watched(seed: int) -> Watched:
        made.append(Watched(real(seed)))
        return made[-1]

    monkeypatch.setattr(np.random, "default_rng", watched)
    monkeypatch.setattr(bootstrap, "AT_A_TIME", at_a_time)
    assert paired_interval(d) == expected
    sizes = made[0].sizes
    assert {n for _, n in sizes} == {12}
    assert sum(k for k, _ in sizes) == 2000
    assert max(k for k, _ in sizes) == rows


@pytest.mark.parametrize(("n_kinds", "by_counts"), [(2, True), (3, False)])
def test_few_values_are_drawn_by_how_often_they_come(
    n_kinds: int, by_counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if values are counted where they are more than a quarter of the samples: of 8 hits and misses two kinds are."""
    d = np.resize([1.0, -1.0] if n_kinds == 2 else [1.0, -1.0, 0.5], 12 if by_counts else 8)
    drawn: list[int] = []
    real = np.random.Generator
    monkeypatch.setattr(bootstrap, "AT_A_TIME", 10**7)

    class Counting:
        def __init__(self, seed: int) -> None:
            self.rng = real(np.random.PCG64(seed))

        def multinomial(self, n: int, p: np.ndarray, size: int) -> np.ndarray:
            drawn.append(n)
            return self.rng.multinomial(n, p, size=size)

        def integers(self, *args: int, **more: tuple[int, int]) -> np.ndarray:
            return self.rng.integers(*args, **more)

    monkeypatch.setattr(np.random, "default_rng", Counting)
    paired_interval(d)
    assert drawn == ([14] if by_counts else [])


def test_the_level_is_that_of_the_interval() -> None:
    """Fails if the ends are exchanged, or a wider level gives a narrower interval: of a Gaussian mean at three levels."""
    d = np.random.default_rng(3).normal(0.2, 1, size=4000)
    se = d.std() / np.sqrt(4000)
    for level in (0.5, 0.8, 0.95):
        low, high = paired_interval(d, level)
        reach = stats.norm.ppf((1 + level) / 2) * se
        assert (low, high) == pytest.approx((d.mean() - reach, d.mean() + reach), abs=0.15 * se + 1e-3)


@pytest.mark.parametrize(
    ("interval", "excludes"),
    [((0.0, 1.0), False), ((-1.0, 0.0), False), ((1e-9, 1.0), True), ((-1.0, -1e-9), True)],
)
def test_an_interval_that_ends_at_zero_holds_it(interval: tuple[float, float], excludes: bool) -> None:
    """Fails if a difference is told where zero is one of the ends."""
    assert Interval(*interval).excludes_zero is excludes


@pytest.mark.parametrize(("n", "all_alike"), [(20, 1.0), (12, -3.0)])
def test_means_of_hits_are_means(n: int, all_alike: float) -> None:
    """Fails if the sum of a draw has another divisor than its size: where all samples differ alike, a fifth of the draws
    hold nothing else, so that the far end is that difference, exactly."""
    ends = paired_interval(np.full(n, all_alike))
    assert max(ends, key=abs) == pytest.approx(all_alike, rel=1e-12)
    assert min(abs(end) for end in ends) > 0.5 * abs(all_alike)


def test_half_of_the_draws_at_a_value_lie_below_it() -> None:
    """Fails if another part of them does: of 0, 0, 0 and 1 three eighths lie below 0, seven eighths below 1."""
    found = _quantiles(np.array([0.0, 0.0, 1.0, 0.0]), [0.3, 3 / 8, 5 / 8, 7 / 8, 0.9])
    np.testing.assert_allclose(found, [0, 0, 0.5, 1, 1])
