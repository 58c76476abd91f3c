"""One factor in all statistics: medians over norms, and each limit by itself, exactly at it and beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnprobe.recording.terms import IMPLIED_CORRELATION
from bnprobe.rules import common_factor
from bnprobe.rules.common_factor import ALIKE, Factors, _advice, _alike, _times, _what, of_layer, scaled
from rules.edited import evidence, frame

LIMIT = float(np.log(evidence().limits.common_factor))


def below(x: float) -> float:
    return float(np.nextafter(x, 0))


def said(monkeypatch: pytest.MonkeyPatch, mean: list[float], var: list[float]) -> str:
    """What is said to have the factor, of norms with these logarithms of it; "" for nothing."""
    monkeypatch.setattr(common_factor, "_factors", lambda _: Factors("a", np.array(mean), np.array(var)))
    found = list(scaled(evidence()))
    return found[0].says.removeprefix("All running ").partition(" are off")[0] if found else ""


@pytest.mark.parametrize(
    ("mean", "var", "what"),
    [
        (LIMIT, 0.0, "means"),
        (below(LIMIT), 0.0, ""),
        (-LIMIT, -LIMIT, "means and variances"),
        (below(-LIMIT), -LIMIT, ""),
        # means that are small while variances are not may be those of a norm that is hardly trained
        (-LIMIT, below(-LIMIT), ""),
        (-LIMIT, LIMIT, ""),
        (0.0, 2 * LIMIT, "variances"),
        (0.0, below(2 * LIMIT), ""),
        (0.0, -2 * LIMIT, "variances"),
        (0.0, below(-2 * LIMIT), ""),
        (below(ALIKE), 2 * LIMIT, "variances"),
        (ALIKE, 2 * LIMIT, ""),
        (below(-ALIKE), 2 * LIMIT, "variances"),
        (-ALIKE, 2 * LIMIT, ""),
    ],
)
def test_the_limits_of_means_and_of_variances(
    monkeypatch: pytest.MonkeyPatch, mean: float, var: float, what: str
) -> None:
    """Fails if a limit is on the other side of itself, or variances alone are told where means are off as well."""
    assert said(monkeypatch, [mean] * 3, [var] * 3) == what


@pytest.mark.parametrize(
    ("mean", "var", "what"),
    [
        ([2.0, 2.0, 2.0, 2.0 + 0.99 * ALIKE, 2.0 + 0.99 * ALIKE], [0.0] * 5, "means"),
        ([2.0, 2.0, 2.0, 2.0 + 1.01 * ALIKE, 2.0 + 1.01 * ALIKE], [0.0] * 5, ""),
        ([0.0] * 5, [4.0, 4.0, 4.0, 4.0 + 1.98 * ALIKE, 4.0 + 1.98 * ALIKE], "variances"),
        ([0.0] * 5, [4.0, 4.0, 4.0, 4.0 + 2.02 * ALIKE, 4.0 + 2.02 * ALIKE], ""),
        # means that have no one factor do not keep variances from theirs
        ([-2.0, 0.0, 0.0, 0.0, 2.0], [4.0] * 5, "variances"),
    ],
)
def test_how_far_norms_may_lie_apart(
    monkeypatch: pytest.MonkeyPatch, mean: list[float], var: list[float], what: str
) -> None:
    """Fails if means may lie as far apart as variances, or the spread of one decides over the other."""
    assert said(monkeypatch, mean, var) == what


def test_the_middle_norm_gives_the_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if one norm far off moves the factor of the others: averages would be e^7.4 and e^3.4."""
    factors = Factors("a", np.array([7.0] * 4 + [9.0]), np.array([3.0] * 4 + [5.0]))
    monkeypatch.setattr(common_factor, "_factors", lambda _: factors)
    (found,) = scaled(evidence())
    assert found.says.endswith(f"of about {float(f'{math.exp(7):.0e}'):,g}.")
    assert f"typically {math.exp(7):,.0f} times" in found.because
    assert f"the variances {math.exp(3):.2g} times" in found.because
    assert "at 5 norms" in found.because


def test_a_factor_exactly_as_far_as_may_be_is_another() -> None:
    """Fails if the limit is within itself: the median is 0, and two of five lie 1 from it."""
    assert not _alike(np.array([0.0, 0.0, 0.0, 1.0, -1.0]), 1.0)
    assert _alike(np.array([0.0, 0.0, 0.0, 0.0, -1.0]), 1.0)


def test_small_factors_of_both_are_of_both() -> None:
    """Fails if means and variances that went the same way must have gone far."""
    assert _what(0.5, 0.5) == _what(-0.5, -0.5) == "means and variances"
    assert _what(0.5, -0.5) == _what(-0.5, 0.5) == "means"


@pytest.mark.parametrize(("factor", "words"), [(100.4, "100"), (99.9, "1e+02"), (1e6, "1,000,000")])
def test_from_a_hundred_on_every_digit_before_the_point_is_said(factor: float, words: str) -> None:
    """Fails if the limit between two and all digits is elsewhere."""
    assert _times(math.log(factor)) == words


@pytest.mark.parametrize(
    ("mean", "var", "square"),
    [(2.0, 4.0, True), (2.0, 3.0, False), (2.0, 3.1, True), (-2.0, -4.0, True), (-2.0, -3.0, False), (-2.0, -3.1, True)],
)  # fmt: skip
def test_the_square_of_a_small_factor_is_smaller(mean: float, var: float, square: bool) -> None:
    """Fails if statistics that are too small are sent to Caffe's sums where weights were scaled up."""
    assert ("the square of the means' factor" in _advice(mean, var)) is square


@pytest.mark.parametrize(("off", "follows"), [(0.999, True), (1.001, False), (3.0, False)])
def test_how_well_running_means_follow_the_implied_ones(off: float, follows: bool) -> None:
    """Fails if a slope above 0 is enough: with noise of t times the size beside it, the correlation is 1 / √(1 + t²)."""
    t = off * math.sqrt(1 / IMPLIED_CORRELATION**2 - 1)
    x, noise = np.array([1.0, -1.0] * 4), np.array([1.0, 1.0, -1.0, -1.0] * 2)
    channels = frame(running_mean=3 * (x + t * noise), implied_mean=x, implied_var_ratio=np.full(8, 9.0))
    found = of_layer(channels)
    assert (found is not None) is follows
    if found:
        assert found == pytest.approx((math.log(3), math.log(9)))
