"""ImageMoments: images are counted, not pixels; and squares about any point follow exactly."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import oracles
from support.oracles import assert_same_images

from bnprobe.errors import BnprobeError
from bnprobe.stats import ImageMoments, Moments

ORIGIN = np.array([0.5, 5.0, -2.0])


def images(rng: np.random.Generator, n: int) -> np.ndarray:
    """n images of 3 channels and 35 positions, each image at a place and scale of its own."""
    own = rng.gamma(2.0, size=(n, 1, 1))
    return (rng.gamma(0.7, size=(n, 3, 35)) * own + rng.normal(size=(n, 3, 1))) * [[1], [10], [0.1]] + [
        [0],
        [5],
        [-2],
    ]


def of(x: np.ndarray, origin: np.ndarray = ORIGIN) -> ImageMoments:
    return ImageMoments.of(Moments.of(x, axis=2), origin)


def fields_of(moments: ImageMoments) -> dict[str, np.ndarray]:
    return dict(vars(moments))


def test_of_agrees_with_loops_over_images(rng):
    """Fails if n counts pixels, if squares are about the image's own mean, or if ab mixes up its sides."""
    x = images(rng, 11)
    assert_same_images(of(x), oracles.images([x], ORIGIN))
    assert of(x).n.tolist() == [11, 11, 11]


def test_of_gives_an_image_one_vote_whatever_its_size():
    """Fails if images are weighed by their number of finite values, or empty ones counted."""
    x = np.full((3, 1, 4), np.nan)
    x[0, 0], x[1, 0, 0] = [1, 2, 3, 6], 9.0
    found = of(x, np.zeros(1))
    assert_same_images(found, oracles.images([x], np.zeros(1)))
    assert (found.n[0], found.a[0]) == (2, 6.0)


def test_of_values_is_of_for_images_of_one_value(rng):
    """Fails on a wrong term of b = (d + e)^2: the third and the fourth moment must take part."""
    x = images(rng, 11)[:, :, :1]
    found = ImageMoments.of_values(Moments.of(x[:, :, 0]), ORIGIN)
    assert_same_images(found, oracles.images([x], ORIGIN))


@pytest.mark.parametrize("n_images", [0, 1])
def test_of_values_of_nothing_or_one(n_images):
    """Fails if nothing is 0/0, or one image has a spread."""
    x = np.full((n_images, 3, 1), 4.0)
    found = ImageMoments.of_values(Moments.of(x[:, :, 0]), ORIGIN)
    assert_same_images(found, oracles.images([x], ORIGIN))
    assert np.isnan(found.var_between).all()


def test_about_moves_the_point_of_the_squares(rng):
    """Fails on a wrong sign or factor in b - 2 t a + t^2, or in what it does to bb and ab."""
    x, there = images(rng, 11), np.array([-1.0, 30.0, 0.25])
    assert_same_images(of(x).about(there), oracles.images([x], there))
    assert_same_images(of(x).about(there).about(ORIGIN), fields_of(of(x)))


def test_merge_weighs_by_images(rng):
    """Fails if means are averaged, or if a cross term is missing: parts of 1, 0, 2 and 8 images."""
    x = images(rng, 11)
    parts = [of(part) for part in np.split(x, [1, 1, 3])]
    assert_same_images(reduce(ImageMoments.merge, parts), oracles.images([x], ORIGIN))


def test_merge_brings_both_to_one_origin(rng):
    """Fails if parts that met different first batches are added as they are."""
    x = images(rng, 11)
    one, other = of(x[:4]), of(x[4:], ORIGIN + np.array([3, -20, 0.1]))
    merged = one.merge(other)
    np.testing.assert_array_equal(merged.origin, ORIGIN)
    assert_same_images(merged, oracles.images([x], ORIGIN))
    assert_same_images(other.merge(one).about(ORIGIN), fields_of(merged))


def test_empty_is_the_identity(rng):
    """Fails if merging two empty ones is 0/0, or if an empty part pulls the means."""
    nothing, some = ImageMoments.empty(ORIGIN), of(images(rng, 5))
    for merged in (some.merge(nothing), nothing.merge(some)):
        assert_same_images(merged, fields_of(some), rtol=1e-14)
    assert_same_images(nothing.merge(nothing), fields_of(nothing))


@given(st.permutations(range(6)), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_order_and_split_do_not_matter(order, cut, seed):
    """Fails if merging does not commute and associate, for any order of six images."""
    x = images(np.random.default_rng(seed), 6)
    shuffled = x[list(order)]
    merged = of(shuffled[cut:]).merge(of(shuffled[:cut]))
    assert_same_images(merged, oracles.images([x], ORIGIN))


def test_variances_divide_by_one_less(rng):
    """Fails if the divisor is n, or the number of pixels: 3 images show it."""
    x, point = images(rng, 3), np.array([1.0, 2.0, 3.0])
    means = x.mean(axis=2)
    np.testing.assert_allclose(of(x).var_between, means.var(axis=0, ddof=1), rtol=1e-10)
    squares = ((x - point[:, None]) ** 2).mean(axis=2)
    np.testing.assert_allclose(of(x).var_of_square_about(point), squares.var(axis=0, ddof=1), rtol=1e-9)
    assert np.isnan(of(x[:1]).var_of_square_about(point)).all()


def test_pixels_of_one_image_are_not_independent(rng):
    """Fails if the error of a mean is taken from pixels: images of one constant each have no spread inside.

    Four images of 35 equal pixels: the variance of the mean is that of four values, not of 140.
    """
    level = rng.normal(size=(4, 1, 1))
    found = of(np.broadcast_to(level, (4, 1, 35)), np.zeros(1))
    assert found.var_between[0] == pytest.approx(level.var(ddof=1))
    assert found.n[0] == 4


def test_fields_must_have_one_shape():
    """Fails if a field of another shape is left to broadcast."""
    zeros = np.zeros(3)
    with pytest.raises(BnprobeError, match="one shape for every field"):
        ImageMoments(zeros, zeros, zeros, zeros, zeros, zeros, np.zeros(1))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_images_about_another_point(rng, n: int):
    """Fails if a single image stays where it was, or no image at all moves away from zero."""
    x, point = images(rng, n), ORIGIN + np.array([1.0, -3.0, 0.25])
    assert_same_images(of(x).about(point), oracles.images([x], point))


def test_of_one_image_at_most_nothing_varies_and_the_others_stay():
    """Fails if a channel that has no more images than asked for loses its squares, or a cap of one divides by zero."""
    images = ImageMoments(
        *(
            np.array(v)
            for v in ([0.0] * 3, [1.0, 4, 1], [1.0, 2, 3], [1.0, 5, 9], [0.0, 6, 0], [0.0, 9, 0], [0.0, 3, 0])
        )
    )
    one = images.at_most(1)
    assert one.n.tolist() == [1, 1, 1]
    assert one.aa.tolist() == [0, 0, 0]
    assert images.at_most(4) is images
    two = images.at_most(2)
    assert two.n.tolist() == [1, 2, 1]
    assert (two.aa.tolist(), two.bb.tolist(), two.ab.tolist()) == ([0, 2, 0], [0, 3, 0], [0, 1, 0])
    assert two.a.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(two.var_between, [np.nan, 2, np.nan])
    np.testing.assert_array_equal(two.var_of_square_about(np.zeros(3)), [np.nan, 3, np.nan])
