"""Who is new: a network that was not trained or has just begun, and the norms that still are as they were made.

What follows from being new is no fault: branches that start at 0, gradients that do not get past them or
change their size from norm to norm, and running statistics that hold little but their initial values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bnprobe.rules.thresholds import Limits
from bnprobe.stats.moments import Array

FIRST_BATCHES = 100
"""Batches up to which training has just begun."""

FIRST_BATCHES_UNMOVED = 22
"""The same where no γ and no β has moved, or none is there: torch's momentum of 0.1 has left 10% of the initial 0 and 1."""

FIRST_STEPS = 0.02
"""Distance from their initial values that γ and β cover in the first steps of training."""

FIRST_STEPS_COUNTED = 0.1
"""The same where the number of batches is known, or β has not moved: scales that are drawn around 1 count then, too."""

FEWEST_DRAWN = 8
"""Norms from which on γ that are alike everywhere are told from those of training."""

FEWEST_CHANNELS = 16
"""Channels that a norm has at least for that."""

DRAWN_ALIKE = 4.5
"""Standard errors that mean and deviation of a norm's γ, or β, lie at most from those of the median norm, where all are
drawn from one distribution: by chance a Gaussian is farther off in 7 of a million."""

Sites = Sequence[tuple[pd.Series, pd.DataFrame]]


def network_is_new(sites: Sites) -> bool:
    """Whether all norms of a network are near their initial values after few batches; a few of them do not make it new.

    False where norms have neither γ and β nor running statistics, since nothing is known then.
    """
    if not sites:
        return False
    gammas, betas, means = (_known(sites, name) for name in ("gamma", "beta", "running_mean"))
    most = FIRST_BATCHES_UNMOVED if all(affine_at_start(of_site) for _, of_site in sites) else FIRST_BATCHES
    stored, beta = any(map(len, means)), np.concatenate(betas)
    if not (stored or any(map(len, gammas))) or not all(_few_batches(*site, most) for site in sites):
        return False
    untouched = len(beta) > 0 and bool((beta == 0).all())
    near = FIRST_STEPS_COUNTED if stored or untouched else FIRST_STEPS
    return all(_from_start(gamma) < near for gamma in gammas) and bool((np.abs(beta) < near).all())


def _known(sites: Sites, name: str) -> list[Array]:
    """A vector of each site, without the channels that have none."""
    vectors = (of_site[name].to_numpy(float) for _, of_site in sites)
    return [vector[~np.isnan(vector)] for vector in vectors]


def begun_again(sites: Sites) -> bool:
    """Whether γ and β of all norms are as initialized, beside running statistics of many batches: two or more of them.

    So are networks whose weights were initialized again after loading, and those that were trained with γ and β fixed.
    """
    stored = [site for site in sites if site[1]["running_mean"].notna().any()]
    return len(stored) >= 2 and all(
        not (at_start(row, channels) or row["n_batches_tracked"] <= FIRST_BATCHES)
        and bool(
            (channels["beta"] == 0).all() and ((channels["gamma"] - 1).abs() < FIRST_STEPS_COUNTED).all()
        )
        for row, channels in stored
    )


def drawn_and_new(sites: Sites) -> bool:
    """Whether γ and β of all norms are still as one recipe drew them, after few batches: RepVGG begins with γ around 0.1."""
    if any(len(channels) < FEWEST_CHANNELS for _, channels in sites):
        return False
    vectors = ([channels[name].to_numpy(float) for _, channels in sites] for name in ("gamma", "beta"))
    return all(map(_drawn_alike, vectors)) and all(
        _few_batches(*site, FIRST_BATCHES_UNMOVED) for site in sites
    )


def _drawn_alike(vectors: Sequence[np.ndarray]) -> bool:
    """Whether mean and deviation of each lie within chance of the median ones."""
    means, deviations = (np.array([one(vector) for vector in vectors]) for one in (np.mean, np.std))
    typical = np.median(deviations)
    if not typical > 0:
        return bool(np.isnan(means).all() or (deviations == 0).all())
    n = np.sqrt([len(vector) for vector in vectors])
    apart = (means - np.median(means)) / typical * n, (deviations / typical - 1) * n * np.sqrt(2)
    return bool((np.abs(apart) < DRAWN_ALIKE).all())


