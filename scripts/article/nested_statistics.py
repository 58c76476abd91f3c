"""How the statistics of batch, instance, group and layer norm on one tensor follow from one another.

All pool the same values, only more or fewer of them, so the law of total variance leads from the means
and variances of instance norm (one per sample and channel) to all the others: Wu & He 2018,
arXiv:1803.08494. Exact where every sample and channel has the same number of values. N samples, C
channels, G groups; variances with divisor n.
"""

from __future__ import annotations

from bnprobe.stats.moments import Array


def batch_statistics(mean: Array, var: Array) -> tuple[Array, Array]:
    """Mean and variance of batch norm, (C,) each, from those of instance norm, (N, C) each.

    v_BN = mean over samples of v_IN + variance over samples of mu_IN.
    """
    return mean.mean(axis=0), var.mean(axis=0) + mean.var(axis=0)


def group_statistics(mean: Array, var: Array, n_groups: int) -> tuple[Array, Array]:
    """Mean and variance of group norm, (N, G) each, from those of instance norm, (N, C) each.

    v_GN = mean over the group's channels of v_IN + variance over them of mu_IN. One group is layer norm
    over channels and positions; as many groups as channels is instance norm itself.
    """
    means, variances = (v.reshape(len(v), n_groups, -1) for v in (mean, var))
    return means.mean(axis=2), variances.mean(axis=2) + means.var(axis=2)


def instance_share(mean: Array, var: Array) -> Array:
    """Share of batch norm's variance that lies inside a sample, (C,): what instance norm divides by."""
    share: Array = var.mean(axis=0) / batch_statistics(mean, var)[1]
    return share
