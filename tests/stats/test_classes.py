"""ClassMoments: merging by label, the exact split of the spread between images, and what chance gives."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bnprobe.errors import BnprobeError
from bnprobe.stats import ClassMoments, Moments


def images(rng: np.random.Generator, n: int) -> np.ndarray:
    """n images of 3 channels, far from zero and at three scales, 5 positions each."""
    own = rng.gamma(0.7, size=(n, 3, 1)) * [[1], [10], [0.1]] + [[0], [1e6], [-2]]
    return own + rng.normal(size=(n, 3, 5)) * [[1], [10], [0.1]]


def of(x: np.ndarray, labels: np.ndarray) -> ClassMoments:
    return ClassMoments.of(Moments.of(x, axis=2), np.asarray(labels, dtype=np.float64))


def by_hand(x: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Loops over classes; labels below 0 stand for none."""
    means = x.mean(axis=2)
    known = sorted({int(v) for v in labels if v >= 0})
    groups = [means[np.asarray(labels) == k] for k in known]
    grand = np.concatenate(groups).mean(0)
    return {
        "labels": np.array(known, dtype=float),
        "n": np.array([len(g) for g in groups], dtype=float),
        "mean": np.array([g.mean(0) for g in groups]),
        "within": sum(((g - g.mean(0)) ** 2).sum(0) for g in groups),
        "between": sum(len(g) * (g.mean(0) - grand) ** 2 for g in groups),
    }


def assert_same(found: ClassMoments, expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        # 1e6 from zero a mean has 1e-10 of rounding
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-7, atol=1e-8, err_msg=name)


LABELS = np.array([4, 0, 7, 4, -1, 0, 4, 7, 0, -1, 4])


def test_of_agrees_with_loops_over_classes(rng):
    """Fails if unlabelled images make a class, images are weighed by pixels, or classes by one vote each."""
    x = images(rng, 11)
    found = of(x, LABELS)
    assert_same(found, by_hand(x, LABELS))
    assert (found.labels.tolist(), found.n.tolist(), found.n_images) == ([0, 4, 7], [3, 4, 2], 9)


def test_between_and_within_are_all_of_the_spread(rng):
    """Fails if a cross term is left: the two add up to the sum of squares of image means."""
    x = images(rng, 11)
    found, means = of(x, LABELS), x.mean(2)[LABELS >= 0]
    np.testing.assert_allclose(found.between + found.within, ((means - means.mean(0)) ** 2).sum(0), rtol=1e-7)


def test_any_split_and_any_order_is_the_whole(rng):
    """Fails if a class of one part only is lost, means are averaged without their counts, or the cross term is."""
    x = images(rng, 11)
    parts = [of(x[i:j], LABELS[i:j]) for i, j in ((0, 1), (1, 1), (1, 4), (4, 11))]
    for order in permutations(parts):
        assert_same(reduce(ClassMoments.merge, order, ClassMoments.empty(3)), by_hand(x, LABELS))


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=12), st.integers(0, 12), st.integers(0, 9))
def test_merging_obeys_its_laws(labels, cut, seed):
    """Fails if empty is not the identity, or the order matters, for labels of any kind, none at all included."""
    x = np.random.default_rng(seed).normal(size=(len(labels), 3, 2))
    whole, cut = of(x, labels), min(cut, len(labels))
    first, second = of(x[:cut], labels[:cut]), of(x[cut:], labels[cut:])
    for merged in (first.merge(second), second.merge(first), whole.merge(ClassMoments.empty(3))):
        for name in ("labels", "n", "mean", "within", "between"):
            np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), atol=1e-12)
        merged.check_sane()


def test_an_image_without_a_finite_value_in_some_channel_is_left_out(rng):
    """Fails if its mean of 0 joins the class."""
    x = images(rng, 6)
    x[2, 1] = np.nan
    labels = np.array([0, 1, 0, 1, 0, 1])
    used = np.delete(np.arange(6), 2)
    assert_same(of(x, labels), by_hand(x[used], labels[used]))


