"""Variances drawn together: against Smyth's equations, with the inverse of the trigamma by bisection."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from bnprobe.stats.moderation import moderated


def by_smyth(v: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smyth 2004, section 6.2, and degrees of three variables at most."""
    e = np.log(v) - digamma(d / 2) + np.log(d / 2)
    excess = ((e - e.mean()) ** 2).sum() / (len(v) - 1) - polygamma(1, d / 2).mean()
    if excess <= 0:
        return np.full(len(v), v.mean()), 3 * d
    prior = 2 * brentq(lambda x: polygamma(1, x) - excess, 1e-6, 1e6, xtol=1e-14)
    place = np.exp(e.mean() + digamma(prior / 2) - np.log(prior / 2))
    return (prior * place + d * v) / (prior + d), np.minimum(prior + d, 3 * d)


@pytest.mark.parametrize("width", [0.0, 0.3, 2.0], ids=["alike", "somewhat alike", "unlike"])
@pytest.mark.parametrize("n", [3, 40])
def test_moderation_by_the_book(rng, width: float, n: int):
    """Fails if degrees are doubled or halved, the place is another, or degrees of more than three variables count."""
    d = np.linspace(9.0, 19.0, n)
    v = rng.chisquare(d) / d * np.exp(width * rng.normal(size=n))
    for mine, theirs in zip(moderated(v, d), by_smyth(v, d), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_channels_without_degrees_take_no_part(rng):
    """Fails if two variances and one without degrees make three, or a single degree is none."""
    v = np.array([1.0, 2.0, 4.0])
    for mine, given in zip(moderated(v, np.array([0.0, 5.0, 5.0])), (v, [0.0, 5.0, 5.0]), strict=True):
        np.testing.assert_array_equal(mine, given)
    one = np.array([1.0, 1.0, 5.0])
    np.testing.assert_allclose(moderated(v, one)[0], by_smyth(v, one)[0], rtol=1e-6)