def beyond_first_steps(channels: pd.DataFrame) -> bool:
    """Whether some β is farther from 0, or some γ from 0 and 1, than in any new network: of most that is enough to know."""
    gamma, beta = channels["gamma"].to_numpy(), channels["beta"].to_numpy()
    from_start = np.minimum(np.abs(gamma), np.abs(gamma - 1))
    return bool((np.abs(beta) >= FIRST_STEPS_COUNTED).any() or (from_start >= FIRST_STEPS_COUNTED).any())


def _from_start(gamma: Array) -> float:
    """Largest distance of a layer's γ from 1, or from 0 where the layer as a whole began there."""
    return min(float(np.abs(gamma - start).max()) for start in (0, 1)) if len(gamma) else 0.0


def _few_batches(row: pd.Series, channels: pd.DataFrame, most: int) -> bool:
    """Whether the running statistics, if there are any, were updated `most` times at most."""
    if channels["running_mean"].isna().all():
        return True
    counted, meanwhile = (n if n > 0 else 0 for n in (row["n_batches_tracked"], row["n_updates"]))
    return bool((counted or at_start(row, channels)) and max(counted, meanwhile) <= most)


def at_start(row: pd.Series, channels: pd.DataFrame) -> bool:
    """Whether running statistics are 0 and 1 in every channel; 1 alone where no batch was counted, as a bias that was moved
    into the running means leaves it."""
    # of thousands of norms: a comparison in numpy takes a twentieth of one in pandas
    mean, var = channels["running_mean"].to_numpy(), channels["running_var"].to_numpy()
    return bool((var == 1).all() and ((mean == 0).all() or row["n_batches_tracked"] == 0))


def each_at_start(layers: pd.DataFrame, channels: pd.DataFrame) -> pd.Series:
    """The same of every site, by the index of the layers."""
    var_is_1, mean_is_0 = (
        every(channels, channels["running_var"] == 1),
        every(channels, channels["running_mean"] == 0),
    )
    none_counted = (layers["n_batches_tracked"] == 0).to_numpy()
    return pd.Series(var_is_1 & (mean_is_0 | none_counted), layers.index)


def every(channels: pd.DataFrame, holds: pd.Series) -> NDArray[np.bool_]:
    """Whether something holds for all channels of a site, one after the other as the table has them."""
    starts = np.flatnonzero(channels["channel"].to_numpy() == 0)
    of_sites: NDArray[np.bool_] = np.logical_and.reduceat(holds.to_numpy(bool), starts)
    return of_sites


def fresh(row: pd.Series, channels: pd.DataFrame) -> bool:
    """Whether the running statistics were 0 and 1 in every channel before the recording, as shown, and still are."""
    return at_start(row, channels) and not updated_meanwhile(row)


def updated_meanwhile(row: pd.Series) -> bool:
    """Whether the running statistics were updated during the recording; those shown are out of date then."""
    return bool(row["memory_moved"] > 0)


def beyond_start(row: pd.Series, channels: pd.DataFrame) -> pd.Series:
    """How far each channel's mean is off, in running σ, beyond what the rest of the initial 0 explains."""
    left = row["initial_weight"]
    rest = 1 - left if left < 1 else 1.0  # NaN where the batches are not counted
    with np.errstate(all="ignore"):
        sigma = np.sqrt(channels["running_var"] + row["eps"])
        without = (channels["pre_mean"] - channels["running_mean"] / rest).abs() / sigma
    nearer: pd.Series = without.clip(upper=channels["shift"].abs())
    return nearer


def breaks(sites: Sites, i: int, limits: Limits) -> bool:
    """Whether a norm is far off right after one that matches: what outruns the statistics of a new network does not jump."""
    (row, channels), before = sites[i], sites[i - 1][0]
    if i == 0 or row["normalized_by"] != "running" or not before["shift_rms"] < limits.shift:
        return False
    return bool(np.sqrt((beyond_start(row, channels) ** 2).mean()) > limits.channel_shift)


def affine_at_start(channels: pd.DataFrame) -> bool:
    """Whether γ is exactly 1, or exactly 0, in all channels that have one, and β exactly 0."""
    gamma, beta = (channels[name].to_numpy() for name in ("gamma", "beta"))  # as in `at_start`
    missing = np.isnan(gamma)
    one, zero = (((gamma == value) | missing).all() for value in (1, 0))
    return bool((one or zero) and ((beta == 0) | np.isnan(beta)).all())
