"""Folds: whole batches dealt one after another, merged as if all had come in one go."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from support import oracles
from support.oracles import assert_same_folds

from bnprobe.errors import BnprobeError
from bnprobe.stats import N_FOLDS, Folds

ORIGIN = np.array([0.5, 5.0, -2.0])
SIZES = (3, 1, 5, 2) * 12
"""Of 48 batches, so that some folds get three and others two."""


def batches(rng: np.random.Generator, sizes: tuple[int, ...] = SIZES) -> list[np.ndarray]:
    return [rng.gamma(0.7, size=(n, 3, 4)) * [[1], [10], [0.1]] + [[0], [5], [-2]] for n in sizes]


def of(parts: list[np.ndarray], origin: np.ndarray = ORIGIN) -> Folds:
    return Folds(**oracles.folds(parts, origin))


def test_any_split_of_the_batches_gives_the_whole(rng):
    """Fails if a part begins again with the first fold, or a fold is lost: parts of 1, 0, 22 and 25 batches."""
    x = batches(rng)
    nothing = of(x[:1])
    parts = [of(x[:1]), of(x[1:23]), of(x[23:])]
    assert_same_folds(reduce(Folds.merge, parts), oracles.folds(x, ORIGIN))
    assert_same_folds(parts[0].merge(parts[1].merge(parts[2])), oracles.folds(x, ORIGIN))
    assert nothing.n_batches == 1


def test_parts_of_one_batch_fill_many_folds(rng):
    """Fails if each part's only batch goes to the first fold: 23 machines with a batch each."""
    x = batches(rng)[:23]
    merged = reduce(Folds.merge, [of([one]) for one in x])
    assert len(merged.n) == N_FOLDS
    assert merged.n[:, 0].tolist() == [
        len(x[k]) + (len(x[k + N_FOLDS]) if k < 3 else 0) for k in range(N_FOLDS)
    ]


def test_another_origin_is_another_way_to_write_the_same(rng):
    """Fails on a wrong term of (d - t)^2, and if parts with origins of their own are added as they are."""
    x = batches(rng)
    other = ORIGIN + np.array([1.0, -3.0, 0.25])
    assert_same_folds(of(x).about(other), oracles.folds(x, other))
    assert_same_folds(of(x[:5]).merge(of(x[5:], other)), oracles.folds(x, ORIGIN))


def test_a_fold_of_one_image_moves_and_an_empty_one_does_not(rng):
    """Fails if one image is taken for none, or 0 times an origin that is not finite is written where nothing is."""
    x = batches(rng, (1, 2))
    assert_same_folds(of(x).about(ORIGIN + 1), oracles.folds(x, ORIGIN + 1))
    x[0][:, 1] = np.nan
    with np.errstate(invalid="ignore"):
        moved = of(x).about(np.array([0.5, np.inf, -2.0]))
    assert moved.n[:, 1].tolist() == [0, 2]
    assert moved.a[0, 1] == moved.b[0, 1] == 0


def test_a_channel_without_values_stays_empty(rng):
    """Fails if a channel that was NaN in a batch counts there, or an origin moves what is not there."""
    x = batches(rng, (2, 3))
    x[1][:, 1] = np.nan
    found = of(x).about(ORIGIN + 1)
    assert found.n.tolist() == [[2, 2, 2], [3, 0, 3]]
    assert found.a[1, 1] == found.b[1, 1] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"n": np.zeros((2, 3))},
        {"a": np.zeros((2, 4))},
        {"within": np.zeros(4)},
        {"n_batches": 1},
        {"origin": np.zeros((3, 1))},
    ],
)
def test_shapes_that_do_not_go_together_are_refused(rng, change):
    """Fails if a file may hold more folds than batches, or fields of two layers."""
    fields = oracles.folds(batches(rng, (2, 3, 1)), ORIGIN)
    with pytest.raises(BnprobeError, match="as many folds as batches"):
        Folds(**{**fields, **change})


@pytest.mark.parametrize("name", ["n", "b", "within"])
def test_what_no_images_can_have_is_not_sane(rng, name):
    """Fails if a negative count, a mean square below the squared mean, or a negative square is believed."""
    fields = oracles.folds(batches(rng, (2, 3, 1)), ORIGIN)
    Folds(**fields).check_sane()
    with pytest.raises(BnprobeError, match="here: these cannot be sums over images"):
        Folds(**{**fields, name: -fields[name]}).check_sane("here")


@pytest.mark.parametrize(("less", "sane"), [(0.9e-4, True), (1.1e-4, False)])
def test_a_mean_square_may_be_below_the_square_of_a_mean_by_rounding(less: float, sane: bool):
    """Fails if sums of a constant that were rounded in float32 are refused, or ones that no images have are not."""
    whole = of([np.full((3, 3, 4), 7.0)] * 12)
    rounded = replace(whole, b=whole.a**2 / whole.n / (1 + less))
    if sane:
        rounded.check_sane()
    else:
        with pytest.raises(BnprobeError, match="cannot be sums over images"):
            rounded.check_sane()


def test_what_is_left_without_each_fold(rng):
    """Fails if a mean is divided by another count, the wrong fold is left out, or mean and mean square change places."""
    x = batches(rng, (3, 1, 2))
    found = of(x).leave_out(lambda a, b: b - a * a)
    deviations = [rows - ORIGIN[:, None] for rows in x]
    pairs = [(rows.mean(2), (rows**2).mean(2)) for rows in deviations]

    def variance(parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        a, b = (np.concatenate(both).mean(0) for both in zip(*parts, strict=True))
        return b - a * a

    np.testing.assert_allclose(found.whole, variance(pairs), rtol=1e-9)
    rest = [variance(pairs[:k] + pairs[k + 1 :]) for k in range(3)]
    np.testing.assert_allclose(found.without, rest, rtol=1e-9)
    np.testing.assert_array_equal(found.n[:, 0], [3, 1, 2])


def test_a_number_of_all_channels_counts_images_with_a_value_in_any(rng):
    """Fails if a channel without values decides how many images a fold has."""
    x = batches(rng, (3, 2))
    x[0][:, 1] = np.nan
    found = of(x).leave_out(lambda a, b: np.nansum(a, axis=-1))
    assert np.shape(found.whole) == ()
    assert found.n.tolist() == [3, 2]


def test_a_fold_may_be_empty(rng):
    """Fails if a channel without values in some batch is refused as none that images have."""
    x = batches(rng, (3, 2))
    x[0][:, 1] = np.nan
    found = of(x)
    assert found.check_sane() is found
    assert found.n[0, 1] == 0


@pytest.mark.parametrize("count", [-1.0, 0.5])
def test_counts_are_whole_and_not_negative_even_of_nothing(rng, count: float):
    """Fails if half an image or less than none is believed because it adds nothing."""
    found = of(batches(rng, (3, 2)))
    empty = np.zeros_like(found.a)
    with pytest.raises(BnprobeError, match="cannot be sums"):
        replace(found, n=empty + count, a=empty, b=empty).check_sane()


def test_one_fold_that_no_images_have_is_enough_to_refuse(rng):
    """Fails if a mean square below the square of a mean is believed where other folds are in order."""
    found = of(batches(rng, (3, 2, 4)))
    b = found.b.copy()
    b[1, 2] = 0.9 * found.a[1, 2] ** 2 / found.n[1, 2]
    with pytest.raises(BnprobeError, match="cannot be sums"):
        replace(found, b=b).check_sane()
