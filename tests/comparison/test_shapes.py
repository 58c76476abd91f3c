"""Distance of two distributions by their histograms, against sums over a fine grid."""

from __future__ import annotations

import numpy as np
import pytest
from measures.sites import recording, site

from bnprobe.comparison import differences, pairs
from bnprobe.comparison.shapes import distances
from bnprobe.measures.gaussian import cumulative
from bnprobe.stats import Histogram


def histogram(values: np.ndarray, centre: float, scale: float) -> Histogram:
    """Of values (N, C), on one scale for all channels."""
    from support import oracles

    c = values.shape[1]
    centres, scales = np.full(c, centre), np.full(c, scale)
    return Histogram(
        centres[None], scales[None], oracles.histogram(values[:, :, None], centres, scales)[None]
    )


@pytest.mark.parametrize("scale", [1.0, 0.7], ids=["one memory", "two memories"])
def test_area_and_gap_are_those_of_a_fine_grid(rng, scale):
    """Fails if crossing curves cancel, the sides are swapped, or one of the two ways of computing is another distance."""
    a = histogram(rng.normal(size=(400, 3)) * [1, 2, 0.1], 0.0, 1.0)
    b = histogram(rng.normal(size=(300, 3)) * [1.5, 1, 0.1] + [0.1, 1, 0], 0.0, scale)
    w1, ks = distances(a, b, 3)
    x = np.linspace(-70, 70, 1_400_001)
    for c in range(3):
        curves = [np.interp(x, edges[c], below[c]) for edges, below in map(cumulative, (a, b))]
        gap = np.abs(curves[1] - curves[0])
        assert w1[c] == pytest.approx(np.sum(gap[1:] + gap[:-1]) / 2 * (x[1] - x[0]), rel=1e-4)
        assert ks[c] == pytest.approx(gap.max(), rel=1e-3)


def test_without_a_histogram_or_values_nothing_is_said(rng):
    """Fails if a distance of zero is made of nothing."""
    a = histogram(rng.normal(size=(40, 2)), 0.0, 1.0)
    assert np.isnan(distances(a, None, 2)).all()
    assert np.isnan(distances(a, Histogram.empty(np.zeros(2), np.ones(2)), 2)).all()


def test_a_shape_that_changed_alone_is_seen(rng):
    """Fails if only means and deviations are compared: here both agree, and the shapes do not."""
    two = rng.choice([-1.0, 1.0], size=(200, 1, 40))
    bell = rng.normal(size=(200, 1, 40))
    a, b = (recording(site(x, "bn", running_mean=0.0, running_var=1.0)) for x in (two, bell))
    row = differences(pairs(a, b)).channels.iloc[0]
    assert row["pre_gap"] < 0.05
    assert row["pre_w1"] > 0.3


def test_the_floor_is_the_distance_of_halves():
    """Fails if it counts positions, or is the error of a mean alone: 30 pairs of 60 images whose positions are alike.

    Half of the variance is an image's own, so the mean's error is 0.71 and more √(2/60).
    """
    rng = np.random.default_rng(6)
    w1, floor = [], []
    for _ in range(30):
        sides = [rng.normal(size=(60, 8, 1)) + rng.normal(size=(60, 8, 9)) for _ in "ab"]
        records = [recording(site(x, running_mean=0.0, running_var=2.0)) for x in sides]
        row = differences(pairs(*records)).layers.iloc[0]
        w1.append(row["pre_w1_median"])
        floor.append(row["pre_w1_noise"])
    assert np.mean(floor) == pytest.approx(np.mean(w1), rel=0.15)
    assert np.mean(floor) > np.sqrt(2 / np.pi) * np.sqrt(0.5 * 2 / 60)
