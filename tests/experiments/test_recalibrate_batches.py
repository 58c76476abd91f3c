"""How often batches are read to renew statistics: one that can be read once is refused where it takes more."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.errors import BnprobeError


def model(n_norms: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), *(nn.BatchNorm1d(4) for _ in range(n_norms))).eval()


def once() -> object:
    return (torch.randn(8, 3, generator=torch.Generator().manual_seed(i)) for i in range(3))


def test_one_pass_takes_batches_that_can_be_read_once() -> None:
    """Fails if a generator is refused where it is read once."""
    assert bnprobe.recalibrate(model(2), once()).n_samples == 24


@pytest.mark.parametrize("n_norms", [1, 2])
def test_a_pass_for_each_norm_needs_batches_that_can_be_read_again(n_norms: int) -> None:
    """Fails if the pass for the order of execution is not counted: with one norm there are two."""
    with pytest.raises(BnprobeError, match=f"{n_norms + 1} passes are needed"):
        bnprobe.recalibrate(model(n_norms), once(), layer_by_layer=True)


def test_a_recording_may_hold_norms_that_store_nothing() -> None:
    """Fails if a norm without running statistics is asked for its weights, or renewed."""
    torch.manual_seed(0)
    mixed = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.BatchNorm1d(4)).eval()
    plan = bnprobe.recalibrate(mixed, bnprobe.record(mixed, [torch.randn(8, 3)]))
    assert list(plan.renewals) == ["2"]


def test_a_model_on_several_devices_is_refused_unless_told_how_it_runs() -> None:
    """Fails if torch's own words about tensors of two devices come out, or a user who moves batches is refused, too."""
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2, device="meta")).eval()
    batches = [torch.randn(20, 3)]
    with pytest.raises(BnprobeError, match=r"spread over cpu, meta"):
        bnprobe.recalibrate(model, batches)
    plan = bnprobe.recalibrate(model, batches, call=lambda m, x: m[1](m[0](x)))
    assert plan.n_samples == 20
