"""Many noisy variances that are much alike: each is drawn towards what they have in common, as far as they have it."""

from __future__ import annotations

import numpy as np

from bnprobe.stats.moments import Array

LIKE = 3
"""Variables that a layer's channels are taken to be worth, at least: 16 correlated channels of trained ResNets were worth
that many, and pooled variances cannot know more than those."""


def moderated(variance: Array, degrees: Array) -> tuple[Array, Array]:
    """Variances that were estimated with `degrees`, and the degrees that they are worth together; shape (C,) each.

    Smyth 2004, doi:10.2202/1544-6115.1027: true variances are taken for draws from a scaled inverse chi-square, whose place
    and width follow from the mean and variance of the logarithms. The width is zero where estimates differ
    no more than their degrees allow. But degrees count LIKE channels at most, because channels are correlated.
    What is not above zero stays as it is, and so do fewer than LIKE.
    """
    from bnprobe.stats.scipy_lazy import special

    used = (variance > 0) & np.isfinite(variance) & (degrees > 0)
    if used.sum() < LIKE:
        return variance, degrees
    v, d = variance[used], degrees[used]
    logs = np.log(v) - special.digamma(d / 2) + np.log(d / 2)
    excess = float(logs.var(ddof=1) - special.polygamma(1, d / 2).mean())
    prior, place = np.inf, float(v.mean())
    if excess > 0:
        prior = 2 * _trigamma_inverse(excess)
        place = float(np.exp(logs.mean() + special.digamma(prior / 2) - np.log(prior / 2)))
    of_prior = 1.0 if prior == np.inf else prior / (prior + d)
    found, worth = variance.copy(), degrees.copy()
    found[used] = of_prior * place + (1 - of_prior) * v
    worth[used] = np.minimum(prior + d, LIKE * d)
    return found, worth


def _trigamma_inverse(y: float) -> float:
    """x with trigamma(x) = y > 0, by Newton's method on 1 / trigamma, which is nearly straight (Smyth 2004, appendix)."""
    from bnprobe.stats.scipy_lazy import special

    x = 0.5 + 1 / y
    for _ in range(50):
        trigamma = special.polygamma(1, x)
        step = trigamma * (1 - trigamma / y) / special.polygamma(2, x)
        x += step
        if abs(step) < 1e-9 * x:
            break
    return float(x)
