"""Numbers of a comparison exactly at their limits, and what is the same on both sides, piece by piece."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from measures.sites import memory_of, recording, site, some_rows

from bnprobe.comparison import stored
from bnprobe.comparison.first_difference import first_beyond_noise, first_difference
from bnprobe.comparison.pairs import Pair, _same, pairs
from bnprobe.comparison.shapes import _area
from bnprobe.comparison.significance import _welch, scale_test
from bnprobe.comparison.spread import distribution_gap, spread, unit
from bnprobe.comparison.subject import what
from bnprobe.comparison.tables import _share, differences
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Folded, Neighbours

ROWS = some_rows(40)
LEARNED = {"gamma": [0.7, 0.5, 0.4], "beta": [0.1, 0.2, 0.3], **memory_of(ROWS)}


def hair(value: float, to: float) -> float:
    """The next number on the way to `to`."""
    return float(np.nextafter(value, to))


def norm(layer: str = "bn", **changes: Any) -> LayerRecord:
    return site(ROWS, layer, **{**LEARNED, **changes})


# Where the sides part


def layers(**columns: list[float]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    table = {
        name: [math.nan] * n
        for name in ("pre_gap", "post_gap", "running_gap", "affine_gap", "pre_noise", "post_noise")
    }
    return pd.DataFrame({"layer": list("abc")[:n], "call": 0, **table, **columns})


@pytest.mark.parametrize(
    ("gap", "noise", "there"),
    [
        (0.5, 0.0, True),
        (hair(0.5, 0), 0.0, False),
        (0.75, 0.25, True),
        (hair(0.75, 0), 0.25, False),
        (0.5, math.nan, True),
        (math.nan, 0.0, False),
    ],
)
def test_a_gap_of_the_limit_beyond_its_noise(gap: float, noise: float, there: bool) -> None:
    """Fails if the limit itself, or three times the noise, is no difference, or an unknown noise silences one."""
    found = first_difference(layers(pre_gap=[gap, 9.0], pre_noise=[noise, 9.0]), 0.5)
    assert (found is not None) is there
    if found:
        assert (found.layer, found.aspect, found.words) == ("a", "pre", "the input of a")


def test_inputs_go_before_outputs_and_values_before_vectors() -> None:
    """Fails if the places are asked in another order, or vectors are asked where values were seen."""
    both = layers(pre_gap=[0.1, 9.0], post_gap=[8.0, 7.0], running_gap=[5.0, 5.0])
    assert first_difference(both, 0.5)[:4] == ("a", 0, "post", 8.0)
    unseen = layers(running_gap=[0.1, 3.0], affine_gap=[2.0, 4.0])
    assert first_difference(unseen, 0.5)[:4] == ("a", 0, "affine", 2.0)
    assert first_difference(layers(pre_gap=[0.1]), 0.5) is None
    assert first_difference(layers(pre_gap=[]), 0.5) is None


@pytest.mark.parametrize(("gap", "there"), [(1e-5, True), (hair(1e-5, 0), False)])
def test_any_difference_is_more_than_rounding(gap: float, there: bool) -> None:
    """Fails if the order of additions, up to 1e-5 σ, is a difference."""
    assert (first_beyond_noise(layers(pre_gap=[gap], pre_noise=[0.0])) is not None) is there


# Tests


def test_without_any_spread_a_difference_is_certain() -> None:
    """Fails if a difference of more than 1e-5 between constants has a chance, or one of rounding is certain."""
    zero, n = np.zeros(4), np.full(4, 30.0)
    difference = np.array([0.0, 1e-5, hair(1e-5, 1), -1.0])
    with np.errstate(all="ignore"):
        se, p = _welch(difference, zero, zero, n, n)
    np.testing.assert_array_equal(se, 0)
    np.testing.assert_array_equal(p, [np.nan, np.nan, 0, 0])


def test_welch_by_hand() -> None:
    """Fails if degrees of freedom or the error of a difference are others: against scipy's own test of two samples."""
    from scipy import stats

    rng = np.random.default_rng(3)
    a, b = rng.normal(size=9), rng.normal(0.7, 3, size=17)
    error = [np.array([s.std(ddof=1) / math.sqrt(len(s))]) for s in (a, b)]
    se, p = _welch(np.array([b.mean() - a.mean()]), *error, np.array([8.0]), np.array([16.0]))
    by_scipy = stats.ttest_ind(a, b, equal_var=False)
    assert p[0] == pytest.approx(by_scipy.pvalue, rel=1e-9)
    assert se[0] == pytest.approx(abs((b.mean() - a.mean()) / by_scipy.statistic), rel=1e-9)


