"""Moments: a slow reference, the laws of merging, affine maps, and the inequalities they must refuse to break."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import fields, replace
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats
from support import oracles
from support.oracles import assert_same_moments

from bnprobe.errors import BnprobeError
from bnprobe.stats import Moments
from bnprobe.stats.moments import IN_REACH, ratio

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda v: round(v, 6))


def skewed(rng: np.random.Generator, n: int = 211) -> np.ndarray:
    """Channels at different places and scales, none of them symmetric. Shape (n, 3)."""
    return rng.gamma(0.7, size=(n, 3)) * [1, 10, 0.1] + [0, 5, -2]


def fields_of(moments: Moments) -> dict[str, np.ndarray]:
    return {field.name: getattr(moments, field.name) for field in fields(moments)}


def test_of_agrees_with_two_obvious_passes(rng):
    """Fails if a power, a divisor or an extreme of `of` is wrong."""
    rows = skewed(rng)
    assert_same_moments(Moments.of(rows), oracles.moments(rows), rtol=1e-12)
    assert_same_moments(Moments.of(rows.T, axis=1), oracles.moments(rows), rtol=1e-12)


def test_of_keeps_its_digits_far_from_zero(rng):
    """Fails if squares are summed before the mean is taken out: at 1e6 nothing of a variance of 1 is left."""
    rows = 1e6 + rng.normal(size=(211, 3)) ** 2
    found = Moments.of(rows)
    assert_same_moments(found, oracles.moments(rows))
    np.testing.assert_allclose(found.var_population, rows.var(axis=0), rtol=1e-9)


def test_of_leaves_out_what_is_not_finite():
    """Fails if one NaN or infinity reaches a sum, or still counts in n."""
    rows = np.array([[1.0, np.nan, np.inf], [3.0, 4.0, -np.inf], [np.nan, 6.0, np.nan]])
    found = Moments.of(rows)
    assert_same_moments(found, oracles.moments(rows))
    assert found.n.tolist() == [2, 2, 0]
    assert found.low.tolist() == [1, 4, np.inf]


def test_of_does_not_change_its_input(rng):
    """Fails if centring happens in place."""
    rows = skewed(rng)
    before = rows.copy()
    Moments.of(rows).merge(Moments.of(rows))
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_of_nothing_is_empty(shape):
    """Fails if an empty batch raises, or is not the identity of merge."""
    found = Moments.of(np.zeros(shape))
    for name, value in fields_of(Moments.empty(shape[1])).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)


# Laws of merging


def test_merge_weighs_by_count(rng):
    """Fails if merging averages the two means instead of weighing them (fault: mean-half)."""
    rows = skewed(rng)
    parts = np.split(rows, [1, 1, 4, 40, 200])  # sizes 1, 0, 3, 36, 160, 11
    total = reduce(Moments.merge, map(Moments.of, parts), Moments.empty(3))
    assert_same_moments(total, oracles.moments(rows))


@pytest.mark.parametrize("offset", [0.0, -3.0, 1e6])
def test_any_split_gives_the_whole(rng, offset):
    """Fails on a wrong cross term of m3 or m4, and on cancellation far from zero."""
    rows = skewed(rng) * [1, -1, 1] + offset
    for _ in range(5):
        parts = np.split(rows, np.sort(rng.integers(0, len(rows) + 1, size=4)))
        assert_same_moments(reduce(Moments.merge, map(Moments.of, parts)), oracles.moments(rows))


def test_parts_at_different_places_give_the_whole(rng):
    """Fails on a cross term that is small when both parts have the same mean."""
    far, near = rng.gamma(0.7, size=(5, 3)) + np.array([7, -40, 0.1]), skewed(rng)
    both = np.concatenate([far, near])
    assert_same_moments(Moments.of(far).merge(Moments.of(near)), oracles.moments(both))


def test_pool_is_repeated_merging(rng):
    """Fails if `pool` drops a part, mixes up axes, or disagrees with merging in pairs."""
    parts = [Moments.of(skewed(rng, n)) for n in (1, 2, 7, 40)]
    pooled, merged = Moments.stack(parts).pool(), reduce(Moments.merge, parts)
    assert_same_moments(pooled, fields_of(merged))
    rows = rng.gamma(0.7, size=(5, 2, 3))
    assert_same_moments(
        Moments.of(rows).pool(axis=1), oracles.moments(np.moveaxis(rows, 2, 1).reshape(-1, 2))
    )


def test_empty_is_the_identity_on_both_sides(rng):
    """Fails if n = 0 becomes 0/0, or if an empty part pulls the mean to 0."""
    one, nothing = Moments.of(skewed(rng)), Moments.empty(3)
    for merged in (one.merge(nothing), nothing.merge(one)):
        assert_same_moments(merged, fields_of(one), rtol=1e-15)
    both = nothing.merge(nothing)
    assert_same_moments(both, fields_of(nothing))


@given(a=hnp.arrays(float, (3, 2), elements=FINITE), b=hnp.arrays(float, (5, 2), elements=FINITE))
def test_merge_commutes(a, b):
    """Fails if `merge` treats its two sides differently."""
    one, other = Moments.of(a), Moments.of(b)
    assert_same_moments(one.merge(other), fields_of(other.merge(one)))


@given(
    st.lists(
        hnp.arrays(float, st.tuples(st.integers(0, 4), st.just(2)), elements=FINITE), min_size=3, max_size=3
    )
)
def test_merge_associates_and_agrees_with_the_reference(parts):
    """Fails if the order of merging shows, for parts of 0 to 4 rows anywhere between -1e6 and 1e6."""
    a, b, c = map(Moments.of, parts)
    expected = oracles.moments(np.concatenate(parts))
    assert_same_moments(a.merge(b).merge(c), expected, rtol=1e-8)
    assert_same_moments(a.merge(b.merge(c)), expected, rtol=1e-8)


def test_merge_refuses_other_shapes(rng):
    """Fails if numpy is left to broadcast one variable over three."""
    with pytest.raises(BnprobeError, match=r"shapes \(3,\) and \(1,\)"):
        Moments.of(skewed(rng)).merge(Moments.of(skewed(rng)[:, :1]))
    with pytest.raises(BnprobeError, match="one shape for every field"):
        replace(Moments.empty(3), low=np.zeros(2))


# Affine maps


@pytest.mark.parametrize("scale", [2.5, -0.3, 0.0])
def test_affine_is_the_moments_of_the_mapped_values(rng, scale):
    """Fails if a negative scale does not flip skewness or swap the extremes, or if origin is ignored."""
    rows, scales = skewed(rng), np.array([scale, -1.0, 4.0])
    found = Moments.of(rows).affine(scales, [1.0, 2.0, -3.0], [0.5, 5.0, -2.0])
    assert_same_moments(found, oracles.moments(scales * (rows - [0.5, 5.0, -2.0]) + [1.0, 2.0, -3.0]))
    assert np.sign(found.m3[1:]).tolist() == [-1, 1]


def test_affine_leaves_nothing_where_the_map_is_not_finite(rng):
    """Fails if a poisoned running variance yields statistics of an output that is all NaN."""
    found = Moments.of(skewed(rng)).affine([np.nan, np.inf, 1.0], 0.0, [0, 0, np.nan])
    assert_same_moments(found, fields_of(Moments.empty(3)))


def test_affine_of_nothing_is_nothing():
    """Fails if the infinite extremes of an empty variable become NaN under a scale of 0."""
    assert_same_moments(Moments.empty(2).affine([0.0, -2.0], 1.0, 3.0), fields_of(Moments.empty(2)))


def test_affine_then_merge_is_merge_then_affine(rng):
    """Fails if deriving the output batch by batch differs from deriving it at the end."""
    parts = [Moments.of(skewed(rng, n)) for n in (2, 3, 70)]
    scale, offset = np.array([-2.0, 0.5, 3.0]), np.array([1.0, -1.0, 0.0])
    late = reduce(Moments.merge, parts).affine(scale, offset)
    assert_same_moments(reduce(Moments.merge, [p.affine(scale, offset) for p in parts]), fields_of(late))


# Finished numbers


def test_finished_numbers_agree_with_scipy(rng):
    """Fails if variance takes the other divisor, or kurtosis keeps the 3 of a Gaussian."""
    rows = skewed(rng, 7)  # few, so that n and n - 1 are far apart
    found = Moments.of(rows)
    np.testing.assert_allclose(found.var_population, rows.var(axis=0, ddof=0), rtol=1e-12)
    np.testing.assert_allclose(found.var_unbiased, rows.var(axis=0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(found.skewness, scipy_stats.skew(rows, bias=True), rtol=1e-10)
    np.testing.assert_allclose(found.kurtosis_excess, scipy_stats.kurtosis(rows, bias=True), rtol=1e-10)
    expected = oracles.finished(oracles.moments(rows))
    np.testing.assert_allclose(found.skewness, expected["skew"], rtol=1e-10)
    np.testing.assert_allclose(found.kurtosis_excess, expected["kurtosis"], rtol=1e-10)


def test_kurtosis_of_a_gaussian_is_near_zero(rng):
    """Fails if the excess is not taken: it would be near 3."""
    assert abs(Moments.of(rng.normal(size=(4000, 1))).kurtosis_excess[0]) < 0.3


def test_what_is_not_defined_is_nan():
    """Fails if nothing seen reads as a mean of 0, one value as a variance of 0/0, a constant as skew 0."""
    nothing, single, constant = Moments.empty(1), Moments.of([[4.0]]), Moments.of([[4.0]] * 5)
    assert np.isnan(nothing.mean_seen[0])
    assert np.isnan(nothing.var_population[0])
    assert single.mean_seen[0] == 4
    assert single.var_population[0] == 0
    assert np.isnan(single.var_unbiased[0])
    assert constant.var_population[0] == 0
    assert np.isnan(constant.skewness[0])
    assert np.isnan(constant.kurtosis_excess[0])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_shape_does_not_depend_on_scale(rng, scale):
    """Fails if m2**1.5 under- or overflows: a dead channel's values may well be 1e-30."""
    rows = skewed(rng)
    big, small = Moments.of(rows), Moments.of(rows * scale)
    np.testing.assert_allclose(small.skewness, big.skewness, rtol=1e-9)
    np.testing.assert_allclose(small.kurtosis_excess, big.kurtosis_excess, rtol=1e-9)


