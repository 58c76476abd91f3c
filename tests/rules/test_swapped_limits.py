"""How many norms and channels must look exchanged, at and beside each limit; vectors by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bnprobe.rules.swapped import AFFINE, STATISTICS, _larger_and_alike, swapped, swapped_norms
from rules.edited import frame


def norm(
    layer: str, either: np.ndarray, positive: np.ndarray, call: int = 0
) -> tuple[pd.Series, pd.DataFrame]:
    """A norm that holds these as its running mean and variance, and as its β and γ."""
    row = pd.Series({"layer": layer, "call": call})
    return row, frame(running_mean=either, running_var=positive, beta=either, gamma=positive)


def of(*sites: tuple[pd.Series, pd.DataFrame]) -> Any:
    return SimpleNamespace(sites=sites)


def signs(n: int, n_negative: int) -> np.ndarray:
    """n values of which so many are negative, none above 0.5 in size."""
    values = np.linspace(0.1, 0.5, n)
    values[:n_negative] *= -1
    return values


def exchanged(
    layer: str, n: int = 40, n_negative: int = 20, **changes: Any
) -> tuple[pd.Series, pd.DataFrame]:
    return norm(layer, np.linspace(0.8, 1.2, n), signs(n, n_negative), **changes)


HEALTHY = norm("healthy", signs(40, 20), np.linspace(0.8, 1.2, 40))


@pytest.mark.parametrize(("n", "told"), [(32, True), (31, False)])
def test_signs_of_32_channels_say_something(n: int, told: bool) -> None:
    """Fails if fewer channels are enough, or 32 are not."""
    assert bool(swapped_norms(of(exchanged("a", n, n // 2)), STATISTICS)) is told


@pytest.mark.parametrize(
    ("n_negative", "told"),
    [(3, False), (4, True), (20, True), (36, True), (37, False), (0, False), (40, False)],
)
def test_both_signs_are_in_a_tenth_of_the_channels(n_negative: int, told: bool) -> None:
    """Fails if a tenth itself is too few, or values of nearly one sign lie around 0: of 40 channels."""
    assert bool(swapped_norms(of(exchanged("a", 40, n_negative)), STATISTICS)) is told


@pytest.mark.parametrize(("n_exchanged", "told"), [(4, True), (3, False)])
def test_four_of_five_norms_are_exchanged(n_exchanged: int, told: bool) -> None:
    """Fails if four fifths are not enough, or fewer are."""
    sites = [exchanged(f"n{i}") for i in range(n_exchanged)] + [HEALTHY] * (5 - n_exchanged)
    assert len(swapped_norms(of(*sites), STATISTICS)) == (n_exchanged if told else 0)


def test_what_says_nothing_is_not_counted() -> None:
    """Fails if second calls, norms without a vector, or vectors that are not finite make the others few."""
    missing, infinite = np.full(40, np.nan), np.full(40, np.inf)
    sites = [
        exchanged("a"),
        *(exchanged("a", call=1) for _ in range(9)),
        norm("b", missing, signs(40, 20)),
        norm("c", signs(40, 20), missing),
        norm("d", np.where(np.arange(40) == 3, infinite, 1.0), signs(40, 20)),
        norm("e", -np.where(np.arange(40) == 3, infinite, 1.0), signs(40, 20)),
    ]
    assert [layer for layer, _ in swapped_norms(of(*sites), STATISTICS)] == ["a"]


def test_one_value_of_zero_is_not_positive() -> None:
    """Fails if a vector with a 0 counts as positive in every channel."""
    either = np.linspace(0.0, 1.2, 40)
    assert swapped_norms(of(norm("a", either, signs(40, 20))), STATISTICS) == []
    assert len(swapped_norms(of(norm("a", either + 1e-6, signs(40, 20))), STATISTICS)) == 1


def test_a_channel_that_is_missing_does_not_hide_a_norm() -> None:
    """Fails if one NaN is taken for a vector that is not there: healthy norms with one are no fifth of five."""
    either, positive = signs(40, 20), np.linspace(0.8, 1.2, 40)
    either[0] = positive[1] = np.nan
    gaps = [norm(f"g{i}", either, np.linspace(0.8, 1.2, 40)) for i in range(2)]
    gaps += [norm(f"h{i}", signs(40, 20), positive) for i in range(2)]
    for healthy in (gaps, gaps[:2], gaps[2:]):
        assert swapped_norms(of(*(exchanged(f"n{i}") for i in range(4)), *healthy), STATISTICS) == []


def test_zeros_are_not_negative() -> None:
    """Fails if values of exactly 0 count as below it: 3 of 40 are, with 37 zeros."""
    values = np.zeros(40)
    values[:3] = -0.1
    assert swapped_norms(of(norm("a", np.linspace(0.8, 1.2, 40), values)), STATISTICS) == []
    values[:4] = -0.1
    *_, found = swapped(of(norm("a", np.linspace(0.8, 1.2, 40), values)))
    assert "negative in 10% of the channels" in found.because


@pytest.mark.parametrize(
    ("ones", "others", "expected"),
    [
        ([1.0, 1.1], [0.2, -0.3], True),
        ([1.0, 1.1], [0.2, -3.0, -3.0], False),  # larger in size, by the median
        ([1.0, 1.1], [0.2, 0.1, -9.0], True),
        ([1.0, 1.0], [1.0, 1.0], False),
        ([0.01, 0.01, 9.0], [0.001, -0.001, 0.001], False),  # a standard deviation above the mean
        ([0.1, 0.1, 2.0], [0.001, -0.001, 0.001], False),
        ([0.5, 0.5, 2.0], [0.001, -0.001, 0.001], True),
    ],
)
def test_what_is_around_one_is_alike_and_larger(
    ones: list[float], others: list[float], expected: bool
) -> None:
    """Fails if sizes are compared with their signs, by the mean, or values that differ by more than their mean are alike."""
    assert _larger_and_alike(np.array(ones), np.array(others)) is expected


def test_what_is_learned_must_look_so_by_its_size_as_well() -> None:
    """Fails if a β that is positive everywhere is taken for γ although γ is larger."""
    small = norm("a", np.linspace(0.01, 0.02, 40), signs(40, 20))
    assert swapped_norms(of(small), AFFINE) == []
    assert len(swapped_norms(of(small), STATISTICS)) == 1


def test_the_share_of_negative_channels_is_told() -> None:
    """Fails if it is that of channels below another number than 0, or of one norm only: 10 of 40 and 30 of 40."""
    sites = exchanged("a", 40, 10), exchanged("b", 40, 32)
    told = {found.says.split(" have")[0]: found for found in swapped(of(*sites))}
    found = told["Running mean and variance"]
    assert "the running variance is negative in 52% of the channels" in found.because
    assert found.layer == "a"
    assert 'for path in ["a", "b"]' in found.do
