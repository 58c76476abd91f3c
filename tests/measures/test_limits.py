"""Every number that a measure compares, exactly at its limit and a hair to either side.

The sides are those that the documentation names: "less than 5%" leaves 5% out, "at most one in 1,000" has it in.
The numbers here are written out, not taken from the code.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bnprobe.measures import (
    detail,
    headroom,
    outliers,
    output_moments,
    roles,
    standard_errors,
    verdict,
)
from bnprobe.measures.stem import StemReading, _judged
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Folded, Neighbours, Stem
from measures.sites import alone, memory_of, recording, site, some_rows


def hair(value: float, to: float) -> float:
    """The next number on the way to `to`."""
    return float(np.nextafter(value, to))


# Roles: 1,000 outputs per channel, so that shares are exact


def with_shares(follows: str, n_positive: float, gamma: float = 1.0, beta: float = 0.0) -> LayerRecord:
    """A channel of 1,000 outputs, of which so many are positive; its extremes settle nothing."""
    rows = np.random.default_rng(1).normal(size=(10, 1, 100))
    made = site(rows, gamma=gamma, beta=beta, **memory_of(rows))
    return replace(made, n_positive=np.array([n_positive]), neighbours=Neighbours(follows))


def role(record: LayerRecord) -> str:
    return str(roles.channel_columns(record)["role"][0])


@pytest.mark.parametrize(
    ("n_positive", "expected"),
    [
        (0, "dead"),
        (1, "rare"),
        (49, "rare"),
        (50, "mixed"),
        (998, "mixed"),
        (1000, "linear"),
    ],
)
def test_roles_by_the_share_of_positive_outputs(n_positive: int, expected: str) -> None:
    """Fails if 5% is rare, or one output of 1,000 is not."""
    assert role(with_shares("relu", n_positive)) == expected


@pytest.mark.parametrize(("gamma", "expected"), [(0.01, "mixed"), (hair(0.01, 0), "constant")])
def test_a_constant_channel_has_a_scale_below_a_hundredth(gamma: float, expected: str) -> None:
    """Fails if |γ| of 0.01 itself is constant, or its sign counts."""
    assert role(with_shares("relu", 500, gamma=gamma, beta=0.5)) == expected
    assert role(with_shares("relu", 500, gamma=-gamma, beta=0.5)) == expected


@pytest.mark.parametrize(
    ("gamma", "beta", "dead"),
    [(0.0, 1e-4, 0), (0.0, hair(1e-4, 0), 1), (1.0, -6.0, 1), (-1.001, -6.0, 0), (1.001, -6.0, 0)],
)
def test_a_channel_is_predicted_dead_below_the_reach(gamma: float, beta: float, dead: int) -> None:
    """Fails if six deviations that end at 0.0001 are dead, or one of the two numbers moves."""
    assert roles.dead_predicted(with_shares("relu", 500, gamma=gamma, beta=beta))[0] == dead


@pytest.mark.parametrize(
    ("n_above", "expected"), [(0, "linear"), (1, "linear"), (2, "mixed"), (500, "mixed"), (501, "saturated")]
)
def test_a_saturated_channel_is_cut_in_more_than_half(n_above: int, expected: str) -> None:
    """Fails if half of the values beyond 6 saturate a ReLU6, or one of 1,000 is too many for a linear channel.

    Outputs stand at 5 and 7, whose bins are apart.
    """
    rows = np.where(np.arange(1000) < n_above, 7.0, 5.0).reshape(10, 1, 100)
    made = site(rows, gamma=1.0, beta=0.0, running_mean=0.0, running_var=1.0, eps=0.0)
    assert role(replace(made, neighbours=Neighbours("relu6"))) == expected


def test_the_share_above_is_spread_evenly_inside_a_bin() -> None:
    """Fails if a bin counts as a whole, or a channel without a value warns or gets a number."""
    from bnprobe.stats.histogram import Z_EDGES

    i = int(np.searchsorted(Z_EDGES, 1.0))
    low, high = float(Z_EDGES[i]), float(Z_EDGES[i + 1])
    inside = low + 0.5 * (high - low)
    rows = np.stack([np.r_[np.full(3, inside), np.full(5, -1.0)], np.full(8, np.nan)])[:, None].transpose(
        1, 0, 2
    )
    made = site(rows, gamma=None, beta=None, running_mean=0.0, running_var=1.0, eps=0.0)
    found = roles.share_above(made, low + 0.25 * (high - low))
    # all counts of the bin and what lies above it, the bin by three quarters; five values lie below
    np.testing.assert_allclose(found, [0.75 * 3 / 8, np.nan], rtol=1e-12)


# The verdict


def test_what_moved_is_visible_and_sure() -> None:
    """Fails if the size itself is not visible, q of 0.01 is sure, or channels that were not tested count."""
    size = np.array([0.2, -0.2, hair(0.2, 0), 0.2, 9.0])
    q = np.array([0.0, hair(0.01, 0), 0.0, 0.01, np.nan])
    assert verdict._moved(size, 0.2, q) == 2 / 4


def many_images(n: int = 900) -> LayerRecord:
    """A norm that agrees with its running statistics on so many images that any difference would show."""
    rows = np.random.default_rng(3).normal(size=(n, 3, 4))
    return site(rows, **memory_of(rows), n_calls=1)


THIRD, LESS = 1 / 3, hair(1 / 3, 0)


@pytest.mark.parametrize(
    ("mean", "size", "expected"),
    [
        (0.0, 0.0, "same"),
        (THIRD, 0.0, "mean shifted"),
        (0.0, THIRD, "scale shifted"),
        (THIRD, THIRD, "mean and scale shifted"),
        (LESS, LESS, "same"),
    ],
)
def test_a_third_of_the_channels_makes_a_verdict(mean: float, size: float, expected: str) -> None:
    """Fails if a third is not enough, less than a third is, or one of mean and scale is not asked."""
    assert verdict._verdict(many_images(), mean, size, near=True) == expected
    unknown = "too few samples" if expected == "same" else expected
    assert verdict._verdict(many_images(), mean, size, near=False) == unknown


def test_a_visible_difference_is_ruled_out_in_all_but_a_third() -> None:
    """Fails if the visible size itself is ruled out, a third may have it, or what has no error counts."""
    size, error = np.array([0.1, -0.1, 0.0, 0.0, 9.0]), np.array([0.1, 0.1, 0.0, 0.0, np.nan])
    assert not verdict._rules_out(size, error, 0.2)
    assert verdict._rules_out(size, error, hair(0.2, 1))
    assert verdict._rules_out(np.array([-0.2, 0.0, 0.0, 0.0]), np.zeros(4), 0.2)
    assert not verdict._rules_out(np.array([-0.2, 0.0, 0.0]), np.zeros(3), 0.2)
    assert not verdict._rules_out(size, size * np.nan, 0.2)


@pytest.mark.parametrize(("n_images", "times"), [(9, 3), (10, 1)])
def test_below_ten_images_only_three_times_the_size_is_visible(n_images: int, times: int) -> None:
    """Fails if the ten images or the factor of three moves, for the mean (0.2) or the scale (0.1)."""
    rows = np.random.default_rng(0).normal(size=(n_images, 3, 400))
    sigma = rows.std((0, 2))
    for factor, moved in ((0.99, 0), (1.01, 1)):
        record = site(
            rows, eps=0.0, running_mean=rows.mean((0, 2)) - factor * 0.2 * times * sigma, running_var=sigma**2
        )
        assert verdict.layer_columns(record, alone(record))["mean_moved"] == moved


@pytest.mark.parametrize(("n_images", "could"), [(9, False), (10, True)])
def test_ten_images_could_tell(n_images: int, could: bool) -> None:
    """Fails if ten images that hardly differ cannot tell sameness, or nine can."""
    # the means of images differ by a thousandth of the deviation inside them
    inside = np.tile([-1.0, 1.0], 50)
    rows = inside + 1e-3 * np.random.default_rng(0).normal(size=(n_images, 3, 1))
    record = site(rows, **memory_of(rows))
    assert verdict.layer_columns(record, alone(record))["verdict"] == ("same" if could else "too few samples")


@pytest.mark.parametrize(
    ("mean", "var", "fresh"),
    [([0, 0, 0], [1, 1, 1], True), ([0, 0, 0], [1, 1, 2], False), ([0, 0, 2], [1, 1, 1], False)],
)
def test_every_channel_must_be_as_it_was_created(mean: list[float], var: list[float], fresh: bool) -> None:
    """Fails if one channel at 0 or 1 makes the whole layer never updated."""
    record = site(some_rows(), running_mean=mean, running_var=var)
    assert verdict.never_updated(record) is fresh


@pytest.mark.parametrize(
    ("counted", "var", "fresh"), [(0, 1, True), (1, 1, False), (None, 1, False), (0, [1, 1, 2], False)]
)
def test_no_batch_was_counted(counted: int | None, var: Any, fresh: bool) -> None:
    """Fails if means that were set by hand hide variances of 1 that no batch has changed."""
    record = site(some_rows(), running_mean=[0, 0, 2], running_var=var, n_batches_tracked=counted)
    assert verdict.never_updated(record) is fresh


def test_one_finite_channel_is_remembered() -> None:
    """Fails if one poisoned channel makes a layer without running statistics, or half of a pair counts."""
    nan = float("nan")
    assert verdict.stores_statistics(site(some_rows(), running_mean=[nan, 0, nan], running_var=[1, 1, nan]))
    assert not verdict.stores_statistics(
        site(some_rows(), running_mean=[nan, 0, nan], running_var=[1, nan, 1])
    )
    half = replace(site(some_rows()), running_var=np.ones(3))
    assert not verdict.stores_statistics(half)


# Standard errors


@pytest.mark.parametrize(
    ("momentum", "tracked", "n"),
    [
        (0.1, 40, 19 * 32),
        (1.0, 40, 32),
        (7.0, 40, 32),
        (0.5, None, 3 * 32),
        (None, 5, 5 * 32),
        (None, 1, 32),
        (None, 0, 19 * 32),
        (None, None, 19 * 32),
    ],
)
def test_images_that_running_statistics_are_worth(
    momentum: float | None, tracked: int | None, n: float
) -> None:
    """Fails if (2 − m)/m batches of 32 images are others, a plain average is none, or an unknown one is not 19 batches."""
    record = replace(many_images(20), momentum=momentum, n_batches_tracked=tracked)
    assert standard_errors.n_running(record) == pytest.approx(n, rel=1e-12)


@pytest.mark.parametrize(
    ("of_model", "of_layer", "calls", "counted"),
    [(10, 30, 1, 10), (30, 30, 1, 30), (31, 30, 1, 30), (0, 30, 1, 30), (10, 30, 3, 30), (10, 30, 2, 10)],
)
def test_rows_count_as_samples_at_most(of_model: int, of_layer: int, calls: int, counted: int) -> None:
    """Fails if rows of one sample count apart, or a call that nobody counted is held against the model's two passes."""
    record = replace(many_images(of_layer), n_calls=calls)
    (found,) = standard_errors.by_sample(recording(record, n_images=of_model, n_forwards=2))
    assert found.n_images == counted


