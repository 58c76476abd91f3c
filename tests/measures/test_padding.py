"""The share of black in training images, on equations made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnprobe.measures.padding import Equations, _mixture, equations, padding
from bnprobe.recording.neighbours import Crop, Neighbours, Stem
from measures.sites import memory_of, site, some_rows

RNG = np.random.default_rng(11)
MATRIX = RNG.normal(size=(9, 3))
SIGMA = RNG.uniform(0.5, 4, size=9)
CLEAR, BLACK = np.array([0.9, 0.3, -0.4]), np.array([-2.0, -1.8, -1.7])
NOISE = RNG.normal(size=9)


def system(running: np.ndarray, crops: tuple[Crop, ...] = (), bias: float = 0.7) -> Equations:
    """Equations of a norm that sees images of the mean colour CLEAR."""
    return Equations(MATRIX, running, MATRIX @ CLEAR, SIGMA, np.full(9, bias), crops)


def mixed(share: float, noise: float = 0.0) -> Equations:
    """Running means of images of which so much was black, off by so many σ."""
    colour = (1 - share) * CLEAR + share * BLACK
    return system(MATRIX @ colour + noise * SIGMA * NOISE)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35])
def test_the_share_of_black_is_found(share: float) -> None:
    """Fails if the mixture is measured from the wrong end, or channels count alike whatever their σ."""
    found = padding(mixed(share), BLACK)
    assert found is not None
    assert found.share == found.share_mixed == pytest.approx(share, abs=1e-12)
    assert found.pixels is None
    assert found.rmse == pytest.approx(0, abs=1e-12)
    assert found.share_se == pytest.approx(0, abs=1e-12)


def test_the_error_of_a_share_is_that_of_a_line_through_the_origin() -> None:
    """Fails if the residuals' degrees of freedom, or the weights, are others: against a fit by numpy."""
    one = mixed(0.2, noise=0.02)
    towards = MATRIX @ BLACK - one.seen
    x, y = towards / SIGMA, (one.running - one.seen) / SIGMA
    slope, *_ = np.linalg.lstsq(x[:, None], y, rcond=None)
    left = y - slope[0] * x
    share, error = _mixture(one, towards)
    assert share == pytest.approx(slope[0], rel=1e-9)
    assert error == pytest.approx(math.sqrt((left @ left) / 8 / (x @ x)), rel=1e-9)
    found = padding(one, BLACK)
    assert found is not None
    assert found.rmse == pytest.approx(math.sqrt((left**2).mean()), rel=1e-9)
    assert found.corr_clean == pytest.approx(np.corrcoef(one.running, one.seen)[0, 1], rel=1e-9)
    predicted = one.seen + share * towards
    assert found.corr_padded == pytest.approx(np.corrcoef(one.running, predicted)[0, 1], rel=1e-9)


def test_without_a_direction_there_is_no_share() -> None:
    """Fails if images that are black themselves tell a share of black."""
    black = Equations(MATRIX, MATRIX @ CLEAR, MATRIX @ BLACK, SIGMA, np.zeros(9), ())
    assert padding(black, BLACK) is None
    assert np.isnan(_mixture(black, np.zeros(9))).all()


def test_one_equation_has_no_degrees_of_freedom_left() -> None:
    """Fails if a single channel divides by nothing."""
    one = Equations(MATRIX[:1], np.zeros(1), MATRIX[:1] @ CLEAR, SIGMA[:1], np.zeros(1), ())
    share, error = _mixture(one, MATRIX[:1] @ BLACK - one.seen)
    assert np.isfinite(share)
    assert error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("noise", "told"), [(0.04, True), (0.07, False)])
def test_images_unlike_those_of_training_tell_nothing(noise: float, told: bool) -> None:
    """Fails if a residual of 0.05 σ is no limit any more."""
    one = mixed(0.2)
    # what no share of black explains: at right angles to the direction of black
    towards = (MATRIX @ BLACK - one.seen) / SIGMA
    across = NOISE - (NOISE @ towards) / (towards @ towards) * towards
    across *= noise / math.sqrt((across**2).mean())
    assert (padding(replace(one, running=one.running + across * SIGMA), BLACK) is not None) is told


