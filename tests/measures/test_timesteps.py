"""Shares of variance between timesteps, against an analysis of variance sample by sample."""

from __future__ import annotations

import numpy as np
import pytest

from bnprobe.errors import BnprobeError
from bnprobe.measures.timesteps import share_of_time
from bnprobe.stats.moments import Array
from bnprobe.stats.timesteps import GATE, SCALE, SHIFT, TimestepStats

B, C, G = 4, 6, 2


def stats_of(bucket: Array, values: Array) -> TimestepStats:
    """Of samples with their bucket (N,) and the scale that each channel met (N, C)."""
    n_buckets = int(bucket.max()) + 1
    n, sums, squares = np.zeros((n_buckets, 3)), np.zeros((n_buckets, 3, C)), np.zeros((n_buckets, 3, G))
    for b, row in zip(bucket.astype(int), values, strict=True):
        n[b, 0] += 1
        sums[b, 0] += row
        squares[b, 0] += (row**2).reshape(G, -1).sum(-1)
    seen = np.stack([n[:, 0], n[:, 0] * np.arange(n_buckets)], axis=1)
    return TimestepStats("t", np.zeros(2), seen, np.zeros((n_buckets, 5, G)), n, sums, squares)


def by_sample(bucket: Array, values: Array) -> float:
    """1 less the mean square within buckets over the mean square of all, each by its degrees of freedom."""
    within = sum(((values[bucket == b] - values[bucket == b].mean(0)) ** 2).sum() for b in np.unique(bucket))
    whole = ((values - values.mean(0)) ** 2).sum()
    n, groups = len(values), len(np.unique(bucket))
    return float(max(1 - (within / (n - groups)) / (whole / (n - 1)), 0))


@pytest.mark.parametrize("effect", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("offset", [0.0, 1.0, -50.0])
def test_the_share_between_timesteps(effect: float, offset: float):
    """Fails if channels are pooled before their variances are, or chance counts as an effect."""
    rng = np.random.default_rng(2)
    bucket = rng.integers(0, B, 60).astype(float)
    values = offset + rng.normal(size=(60, C)) + effect * rng.normal(size=(B, C))[bucket.astype(int)]
    assert share_of_time(stats_of(bucket, values), SCALE) == pytest.approx(
        by_sample(bucket, values), abs=1e-9
    )


def test_chance_is_no_share():
    """Fails if many buckets of few samples look like an effect."""
    rng = np.random.default_rng(4)
    shares = [
        share_of_time(stats_of(np.repeat(np.arange(B), 3).astype(float), rng.normal(size=(12, C))), SCALE)
        for _ in range(200)
    ]
    assert np.mean(shares) < 0.06  # without the correction 3/11 = 0.27


def test_where_there_is_no_share():
    """Fails if one bucket, a constant or a part that was not seen has a share."""
    one = np.zeros(6)
    assert np.isnan(share_of_time(stats_of(one, np.random.default_rng(0).normal(size=(6, C))), SCALE))
    two = np.repeat([0.0, 1.0], 3)
    assert np.isnan(share_of_time(stats_of(two, np.ones((6, C)) * 0.1), SCALE))
    known = stats_of(two, np.random.default_rng(0).normal(size=(6, C)))
    assert np.isnan(share_of_time(known, SHIFT))
    assert np.isnan(share_of_time(known, GATE))
    assert np.isnan(share_of_time(TimestepStats("t", known.grid, known.seen, known.groups), SCALE))
    assert np.isnan(
        share_of_time(stats_of(np.arange(3.0), np.random.default_rng(0).normal(size=(3, C))), SCALE)
    )


@pytest.mark.parametrize(
    "edit",
    [
        {"grid": np.array([0.5, 0.0])},
        {"seen": np.array([[-1.0, 0], [3, 3]])},
        {"seen": np.array([[0.5, 0], [3, 3]])},
        {"groups": np.ones((2, 5, G)) * 9},
        {"squares": -np.ones((2, 3, G))},
    ],
)
def test_sums_of_no_samples_are_refused(edit: dict[str, Array]):
    """Fails if a file may hold counts or squares that no run has."""
    values = vars(stats_of(np.repeat([0.0, 1.0], 3), np.ones((6, C))))
    TimestepStats(**values).check_sane()
    with pytest.raises(BnprobeError, match=r"^here: "):
        TimestepStats(**values | edit).check_sane("here")


@pytest.mark.parametrize("name", ["grid", "seen", "groups", "n_modulated", "sums", "squares"])
def test_shapes_are_checked(name: str):
    """Fails if a file may hold arrays of other sizes."""
    values = vars(stats_of(np.repeat([0.0, 1.0], 3), np.ones((6, C))))
    with pytest.raises(BnprobeError, match=r"^timesteps"):
        TimestepStats(**values | {name: values[name][:-1]})
    if name in ("n_modulated", "sums", "squares"):
        with pytest.raises(BnprobeError, match=r"^timesteps"):
            TimestepStats(**values | {name: None})