# Outputs, inputs, outliers, detail


@pytest.mark.parametrize(
    ("error", "ratio", "holds"),
    [
        (0.2, 1.0, True),
        (-0.2, 1.0, True),
        (hair(0.2, 1), 1.0, False),
        (0.0, math.exp(0.0999), True),
        (0.0, math.exp(-0.0999), True),
        (0.0, math.exp(0.1001), False),
        (0.0, math.exp(-0.1001), False),
    ],
)
def test_outputs_keep_what_gamma_and_beta_set(error: float, ratio: float, holds: bool) -> None:
    """Fails if 0.2 |γ| in the mean, or 10% in the deviation, to either side, is not what holds."""
    assert output_moments._on_target(np.array([error]), np.array([ratio])) is holds


def test_the_typical_channel_decides_whether_outputs_hold() -> None:
    """Fails if the average of channels decides: one of five is far off."""
    ratio = np.array([1.0, 1.0, 1.0, 1.0, 99.0])
    assert output_moments._on_target(np.array([0.0, 0.1, -0.1, 0.0, 50.0]), ratio)
    assert not output_moments._on_target(np.full(5, 0.0), np.array([1.0, 2.0, 2.0, 0.5, 0.5]))


@pytest.mark.parametrize(("mismatch", "reason"), [(0.01, "other"), (hair(0.01, 1), "other formula")])
def test_an_output_of_another_formula(mismatch: float, reason: str) -> None:
    """Fails if a hundredth of the largest output itself is another formula."""
    rows = some_rows(40)
    record = site(rows, **{**memory_of(rows), "running_var": 1e4}, output="read", mismatch=mismatch)
    found = output_moments.layer_columns(record, alone(record))["why_not"]
    assert (found == "other formula") == (reason == "other formula")


