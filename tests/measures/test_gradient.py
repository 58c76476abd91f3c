"""What the columns of gradients say: hand-worked numbers, every kind, and nothing where nothing was run."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support import oracles
from support.gradients import loss_of
from support.models import BY_NAME
from torch import nn

import bnprobe
from bnprobe.measures import gradient as measure
from bnprobe.measures import tables
from bnprobe.recording import LayerRecord, ProducerRecord
from bnprobe.stats import Moments
from measures.sites import gradient, site, some_rows

CHANNELS = [column.name for column in measure.COLUMNS if column.table == "channels"]
LAYERS = [column.name for column in measure.COLUMNS if column.table == "layers"]
ROWS = some_rows()
PER_PASS = np.array([[1.0, -2.0, 0.0], [3.0, -2.0, 4.0], [2.0, -2.0, -4.0]])
"""A vector over three passes: steady, constant, and all noise."""


MANY = np.random.default_rng(1).normal(1, 2, size=(9, 3))
"""A vector over nine passes."""


def over_passes(values: np.ndarray) -> Moments:
    return Moments(**oracles.moments(np.asarray(values, dtype=float)))


def record(dy: np.ndarray = ROWS, **changes: Any) -> LayerRecord:
    """A norm of three channels with gamma 2, -1, 0.5 whose backward passes are known."""
    return site(ROWS, gamma=[2.0, -1.0, 0.5], beta=0.5, gradient=gradient(dy, **changes))


# Per channel


def test_pull_on_gamma_and_beta():
    """Fails if gamma and beta are exchanged, a sum stands for the mean, or the sign is lost."""
    found = measure.channel_columns(record(gamma=over_passes(PER_PASS), beta=over_passes(PER_PASS * 10 + 1)))
    np.testing.assert_allclose(found["grad_gamma"], [2, -2, 0])
    np.testing.assert_allclose(found["grad_beta"], [21, -19, 1])
    np.testing.assert_allclose(found["gamma_pull"], [4, 2, 0])


def test_signal_to_noise_is_of_the_right_vector():
    """Fails if gamma and beta are exchanged, or a ratio is told of fewer than 8 passes."""
    found = measure.channel_columns(record(gamma=over_passes(MANY), beta=over_passes(-MANY / 2 + 9)))
    for name, passes in (("gamma_snr", MANY), ("beta_snr", -MANY / 2 + 9)):
        square = 6 / 8 * passes.mean(0) ** 2 / passes.var(0, ddof=1) - 1 / 9
        np.testing.assert_allclose(found[name], np.sqrt(np.maximum(square, 0)))
    few = measure.channel_columns(record(gamma=over_passes(MANY[:7])))
    assert np.isnan(few["gamma_snr"]).all()
    np.testing.assert_allclose(few["grad_gamma"], MANY[:7].mean(0))


def test_the_gradient_of_the_stream_is_a_length_per_pass():
    """Fails if channels are averaged, passes are added, or the root is left out."""
    squares = np.array([[1.0, 4.0, 0.0], [3.0, 16.0, 12.0]])
    found = measure.layer_columns(record(stream=over_passes(squares)))
    assert found["grad_scale"] == pytest.approx(np.sqrt((1 + 4 + 0 + 3 + 16 + 12) / 2))
    assert math.isnan(measure.layer_columns(record())["grad_scale"])


def test_moments_of_dy_and_dx():
    """Fails if the two are exchanged, or the divisor is n - 1."""
    dx = some_rows(seed=3)
    found = measure.channel_columns(record(dx=Moments(**oracles.channel_moments(dx))))
    for name, rows in (("dy", ROWS), ("dx", dx)):
        np.testing.assert_allclose(found[f"{name}_mean"], rows.mean((0, 2)), rtol=1e-9)
        np.testing.assert_allclose(found[f"{name}_var"], rows.var((0, 2)), rtol=1e-9)


def test_share_of_energy_taken_out():
    """Fails if the share is upside down, of variances and not of sums of squares, or 0 / 0 is 1."""
    energy = (ROWS**2).sum((0, 2))
    found = measure.channel_columns(record(energy=energy * [4, 1, 0]))
    np.testing.assert_allclose(found["energy_removed"], [0.75, 0, math.nan], atol=1e-12)


def test_importance_is_the_mean_of_sizes():
    """Fails if sizes cancel, or another moment is shown."""
    found = measure.channel_columns(record(importance=over_passes(np.abs(PER_PASS))))
    np.testing.assert_allclose(found["importance"], [2, 2, 8 / 3])


def test_weights_before_the_norm():
    """Fails if lengths and angles are exchanged, or the last pass stands for the mean."""
    producer = ProducerRecord(
        over_passes([[3.0, 4, 5]] * 3),
        over_passes(PER_PASS),
        over_passes([[0.1, 0.2, 0], [0.3, 0.2, 0], [0.2, 0.2, 0]]),
        np.zeros(3),
    )
    found = measure.channel_columns(record(producer=producer))
    np.testing.assert_allclose(found["w_norm"], [3, 4, 5])
    np.testing.assert_allclose(found["w_angle"], [0.2, 0.2, 0])
    layer = measure.layer_columns(record(producer=producer))
    assert layer["w_angle_median"] == pytest.approx(0.2)


# Per layer


def test_lengths_and_their_ratio():
    """Fails if a length is not over all channels and per pass, or the ratio is upside down."""
    rows = np.ones((2, 3, 5))  # 30 values
    found = measure.layer_columns(
        record(2 * rows, dx=Moments(**oracles.channel_moments(rows)), n_passes=3, energy=np.full(3, 40.0))
    )
    assert found["n_backward"] == 3
    assert found["grad_out"] == pytest.approx(math.sqrt(4 * 30 / 3))
    assert found["grad_in"] == pytest.approx(math.sqrt(30 / 3))
    assert found["grad_ratio"] == pytest.approx(0.5)
    assert found["energy_removed_layer"] == pytest.approx(1 - 30 / 120)


def test_the_layers_share_of_energy_weighs_channels_by_theirs():
    """Fails if shares of channels are averaged: a channel without energy has no say."""
    dx = Moments(**oracles.channel_moments(np.ones((2, 3, 5))))
    found = measure.layer_columns(record(dx=dx, energy=np.array([10.0, 1000, 90])))
    assert found["energy_removed_layer"] == pytest.approx(1 - 30 / 1100)


def test_tails_are_those_of_all_values():
    """Fails if the kurtosis of channels is averaged: channels of other scales make tails together."""
    found = measure.layer_columns(record())
    flat = ROWS.ravel() - ROWS.mean()
    assert found["dy_kurtosis"] == pytest.approx((flat**4).mean() / (flat**2).mean() ** 2 - 3)


def test_share_of_channels_without_gradient():
    """Fails if NaN, a small gradient, or a mean of 0 counts as none."""
    dy = ROWS.copy()
    dy[:, 0] = 0
    dy[:, 1] = np.where(np.arange(dy.shape[2]) % 2, 1e-150, -1e-150)
    assert measure.layer_columns(record(dy))["no_gradient"] == pytest.approx(1 / 3)
    one_value = np.array([0.0, 3.0, 0.0])[None, :, None]
    assert measure.layer_columns(record(one_value))["no_gradient"] == pytest.approx(2 / 3)


# What is not there


def test_without_backward_everything_is_nan():
    """Fails if a recording of forward passes only shows a gradient of 0."""
    bare = site(ROWS, gamma=1, beta=0)
    assert set(CHANNELS) == set(measure.channel_columns(bare))
    for column in measure.channel_columns(bare).values():
        assert column.shape == (3,)
        assert np.isnan(column).all()
    found = measure.layer_columns(bare)
    assert set(found) == set(LAYERS)
    assert {found.pop(name) for name in LAYERS if name.startswith("n_backward")} == {0}
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize(
    ("lacking", "columns", "layer_columns"),
    [
        ("dx", ["dx_mean", "dx_var", "energy_removed"], ["grad_in", "grad_ratio", "energy_removed_layer"]),
        ("gamma", ["grad_gamma", "gamma_snr", "gamma_pull"], ["gamma_snr_pooled", "gamma_snr_upper"]),
        ("beta", ["grad_beta", "beta_snr"], ["beta_snr_pooled", "beta_snr_upper"]),
        ("importance", ["importance"], []),
        ("stream", [], ["grad_scale"]),
        ("producer", ["w_norm", "w_angle"], ["w_angle_median"]),
    ],
)
def test_what_autograd_did_not_compute_is_nan(lacking, columns, layer_columns):
    """Fails if a missing gradient takes another with it, or is 0."""
    producer = ProducerRecord(*[over_passes(PER_PASS + 9)] * 3, np.zeros(3))
    full = record(producer=producer, gamma=over_passes(MANY), stream=over_passes(PER_PASS**2))
    full = replace(full, gradient=replace(full.gradient, beta=full.gradient.gamma))
    less = replace(full, gradient=replace(full.gradient, **{lacking: None}))
    empty = [name for name, values in measure.channel_columns(less).items() if np.isnan(values).all()]
    assert sorted(empty) == sorted(columns)
    assert not any(np.isnan(values).all() for values in measure.channel_columns(full).values())
    empty = [name for name, value in measure.layer_columns(less).items() if math.isnan(value)]
    assert sorted(empty) == sorted(layer_columns)
    assert not any(math.isnan(value) for value in measure.layer_columns(full).values())


def test_a_gradient_of_zeros():
    """Fails if 0 / 0 is shown as a ratio, or warns."""
    zeros = np.zeros_like(ROWS)
    found = measure.layer_columns(record(zeros, energy=np.zeros(3)))
    assert found["grad_out"] == pytest.approx(0)
    assert found["no_gradient"] == 1
    assert math.isnan(found["grad_ratio"])
    assert math.isnan(found["energy_removed_layer"])
    assert math.isnan(found["dy_kurtosis"])


def test_a_norm_without_gamma():
    """Fails if gamma_pull is made of a gamma that is not there."""
    bare = site(ROWS, gradient=gradient(ROWS, gamma=None, beta=None, importance=None))
    found = measure.channel_columns(bare)
    assert np.isnan(found["gamma_pull"]).all()
    assert not np.isnan(found["dy_mean"]).any()


@pytest.mark.parametrize("with_backward", [True, False])
@pytest.mark.parametrize(
    "name",
    ["mixed", "frozen", "no affine", "instance norm", "group norm", "RMS norm of 1 + w", "fused activation"],
)
def test_every_kind_has_every_column(name, with_backward):
    """Fails if a column is missing for some kind, raises, or is there although nothing was run backward."""
    case = BY_NAME[name]
    model, batches = case.model(True), case.batches()
    with bnprobe.attach(model) as probe:
        for x in batches:
            output = model(x.clone().requires_grad_())
            if with_backward:
                loss_of(output).backward()
    found = tables(probe.recording)
    assert set(CHANNELS) <= set(found.channels)
    assert set(LAYERS) <= set(found.layers)
    assert (found.layers["n_backward"] == (3 if with_backward else 0)).all()
    numbers = ["dy_mean", "dy_var", "dx_mean", "dx_var"]
    assert found.channels[numbers].notna().all(axis=None) == with_backward
    if not with_backward:
        assert found.channels[CHANNELS].isna().all(axis=None)
        return
    learned = sum(p.requires_grad for module in model.modules() for p in module.parameters(recurse=False))
    assert found.channels["grad_gamma"].notna().all() == bool(learned)


def test_gamma_of_one_plus_w_is_one_plus_w():
    """Fails if gamma_pull or importance is made with w, which is gamma - 1."""
    case = BY_NAME["RMS norm of 1 + w"]
    model, (x, *_) = case.model(True), case.batches()
    with bnprobe.attach(model) as probe:
        loss_of(model(x)).backward()
    found = tables(probe.recording).channels
    w, g = (t.detach().numpy() for t in (model[0].weight, model[0].weight.grad))
    np.testing.assert_allclose(found["gamma_pull"], (1 + w) * g, rtol=1e-9)
    np.testing.assert_allclose(found["importance"], np.abs((1 + w) * g), rtol=1e-9)


def test_importance_predicts_what_switching_off_changes():
    """Fails if it is not the first-order change: the loss is linear in gamma and beta here, so it is exact."""
    norm = nn.BatchNorm2d(3).double().eval()
    force, x = torch.randn(4, 3, 2, 2, dtype=torch.float64), torch.randn(4, 3, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, -2, 1]))
        norm.bias.copy_(torch.tensor([1.0, 0.3, 0]))
    with bnprobe.attach(norm) as probe:
        loss = (norm(x) * force).sum()
        loss.backward()
    importance = tables(probe.recording).channels["importance"]
    for c in range(3):
        y = norm(x).detach().clone()
        y[:, c] = 0
        assert importance[c] == pytest.approx(abs(float((y * force).sum() - loss.detach())))


# The whole network


def test_imbalance():
    """Fails if the logarithm is natural, the divisor n - 1, or layers that no gradient reached count."""
    layers = pd.DataFrame({"grad_out": [1.0, 100.0, math.nan, 0.0]})
    assert measure.imbalance(layers) == pytest.approx(1)
    assert measure.imbalance(pd.DataFrame({"grad_out": [3.0, 3.0]})) == 0


@pytest.mark.parametrize("lengths", [[], [1.0], [math.nan, 2.0], [0.0, 0.0], [math.nan] * 3])
def test_imbalance_of_fewer_than_two_is_nan(lengths):
    """Fails if one layer is balanced with itself."""
    assert math.isnan(measure.imbalance(pd.DataFrame({"grad_out": np.array(lengths, dtype=float)})))