def test_the_area_between_two_lines() -> None:
    """Fails if a change of sign inside a piece cancels areas: against a sum over a hundred thousand strips."""
    x, gap = np.array([0.0, 1.0, 3.0, 4.0, 6.0]), np.array([0.0, 0.5, -0.25, 0.0, 0.0])
    with np.errstate(all="ignore"):
        area, largest = _area(x, gap)
    fine = np.linspace(0, 6, 600_001)
    strips = np.abs(np.interp((fine[1:] + fine[:-1]) / 2, x, gap)).sum() * (fine[1] - fine[0])
    assert area == pytest.approx(strips, rel=1e-6)
    assert largest == 0.5


# Spreads


@pytest.mark.parametrize(
    ("changes", "certain"),
    [
        ({}, True),
        ({"mismatch": 0.05}, True),
        ({"mismatch": math.nan}, True),
        ({"mismatch": hair(0.05, 1)}, False),
        ({"output": "read"}, False),
        ({"parameters_moved": True}, False),
        ({"buffers_moved": True}, False),
    ],
)
def test_the_error_of_an_output_is_known_while_the_map_is(changes: dict[str, Any], certain: bool) -> None:
    """Fails if an output that is not the input's map is given the input's error, or one that is has none."""
    found = spread(norm(**changes), "post")
    assert bool(np.isfinite(found.mean_error).all()) is certain
    np.testing.assert_array_equal(found.mean_degrees, 39 if certain else np.nan)


def test_the_error_of_an_output_is_that_of_its_input_times_the_slope() -> None:
    """Fails if γ or the running deviation is left out of the map, or the sign of γ turns an error around."""
    record = norm(gamma=[0.7, -0.5, 0.4])
    slope = np.array([0.7, 0.5, 0.4]) / np.sqrt(LEARNED["running_var"] + 1e-5)
    before = np.sqrt(ROWS.mean(2).var(0, ddof=1) / 40)
    found = spread(record, "post")
    np.testing.assert_allclose(found.mean_error, slope * before, rtol=1e-9)
    np.testing.assert_allclose(found.mean, record.post.mean, rtol=1e-12)


@pytest.mark.parametrize(("n", "error"), [(1, math.nan), (2, 0.0)])
def test_a_batch_that_normalizes_itself_has_no_error(n: int, error: float) -> None:
    """Fails if one image tells an error of zero, or outputs of fixed mean and deviation have any."""
    rows = some_rows(n)
    found = spread(replace(site(rows), n_calls_training=1), "post")
    np.testing.assert_array_equal(found.mean_error, error)
    np.testing.assert_array_equal(found.log_error, error)
    np.testing.assert_array_equal([found.mean_degrees, found.log_degrees], n - 1)


@pytest.mark.parametrize("missing", ["running_mean", "running_var"])
def test_half_of_the_running_statistics_is_none(missing: str) -> None:
    """Fails if a file that lost one of both buffers cannot be compared, or is by the buffer that is left."""
    found = spread(norm(**{missing: None}), "running")
    assert np.isnan([found.mean, found.sd, found.log_sd]).all()
    np.testing.assert_array_equal(spread(norm(), "running").mean, LEARNED["running_mean"])