def test_the_largest_input_and_how_often_it_fits() -> None:
    """Fails if the smallest value is no input, or half precision ends elsewhere: 65,504 holds 8,188 eight times."""
    rows = some_rows(5)
    rows[2, 1, 3] = -8188.0
    assert headroom.layer_columns(site(rows)) == {"largest_input": 8188.0, "half_headroom": 8.0}
    zeros = headroom.layer_columns(site(0 * rows))
    assert zeros["largest_input"] == 0
    assert np.isnan(zeros["half_headroom"])


def test_without_values_the_largest_input_is_six_deviations_away() -> None:
    """Fails if the sign of a running mean counts, a negative variance spoils the rest, or another reach is taken."""
    empty = some_rows(4)[:0]
    record = site(empty, running_mean=[-5.0, 1.0, 900.0], running_var=[4.0, 4.0, -1.0], eps=0.0)
    assert headroom.largest_input(record) == 5 + 6 * 2
    assert np.isnan(headroom.largest_input(replace(record, running_mean=None)))
    assert np.isnan(headroom.largest_input(replace(record, running_var=None)))


@pytest.mark.parametrize(("factor", "n"), [(6.0, 0), (hair(6.0, 7), 1)])
def test_an_outlier_is_more_than_six_times_the_typical_channel(factor: float, n: int) -> None:
    """Fails if six times itself is an outlier. Rows of ±1 have a root mean square of 1."""
    rows = np.tile([-1.0, 1.0], (3, 5, 4)) * np.array([1.0, 1.0, 1.0, 1.0, factor])[None, :, None]
    found = outliers.layer_columns(site(rows, kind="layer_norm"))
    assert found["outliers"] == n
    assert found["outlier_channels"] == ("4" if n else "")
    assert found["rms_ratio_max"] == factor


