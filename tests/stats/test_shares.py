"""Differences of shares, against the examples of the paper that the formula is from."""

from __future__ import annotations

import pytest

from bnprobe.stats.shares import least_difference

Z = 1.959964


def wilson(right: int, n: int) -> tuple[float, float, float]:
    """A share and its 95% interval."""
    p, z2 = right / n, Z**2
    middle, half = p + z2 / (2 * n), Z * (p * (1 - p) / n + z2 / (4 * n**2)) ** 0.5
    return p, (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
    ],
)
def test_the_interval_is_newcombes(
    one: tuple[int, int], other: tuple[int, int], low: float, high: float
) -> None:
    """Fails if a side of an interval is taken for the other: Newcombe 1998, table II, method 10."""
    (a, a_low, a_high), (b, b_low, b_high) = wilson(*one), wilson(*other)
    assert least_difference(a, a_low, b, b_high) == pytest.approx(low, abs=1e-4)
    assert -least_difference(b, b_low, a, a_high) == pytest.approx(high, abs=1e-4)