def test_units_belong_to_both_sides() -> None:
    """Fails if one side alone gives the unit, a channel without any has one, or outputs are not measured by the layer."""
    a, b = spread(norm(), "running"), spread(norm(running_var=[9.0, 16.0, 25.0]), "running")
    own = (LEARNED["running_var"] + np.array([9.0, 16.0, 25.0])) / 2 + 1e-5
    np.testing.assert_allclose(unit(a, b, "running"), np.sqrt(own), rtol=1e-12)
    np.testing.assert_allclose(unit(a, b, "affine"), np.sqrt(own.mean()), rtol=1e-12)
    wide = replace(a, floor=1e-3)
    np.testing.assert_array_equal(unit(wide, b, "running"), unit(a, b, "running"))
    np.testing.assert_array_equal(unit(b, wide, "running"), unit(a, b, "running"))
    flat = replace(a, sd=np.array([0.0, 1.0, np.nan]), floor=0.0)
    np.testing.assert_array_equal(unit(flat, flat, "pre"), [np.nan, 1.0, np.nan])
    np.testing.assert_allclose(unit(flat, flat, "post"), np.sqrt(0.5), rtol=1e-12)
    none = replace(a, sd=np.full(3, np.nan))
    assert np.isnan(unit(none, none, "post")).all()


@pytest.mark.parametrize("aspect", ["pre", "post"])
def test_the_noise_of_a_gap_is_that_of_its_mean_and_its_deviation(aspect: str) -> None:
    """Fails if one of both errors, or one side's deviation, is left out, or a log is taken for a deviation."""
    one, two = norm(), site(1.7 * ROWS, "bn", **LEARNED)
    found = differences(pairs(recording(one), recording(two)))
    square = [np.asarray(getattr(side, aspect).var_population) for side in (one, two)]
    common = np.sqrt((square[0] + square[1]) / 2)
    unit_of = np.sqrt(common**2 + 1e-5) if aspect == "pre" else np.sqrt(np.mean(common**2))
    of_mean, of_log = (found.channels[f"{aspect}_{name}_se"].to_numpy() for name in ("shift", "ratio"))
    expected = math.sqrt(np.mean(of_mean**2 + (of_log * common / unit_of) ** 2))
    assert found.layers[f"{aspect}_noise"][0] == pytest.approx(expected, rel=1e-9)


# What was compared


def subject(**columns: Any) -> Any:
    one = recording(norm("a"), norm("b"))
    found = differences(pairs(one, one))
    table = found.layers.astype(object)
    for name, values in columns.items():
        table[name] = values
    return what(table.infer_objects(), found.channels)


@pytest.mark.parametrize(
    ("columns", "same"),
    [
        ({}, True),
        ({"pre_gap": [hair(1e-5, 0), 9.0]}, True),
        ({"pre_gap": [1e-5, 0.0]}, False),
        ({"n_images_b": [41, 40]}, False),
        ({"n_images_a": [1, 40]}, False),
        ({"n_images_b": [1, 40]}, False),
        ({"n_images_a": [1, 40], "n_images_b": [1, 40]}, True),
        ({"n_images_a": [0, 40]}, None),
        ({"n_images_b": [0, 40]}, None),
    ],
)
def test_whether_both_saw_the_same_images(columns: dict[str, Any], same: bool | None) -> None:
    """Fails if rounding of the first input makes other images, or what was not seen is called the same."""
    assert subject(**columns).same_inputs is same


def test_modes_are_compared_where_both_were_called() -> None:
    """Fails if a checkpoint without data counts as another mode, or one side's data are enough."""
    by = {"normalized_by_a": ["running", "running"], "normalized_by_b": ["batch", "batch"]}
    assert subject(**by).n_modes == 2
    assert subject(**by, n_images_a=[40, 0]).n_modes == 1
    assert subject(**by, n_images_b=[0, 40]).n_modes == 1
    assert subject().n_modes == 0


