"""One factor in all running statistics: what fires it, and its nearest healthy neighbour."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from measures.sites import site, some_rows

from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Implied, Neighbours
from bnprobe.rules.common_factor import _advice, _alike, _rounded, _times, _what, of_layer
from rules.firing import fired

N = 9
MEAN, VAR = np.linspace(-1, 2, N), np.linspace(0.5, 2, N)


def norm(layer: str, mean: float, var: float, n: int = N, shuffled: bool = False) -> LayerRecord:
    """A norm whose running statistics are these multiples of what is implied."""
    implied = Implied(MEAN[:n], VAR[:n], MEAN[:n], MEAN[:n], MEAN[:n], MEAN[:n])
    running = np.roll(MEAN[:n], 4) if shuffled else MEAN[:n]
    return site(
        some_rows(n_channels=n),
        layer,
        gamma=1.5,
        beta=0.1,
        running_mean=mean * running,
        running_var=var * VAR[:n],
        n_batches_tracked=1000,
        neighbours=Neighbours("relu", "conv", implied=implied),
    )


@pytest.mark.parametrize(
    ("mean", "var", "fires"),
    [
        *(
            (4.9, 4.9, 0),
            (5.1, 5.1, 1),
            (5.1, 1, 1),
            (1 / 4.9, 1 / 5.1, 0),
            (1 / 5.1, 1 / 5.1, 1),
            (1 / 5.1, 1, 0),
        ),
        *((1, 24, 0), (1, 26, 1), (1, 1 / 26, 1)),
    ],
)
def test_the_threshold(mean, var, fires):
    """Fails if the factor 5 of means, or 25 of variances alone, moves."""
    assert len(fired("statistics-scaled", norm("a", mean, var), norm("b", mean, var))) == fires


@pytest.mark.parametrize(
    ("n_known", "n_others", "fires"),
    [(1, 0, 1), (1, 4, 1), (1, 5, 0), (2, 8, 1), (2, 9, 0), (3, 12, 1), (3, 13, 0)],
)
def test_a_few_of_many_norms_speak_for_none(n_known, n_others, fires):
    """Fails if one norm that follows another's weights by chance is taken for a factor in all running statistics."""
    known = [norm(f"k{i}", 10, 10) for i in range(n_known)]
    others = [norm(f"o{i}", 10, 10, shuffled=True) for i in range(n_others)]
    assert len(fired("statistics-scaled", *others, *known)) == fires


def test_what_is_said():
    """Fails if the first norm is not named, or the numbers are not those of the middle norm."""
    norms = [norm(name, factor, factor) for name, factor in (("a", 900), ("b", 1000), ("c", 1100))]
    (row,) = fired("statistics-scaled", *norms).itertuples()
    assert (row.severity, row.layer) == ("critical", "a")
    assert row.says.endswith("of about 1,000.")
    assert "at 3 norms" in row.because
    assert "1,000 times" in row.because


@pytest.mark.parametrize(
    ("power", "square"), [(1.0, False), (1.4, False), (1.6, True), (2.0, True), (2.6, True)]
)
def test_the_advice_is_that_of_the_nearer_cause(power: float, square: bool):
    """Fails if variances with the square of the means' factor send one to Caffe's sums, or the other way round."""
    norms = [norm(name, 10.0, 10.0**power) for name in "ab"]
    (row,) = fired("statistics-scaled", *norms).itertuples()
    assert ("the square of the means' factor" in row.do) is square
    assert ("Caffe stores sums" in row.do) is not square


def test_between_two_causes_none_is_a_scaled_weight():
    """Fails if variances exactly between both sent one to weights that were scaled, which is the rarer fault."""
    assert "Caffe stores sums" in _advice(2.0, 3.0)
    assert "square of the means' factor" in _advice(2.0, float(np.nextafter(3, 4)))


def test_factors_that_differ_are_not_one():
    """Fails if norms with factors of their own are told to have one."""
    different = [norm(name, factor, factor) for name, factor in (("a", 6), ("b", 40), ("c", 300))]
    assert fired("statistics-scaled", *different).empty


