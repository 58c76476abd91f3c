"""What gains say by themselves, against numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.measures import gains
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