def test_weights_are_the_same_where_no_vector_differs() -> None:
    """Fails if one vector of one channel is overlooked, or NaN on both sides is a difference."""
    one, two = norm("a", gamma=[np.nan, 1, 2]), norm("b")
    same = differences(pairs(recording(one, two), recording(one, two)))
    assert what(same.layers, same.channels).same_weights
    assert what(same.layers, same.channels).n_identical == 2
    for name in ("gamma", "beta", "running_mean", "running_var"):
        other = np.array(getattr(two, name))
        other[2] += 1e-9
        found = differences(pairs(recording(one, two), recording(one, replace(two, **{name: other}))))
        told = what(found.layers, found.channels)
        assert (told.n_affine, told.n_running) == ((1, 0) if name in ("gamma", "beta") else (0, 1))
        assert not told.same_weights
        assert told.n_identical == 1


# Pairs


@dataclass(frozen=True)
class Thing:
    """Two fields."""

    x: object
    y: object


@pytest.mark.parametrize(
    ("mine", "theirs", "same"),
    [
        (1, 1, True),
        (1, 2, False),
        (1, 1.0, False),
        (math.nan, math.nan, True),
        (math.nan, 1.0, False),
        (None, None, True),
        ((1, math.nan), (1, math.nan), True),
        ((1, 2), (1, 3), False),
        ((1, 2), (1,), False),
        ((), (), True),
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), True),
        (np.array([1.0, 2.0]), np.array([1.0, np.nan]), False),
        (np.array([1.0]), (1.0,), False),
        (Thing(1, (2,)), Thing(1, (2,)), True),
        (Thing(1, (2,)), Thing(1, (3,)), False),
        (Thing(0, 2), Thing(1, 2), False),
    ],
)
def test_what_is_the_same(mine: object, theirs: object, same: bool) -> None:
    """Fails if a part that differs is overlooked, or NaN differs from itself."""
    assert _same(mine, theirs) is same
    assert _same(theirs, mine) is same


@pytest.mark.parametrize(
    ("mine", "theirs", "eps"),
    [
        (False, True, (1e-5, 1e-5)),
        (True, False, (1e-3, 1e-3)),
        (False, False, (1e-5, 1e-3)),
        (True, True, (1e-5, 1e-3)),
    ],
)
def test_an_eps_that_nobody_knows_is_the_other_sides(
    mine: bool, theirs: bool, eps: tuple[float, float]
) -> None:
    """Fails if a checkpoint, which does not tell eps, is compared by an eps of its own."""
    a, b = replace(norm(eps=1e-5), eps_assumed=mine), replace(norm(eps=1e-3), eps_assumed=theirs)
    (pair,) = pairs(recording(a), recording(b)).common
    assert (pair.a.eps, pair.b.eps) == eps


def test_why_a_norm_has_no_counterpart() -> None:
    """Fails if one reason is told for another."""
    a = recording(
        norm("same"), norm("wide"), norm("twice"), norm("twice", call=1), norm("lazy"), norm("gone")
    )
    wide = site(some_rows(40, n_channels=5), "wide", **memory_of(some_rows(40, n_channels=5)))
    b = recording(norm("same"), wide, norm("twice"), never_called=("lazy",))
    found = pairs(a, b)
    assert [pair.a.layer for pair in found.common] == ["same", "twice"]
    assert [(one.layer, one.call, one.side, one.why) for one in found.alone] == [
        ("wide", 0, "A", "3 channels here, 5 on the other side"),
        ("twice", 1, "A", "called fewer times on the other side"),
        ("lazy", 0, "A", "not reached on the other side"),
        ("gone", 0, "A", "not there on the other side"),
        ("wide", 0, "B", "5 channels here, 3 on the other side"),
    ]


ONE = np.ones(3)


