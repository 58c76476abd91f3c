"""Classes that are norms by name and attributes only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.models import C, FaceRMSNorm, FirstLayerNorm, L, PlusOneRMSNorm
from torch import nn

import bnprobe
from bnprobe.norms import describe


def test_look_alikes_offer_every_reading():
    """Fails if 1 + w, channels first or the centred reading is never tried for a class known by name."""
    plans = describe(FaceRMSNorm(C))
    assert {(p.kind, p.weight_offset, p.channels) for p in plans} == {
        (kind, offset, channels)
        for kind in ("rms_norm", "layer_norm")
        for offset in (0.0, 1.0)
        for channels in ("first", "last")
    }
    assert plans[0].eps == 1e-6
    assert (plans[0].kind, describe(FirstLayerNorm(C))[0].kind) == ("rms_norm", "layer_norm")


def test_a_group_norm_by_its_looks():
    """Fails if the number of groups is not read from the module."""

    class MyGroupNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.num_groups, self.eps = nn.Parameter(torch.ones(6)), 2, 1e-5

    (plan,) = describe(MyGroupNorm())
    assert (plan.kind, plan.pools, plan.n_groups, plan.n_channels) == ("group_norm", "group", 2, 6)


def test_one_plus_w_is_distinguished_from_w():
    """Fails if gamma of a Gemma-like norm is reported as w: with w = 0 it would look dead."""
    model = nn.Sequential(PlusOneRMSNorm(C)).double()
    with bnprobe.attach(model) as probe:
        model(torch.randn(2, L, C, dtype=torch.float64))
    np.testing.assert_array_equal(probe.recording.layers[0].gamma, np.ones(C))


class BareRMSNorm(nn.Module):
    """Its eps stands in its code."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.weight, self.offset = nn.Parameter(torch.rand(6) + 0.5), offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.weight + self.offset) * x * (x.square().mean(-1, keepdim=True) + 1e-7).rsqrt()


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_an_rms_norm_without_an_eps_is_known_by_what_it_does(offset):
    """Fails if an RMS norm that keeps its eps in its code is not recorded, or its eps passes for known."""
    model = nn.Sequential(nn.Linear(4, 6), BareRMSNorm(offset))
    with bnprobe.attach(model) as probe:
        model(torch.randn(40, 4))
    (row,) = bnprobe.report(probe).layers.itertuples()
    assert (row.kind, row.eps_assumed) == ("rms_norm", 1)
    assert row.mismatch < 1e-4
    np.testing.assert_allclose(
        bnprobe.report(probe).channels["gamma"], model[1].weight.detach().double() + offset, rtol=1e-6
    )
