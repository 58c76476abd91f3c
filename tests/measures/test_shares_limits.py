"""Parts of the variance, shapes and sizes at their limits: one sample, small spreads, and the edges of histograms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support import oracles

from bnprobe.measures import components, gaussian, outliers
from bnprobe.stats import ClassMoments, Histogram, Moments
from bnprobe.stats.histogram import N_BINS, Z_EDGES
from measures.sites import site, some_rows


def labelled(rows: np.ndarray, labels: list[float]) -> dict[str, np.ndarray]:
    classes = ClassMoments.of(Moments.of(rows, axis=2), np.array(labels))
    return components.channel_columns(site(rows, classes=classes, eps=0.0))


def test_one_sample_has_all_its_variance_inside() -> None:
    """Fails if a sample differs from no other by more than nothing, or two do not differ."""
    found = components.channel_columns(site(some_rows(1)))
    np.testing.assert_allclose(found["share_within"], 1, rtol=1e-9)
    np.testing.assert_array_equal(found["share_image"], 0)
    rows = some_rows(2)
    between, inside = rows.mean(2).var(0, ddof=1), rows.var(2).mean(0)
    found = components.channel_columns(site(rows))
    np.testing.assert_allclose(found["share_within"], inside / (inside + between), rtol=1e-9)


def test_small_values_have_the_shares_of_large_ones() -> None:
    """Fails if a sum of squares must be more than 1 to have parts."""
    rows, labels = some_rows(6), [0.0, 1, 0, 1, 0, 1]
    large, small = labelled(rows, labels), labelled(1e-5 * rows, labels)
    for name in large:
        np.testing.assert_allclose(small[name], large[name], rtol=1e-6, err_msg=name)


def test_samples_that_are_alike_say_nothing_of_classes_without_labels() -> None:
    """Fails if no difference between samples is a share of 0 for classes that nobody named."""
    rows = np.tile(some_rows(1), (4, 1, 1))
    assert np.isnan(components.channel_columns(site(rows))["share_class"]).all()
    np.testing.assert_array_equal(labelled(rows, [0.0, 1, 0, 1])["share_class"], 0)


def test_values_lie_inside_all_sheets() -> None:
    """Fails if the widest sheet is enough, on either side, or an edge itself is outside."""
    reach = Z_EDGES[-1]
    # sheets from -reach to reach, and from 1 - 2 reach to 1 + 2 reach
    centre, scale = np.array([[0.0], [1.0]]) * np.ones(5), np.array([[1.0], [2.0]]) * np.ones(5)
    sheets = Histogram(centre, scale, np.ones((2, 5, N_BINS)))
    low = np.array([-reach, np.nextafter(-reach, -np.inf), -1.0, -1.0, 1 - 2 * reach])
    high = np.array([reach, 1.0, np.nextafter(reach, np.inf), 1.0, 1.0])
    record = site(np.stack([low, high], axis=1)[None], histograms=False)
    assert gaussian._all_inside(record, sheets).tolist() == [True, False, False, True, False]


def test_group_norms_compare_channels_with_those_of_their_group() -> None:
    """Fails if one median serves all groups: the root mean squares are 1, 1, 8 and 100, 100, 100."""
    size = np.array([1.0, 1.0, 8.0, 100.0, 100.0, 100.0])
    rows = np.tile([-1.0, 1.0], (3, 6, 4)) * size[None, :, None]
    own = Moments(**oracles.moments(np.zeros((3, 2))))
    made = replace(site(rows, kind="group_norm"), own_mean=own)
    np.testing.assert_allclose(outliers.channel_columns(made)["rms_ratio"], [1, 1, 8, 1, 1, 1], rtol=1e-9)
    assert outliers.layer_columns(made)["outlier_channels"] == "2"
    one = replace(made, pools="channels")
    np.testing.assert_allclose(outliers.channel_columns(one)["rms_ratio"], size / np.median(size), rtol=1e-9)


@pytest.mark.parametrize("loc", [0.0, -3.0])
def test_a_mean_counts_as_size(loc: float) -> None:
    """Fails if the size is the deviation alone: √(mean² + variance), of the channel and not of samples."""
    rows = some_rows(4) + loc
    made = site(rows, kind="layer_norm")
    rms = np.sqrt((rows**2).mean((0, 2)))
    np.testing.assert_allclose(outliers.channel_columns(made)["rms_ratio"], rms / np.median(rms), rtol=1e-9)
