"""What two versions of a vector have in common: a sum or a factor, exactly at what may still be rounding."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from measures.sites import recording

import bnprobe
from bnprobe.rules.common_change import _change, _same, common_changes
from bnprobe.rules.rule import Evidence
from rules.edited import HEALTHY, healthy

A = np.array([0.5, -0.7, 1.2])
FLAT = np.full(3, 2.0)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (A, A, None),
        (A, A + 1, (1.0, False)),
        (A, A - 0.25, (-0.25, False)),
        (A, 2 * A, (2.0, True)),
        (A, A / 2, (0.5, True)),
        (A, -A, (-1.0, True)),
        (A, 1.0009 * A, None),
        (A, 1.0011 * A, (1.0011, True)),
        # of a vector that is the same in all channels a factor is a sum, and one that became 0 is lost
        (FLAT, 2 * FLAT, (2.0, False)),
        (A, 0 * A, None),
        (0 * A, A, None),
        (A, A + np.array([1, 1, 1.2]), None),
        (A, A * np.array([2, 2, 2.1]), None),
        (np.array([0.0, 2.0, 3.0]), np.array([0.0, 4.0, 6.0]), (2.0, True)),
        (np.array([0.0, 2.0, 3.0]), np.array([1.0, 4.0, 6.0]), None),
        # exactly what bfloat16 may round, of a factor and of a sum
        (np.array([255.0, 512, 1024]), np.array([512.0, 1024, 2048]), (2.0, True)),
        (np.array([0.0, 0, 256]), np.array([128.0, 128, 385]), (128.0, False)),
        (np.array([0.0, 0, 256]), np.array([128.0, 128, 386]), None),
        (A, np.array([np.nan, 0.3, 2.2]), None),
        (A[:1], A[:1] + 1, None),
        (A[:2], A[:2] + 1, (1.0, False)),
    ],
)
def test_a_sum_or_a_factor_of_all_channels(
    a: np.ndarray, b: np.ndarray, expected: tuple[float, bool] | None
) -> None:
    """Fails if one channel of its own is overlooked, rounding is a change, or a change of a thousandth is none."""
    found = _change(a, b)
    assert (found is None) == (expected is None)
    if found and expected:
        assert found[0] == pytest.approx(expected[0], rel=1e-9)
        assert found[1] is expected[1]


def test_numbers_that_were_rounded_to_bfloat16_have_the_factor() -> None:
    """Fails if eight binary digits are not enough, or seven are."""
    rounded = 3 * A * (1 + np.array([1.0, -1.0, 0.0]) * 0.99 * 2.0**-8)
    assert _change(A, rounded) is not None
    assert _change(A, 3 * A * (1 + np.array([1.0, -1.0, 0.0]) * 1.02 * 2.0**-8)) is None


def changed(*factors: float) -> list[tuple[tuple[str, ...], float, tuple[str, ...], bool]]:
    """Vectors, number, norms and "everywhere" of what norms have in common whose γ and β were multiplied."""
    one = recording(*(healthy(f"n{i}") for i in range(len(factors))))
    other = recording(
        *(
            healthy(f"n{i}", gamma=np.multiply(HEALTHY["gamma"], k), beta=HEALTHY["beta"])
            for i, k in enumerate(factors)
        )
    )
    comparison = bnprobe.compare(one, other)
    evidence = Evidence(comparison.layers, comparison.channels, pd.DataFrame())
    return [(one.vectors, one.number, one.layers, one.everywhere) for one in common_changes(evidence)]


def test_two_norms_and_a_quarter_of_all_share_a_change() -> None:
    """Fails if one norm alone has a change in common, a quarter is not enough, or norms of other factors are counted."""
    assert changed(2, 1, 1) == []
    assert changed(2, 2, 1) == [(("gamma",), pytest.approx(2.0), ("n0", "n1"), False)]
    assert changed(2, 2) == [(("gamma",), pytest.approx(2.0), ("n0", "n1"), True)]
    assert changed(2, 2.01, 1) == [(("gamma",), pytest.approx(2.005), ("n0", "n1"), False)]
    assert changed(2, 2.1, 1) == []
    assert changed(2, 2, 1, 1, 1, 1, 1, 1)[0][2] == ("n0", "n1")
    assert changed(2, 2, 1, 1, 1, 1, 1, 1, 1) == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (101.0, 100.0, True),
        (float(np.nextafter(101, 102)), 100.0, False),
        (99.0, 100.0, True),
        (0.0, 0.0, True),
        (-1.0, 1.0, False),
    ],
)
def test_numbers_within_a_hundredth_are_the_same(one: float, other: float, same: bool) -> None:
    """Fails if a hundredth itself is too much, or the sign is not looked at."""
    assert _same(one, other) is same