def test_ten_outliers_are_listed_the_largest_first() -> None:
    """Fails if more are listed, or in the order of channels."""
    size = np.r_[np.ones(30), np.arange(10.0, 21.0)]
    rows = np.tile([-1.0, 1.0], (3, 41, 4)) * size[None, :, None]
    found = outliers.layer_columns(site(rows, kind="layer_norm"))
    assert found["outliers"] == 11
    assert found["outlier_channels"] == ", ".join(str(c) for c in range(40, 30, -1))


def of_stem(coarse: list[float], ratio: list[float], **changes: Any) -> LayerRecord:
    """A first norm whose filters see areas by so much, and whose deviations are so many remembered ones."""
    c = len(coarse)
    rows = np.tile([-1.0, 1.0], (4, c, 8)) * np.array(ratio)[None, :, None]
    folded = Folded(np.ones(c), -np.ones(c), np.ones(c), None)
    neighbours = Neighbours("relu", "conv", stem=Stem(np.array(coarse)[:, None], None), folded=folded)
    fields = {"running_mean": 0.0, "running_var": 1.0, "eps": 1e-5, "neighbours": neighbours}
    return site(rows, **{**fields, **changes})


def detail_of(coarse: list[float], ratio: list[float], **changes: Any) -> float:
    return detail.layer_columns(of_stem(coarse, ratio, **changes))["detail_ratio"]