def fed(norms: Any = ONE, bias: Any = None, **changes: Any) -> LayerRecord:
    fields = {"follows": "relu", "producer": "conv", **changes}
    return norm(neighbours=Neighbours(**fields, folded=Folded(np.asarray(norms), -ONE, ONE, bias)))


@pytest.mark.parametrize(
    ("a", "b", "differ"),
    [
        (fed(), fed(), False),
        (fed(), fed(ONE + 1e-15), True),
        (fed(bias=ONE), fed(bias=ONE), False),
        (fed(bias=ONE), fed(bias=2 * ONE), True),
        (fed(), fed(bias=ONE), True),
        (fed(guessed=True), fed(ONE + 1e-15), False),
        (fed(guessed=True), fed(ONE + 1e-9), True),
        (fed(guessed=True), fed(bias=ONE), True),
        (fed(guessed=True, producer="other"), fed(2 * ONE), False),
        (fed(guessed=True), fed(2 * ONE, guessed=True), True),
        (norm(), fed(), False),
        (fed(), norm(neighbours=Neighbours("relu")), False),
    ],
)
def test_filters_that_differ(a: LayerRecord, b: LayerRecord, differ: bool) -> None:
    """Fails if lengths that were summed in another order differ, a bias is passed over, or a wrong guess counts."""
    assert Pair(a, b).filters_differ is differ
    assert Pair(b, a).filters_differ is differ


# Stored vectors


def test_poison_is_what_one_side_has_alone() -> None:
    """Fails if a value that both sides share is new, a negative mean cannot be used, or a missing vector is NaN."""
    bad = norm(running_mean=[np.nan, -1, 0], running_var=[-1, 1, np.inf], gamma=[-1, np.inf, 1])
    good = norm()
    poison = stored.layer_columns(Pair(good, bad))
    assert poison["poison_a"] == ""
    for fact in ("γ", "running_mean", "running_var"):
        assert fact in poison["poison_b"]
    assert "β" not in poison["poison_b"]
    marked = stored.channel_columns(Pair(good, bad))
    np.testing.assert_array_equal(marked["poisoned_b"], [True, True, True])
    np.testing.assert_array_equal(marked["poisoned_a"], False)
    shared = stored.layer_columns(Pair(bad, bad))
    assert (shared["poison_a"], shared["poison_b"]) == ("", "")
    bare = replace(good, gamma=None, running_var=None, running_mean=None)
    missing = stored.layer_columns(Pair(good, bare))
    assert missing["missing_b"] == "γ, running_mean, running_var"
    assert missing["missing_a"] == ""
    assert stored.layer_columns(Pair(bare, bare))["missing_a"] == ""
    assert not stored.channel_columns(Pair(replace(bare, beta=None), good))["poisoned_a"].any()


def test_the_log_of_a_deviation_is_without_the_bias_of_few_samples() -> None:
    """Fails if the variance of the mean is taken off and not added, or a slope is left out of the log."""
    between = ROWS.mean(2).var(0, ddof=1) / 40
    expected = np.log(ROWS.var((0, 2)) + between) / 2
    np.testing.assert_allclose(spread(norm(), "pre").log_sd, expected, rtol=1e-9)
    slope = np.array([0.7, 0.5, 0.4]) / np.sqrt(LEARNED["running_var"] + 1e-5)
    np.testing.assert_allclose(spread(norm(), "post").log_sd, expected + np.log(slope), rtol=1e-9)


