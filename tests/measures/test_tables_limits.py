"""Columns with one value, which take no room from a size on: that size, and what one value is."""

from __future__ import annotations

import numpy as np
import pytest

from bnprobe.measures import tables
from bnprobe.measures.tables import _column, _is_one_value, _shrunk
from measures.sites import recording, running_stats_of, site, some_rows

NAN = np.nan


@pytest.mark.parametrize(
    ("column", "one"),
    [
        ([2.0], True),
        ([NAN], True),
        ([2.0, 2.0], True),
        ([NAN, NAN], True),
        ([2.0, NAN], False),
        ([1.0, 2.0, 2.0], False),
        ([2.0, 2.0, 1.0], False),
        ([NAN, 2.0, 2.0], False),
    ],
)
def test_what_one_value_is(column: list[float], one: bool) -> None:
    """Fails if the first or the last may differ, or NaN beside numbers is one of them."""
    assert _is_one_value(np.array(column)) is one


def takes_room(column: np.ndarray) -> bool:
    return column.strides != (0,)


@pytest.mark.parametrize("value", [3, 2.5, NAN])
def test_a_site_of_more_than_256_channels_may_share_a_value(value: float) -> None:
    """Fails if 256 channels share one, 257 do not, or values change."""
    for n, room in ((256, True), (257, False)):
        found = _shrunk(np.full(n, value))
        assert takes_room(found) is room
        np.testing.assert_array_equal(found, np.full(n, value))


def test_what_is_not_one_number_keeps_its_room() -> None:
    """Fails if one of 300 that differs is lost, or words and single values are taken for numbers."""
    last = np.r_[np.zeros(299), 1.0]
    assert _shrunk(last) is last
    words = np.full(300, "dead", dtype=object)
    assert _shrunk(words) is words
    assert _shrunk("bn") == "bn"


def of_one_value(value: float, n: int) -> np.ndarray:
    return np.broadcast_to(np.float64(value), n)


@pytest.mark.parametrize(
    ("lengths", "values", "room"),
    [
        ((100_000,), (NAN,), True),
        ((100_001,), (NAN,), False),
        ((60_000, 40_000), (1.0, 1.0), True),
        ((60_000, 40_001), (1.0, 1.0), False),
        ((60_000, 40_001), (1.0, 2.0), True),
    ],
)
def test_a_column_of_more_than_100_000_channels_may_be_one_value(
    lengths: tuple[int, ...], values: tuple[float, ...], room: bool
) -> None:
    """Fails if the size moves, one site is none, or sites of different values share one."""
    parts = [of_one_value(value, n) for value, n in zip(values, lengths, strict=True)]
    found = _column(parts, list(lengths))
    assert takes_room(found) is room
    np.testing.assert_array_equal(found, np.repeat(values, lengths))


def test_one_site_whose_channels_differ_gives_all_their_room() -> None:
    """Fails if the first channels of sites stand for the others."""
    full = np.arange(70_000.0)
    found = _column([of_one_value(0.0, 40_000), full], [40_000, 70_000])
    assert found[:40_000].max() == 0
    np.testing.assert_array_equal(found[40_000:], full)


def test_what_channels_share_is_repeated() -> None:
    """Fails if the words or numbers of sites are mixed up."""
    assert _column(["a", "b"], [2, 1]).tolist() == ["a", "a", "b"]
    assert _column([7, np.array([1, 2])], [3, 2]).tolist() == [7, 7, 7, 1, 2]


@pytest.mark.parametrize(("n_images", "moved"), [(5, 0.0), (40, 1.0)])
def test_what_errors_rest_on_counts_samples_and_not_their_rows(n_images: int, moved: float) -> None:
    """Fails if eight rows of each of five samples are forty samples: below ten only 0.6 σ is visible, and 0.3 moved."""
    rows = np.tile([-1.0, 1.0], 4) + 1e-3 * np.random.default_rng(0).normal(size=(40, 3, 1))
    made = site(rows, running_mean=-0.3, running_var=1.0)
    (row,) = tables(recording(made, n_images=n_images)).layers.to_dict("records")
    assert row["mean_moved"] == moved
    assert (row["n_images"], row["n_values"]) == (n_images, rows.size)


def test_the_likeness_of_a_row_is_that_of_rows() -> None:
    """Fails if families about rows are asked about samples, or their layers' columns about others than their channels'."""
    rows = some_rows(40)
    made = site(rows, **running_stats_of(rows))
    effect = rows.shape[2] * rows.mean(2).var(0, ddof=1) / rows.var((0, 2))
    found = tables(recording(made, n_images=5))
    np.testing.assert_allclose(found.channels["design_effect"], effect, rtol=1e-6)
    assert found.layers["design_effect_median"][0] == pytest.approx(np.median(effect), rel=1e-6)


def test_what_a_norm_does_not_have_is_nan() -> None:
    """Fails if a missing momentum or count reads as a number, or one that is there does not."""
    rows = some_rows()
    found = tables(recording(site(rows, "a"), site(rows, "b", **running_stats_of(rows)))).layers
    np.testing.assert_array_equal(found["momentum"], [NAN, 0.1])
    np.testing.assert_array_equal(found["n_batches_tracked"], [NAN, 40])
