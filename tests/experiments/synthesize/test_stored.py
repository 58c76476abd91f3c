"""What images are matched to: distances by a second formula, dead channels, and networks that have nothing to match."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.errors import BnprobeError, NoNormLayers
from bnprobe.experiments.synthesize.drawing import seeded
from bnprobe.experiments.synthesize.stored import Stored, stored_statistics


def norm(**kwargs: float) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(5, **kwargs)
    made.running_mean = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0])
    made.running_var = torch.tensor([4.0, 0.25, 1e-30, 1.0, 0.09])
    return made.eval()


def stored(module: nn.Module) -> Stored:
    (found,) = stored_statistics(nn.Sequential(module))
    return found


@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_the_distance_is_that_of_means_and_standard_deviations(eps: float) -> None:
    """Fails if eps, a sample's weight or a channel is lost: by numpy in float64, of a skewed batch far from zero."""
    module = norm(eps=eps)
    x = np.random.default_rng(0).gamma(0.7, size=(7, 5, 3, 4)) * [[[[3]], [[1]], [[2]], [[5]], [[1]]]] + 2
    alive = [0, 1, 3, 4]
    mean, var = x.mean((0, 2, 3))[alive], x.var((0, 2, 3))[alive]
    m, v = (t.double().numpy()[alive] for t in (module.running_mean, module.running_var))
    sigma = np.sqrt(v + eps)
    expected = (((mean - m) / sigma) ** 2 + (np.sqrt(var + eps) / sigma - 1) ** 2).mean()
    assert float(stored(module).distance(torch.tensor(x))) == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_the_stored_statistics_is_at_no_distance() -> None:
    module = norm()
    x = torch.randn(9, 5, 4, 4)
    x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), correction=0, keepdim=True)
    x = x * module.running_var.sqrt()[:, None, None] + module.running_mean[:, None, None]
    assert float(stored(module).distance(x)) < 1e-4


def test_channels_of_a_dead_input_are_left_out() -> None:
    module = norm()
    module.running_mean[3] = torch.nan
    assert stored(module).kept.tolist() == [0, 1, 4]


def test_a_permutation_moves_mean_and_deviation_together() -> None:
    """Fails if they are permuted apart: then the control would differ in more than the assignment."""
    one = stored(norm())
    other = one.permuted(seeded(0, 1))
    pairs = sorted(zip(one.mean.tolist(), one.sigma.tolist(), strict=True))
    assert sorted(zip(other.mean.tolist(), other.sigma.tolist(), strict=True)) == pairs
    assert other.mean.tolist() != one.mean.tolist()


def test_norms_of_initial_statistics_say_nothing() -> None:
    """Fails if a head that was added after training is matched to mean 0 and variance 1."""
    found = stored_statistics(nn.Sequential(nn.BatchNorm2d(5), norm()))
    assert [one.path for one in found] == ["1"]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.LayerNorm(3)), "1 GroupNorm, 1 LayerNorm"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), "1 BatchNorm2d"),
        (nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True)), "1 InstanceNorm2d"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), "no norm at all"),
    ],
)
def test_a_network_without_running_statistics_is_refused(model: nn.Module, says: str) -> None:
    with pytest.raises(NoNormLayers, match=f"{says}.*needs track_running_stats=True"):
        bnprobe.synthesize(model, shape=(3, 8, 8))


def test_statistics_that_were_never_updated_are_no_data() -> None:
    with pytest.raises(BnprobeError, match=r"in 1 batch norm, .*Train it, or load a checkpoint"):
        bnprobe.synthesize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), shape=(3, 8, 8))


def test_norms_that_have_seen_nothing_vary_are_no_data() -> None:
    module = nn.BatchNorm2d(3)
    module.running_var.zero_()
    with pytest.raises(BnprobeError, match="no data that vary"):
        bnprobe.synthesize(nn.Sequential(module), shape=(3, 8, 8))
