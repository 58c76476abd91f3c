"""What norms have in common, at and beside the limits of each comparison, with vectors of both signs and unequal sizes."""

from __future__ import annotations

import numpy as np
import pytest

from bnprobe.rules.common_change import CommonChange, _alike, _change, _changes_of, _same
from rules.edited import frame

A = np.array([0.5, -0.7, 1.2])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1.0099, 1.0, True),
        (1.0101, 1.0, False),
        (-1.0099, -1.0, True),
        (-1.0101, -1.0, False),
        (2.03, 2.0, False),
        (20.19, 20.0, True),
        (20.21, 20.0, False),
        (0.0, 0.0, True),
        (1.0, -1.0, False),
    ],
)
def test_numbers_are_the_same_within_a_hundredth(one: float, other: float, same: bool) -> None:
    """Fails if the hundredth is absolute, one-sided, of no size where the numbers are negative, or excludes itself."""
    assert _same(one, other) is same


@pytest.mark.parametrize("size", [1.0, 100.0, 0.01])
def test_limits_are_relative_to_the_size_of_the_vector(size: float) -> None:
    """Fails if large vectors have another rounding than small ones: of a spread, of a sum, and of a factor."""
    nearly_flat = size * (1 + np.array([0.0, 0.5, 0.9]) * 1e-3)
    assert _change(nearly_flat, 3 * nearly_flat) == (
        pytest.approx(2 * np.median(nearly_flat), rel=2e-3),
        False,
    )
    assert _change(size * A, size * A * 3) == (pytest.approx(3), True)
    falls = np.array([2.0, 2.0, 2.0]) * size
    assert _change(falls, falls * np.array([1.0, 2.0, 3.0])) is None
    assert _change(size * A, size * (A + 0.0011)) is None
    assert _change(size * A, size * (A + 0.0013)) == (pytest.approx(0.0013 * size), False)


def test_a_vector_of_zeros_on_either_side_is_no_factor() -> None:
    """Fails if one channel of 0 hides a factor, or a vector that became 0 has one."""
    a = np.array([0.0, 2.0, -3.0])
    assert _change(a, 2 * a) == (2.0, True)
    assert _change(a, 0 * a) is None
    assert _change(0 * a, a) is None


def change(number: float = 2.0, factor: bool = True, layers: tuple[str, ...] = ("a", "b")) -> CommonChange:
    return CommonChange(("gamma",), number, factor, layers, 6, 2)


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        (change(), True),
        (change(2.01), True),
        (change(2.1), False),
        (change(factor=False), False),
        (change(layers=("a",)), False),
    ],
)
def test_changes_are_one_where_factor_norms_and_number_agree(other: CommonChange, alike: bool) -> None:
    """Fails if sums are joined, or the factors of other norms, or other factors."""
    assert _alike(change(), other) is alike
    assert _alike(other, change()) is alike


def changes(*numbers: float, factor: bool = False) -> list[CommonChange]:
    """What norms have in common whose γ were moved by these numbers."""
    sites = []
    for i, number in enumerate(numbers):
        a = A + 0.3 * i
        sites.append((f"n{i}", frame(gamma_a=a, gamma_b=a * number if factor else a + number)))
    return list(_changes_of("gamma", sites))


@pytest.mark.parametrize(
    ("numbers", "shared"),
    [
        ((1.0, 1.0, 0, 0, 0, 0, 0, 0), 2),  # two, which are a quarter of eight
        ((1.0, 1.0, 0, 0, 0, 0, 0, 0, 0), 0),
        ((1.0, 0, 0), 0),
        ((1.0, 1.0), 2),
        ((1.0, 1.0, 1.0, 5.0), 3),
    ],
)
def test_a_quarter_of_the_norms_and_two_at_least_share_a_change(
    numbers: tuple[float, ...], shared: int
) -> None:
    """Fails if a single norm shares, a quarter is not enough, or the count is of all norms that changed."""
    found = changes(*numbers)
    assert [len(one.layers) for one in found] == ([shared] if shared else [])
    for one in found:
        assert one.number == pytest.approx(1.0)
        assert (one.factor, one.n_norms, one.n_channels) == (False, len(numbers), 3 * shared)
        assert one.everywhere is (shared == len(numbers))


def test_a_norm_without_the_vector_on_one_side_is_not_counted() -> None:
    """Fails if norms that store no such vector make the others few."""
    a = A
    stored = [(f"n{i}", frame(gamma_a=a + i, gamma_b=a + i + 1)) for i in range(2)]
    missing = [(f"m{i}", frame(gamma_a=a + i, gamma_b=np.full(3, np.nan))) for i in range(9)]
    (found,) = _changes_of("gamma", stored + missing)
    assert (found.n_norms, found.everywhere) == (2, True)


def test_a_sum_must_be_as_even_as_its_own_size_and_rounding_allow() -> None:
    """Fails if the wider of two limits holds: a 256th of the vector's size, and a hundredth of what was added."""
    uneven = np.array([-1.0, 0.0, 1.0])
    large = np.array([100.0, 50.0, -20.0])
    # of 100 an added 10 may differ by 0.1, though bfloat16 rounds 110 by 0.43
    assert _change(large, large + 10 + 0.09 * uneven) == (pytest.approx(10), False)
    assert _change(large, large + 10 + 0.2 * uneven) is None
    # and an added 300 by 1.2, though a hundredth of it is 3
    small = np.array([1.0, 2.0, 4.0])
    assert _change(small, small + 300 + 1.1 * uneven) == (pytest.approx(300), False)
    assert _change(small, small + 300 + 2.0 * uneven) is None


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("side", [0, 1])
def test_a_channel_that_is_not_finite_makes_a_change_unknown(value: float, side: int) -> None:
    """Fails if the other channels decide: all of them doubled, or grew by 1."""
    for changed in (2 * A, A + 1):
        pair = [A.copy(), changed]
        assert _change(*pair) is not None
        pair[side][2] = value
        assert _change(*pair) is None
