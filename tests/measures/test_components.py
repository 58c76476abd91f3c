"""Between classes, between images, inside an image: the shares against loops, and their laws."""

from __future__ import annotations

import numpy as np
import pytest

from bnprobe.measures import components
from bnprobe.measures.shape import median
from bnprobe.stats import ClassMoments, Moments
from measures.sites import running_stats_of, site, some_rows

NAMES = ("share_class", "share_image", "share_within")
LABELS = np.array([0, 2, 0, 1, 2, 1, 1])


def classes(rows: np.ndarray, labels: np.ndarray = LABELS) -> ClassMoments:
    return ClassMoments.of(Moments.of(rows, axis=2), labels.astype(float))


def shares(
    rows: np.ndarray, labels: np.ndarray | None = LABELS, **statistics: object
) -> dict[str, np.ndarray]:
    by_class = None if labels is None else classes(rows, labels)
    return components.channel_columns(site(rows, classes=by_class, **statistics))


def by_hand(values: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """One channel, (N, P): variances by loops over images and classes; the class's without what chance gives."""
    means = [float(np.mean(image)) for image in values]
    inside = float(np.mean([np.var(image) for image in values]))
    grand = float(np.mean(means))
    known = sorted(set(labels.tolist()))
    groups = [[m for m, label in zip(means, labels, strict=True) if label == k] for k in known]
    between = sum(len(g) * (np.mean(g) - grand) ** 2 for g in groups)
    within = sum(sum((m - np.mean(g)) ** 2 for m in g) for g in groups)
    of_class = (between - (len(known) - 1) * within / (len(means) - len(known))) / (len(means) - 1)
    total = inside + np.var(means, ddof=1)
    return of_class / total, (np.var(means, ddof=1) - of_class) / total, inside / total


def test_shares_agree_with_loops():
    """Fails if any of the three is of another quantity, or the parts are weighed otherwise."""
    rows = some_rows(7)
    found = shares(rows)
    for c in range(3):
        expected = by_hand(rows[:, c], LABELS)
        assert [found[name][c] for name in NAMES] == pytest.approx(expected, rel=1e-9)


def test_shares_add_up_to_one_with_labels_and_without():
    """Fails if a part is missing: far from the running mean (1e4 standard deviations) too."""
    rows = some_rows(7)
    for far in (0.0, 1e4):
        for labels in (LABELS, None):
            statistics = {"running_mean": -far, "running_var": 1}
            found = shares(rows, labels, **statistics)
            total = np.nansum([found[name] for name in NAMES], axis=0)
            np.testing.assert_allclose(total, 1, atol=1e-5)
            inside = rows.var(2).mean(0)
            expected = inside / (inside + rows.mean(2).var(0, ddof=1))
            np.testing.assert_allclose(found["share_within"], expected, rtol=1e-5)


def test_without_labels_everything_between_images_is_theirs():
    """Fails if missing labels read as no class effect."""
    rows = some_rows(7)
    found = shares(rows, None)
    assert np.isnan(found["share_class"]).all()
    between = rows.mean(2).var(0, ddof=1)
    np.testing.assert_allclose(found["share_image"], between / (between + rows.var(2).mean(0)), rtol=1e-9)
    summary = components.layer_columns(site(rows))
    assert (summary["n_classes"], summary["n_labeled"]) == (0, 0)


def test_some_labels_stand_for_all():
    """Fails if the share of the labelled is taken of the spread of all images, not of their own."""
    rows = some_rows(7)
    some = np.where(np.arange(7) < 5, LABELS, -1)
    found = shares(rows, some)
    explained = classes(rows[:5], LABELS[:5]).share
    between = rows.mean(2).var(0, ddof=1)
    between /= between + rows.var(2).mean(0)
    np.testing.assert_allclose(found["share_class"], explained * between, rtol=1e-9)
    np.testing.assert_allclose(sum(found[name] for name in NAMES), 1, rtol=1e-12)


def test_one_value_per_image_leaves_nothing_inside():
    """Fails if inputs of shape (N, C) have a variance inside an image."""
    found = shares(some_rows(7, n_positions=1))
    np.testing.assert_allclose(found["share_within"], 0, atol=1e-9)


def test_images_that_are_alike_differ_only_inside():
    """Fails if 0 of 0 between classes is NaN, or an image share below 0."""
    rows = np.tile(some_rows(1), (7, 1, 1))
    found = shares(rows)
    np.testing.assert_allclose([found[n] for n in NAMES], [[0] * 3, [0] * 3, [1] * 3], atol=1e-9)


def test_images_of_unequal_size_count_alike():
    """Fails if an image with many finite values outvotes a small one: then the shares would not add up."""
    rows = some_rows(7)
    rows[:3, :, 4:] = np.nan
    found = shares(rows)
    inside = np.array([[np.nanvar(image) for image in rows[:, c]] for c in range(3)]).mean(1)
    means = np.array([[np.nanmean(image) for image in rows[:, c]] for c in range(3)])
    np.testing.assert_allclose(found["share_within"], inside / (inside + means.var(1, ddof=1)), rtol=1e-9)
    np.testing.assert_allclose(sum(found[name] for name in NAMES), 1, rtol=1e-12)


@pytest.mark.parametrize("value", [2.0, np.nan])
def test_a_constant_channel_and_an_unseen_one_have_no_shares(value):
    """Fails if nothing is said to be all inside."""
    rows = some_rows(7)
    rows[:, 1] = value
    found = components.channel_columns(site(rows, running_mean=0.3, running_var=1))
    for name in NAMES[1:]:
        assert np.isnan(found[name]).tolist() == [False, True, False], name


def test_the_summary_is_of_medians_and_counts():
    """Fails if a share of another name is shown, or unlabelled images counted as labelled."""
    rows = some_rows(7)
    record = site(rows, classes=classes(rows, np.where(LABELS == 2, -1, LABELS)), **running_stats_of(rows))
    columns, found = components.channel_columns(record), components.layer_columns(record)
    for name in NAMES:
        assert found[f"{name}_median"] == median(columns[name])
    assert found["class_of_between_median"] == pytest.approx(
        median(columns["share_class"] / (columns["share_class"] + columns["share_image"]))
    )
    assert (found["n_classes"], found["n_labeled"]) == (2, 5)


def test_few_images_differ_as_much_as_many():
    """Fails if the variance between n images has the divisor n: at 20 images a share of 0.166 was found as 0.154."""
    rng = np.random.default_rng(9)
    rows = np.sqrt(0.2) * rng.normal(size=(20, 4000, 1)) + rng.normal(size=(20, 4000, 6)) * np.sqrt(0.96)
    found = components.channel_columns(site(rows, histograms=False))["share_image"]
    # 0.2 and 0.96/6 between means, 0.96 * 5/6 inside: 0.36 / 1.16
    assert found.mean() == pytest.approx(0.36 / 1.16, abs=0.005)


def test_the_interval_of_a_class_share_is_in_units_of_the_whole_variance():
    """Fails if the ends are shares of what lies between images, or exchanged."""
    rows = some_rows(7)
    found, by_class = shares(rows), classes(rows)
    between = found["share_class"] + found["share_image"]
    for end, explained in zip(("low", "high"), by_class.interval, strict=True):
        np.testing.assert_allclose(found[f"share_class_{end}"], explained * between, rtol=1e-9)
    assert (found["share_class_low"] < found["share_class"]).all()
    assert (found["share_class_high"] > found["share_class"]).all()
    assert np.isnan(shares(rows, None)["share_class_low"]).all()