def test_fine_filters_against_coarse_ones() -> None:
    """Fails if a half of the filters is taken for a third, the middle ones count, or the two are exchanged."""
    coarse = [0.9, 0.0, 0.5, 0.1, 0.8, 0.4]
    assert detail_of(coarse, [1.2, 0.5, 9.0, 0.7, 1.0, 9.0]) == pytest.approx(0.6 / 1.1, rel=1e-12)
    seven = [0.9, 0.0, 0.5, 0.1, 0.8, 0.4, 0.45]
    assert detail_of(seven, [1.2, 0.5, 9.0, 0.7, 1.0, 9.0, 9.0]) == pytest.approx(0.6 / 1.1, rel=1e-12)
    nine = [0.0, 0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 0.9, 1.0]
    assert detail_of(nine, [0.5, 0.7, 0.6, 9, 9, 9, 1.1, 1.0, 1.2]) == pytest.approx(0.6 / 1.1, rel=1e-12)


def test_four_filters_are_enough_and_three_are_not() -> None:
    """Fails if a filter is fine and coarse at once."""
    assert detail_of([0.0, 0.1, 0.8, 0.9], [0.5, 0.5, 1.0, 1.0]) == 0.5
    assert np.isnan(detail_of([0.0, 0.1, 0.9], [0.5, 0.5, 1.0]))


@pytest.mark.parametrize(
    ("areas", "told"),
    [
        ((1.25, 1.25), True),
        ((1.26, 1.26), False),
        ((0.8, 0.8), True),
        ((0.79, 0.79), False),
        ((0.75, 1.5), True),
        ((0.74, 1.5), False),
    ],
)
def test_detail_is_told_only_where_areas_are_as_remembered(areas: tuple[float, float], told: bool) -> None:
    """Fails if a factor of 1.25 to either side, or one of 2 between areas, is too much, or more is not."""
    found = detail_of([0.0, 0.1, 0.8, 0.9], [0.5, 0.5, *areas])
    assert np.isnan(found) != told


def test_filters_that_eps_divides_say_nothing_of_detail() -> None:
    """Fails if a variance of eps itself, or a channel without any, is compared: four others remain, then three."""
    coarse, ratio = [0.0, 0.1, 0.2, 0.8, 0.9], [0.5, 0.5, 1e3, 1.0, 1.0]
    var = np.array([1.0, 1.0, 1e-5, 1.0, 1.0])
    assert detail_of(coarse, ratio, running_var=var) == 0.5
    assert detail_of(coarse, [0.0, 0.5, 0.5, 1.0, 1.0]) == 0.5
    for missing in ("neighbours", "running_var"):
        assert np.isnan(
            detail.layer_columns(replace(of_stem(coarse, ratio), **{missing: None}))["detail_ratio"]
        )


# The stem's trust


READING = StemReading(
    False,
    "",
    "bn",
    mean_pixels=(0.5, 0.4, 0.3),
    n_equations=16,
    n_unknowns=3,
    condition=9.0,
    r2=0.9,
    rmse=0.1,
)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("condition", 100.0, hair(100.0, 101)),
        ("condition", 1.0, math.nan),
        ("r2", 0.8, hair(0.8, 0)),
        ("r2", 1.0, math.nan),
        ("rmse", 0.15, hair(0.15, 1)),
        ("rmse", 0.0, math.nan),
        ("mean_pixels", (-0.02, 0.5, 1.02), (hair(-0.02, -1), 0.5, 0.5)),
        ("mean_pixels", None, (0.5, 0.5, hair(1.02, 2))),
    ],
)
def test_what_a_reading_must_keep_to_be_trusted(name: str, good: Any, bad: Any) -> None:
    """Fails if a limit of trust moves, or one channel out of range is not enough against it."""
    assert _judged(replace(READING, **{name: good}), fresh=False).trusted
    assert not _judged(replace(READING, **{name: bad}), fresh=False).trusted
    assert not _judged(READING, fresh=True).trusted


def test_a_colour_has_three_parts() -> None:
    """Fails if gray images, or inputs of five channels, are given a colour."""
    assert READING.mean_rgb == (0.5, 0.4, 0.3)
    for pixels in (None, (0.5,), (0.1, 0.2, 0.3, 0.4)):
        assert replace(READING, mean_pixels=pixels).mean_rgb is None
