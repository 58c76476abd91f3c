"""The share of black in training images, on equations made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnprobe.measures.padding import Equations, Padding, _error, _mixture, equations, padding
from bnprobe.recording.neighbours import Crop, Neighbours, Stem
from bnprobe.stats import Folds, ImageMoments, Moments
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
    assert found.possible == ()
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
    share = _mixture(one, towards)
    assert share == pytest.approx(slope[0], rel=1e-9)
    error = _error(one, towards, share, one.seen + share * towards)
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
    assert np.isnan(_mixture(black, np.zeros(9)))


def test_one_equation_has_no_degrees_of_freedom_left() -> None:
    """Fails if a single channel divides by nothing."""
    one = Equations(MATRIX[:1], np.zeros(1), MATRIX[:1] @ CLEAR, SIGMA[:1], np.zeros(1), ())
    towards = MATRIX[:1] @ BLACK - one.seen
    share = _mixture(one, towards)
    assert np.isfinite(share)
    assert _error(one, towards, share, one.seen + share * towards) == pytest.approx(0, abs=1e-12)


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
    share = _mixture(system(running), MATRIX @ BLACK - MATRIX @ CLEAR)
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


def images_of(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
    """Outputs (n, C, 1) of the first layer on so many images of a color of their own, of which so much is black."""
    colour = CLEAR + rng.normal(size=(n, 3)) * [0.5, 0.4, 0.6] + rng.normal(size=(n, 1))
    return (((1 - share) * colour + share * BLACK) @ MATRIX.T)[:, :, None]


def drawn_equations(rng: np.random.Generator, n: int, share: float) -> Equations:
    """Of a run of n images in batches of 10, and running means over 608 images of training."""
    seen, trained = images_of(rng, n, 0.0), images_of(rng, 608, share)
    record = site(
        seen[:2], running_mean=trained.mean((0, 2)), running_var=8 * trained.var((0, 2)), histograms=False
    )
    parts = seen.reshape(n // 10, 10, 9)
    folds = min(n // 10, 20)
    by_fold = [parts[k::20].reshape(-1, 9) for k in range(folds)]
    sums = [
        np.array([function(part) for part in by_fold])
        for function in (
            lambda part: np.full(9, len(part)),
            lambda part: part.sum(0),
            lambda part: (part**2).sum(0),
        )
    ]
    within = ((parts - parts.mean(1, keepdims=True)) ** 2).sum((0, 1))
    changes = {
        "pre": Moments.of(seen[:, :, 0]),
        "pre_images": ImageMoments.of(Moments.of(seen, axis=2), np.zeros(9)),
        "pre_folds": Folds(np.zeros(9), *(one.astype(float) for one in sums), within, n // 10),
        "neighbours": Neighbours("relu", stem=Stem(MATRIX, None)),
        "n_images": n,
        "n_calls": n // 10,
    }
    return equations(replace(record, **changes))


@pytest.mark.parametrize(("n", "share"), [(200, 0.0), (200, 0.13), (1000, 0.13)])
def test_the_error_of_a_share_is_that_of_its_spread(n: int, share: float) -> None:
    """Fails if the error is that of the residuals, which the choice of images leaves small, or forgets the running means'.

    200 runs of a model trained on images with so much black, or with none: then black is said to be there in some 2%.
    """
    rng = np.random.default_rng(n)
    found = [padding(drawn_equations(rng, n, share), BLACK) for _ in range(200)]
    known = [one for one in found if one is not None]
    assert len(known) >= 196
    spread = np.std([one.share for one in known])
    assert np.mean([one.share for one in known]) == pytest.approx(share, abs=4 * spread / math.sqrt(200))
    assert np.median([one.share_se for one in known]) == pytest.approx(spread, rel=0.25)
    seen = np.mean([one.is_seen for one in known])
    assert seen <= 0.05 if share == 0 else seen > 0.5


def test_without_folds_the_error_is_a_bound() -> None:
    """Fails if channels count as independent where nobody knows how they vary together."""
    with_folds = drawn_equations(np.random.default_rng(3), 200, 0.13)
    few = drawn_equations(np.random.default_rng(3), 90, 0.13)
    weights = RNG.normal(size=9)
    exact = with_folds.error_of(weights) / math.sqrt(1 + 200 / 608) * math.sqrt(200)
    bound = few.error_of(weights) / math.sqrt(1 + 90 / 608) * math.sqrt(90)
    assert exact < bound
    of_one = images_of(np.random.default_rng(5), 100_000, 0.0)[:, :, 0]
    assert bound == pytest.approx((abs(weights) * of_one.std(0)).sum(), rel=0.2)
    assert exact == pytest.approx((of_one @ weights).std(), rel=0.5)


@pytest.mark.parametrize(("at", "possible"), [(2.0, (2,)), (2.45, (2, 3)), (1.0, (1,))])
def test_paddings_that_are_as_likely_are_all_told(at: float, possible: tuple[int, ...]) -> None:
    """Fails if the best crop is believed where its neighbor is within two errors as well."""
    ways = [MATRIX @ CLEAR] + [MATRIX @ CLEAR + (c.matrix - MATRIX) @ (CLEAR - BLACK) for c in CROPS]
    low = int(at)
    running = ways[low] + (at - low) * (ways[min(low + 1, 3)] - ways[low])
    one = replace(system(running, CROPS), sigma=SIGMA * 1e3, error_of=lambda weights: 0.0)
    found = padding(one, BLACK)
    assert found is not None
    error = 0.0145 / (1 - found.share)
    found = padding(replace(one, error_of=lambda weights: error), BLACK)
    assert found is not None
    assert found.share == pytest.approx(at / 20)
    assert found.possible == possible
    assert found.pixels == (possible[0] if len(possible) == 1 else None)


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


@pytest.mark.parametrize(
    ("share", "error", "seen"),
    [
        (0.01, 0.0, True),
        (0.0099, 0.0, False),
        (0.2, 0.0727, True),  # 2.2 errors are 0.16, of the 0.8 that are left of the way 0.2
        (0.2, 0.0728, False),
        (0.95, 0.0431, True),  # the way that is left counts as a tenth at least
        (0.95, 0.0432, False),
    ],
)
def test_black_is_seen_beyond_what_chance_gives(share: float, error: float, seen: bool) -> None:
    """Fails if a hundredth is not enough, or an error counts other than relative to what is left of the way."""
    found = Padding(share, None, share, error, 0.0, 1.0, 1.0)
    assert found.is_seen is seen