def test_labels_dealt_at_random_give_what_chance_gives_and_nothing_more():
    """Fails if the correction has a wrong count of degrees: 300 deals of 40 images to 5 unequal classes.

    The raw share has the mean (K - 1)/(N - 1) = .1026 over all deals, exactly; the corrected one 0. Both
    standard errors are below .002.
    """
    rng = np.random.default_rng(3)
    x = rng.gamma(0.7, size=(40, 20, 1))
    labels = np.repeat(np.arange(5), [3, 5, 12, 12, 8])
    deals = [of(x, rng.permutation(labels)) for _ in range(300)]
    raw, corrected = (np.mean([getattr(d, name) for d in deals]) for name in ("share_raw", "share"))
    assert raw == pytest.approx(4 / 39, abs=0.006)
    assert corrected == pytest.approx(0, abs=0.006)


def test_classes_that_explain_everything_or_nothing():
    """Fails if the corrected share cannot reach 1, or is clipped at 0."""
    apart = of(np.repeat([[[1.0]], [[2.0]], [[5.0]]], 4, axis=0), np.repeat([0, 1, 2], 4))
    assert (apart.share_raw[0], apart.share[0]) == (1.0, 1.0)
    alike = of(np.tile([[[1.0]], [[2.0]], [[5.0]]], (4, 1, 1)), np.repeat([0, 1, 2, 3], 3))
    assert alike.share_raw[0] == pytest.approx(0, abs=1e-12)
    assert alike.share[0] == pytest.approx(-3 / 8)


def test_the_share_of_a_planted_class_effect():
    """Fails if the share is biased by few images per class: half of the spread between images is the class's."""
    rng = np.random.default_rng(8)
    labels = np.repeat(np.arange(50), 3)
    x = rng.normal(size=(50, 400))[labels][..., None] + rng.normal(size=(150, 400, 1))
    found = of(x, labels)
    assert found.share.mean() == pytest.approx(0.5, abs=0.02)
    assert found.share_raw.mean() > 0.62  # what the correction is for


@pytest.mark.parametrize(
    "labels", [[2, 2, 2], [0, 1, 2], [-1, -1, -1]], ids=["one class", "one each", "none"]
)
def test_where_nothing_can_be_told(rng, labels):
    """Fails if one class, one image per class, or no label at all gives a number."""
    assert np.isnan(of(images(rng, 3), np.array(labels)).share).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.array([1.0, 1.0])}, "each once"),
        ({"labels": np.array([2.0, 1.0])}, "rising order"),
        ({"labels": np.array([0.5, 1.0])}, "whole numbers"),
        ({"n": np.ones(3)}, r"of shape \(K,\)"),
        ({"mean": np.zeros((2, 4))}, r"mean \(K, C\)"),
    ],
)
def test_shapes_and_labels_are_checked(change, says):
    """Fails if a file with a label twice is believed."""
    fields = {"labels": np.arange(2.0), "n": np.ones(2), "mean": np.zeros((2, 3)), "within": np.zeros(3)}
    with pytest.raises(BnprobeError, match=says):
        ClassMoments(**{**fields, **change})


@pytest.mark.parametrize(
    "change", [{"n": np.array([0.0, 1])}, {"within": -np.ones(3)}, {"n": np.full(2, 1.5)}]
)
def test_statistics_that_no_images_have_are_refused(change):
    """Fails if an edited file passes: no images in a class, or a negative sum of squares."""
    fields = {"labels": np.arange(2.0), "n": np.ones(2), "mean": np.zeros((2, 3)), "within": np.zeros(3)}
    with pytest.raises(BnprobeError, match="no images have such"):
        ClassMoments(**{**fields, **change}).check_sane("here")


