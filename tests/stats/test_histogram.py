"""Histograms on a fixed scale: the bins by walking, sums by sheets, and affine maps by turning."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import oracles

from bnprobe.errors import BnprobeError
from bnprobe.stats import N_BINS, Histogram
from bnprobe.stats.histogram import Z_EDGES, bin_index

CENTRE, SCALE = np.array([0.0, 5.0, -2.0]), np.array([1.0, 0.25, 3.0])


def of(rows: np.ndarray, centre: np.ndarray = CENTRE, scale: np.ndarray = SCALE) -> Histogram:
    """Through `bin_index`; the expectation of every test comes from the walking reference instead."""
    z = (rows - centre[:, None]) / scale[:, None]
    counts = [np.bincount(bin_index(z[:, c]).ravel(), minlength=N_BINS) for c in range(len(centre))]
    return Histogram(centre[None], scale[None], np.array(counts, dtype=float)[None])


def rows_of(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_t(1.5, size=(n, 3, 35)) * SCALE[:, None] + CENTRE[:, None]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_bin_is_found_by_walking(z):
    """Fails on any bin that is off by one, however far out."""
    assert bin_index(np.array(z)) == oracles.bin_of(z)


def test_every_edge_belongs_to_the_bin_that_it_opens():
    """Fails if an edge counts to the wrong side; on the left the bins are the right ones' mirror image."""
    right = Z_EDGES[N_BINS // 2 : -1]
    assert bin_index(right).tolist() == list(range(48, 96))
    assert bin_index(-right[1:]).tolist() == list(range(46, -1, -1))
    assert [oracles.bin_of(z) for z in right] == list(range(48, 96))


def test_edges_are_as_the_page_says():
    """Fails if the axis is another one than documented: 1/8 up to 1, 1/4 up to 3, ..., 4 up to 63."""
    widths = np.diff(Z_EDGES)[48:]
    assert widths.tolist() == [w for k in range(6) for w in [2.0**k / 8] * 8]
    np.testing.assert_array_equal(Z_EDGES, -Z_EDGES[::-1])
    assert (Z_EDGES[0], Z_EDGES[-1]) == (-63, 63)


def test_nothing_falls_outside():
    """Fails if values beyond the last edge are lost: a moved channel must not look empty."""
    found = of(np.array([[[1e30], [-1e30], [0.0]]]))
    assert found.n.tolist() == [1, 1, 1]
    assert found.counts[0, 0, -1] == found.counts[0, 1, 0] == 1


def test_counts_add(rng):
    """Fails if merging drops a part or changes one of its arguments."""
    x = rows_of(rng, 11)
    parts = [of(part) for part in np.split(x, [1, 1, 4])]
    before = parts[0].counts.copy()
    total = reduce(Histogram.merge, parts, Histogram.empty(CENTRE, SCALE))
    np.testing.assert_array_equal(total.counts[0], oracles.histogram(x, CENTRE, SCALE))
    np.testing.assert_array_equal(parts[0].counts, before)
    assert total.n.tolist() == [11 * 35] * 3


@given(st.permutations(range(4)))
def test_order_does_not_matter(order):
    """Fails if counts end up on the wrong sheet: two scales, any order of four parts."""
    rng = np.random.default_rng(0)
    scales = [SCALE, SCALE * 2, SCALE, SCALE * 2]
    parts = [of(rows_of(rng, 2), scale=scale) for scale in scales]
    total = reduce(Histogram.merge, [parts[i] for i in order])
    assert total.counts.shape == (2, 3, N_BINS)
    for s in range(2):
        expected = sum(p.counts[0] for p in parts if np.array_equal(p.scale[0], total.scale[s]))
        np.testing.assert_array_equal(total.counts[s], expected)


def test_other_scales_are_kept_beside(rng):
    """Fails if counts made on one scale are added to those of another, as if bins were the same."""
    x, y = rows_of(rng, 2), rows_of(rng, 3)
    merged = of(x).merge(of(y, centre=CENTRE + 1))
    np.testing.assert_array_equal(merged.counts[0], oracles.histogram(x, CENTRE, SCALE))
    np.testing.assert_array_equal(merged.counts[1], oracles.histogram(y, CENTRE + 1, SCALE))
    assert merged.n.tolist() == [5 * 35] * 3


def test_affine_turns_the_bins_for_a_negative_scale(rng):
    """Fails if a negative gamma does not mirror the histogram, or a scale of 0 is not one spike."""
    x = rows_of(rng, 5)
    scale, offset, origin = np.array([-2.0, 0.5, 0.0]), np.array([1.0, -1.0, 7.0]), np.array([0.5, 5.0, 0.0])
    found = of(x).affine(scale, offset, origin)
    y = scale[:, None] * (x - origin[:, None]) + offset[:, None]
    np.testing.assert_allclose(found.centre[0], [-2 * (0.0 - 0.5) + 1, -1.0, 7.0])
    np.testing.assert_allclose(found.scale[0], [2.0, 0.125, 1.0])
    np.testing.assert_array_equal(found.counts[0], oracles.histogram(y, found.centre[0], found.scale[0]))


def test_density_integrates_to_one(rng):
    """Fails if the height is not divided by bin width, scale and total, or a second sheet is not weighed."""
    x = rng.normal(size=(40, 3, 35)) * SCALE[:, None] + CENTRE[:, None]
    both = of(x).merge(of(x[:9], scale=SCALE * 1.5))
    for channel in range(3):
        grid = np.linspace(-30, 30, 120_001)
        assert np.trapezoid(both.density(channel, grid), grid) == pytest.approx(1.0, abs=2e-3)
        peak = both.density(channel, CENTRE[channel : channel + 1] + 1e-9)[0]
        assert peak == pytest.approx(0.4 / SCALE[channel], rel=0.3)


def test_density_of_nothing_is_zero():
    """Fails if no counts give 0/0."""
    np.testing.assert_array_equal(Histogram.empty(CENTRE, SCALE).density(1, np.array([0.0, 5.0])), [0, 0])


def test_shapes_must_fit():
    """Fails if counts of another number of bins are accepted."""
    with pytest.raises(BnprobeError, match=r"counts \(S, C, 96\), got"):
        Histogram(CENTRE[None], SCALE[None], np.zeros((1, 3, 95)))


def test_the_density_ends_with_the_outermost_edges():
    """Fails if values beyond the edges, on either side, have a density, or the outermost bins have none: two of
    four values in each, which reach from 59 to 63."""
    counts = np.zeros((1, 1, N_BINS))
    counts[0, 0, [0, -1]] = 2
    width = Z_EDGES[-1] - Z_EDGES[-2]
    found = Histogram(np.array([[1.0]]), np.array([[2.0]]), counts).density(
        0, 1 + 2 * np.array([-100.0, -62.5, 0.0, 62.5, 63.0, 100.0])
    )
    inside = 2 / (4 * 2 * width)
    np.testing.assert_allclose(found, [0, inside, 0, inside, 0, 0])