def test_a_set_of_channels_is_the_same_in_any_order_and_sign_of_gamma() -> None:
    """Fails if channels are paired by their number, or a deviation has a sign."""
    a = spread(norm(gamma=[0.7, -0.5, 0.4], beta=[1.0, 2.0, 3.0]), "affine")
    b = spread(norm(gamma=[0.5, 0.4, -0.7], beta=[3.0, 1.0, 2.0]), "affine")
    assert distribution_gap(a, b) == 0
    c = spread(norm(gamma=[0.5, 0.4, 0.7], beta=[4.0, 2.0, 3.0]), "affine")
    typical = np.mean(np.square([0.7, 0.5, 0.4]))
    assert distribution_gap(a, c) == pytest.approx(math.sqrt(1 / typical), rel=1e-9)
    wider = spread(norm(gamma=[1.0, 0.8, 1.4], beta=[1.0, 2.0, 3.0]), "affine")
    both = np.mean((np.square([0.7, 0.5, 0.4]) + np.square([1.0, 0.8, 1.4])) / 2)
    gap = np.sort([1.0, 0.8, 1.4]) - np.sort([0.7, 0.5, 0.4])
    assert distribution_gap(a, wider) == pytest.approx(math.sqrt(np.mean(gap**2) / both), rel=1e-9)


def test_equal_deviations_are_no_difference_and_their_errors_stay() -> None:
    """Fails if the correction for few samples makes a difference of two equal deviations."""
    a = spread(norm(), "pre")
    b = replace(a, log_sd=a.log_sd + 5.0)
    se, p = scale_test(a, b)
    np.testing.assert_allclose(p, 1.0, rtol=1e-12)
    np.testing.assert_allclose(se, math.sqrt(2) * a.log_error, rtol=1e-12)
    _, far = scale_test(a, replace(b, sd=2 * a.sd))
    assert (far < 1e-3).all()


@pytest.mark.parametrize(
    ("shift_q", "ratio_q", "changed", "share"),
    [
        ([0.1, 0.1], [0.1, 0.1], [True, False], 0.5),
        ([0.1, np.nan], [np.nan, np.nan], [True, False], 1.0),
        ([np.nan, np.nan], [0.1, 0.1], [True, False], 0.5),
        ([np.nan, np.nan], [np.nan, np.nan], [False, False], np.nan),
    ],
)
def test_the_share_that_changed_is_of_what_was_tested(
    shift_q: list[float], ratio_q: list[float], changed: list[bool], share: float
) -> None:
    """Fails if a channel tested once is not tested, or one that never was counts."""
    columns = {
        "pre_shift_q": np.array(shift_q),
        "pre_ratio_q": np.array(ratio_q),
        "pre_changed": np.array(changed),
    }
    assert _share(columns, "pre") == pytest.approx(share, nan_ok=True)


def test_what_a_distance_has_of_noise_is_that_of_a_gaussian() -> None:
    """Fails if the mean of |x| of a Gaussian is not √(2/π) deviations, or channels without a distance count."""
    one, two = norm(), site(1.7 * ROWS, "bn", **LEARNED)
    found = differences(pairs(recording(one), recording(two)))
    a, b = spread(one, "pre"), spread(two, "pre")
    common = unit(a, b, "pre")
    width = np.sqrt((a.sd**2 + b.sd**2) / 2) * found.channels["pre_ratio_se"].to_numpy() / common
    error = np.hypot(found.channels["pre_shift_se"].to_numpy(), width)
    expected = np.median(math.sqrt(2 / math.pi) * error)
    assert found.layers["pre_w1_noise"][0] == pytest.approx(expected, rel=1e-9)


def test_vectors_that_differ_anywhere_and_missing_ones_that_do_not() -> None:
    """Fails if NaN on one side alone is the same, NaN on both is a difference, or channels are counted and not sites."""
    one = recording(norm("a"), norm("b"), norm("c"))
    found = differences(pairs(one, one))

    def n_affine(**columns: list[float]) -> int:
        return what(found.layers, found.channels.assign(**columns)).n_affine

    nan = math.nan
    assert n_affine() == 0
    assert n_affine(gamma_a=[nan] * 9, gamma_b=[nan] * 9) == 0
    assert n_affine(gamma_a=[nan] + [0.5] * 8, gamma_b=[0.5] * 9) == 1
    assert n_affine(gamma_a=[0.5] * 9, gamma_b=[0.6] * 4 + [0.5] * 5) == 2
