"""Distance to a Gaussian from the histogram, against the exact values in float64 from the raw values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bnprobe.measures import gaussian
from bnprobe.stats import Histogram
from bnprobe.stats.histogram import N_BINS, bin_index
from measures.sites import site, some_rows

N = 100_000
SHAPES = {
    "gaussian": lambda rng: rng.normal(size=N),
    "laplacian": lambda rng: rng.laplace(size=N) / math.sqrt(2),
    "uniform": lambda rng: rng.uniform(-math.sqrt(3), math.sqrt(3), size=N),
    "gamma": lambda rng: (rng.gamma(2.0, size=N) - 2) / math.sqrt(2),
    "two humps": lambda rng: (rng.normal(size=N) * 0.5 + rng.choice([-1, 1], N)) / math.sqrt(1.25),
}


def exact(x: np.ndarray) -> tuple[float, float, float]:
    """From the values themselves: sorted against quantiles, both one-sided gaps of each value."""
    t = np.sort((x - x.mean()) / x.std())
    n = len(t)
    below = stats.norm.cdf(t)
    ks = max(np.max(np.arange(1, n + 1) / n - below), np.max(below - np.arange(n) / n))
    w1 = np.mean(np.abs(t - stats.norm.ppf((np.arange(n) + 0.5) / n)))
    return math.sqrt(math.pi / 2) * float(np.mean(np.abs(t))), float(ks), float(w1)


def histogram(x: np.ndarray, centre: float, scale: float) -> Histogram:
    counts = np.bincount(bin_index((x - centre) / scale), minlength=N_BINS).astype(float)
    return Histogram(np.array([[centre]]), np.array([[scale]]), counts[None, None])


def read(*parts: Histogram, values: np.ndarray) -> list[float]:
    """The three numbers of one channel whose histogram is given."""
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    record = site(np.array([[[values.min(), values.max()]]]), pre_histogram=total, histograms=False)
    return [float(v[0]) for v in gaussian.channel_columns(record).values()]


@pytest.mark.parametrize(
    ("centre", "scale", "errors"),
    [
        (
            0.0,
            1.0,
            (0.003, 0.02, 0.01),
        ),  # as the running statistics say: bins of an eighth of a standard deviation
        (0.05, 0.4, (0.003, 0.02, 0.01)),  # the data vary more than the running variance says
        (1.0, 1.0, (0.008, 0.02, 0.02)),
        (2.5, 1.5, (0.02, 0.02, 0.06)),  # far off: bins of up to half a standard deviation
    ],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_the_histogram_tells_is_right_within_the_stated_error(shape, centre, scale, errors):
    """Fails if a formula, a constant, or an edge is wrong; the errors are those that the module states."""
    x = SHAPES[shape](np.random.default_rng(1))
    for found, expected, error in zip(
        read(histogram(x, centre, scale), values=x), exact(x), errors, strict=True
    ):
        assert found == pytest.approx(expected, abs=error)


def test_known_ratios():
    """Fails if the L1 ratio is inverted or of squares: 1, sqrt(pi)/2 and sqrt(3 pi / 8) by hand."""
    rng = np.random.default_rng(2)
    for shape, expected in (("gaussian", 1), ("laplacian", math.sqrt(math.pi) / 2), ("uniform", 1.0854)):
        x = SHAPES[shape](rng)
        assert read(histogram(x, 0, 1), values=x)[0] == pytest.approx(expected, abs=0.008)


def test_a_gaussian_is_one_on_coarse_bins_too():
    """Fails if the width of the bins is taken for width of the distribution: bins of 0.44 standard deviations.

    Without its corrections the L1 ratio would read 1.02, and the distance 0.013.
    """
    x = SHAPES["gaussian"](np.random.default_rng(8))
    l1, ks, w1 = read(histogram(x, 0, 3.5), values=x)
    assert l1 == pytest.approx(1, abs=0.003)
    assert ks < 0.004
    assert w1 < 0.005


def test_place_and_scale_do_not_matter():
    """Fails if the histogram's own unit shows: the same values on the same bins, elsewhere and turned around."""
    x = SHAPES["gamma"](np.random.default_rng(3))
    plain = read(histogram(x, 0, 1), values=x)
    moved = read(histogram(-7 * x + 100, 100, 7), values=-7 * x + 100)
    np.testing.assert_allclose(moved, plain, rtol=2e-3)


def test_two_sheets_are_one_distribution():
    """Fails if a merged recording, counted against two references, reads as the mean of two distributions.

    Halves three standard deviations apart: each Gaussian, together not at all.
    """
    rng = np.random.default_rng(4)
    left, right = rng.normal(size=N) - 1.5, rng.normal(size=N) + 1.5
    both = np.concatenate([left, right])
    found = read(histogram(left, -1.4, 1.1), histogram(right, 1.6, 0.9), values=both)
    np.testing.assert_allclose(found, exact(both), atol=0.01)


def test_bins_that_are_too_coarse_tell_nothing():
    """Fails if data within one or two bins read as uniform."""
    x = SHAPES["gaussian"](np.random.default_rng(5))
    assert np.isnan(read(histogram(x, 0, 8), values=x)).all()
    assert np.isnan(read(histogram(x, 30, 1), values=x)).all()


def test_values_beyond_the_edges_tell_nothing():
    """Fails if the open bins are taken for closed ones: one value at 100 standard deviations makes the tail."""
    x = np.append(SHAPES["gaussian"](np.random.default_rng(6)), 100.0)
    assert np.isnan(read(histogram(x, 0, 1), values=x)).all()


@pytest.mark.parametrize(
    "record",
    [
        site(some_rows(), histograms=False),
        site(some_rows() * 0 + 2, running_mean=2, running_var=1),
        site(some_rows() * np.nan),
    ],
    ids=["no histogram", "constant", "nothing seen"],
)
def test_where_there_is_no_shape(record):
    """Fails if 0 / 0 reads as a Gaussian, or warns."""
    for name, values in gaussian.channel_columns(record).items():
        assert np.isnan(values).all(), name
    assert all(math.isnan(value) for value in gaussian.layer_columns(record).values())


def test_the_summary_is_the_median():
    """Fails if a median is of another column."""
    rng = np.random.default_rng(7)
    rows = np.stack([np.reshape(draw(rng), (40, -1))[:, :250] for draw in list(SHAPES.values())[:3]], axis=1)
    record = site(rows, running_mean=0, running_var=1)
    columns, found = gaussian.channel_columns(record), gaussian.layer_columns(record)
    assert set(found) == {f"{name}_median" for name in columns}
    for name, values in columns.items():
        assert found[f"{name}_median"] == np.median(values)


@pytest.mark.parametrize(("width", "known"), [(0.49, True), (0.51, False)])
def test_bins_wider_than_half_a_deviation_tell_nothing(width, known):
    """Fails if the limit is of the bins' own spread (w/√12), or moves by a twenty-fifth.

    Values in every third bin of width 1 around 0: the deviation is the root of the middles' variance less 1/12.
    """
    x = np.arange(-10.5, 11)[None]
    outer = np.abs(x[:, 1:] + x[:, :-1]) / 2 == 3
    # 9 · 2p of variance in the middles at ±3 and the rest at 0: choose p for a deviation of 1/width
    p = (1 / width**2 + 1 / 12) / 18
    share = np.where(outer, p, np.where(np.abs(x[:, 1:] + x[:, :-1]) / 2 == 0, 1 - 2 * p, 0.0))
    below = np.concatenate([[[0.0]], np.cumsum(share, axis=1)], axis=1)
    assert np.isfinite(gaussian._distances(x, below)).all() == known
