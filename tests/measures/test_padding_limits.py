"""The way from no black over random crops, step by step, and its errors by their formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bnprobe.measures import detail
from bnprobe.measures.padding import Equations, _between_crops, _mixture, equations
from bnprobe.measures.standard_errors import n_running
from bnprobe.recording.neighbours import Crop, Folded, Neighbours, Stem
from measures.sites import running_stats_of, site, some_rows

SIGMA = np.array([1.0, 2.0, 4.0])


def way(running: list[float], *points: tuple[float, list[float]]) -> list[tuple[float, list[float]]]:
    """The best share on each step from (1, 1, 1) over these shares of black and the means that they give."""
    crops = tuple(Crop(i + 1, share, np.array(at)[:, None]) for i, (share, at) in enumerate(points))
    # one input channel, of mean 1, and black at 0: a crop's matrix is what it gives
    one = Equations(np.ones((3, 1)), np.array(running), np.ones(3), SIGMA, np.zeros(3), crops)
    return [(share, predicted.tolist()) for share, predicted in _between_crops(one, np.zeros(1))]


STEPS = (0.1, [1.0, 1.0, 2.0]), (0.3, [1.0, 3.0, 2.0]), (0.7, [5.0, 3.0, 2.0])


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        # half a step before the first point, half of the second step, two steps beyond the third point
        ([9.0, 2.0, 0.5], [(-0.05, [1, 1, 0.5]), (0.2, [1, 2, 2]), (1.1, [9, 3, 2])]),
        # no farther than the ends of steps between
        ([0.0, 9.0, 3.0], [(0.1, [1, 1, 2]), (0.3, [1, 3, 2]), (0.3, [1, 3, 2])]),
        ([3.0, 0.0, 1.5], [(0.05, [1, 1, 1.5]), (0.1, [1, 1, 2]), (0.5, [3, 3, 2])]),
    ],
)
def test_each_step_of_the_way_over_crops(running: list[float], expected: list[Any]) -> None:
    """Fails if a step in the middle goes on beyond its points, the first and the last do not, or small steps are none."""
    found = way(running, *STEPS)
    for (share, at), (mine, here) in zip(expected, found, strict=True):
        assert mine == pytest.approx(share, abs=1e-12)
        assert here == pytest.approx(at, abs=1e-12)


def test_a_single_crop_is_a_line_without_ends() -> None:
    """Fails if its only step is cut on either side."""
    for z, share in ((-1.0, -0.2), (1.5, 0.05), (7.0, 0.6)):
        assert way([1.0, 1.0, z], STEPS[0])[0][0] == pytest.approx(share)


def test_crops_that_give_the_same_are_no_step() -> None:
    """Fails if 0 / 0 is a part of the way."""
    (first, second, _) = way([1.0, 1.0, 9.0], STEPS[0], (0.2, [1.0, 1.0, 2.0]), STEPS[1])
    assert first[0] == second[0] == pytest.approx(0.1)


def test_a_short_way_to_black_is_a_way() -> None:
    """Fails if it must be longer than one running σ."""
    one = Equations(np.ones((3, 1)), 1 - 0.3 * SIGMA / 100, np.ones(3), SIGMA, np.zeros(3), ())
    assert _mixture(one, -SIGMA / 100) == pytest.approx(0.3)


@pytest.mark.parametrize("lost", [[], [1]])
def test_the_error_of_a_weighted_sum_without_folds(lost: list[int]) -> None:
    """Fails if channels that are no equations count, or the running means have no noise of their own."""
    rows = some_rows(20)
    stored = running_stats_of(rows)
    stored["running_mean"][lost] = np.nan
    record = site(rows, **stored, neighbours=Neighbours("relu", stem=Stem(np.ones((3, 1)), None)))
    assert n_running(record) == pytest.approx(19 * 32)
    good = np.delete(np.arange(3), lost)
    weights = np.array([2.0, -1.0, 0.5])[good]
    each = rows.mean(2).std(0, ddof=1)[good] / math.sqrt(20)
    expected = (np.abs(weights) * each).sum() * math.sqrt(1 + 20 / (19 * 32))
    assert equations(record).error_of(weights) == pytest.approx(expected, rel=1e-9)


def test_without_samples_the_error_is_not_known() -> None:
    """Fails if no sample is divided by."""
    record = site(
        some_rows(4)[:0],
        running_mean=0.0,
        running_var=1.0,
        neighbours=Neighbours("relu", stem=Stem(np.ones((3, 1)), None)),
    )
    assert math.isnan(equations(record).error_of(np.zeros(0)))


def test_typical_filters_are_the_median_ones() -> None:
    """Fails if one fine or coarse filter of three pulls the detail: .6 of .5, .6, .9 and 1.1 of 1, 1.1, 1.4."""
    coarse = np.array([0.0, 0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 0.9, 1.0])
    ratio = np.array([0.5, 0.6, 0.9, 9.0, 9.0, 9.0, 1.0, 1.1, 1.4])
    rows = np.tile([-1.0, 1.0], (4, 9, 8)) * ratio[None, :, None]
    folded = Folded(np.ones(9), -np.ones(9), np.ones(9), None)
    neighbours = Neighbours("relu", "conv", stem=Stem(coarse[:, None], None), folded=folded)
    found = detail.layer_columns(site(rows, running_mean=0.0, running_var=1.0, neighbours=neighbours))
    assert found["detail_ratio"] == pytest.approx(0.6 / 1.1, rel=1e-12)


@pytest.mark.parametrize(("size", "var"), [(1.0, 1e-5), (0.0, 1.0)], ids=["as small as eps", "constant"])
def test_fine_filters_that_say_nothing_take_no_part(size: float, var: float) -> None:
    """Fails if a running variance of eps itself, or an input that does not vary, is one of the finest two."""
    rows = np.tile([-1.0, 1.0], (4, 5, 8)) * np.array([0.5, 0.5, size, 1.0, 1.0])[None, :, None]
    folded = Folded(np.ones(5), -np.ones(5), np.ones(5), None)
    stem = Stem(np.array([[0.0], [0.1], [0.05], [0.8], [0.9]]), None)
    neighbours = Neighbours("relu", "conv", stem=stem, folded=folded)
    record = site(rows, running_mean=0.0, running_var=[1.0, 1.0, var, 1.0, 1.0], neighbours=neighbours)
    assert detail.layer_columns(record)["detail_ratio"] == pytest.approx(0.5)
