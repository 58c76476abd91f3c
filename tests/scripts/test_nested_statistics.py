"""Batch, instance, group and layer norm on one tensor: their statistics follow from one another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from measures.sites import some_rows
from torch import nn

import bnprobe
from bnprobe.measures import components
from scripts.article import nested_statistics

ROWS = some_rows(5, n_channels=6)
MEAN, VAR = ROWS.mean(2), ROWS.var(2)


def test_batch_norm_from_instance_norm():
    """Fails if the variance of the means is left out, or taken over channels."""
    mean, var = nested_statistics.batch_statistics(MEAN, VAR)
    np.testing.assert_allclose(mean, ROWS.mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(var, ROWS.var((0, 2)), rtol=1e-12)


@pytest.mark.parametrize("n_groups", [1, 2, 3, 6])
def test_group_and_layer_norm_from_instance_norm(n_groups):
    """Fails if groups are of every G-th channel and not of neighbours; 1 is layer norm, 6 instance norm."""
    mean, var = nested_statistics.group_statistics(MEAN, VAR, n_groups)
    groups = ROWS.reshape(5, n_groups, -1)
    np.testing.assert_allclose(mean, groups.mean(2), rtol=1e-12)
    np.testing.assert_allclose(var, groups.var(2), rtol=1e-12)


def test_the_instance_share_is_the_share_inside_an_image():
    """Fails if the two ways to the same number disagree: sums over images, and these relations."""
    found = components.channel_columns(probed(nn.BatchNorm1d(6).eval()))["share_within"]
    share = nested_statistics.instance_share(MEAN, VAR)  # of these 5 images, not of many: divisor n
    np.testing.assert_allclose(1 / share - 1, (1 / found - 1) * 4 / 5, rtol=1e-9)


def probed(norm: nn.Module) -> bnprobe.recording.LayerRecord:
    with bnprobe.attach(norm) as probe, torch.no_grad():
        norm.double()(torch.tensor(ROWS))
    return probe.recording.layers[0]


@pytest.mark.parametrize(
    ("norm", "n_groups"),
    [(nn.InstanceNorm1d(6), 6), (nn.GroupNorm(3, 6), 3), (nn.GroupNorm(1, 6), 1)],
    ids=["instance", "group", "layer"],
)
def test_what_is_recorded_of_one_tensor_obeys_the_relations(norm, n_groups):
    """Fails if the statistics that a norm is said to use itself are of other groups or have another divisor."""
    record = probed(norm)
    mean, var = nested_statistics.group_statistics(MEAN, VAR, n_groups)
    np.testing.assert_allclose(record.own_mean.mean, mean.mean(0), rtol=1e-9)
    np.testing.assert_allclose(record.own_mean.var_population, mean.var(0), rtol=1e-9)
    np.testing.assert_allclose(record.own_log_var.mean, np.log(var + record.eps).mean(0), rtol=1e-9)
    if n_groups == 6:  # v_BN = mean v_IN + Var(mu_IN)
        batch = record.pre.var_population
        np.testing.assert_allclose(batch, var.mean(0) + record.own_mean.var_population, rtol=1e-9)
