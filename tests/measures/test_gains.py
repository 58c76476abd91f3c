"""What gains say by themselves, against numbers worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.measures import gains
from bnprobe.stats.tokens import TokenStats
from measures.sites import site

ROWS = np.random.default_rng(0).normal(size=(5, 64, 9))


def test_shares_of_gains():
    """Fails if 1 is taken for near 1, or a block ends elsewhere than after 32 channels."""
    gamma = np.full(64, 0.5)
    gamma[0], gamma[1], gamma[2] = 1.9, 1.0, 1.74  # of a block whose power of two is 1
    gamma[40] = 0.51  # that of the second is 0.5
    found = gains.layer_columns(site(ROWS, kind="rms_norm", gamma=gamma))
    assert found["gamma_is_one"] == 1 / 64
    assert found["gamma_saturating"] == 1 / 64


def test_a_sign_does_not_matter_and_zeros_do_not_saturate():
    """Fails if a negative gain is a small one."""
    gamma = np.zeros(64)
    gamma[3], gamma[4] = -1.8, -1.0
    assert gains.saturating(gamma) == 1 / 64


def test_norms_with_running_statistics_have_none():
    """Fails if the columns appear for batch norms."""
    found = gains.layer_columns(site(ROWS, gamma=1.0))
    assert all(math.isnan(value) for value in found.values())
    assert math.isnan(gains.layer_columns(site(ROWS, kind="rms_norm"))["gamma_is_one"])
    assert found.keys() == {column.name for column in gains.COLUMNS}


def test_gains_that_weaken_large_dimensions():
    """Fails if the sign of the correlation turns."""
    size = torch.linspace(0.5, 4, 24)
    model = nn.Sequential(nn.RMSNorm(24))
    model[0].weight.data = 1 / size
    with torch.no_grad(), bnprobe.attach(model) as probe:
        model(torch.randn((8, 30, 24), generator=torch.Generator().manual_seed(0)) * size)
    found = gains.layer_columns(probe.recording.layers[0])
    assert found["gamma_vs_size"] == pytest.approx(-1, abs=0.05)


def vs_size(gamma: np.ndarray, size: np.ndarray) -> float:
    """Of gains and the squared size of what they meet."""
    n = len(gamma)
    tokens = replace(TokenStats.empty(n), z_square=size)
    rows = np.random.default_rng(0).normal(size=(3, n, 2))
    return gains.layer_columns(site(rows, kind="rms_norm", gamma=gamma, tokens=tokens))["gamma_vs_size"]


def test_the_correlation_of_logs_by_numpy():
    """Fails if a negative gain is no gain, or channels without gain or size count."""
    rng = np.random.default_rng(3)
    gamma, size = rng.normal(size=12), rng.gamma(1, size=12)
    expected = np.corrcoef(np.log(np.abs(gamma)), np.log(size))[0, 1]
    assert vs_size(gamma, size) == pytest.approx(expected)
    more = np.concatenate([gamma, [0.0, 5.0, np.nan, np.inf]]), np.concatenate([size, [9.0, 0.0, 9.0, 9.0]])
    assert vs_size(*more) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "known"), [(8, True), (7, False)])
def test_a_correlation_needs_eight_channels_that_differ(n: int, known: bool):
    """Fails if fewer channels are enough, or gains or sizes that are all alike correlate."""
    gamma, size = np.arange(1.0, n + 1), np.arange(2.0, n + 2) ** 3
    assert math.isnan(vs_size(gamma, size)) is not known
    assert math.isnan(vs_size(np.ones(n), size))
    assert math.isnan(vs_size(gamma, np.ones(n)))


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        ([1.75, 1.0], 0.0),
        ([1.76, 1.0], 0.5),
        ([3.6, 3.4], 0.5),
        ([0.89, 0.87], 0.5),
        ([np.inf, 1.0], math.nan),
        ([0.0, 0.0], 0.0),
    ],
)
def test_the_last_number_of_a_block(gamma: list[float], expected: float):
    """Fails if 1.75 itself is clipped, or the power of two is not that at or below the largest."""
    assert gains.saturating(np.array(gamma)) == pytest.approx(expected, nan_ok=True)