# Sanity


BROKEN = {
    "low <= mean": {"low": 3.0},
    "mean <= high": {"high": 1.0},
    "variance >= 0": {"m2": -1e-3},
    "(high - low)^2 / 4": {"m2": 40.0},
    "kurtosis >= skewness": {"m4": 0.01},
    "whole": {"n": 4.5},
    "finite": {"m3": np.nan},
}


@pytest.mark.insane
@pytest.mark.parametrize(("law", "changes"), BROKEN.items(), ids=list(BROKEN))
def test_check_sane_refuses_what_no_sample_has(law, changes):
    """Fails if one of the inequalities is not asked; each is broken alone, in the second of three."""
    good = Moments.of(np.array([[0.0, 1.0, 2.0, 4.0]] * 3).T)
    bad = replace(
        good, **{name: np.where([0, 1, 0], value, getattr(good, name)) for name, value in changes.items()}
    )
    with pytest.raises(BnprobeError, match=r"here: .*violated at \[1\]") as caught:
        bad.check_sane("here")
    assert law in str(caught.value)
    assert good.check_sane() is good


@pytest.mark.insane
@pytest.mark.parametrize(
    ("largest", "asked"),
    [
        (IN_REACH, True),
        (np.nextafter(IN_REACH, np.inf), False),
        (1 / IN_REACH, True),
        (np.nextafter(1 / IN_REACH, 0), False),
    ],
)
def test_the_laws_are_asked_of_values_within_reach(largest, asked):
    """Fails if values whose powers float64 still holds go unasked, or others are refused. A variance of four times the
    largest square, as here, no values have."""
    rows = np.array([[-largest], [largest]])
    bad = replace(Moments.of(rows), m2=np.array([2 * 4 * largest**2]))
    with pytest.raises(BnprobeError, match=r"\(high - low\)\^2 / 4") if asked else nullcontext():
        bad.check_sane("here")