def test_the_interval_is_that_of_the_ratio_of_mean_squares(rng):
    """Fails if degrees or quantiles are exchanged: against scipy's F test of one channel, by hand."""
    from scipy import stats

    values, labels = images(rng, 12), np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2])
    found = of(values, labels)
    for c in range(values.shape[1]):
        means = values[:, c].mean(-1)
        f = stats.f_oneway(*(means[labels == k] for k in range(3))).statistic
        for end, level in zip(found.interval, (0.975, 0.025), strict=True):
            other = f / stats.f.ppf(level, 2, 9)
            assert end[c] == pytest.approx(2 * (other - 1) / (2 * other + 9), rel=1e-9)


def test_the_interval_covers_the_share_of_classes_drawn_from_many():
    """Fails if it covers much less than 95%, or is so wide that it says nothing: a share of a half, 12 classes of 10."""
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(12), 10)
    values = rng.normal(size=(12, 2000, 1))[labels] + rng.normal(size=(120, 2000, 1))
    low, high = of(values, labels).interval
    truth = (11 / 12) / (11 / 12 + 1)  # of 12 classes, the divisor of whose variance is 12
    assert ((low <= truth) & (truth <= high)).mean() == pytest.approx(0.95, abs=0.02)
    assert np.median(high - low) < 0.5


@pytest.mark.parametrize("n", [1, 2])
def test_images_of_one_class_have_nothing_between(rng, n: int):
    """Fails if a class lies apart from the mean of all, which is its own."""
    np.testing.assert_allclose(of(images(rng, n), np.full(n, 5)).between, 0.0, atol=1e-12)


def test_the_share_of_two_classes():
    """Fails if two classes are taken for too few: images at 0 and 2, and at 10 and 12."""
    found = of(np.array([0.0, 2.0, 10.0, 12.0])[:, None, None], np.array([0, 0, 1, 1]))
    # between 4 * 5^2 = 100, within 4 * 1^2 = 4 on 2 degrees of freedom: (100 - 4/2) / 104
    np.testing.assert_allclose(found.share, [98 / 104], rtol=1e-12)


def three_in_two_classes() -> ClassMoments:
    """Images with the means 1 and 2 of one class, and 6 of the other."""
    return of(np.array([1.0, 2.0, 6.0])[:, None, None], np.array([0, 0, 1]))


def test_a_single_degree_of_freedom_is_enough():
    """Fails if three images of two classes have no share or no interval: by hand, between 121/6, within 1/2."""
    found = three_in_two_classes()
    between, within = 2 * (1.5 - 3) ** 2 + (6 - 3) ** 2, 0.5
    np.testing.assert_allclose(found.share, (between - within) / (between + within))
    for end, level in zip(found.interval, (0.975, 0.025), strict=True):
        less = between / stats.f.ppf(level, 1, 1)
        np.testing.assert_allclose(end, (less - within) / (less + within))


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 0, 0]])
def test_without_a_degree_of_freedom_nothing_is_told(labels: list[int]):
    """Fails if one image in each class, or a single class, has a share or an interval."""
    found = of(np.array([1.0, 2.0, 6.0])[:, None, None], np.array(labels))
    assert np.isnan([found.share, *found.interval]).all()


def test_one_channel_that_no_images_have_is_enough_to_refuse(rng):
    """Fails if a negative sum of squares is believed where another channel's is none."""
    found = of(images(rng, 11), LABELS)
    with pytest.raises(BnprobeError, match="no images have"):
        replace(found, within=found.within * np.array([1, -1, 1])).check_sane()
    with pytest.raises(BnprobeError, match="no images have"):
        replace(found, n=found.n + 0.5).check_sane()


def test_no_class_at_all_has_nothing_between():
    """Fails if the mean of no image warns, or lies apart from something."""
    nothing = ClassMoments.empty(2)
    assert nothing.between.tolist() == [0, 0]
    assert np.isnan(nothing.share_raw).all()
