"""Tests that may be looked at after every batch: the chance that they are ever wrong is bounded, however often one looks.

With a fixed n a p below 0.01 comes in 1% of recordings where nothing moved; looked at after every 50 of 2,000 samples it
comes at some time in 7%. A mixture of likelihood ratios over all sizes of a shift (Robbins 1970,
doi:10.1214/aoms/1177696786; Howard et al. 2021, doi:10.1214/20-AOS1991) is 1 on average at any time where nothing
moved, and so exceeds 1/alpha at any time at all in at most a share alpha of streams (Ville 1939).
"""

from __future__ import annotations

import numpy as np

from bnprobe.stats.moments import Array

MIXED = 100.0
"""Sizes of a shift are mixed by a normal distribution whose variance is that of a mean of so many samples. From 300 to 2,000
samples, at alpha 1%, no other number makes the bound more than a tenth narrower; at 50 it is 5.4 errors, 4.0 with 30."""


def evidence(z: Array, n: Array) -> Array:
    """How much more likely data of n samples are under a shift than without one, given the mean in standard errors.

    sqrt(r/(n + r)) exp(n z^2 / (2 (n + r))), r = MIXED: what is called an e-value. Same shape; 0 where z is NaN.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        exponent = np.where(np.isinf(z), np.inf, z * z * (n / (n + MIXED)) / 2)
        found = np.sqrt(MIXED / (n + MIXED)) * np.exp(exponent)
    return np.where(np.isnan(found), 0.0, found)


def bound(n: Array, alpha: float) -> Array:
    """Standard errors by which a mean of n samples is ever farther off in at most a share `alpha` of streams.

    sqrt((n + r)/n ln((n + r)/(r alpha^2))): where `evidence` is 1/alpha. Same shape.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        # alpha squared may have no float64
        return np.asarray(np.sqrt((n + MIXED) / n * (np.log((n + MIXED) / MIXED) - 2 * np.log(alpha))))


def adjusted_evidence(found: Array) -> Array:
    """q of one family of e-values, shape (m,): the smallest rate of false discoveries at which each is one.

    m / (k e_(k)), the least over all k from its rank on (Wang & Ramdas 2022, doi:10.1111/rssb.12489). It needs no
    assumption of how channels depend on each other, and holds at the time at which one stops.
    """
    m = len(found)
    order = np.argsort(-found, kind="stable")
    with np.errstate(divide="ignore"):
        each = m / (np.arange(1, m + 1) * found[order])
    q = np.empty(m)
    q[order] = np.minimum(np.minimum.accumulate(each[::-1])[::-1], 1.0)
    return q
