"""The branch against the skip: hand-worked shares, and a tower of blocks against Monte Carlo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.measures import residual
from bnprobe.recording.neighbours import Neighbours
from measures.sites import site, some_rows


def test_hand_worked_shares():
    """Fails if variances are taken for standard deviations, or the skip's share for the branch's."""
    rows = some_rows(5, 2)
    made = site(rows, gamma=[1.0, 3.0], beta=[0, 0], running_mean=[0, 0], running_var=[1.0, 1.0], eps=1.0)
    neighbours = Neighbours(
        "add, relu", skip="other", skip_var=np.array([1.0, 3.0]), skip_var_initial=np.array([3.0, 3.0])
    )
    columns = residual.layer_columns(replace(made, neighbours=neighbours))
    assert columns["skip"] == "other"
    assert columns["branch_var"] == pytest.approx(np.mean(made.post.var_population))
    assert columns["skip_var"] == 2.0
    # gamma^2 / 2, for eps is as large as the variance: mean 2.5
    assert columns["branch_share"] == pytest.approx(2.5 / 4.5)
    assert columns["branch_share_initial"] == pytest.approx(1 / 4)


@pytest.mark.parametrize("follows", ["relu", "unknown", "conv | relu", "mul"])
def test_only_where_a_sum_follows(follows: str):
    """Fails if a norm that feeds no sum is given a skip connection."""
    made = site(some_rows())
    columns = residual.layer_columns(replace(made, neighbours=Neighbours(follows)))
    assert np.isnan([columns[name] for name in ("branch_var", "skip_var", "branch_share")]).all()
    assert np.isnan(residual.layer_columns(made)["branch_var"])


class Tower(nn.Module):
    """Blocks x -> act(norm(mix(x)) + x) behind a first norm, as in a post-activation network."""

    def __init__(self, n: int, relu: bool) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(32)
        self.mix = nn.ModuleList(nn.Conv2d(32, 32, 1, bias=False) for _ in range(n))
        self.norms = nn.ModuleList(nn.BatchNorm2d(32) for _ in range(n))
        self.act = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        for mix, norm in zip(self.mix, self.norms, strict=True):
            x = self.act(norm(mix(x)) + x)
        return x


def tower(relu: bool, n: int = 9) -> np.ndarray:
    """Columns skip_var, branch_share_initial and branch_share of the blocks of a fresh network."""
    model = Tower(n, relu)
    with bnprobe.attach(model) as probe, torch.no_grad():
        model(torch.randn(8, 32, 4, 4))
    layers = bnprobe.report(probe).layers
    blocks = layers[layers["layer"].str.startswith("norms")]
    return blocks[["skip_var", "branch_share_initial", "branch_share"]].to_numpy(float)


def test_the_value_at_initialisation_is_the_reflected_random_walk():
    """Against x -> max(x + N(0, 1), 0) simulated: within 10% in every block, as terms are not quite Gaussian."""
    walk, real = np.maximum(np.random.default_rng(1).normal(size=400_000), 0), []
    for _ in range(9):
        real.append(walk.var())
        walk = np.maximum(walk + np.random.default_rng(len(real) + 1).normal(size=walk.size), 0)
    np.testing.assert_allclose(real[:3], [0.341, 0.695, 1.055], rtol=0.02)
    found = tower(relu=True)
    np.testing.assert_allclose(found[:, 0], real, rtol=0.1)
    np.testing.assert_allclose(found[:, 1], 1 / (1 + np.array(real)), rtol=0.1)
    # a fresh network is what it was at initialisation
    np.testing.assert_allclose(found[:, 1], found[:, 2], rtol=1e-4)


def test_without_an_activation_the_variance_grows_by_one_per_block():
    """De & Smith: the branch's share of block l is 1 / (l + 1)."""
    found = tower(relu=False)
    np.testing.assert_allclose(found[:, 0], np.arange(1, 10), rtol=1e-9)
    np.testing.assert_allclose(found[:, 1], 1 / np.arange(2, 11), rtol=1e-9)