@pytest.mark.parametrize(("share", "told"), [(-0.015, True), (-0.025, False)])
def test_less_black_than_none(share: float, told: bool) -> None:
    """Fails if a share of −2% by noise is refused, or training images brighter than the run's are called padded."""
    assert (padding(mixed(share), BLACK) is not None) is told


CROPS = tuple(Crop(p, p / 20, MATRIX * RNG.uniform(0.6, 0.95, size=MATRIX.shape)) for p in (1, 2, 3))


@pytest.mark.parametrize("i", [0, 1, 2])
def test_a_crop_that_fits_is_told(i: int) -> None:
    """Fails if another padding is taken, or the mixture's share is given for the crop's."""
    running = MATRIX @ CLEAR + (CROPS[i].matrix - MATRIX) @ (CLEAR - BLACK)
    share, _ = _mixture(system(running), MATRIX @ BLACK - MATRIX @ CLEAR)
    best = system(running, CROPS)
    weights = replace(best, sigma=SIGMA * 1e3)  # σ so large that the mixture is believed at all
    found = padding(weights, BLACK)
    assert found is not None
    assert (found.pixels, found.share) == (i + 1, (i + 1) / 20)
    assert found.rmse == pytest.approx(0, abs=1e-9)
    assert found.share_mixed != found.share
    assert np.isfinite(share)


@pytest.mark.parametrize(("part", "pixels"), [(0.68, 2), (0.65, None)])
def test_a_crop_must_leave_less_than_half_of_what_the_mixture_does(part: float, pixels: int | None) -> None:
    """Fails if a crop that explains a little more is believed, or one that explains most is not."""
    clean = MATRIX @ CLEAR
    towards = MATRIX @ BLACK - clean
    crop = (CROPS[1].matrix - MATRIX) @ (CLEAR - BLACK)
    # so much of what the crop does beyond any mixture
    x = towards / SIGMA
    beyond = crop / SIGMA - (crop / SIGMA @ x) / (x @ x) * x
    running = clean + crop - (1 - part) * beyond * SIGMA
    found = padding(replace(system(running, CROPS[1:2]), sigma=SIGMA * 1e3), BLACK)
    assert found is not None
    # the crop leaves 1 - part of it and the mixture `part`: half as much from two thirds on
    assert found.pixels == pixels


def stem_norm(**changes: object) -> Equations:
    rows = some_rows(20)
    bias = np.array([0.5, -1.0, 2.0])
    stem = Stem(np.arange(6.0).reshape(3, 2), bias, (Crop(1, 0.1, np.ones((3, 2))),))
    fields = {**memory_of(rows), "eps": 0.25, "neighbours": Neighbours("relu", stem=stem)}
    return equations(site(rows, **{**fields, **changes}))


def test_equations_are_those_of_a_first_norm() -> None:
    """Fails if the bias is not taken out of both sides, or eps is not in the norm's own σ."""
    rows = some_rows(20)
    found = stem_norm()
    bias = np.array([0.5, -1.0, 2.0])
    np.testing.assert_allclose(found.running, rows.mean((0, 2)) - bias, rtol=1e-12)
    np.testing.assert_allclose(found.seen, rows.mean((0, 2)) - bias, rtol=1e-12)
    np.testing.assert_allclose(found.sigma, np.sqrt(rows.var((0, 2)) + 0.25), rtol=1e-12)
    np.testing.assert_array_equal(found.bias, bias)
    bare = stem_norm(neighbours=Neighbours("relu", stem=Stem(np.ones((3, 2)), None)))
    np.testing.assert_allclose(bare.running, rows.mean((0, 2)), rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_channels_that_are_not_finite_are_no_equations(bad: float) -> None:
    """Fails if one poisoned channel spoils all equations, or crops keep rows that the matrix has lost."""
    for name in ("running_mean", "running_var"):
        found = stem_norm(**{name: [1.0, bad, 1.0]})
        np.testing.assert_array_equal(found.matrix, [[0, 1], [4, 5]])
        np.testing.assert_array_equal(found.bias, [0.5, 2.0])
        assert found.crops[0].matrix.shape == (2, 2)
        assert (found.crops[0].padding, found.crops[0].share) == (1, 0.1)
    assert len(stem_norm(running_var=[1.0, -0.25, 1.0]).sigma) == 2
    assert len(stem_norm(running_var=[1.0, -0.3, 1.0]).sigma) == 2