@pytest.mark.insane
@pytest.mark.parametrize("near", [-1.0, 0.98])
@pytest.mark.parametrize(("less", "sane"), [(1.99e-6, True), (2.01e-6, False), (2.05e-6, False)])
def test_a_kurtosis_may_be_too_small_by_two_millionths(near, less, sane):
    """Fails if rounding is no sample, or more than rounding is one: of two values, whose kurtosis is the smallest.

    A variance of a ten thousandth of the largest square has the same limit, as both sides are third powers of it.
    """
    lowest = Moments.of(np.array([[near], [1.0]]))
    with nullcontext() if sane else pytest.raises(BnprobeError, match=r"kurtosis >= skewness\^2 \+ 1"):
        replace(lowest, m4=lowest.m4 * (1 - less)).check_sane()


@pytest.mark.insane
@pytest.mark.parametrize(("beyond", "sane"), [(0.99e-9, True), (1.01e-9, False)])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_mean_may_be_beyond_the_extremes_by_a_billionth(side, beyond, sane):
    """Fails if a mean that rounding has put beside equal values is refused, or one that no values have is not."""
    equal = Moments.of(np.full((3, 1), 8.0))
    with nullcontext() if sane else pytest.raises(BnprobeError, match=r"low <= mean|mean <= high"):
        replace(equal, mean=equal.mean * (1 + side * beyond)).check_sane()


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e8])
def test_check_sane_accepts_real_samples(rng, offset):
    """Fails if the slack is so small that rounding alone is refused: constants, pairs, float16, far away."""
    for rows in (
        np.full((7, 1), 0.1),
        rng.integers(0, 2, (9, 2)) * 1.0,
        rng.normal(size=(50, 3)).astype("f2"),
    ):
        Moments.of(rows.astype(float) + offset).check_sane()