def test_norms_that_follow_nothing_do_not_count():
    """Fails if running means without the implied pattern, or of a few channels, are judged."""
    for changes, fires in (({"shuffled": True}, 0), ({"n": 7}, 0), ({"n": 8}, 1)):
        norms = [norm(name, 1000, 1000, **changes) for name in "ab"]
        assert len(fired("statistics-scaled", *norms)) == fires, changes


@pytest.mark.parametrize(("updates", "fires"), [(49, 0), (50, 1), (None, 1)])
def test_young_statistics_are_not_scaled(updates, fires):
    """Fails if a network after its first batches, whose initial 0 and 1 are not yet forgotten, is accused."""
    young = [replace(norm(name, 0.1, 0.1), n_batches_tracked=updates) for name in "ab"]
    assert len(fired("statistics-scaled", *young)) == fires


@pytest.mark.parametrize(
    ("mean", "var", "what"),
    [
        (4.0, 2.01, "means and variances"),
        (4.0, 2.0, "means"),
        (-4.0, -2.01, "means and variances"),
        (-4.0, -1.99, "means"),
        (4.0, -4.0, "means"),
        (4.0, 0.0, "means"),
    ],
)
def test_what_has_the_factor(mean: float, var: float, what: str):
    """Fails if variances that went the other way, or are nearer to what is implied, are told with the means."""
    assert _what(mean, var) == what


@pytest.mark.parametrize(
    ("factor", "rounded", "times"),
    [
        (1000.0, "1,000", "1,000"),
        (870.0, "900", "870"),
        (99.4, "100", "99"),
        (1.0, "1", "1"),
        (0.5, "1/2", "0.5"),
        (0.00123, "1/800", "0.0012"),
        (34.0, "30", "34"),
        (12345.0, "10,000", "12,345"),
    ],
)
def test_factors_in_words(factor: float, rounded: str, times: str):
    """Fails if a small factor is not told as a share, or more digits are claimed than there are."""
    assert _rounded(math.log(factor)) == rounded
    assert _times(math.log(factor)) == times


@pytest.mark.parametrize(
    ("apart", "n_far", "alike"),
    [(0.5, 1, True), (0.5, 2, True), (2.0, 1, True), (2.0, 2, False), (0.99, 2, True), (1.01, 2, False)],
)
def test_four_of_five_norms_must_have_the_factor(apart: float, n_far: int, alike: bool):
    """Fails if fewer are enough, or all are asked for."""
    factors = np.array([1.0] * (5 - n_far) + [1.0 + apart] * n_far)
    assert _alike(factors, 1.0) is alike


def factors_of(running: list[float], implied: list[float], ratio: list[float]) -> tuple[float, float] | None:
    return of_layer(
        pd.DataFrame({"running_mean": running, "implied_mean": implied, "implied_var_ratio": ratio})
    )


X = [1.0, -2.0, 0.5, 3.0, -1.0, 2.0, 0.2, -0.7]


def test_the_factor_of_a_norm_by_hand():
    """Fails if it is not the slope through the origin, a channel that is not known counts, or the ratio is a mean."""
    y = [3.0 * x + e for x, e in zip(X, [0.1, -0.1] * 4, strict=True)]
    slope = np.dot(X, y) / np.dot(X, X)
    ratio = [2.0, 3.0, 100.0, np.nan, -1.0]
    found = factors_of([*y, np.nan], [*X, 1.0], [*ratio, 3.0, 3.0, 3.0, 3.0])
    assert found == pytest.approx((math.log(slope), math.log(3.0)))
    assert factors_of(y[:7], X[:7], [2.0] * 7) is None, "of seven channels"
    assert factors_of(y, X, [2.0] * 8) is not None
    assert factors_of([-v for v in y], X, [2.0] * 8) is None
    assert factors_of([1.0] * 8, X, [2.0] * 8) is None
    assert factors_of(y, [1.0] * 8, [2.0] * 8) is None
    assert factors_of(y, X, [np.nan] * 8) is None
    assert factors_of(X[::-1], X, [2.0] * 8) is None, "without the pattern"