def shaped(skewness: float, kurtosis: float) -> Moments:
    """Ten values of standard deviation 0.5, with room on both sides."""
    m2, m3, m4 = (10 * 0.5**k * shape for k, shape in ((2, 1.0), (3, skewness), (4, kurtosis)))
    return Moments(*(np.array([v]) for v in (10.0, 0.1, m2, m3, m4, -2.0, 2.0)))


@pytest.mark.parametrize(
    ("skewness", "kurtosis", "sane"),
    [
        (0.0, 1.01, True),
        (0.0, 0.95, False),
        (1.0, 2.02, True),
        (1.0, 1.9, False),
        (-1.0, 1.9, False),
        (2.0, 4.9, False),
    ],
)
def test_a_kurtosis_is_at_least_the_square_of_the_skewness_and_one(
    skewness: float, kurtosis: float, sane: bool
):
    """Fails if either part of the bound has another sign or power: values about 0.1, at most 2 from zero."""
    with nullcontext() if sane else pytest.raises(BnprobeError, match="kurtosis"):
        shaped(skewness, kurtosis).check_sane()


@pytest.mark.parametrize(("low", "high"), [(-5.0, -3.0), (3.0, 5.0), (-1.0, 4.0)])
def test_values_of_one_sign_are_sane(low: float, high: float):
    """Fails if the largest size is not that of the far end, whichever it is: two values, as far apart as can be."""
    half = (high - low) / 2
    both = Moments(*(np.array([v]) for v in (2.0, low + half, 2 * half**2, 0.0, 2 * half**4, low, high)))
    assert both.check_sane() is both
    with pytest.raises(BnprobeError, match="variance <="):
        replace(both, m2=both.m2 * 1.001, m4=both.m4 * 1.1).check_sane()


def test_a_single_value_is_mapped():
    """Fails if one value counts as none."""
    one = Moments.of(np.array([[3.0]])).affine(2.0, 1.0, 0.5)
    assert (one.n[0], one.mean[0], one.low[0], one.high[0]) == (1, 6, 6, 6)


def test_a_part_of_one_value_keeps_its_place():
    """Fails if the mean of one value in all is half of it."""
    both = Moments.of(np.array([[3.0]])).merge(Moments.empty(1))
    assert (both.n[0], both.mean[0]) == (1, 3)


def test_a_ratio_without_a_positive_divisor_is_nothing():
    """Fails if 1 of 0, 0 of 0 or 1 of -1 is a number, or one side is not taken for each of the other."""
    np.testing.assert_array_equal(
        ratio(np.array([1.0, 1.0, 0.0, 1.0]), np.array([4.0, 0.0, 0.0, -1.0])), [0.25, np.nan, np.nan, np.nan]
    )
    np.testing.assert_array_equal(ratio(1.0, np.array([2.0, np.nan])), [0.5, np.nan])
    assert ratio(np.array([1e300]), 1e-300)[0] == np.inf
