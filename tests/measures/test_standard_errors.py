"""Errors count the samples that the model was given, where a layer sees several rows of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.comparison import differences, pairs
from bnprobe.measures import tables
from bnprobe.measures.standard_errors import by_sample
from bnprobe.recording import Recording
from measures import drawn
from measures.sites import alone, recording, some_rows

N_SAMPLES, N_STEPS, N_CHANNELS = 64, 20, 16
STATISTICS = {"running_mean": np.zeros(N_CHANNELS), "running_var": np.ones(N_CHANNELS)}


def sequences(rng: np.random.Generator, n: int = N_SAMPLES) -> np.ndarray:
    """Values (n, T, C) of mean 0 and variance 1; from step to step the correlation is 0.95."""
    x = [rng.normal(size=(n, N_CHANNELS))]
    for _ in range(N_STEPS - 1):
        x.append(0.95 * x[-1] + np.sqrt(1 - 0.95**2) * rng.normal(size=(n, N_CHANNELS)))
    return np.stack(x, axis=1)


def recorded(x: np.ndarray, **about: object) -> Recording:
    """What `BatchNorm1d` on `x.reshape(-1, C)` leaves: rows (n T, C, 1) of n samples."""
    record = drawn.record_of(x.reshape(-1, N_CHANNELS, 1), **STATISTICS)
    return recording(record, **{"n_images": len(x), **about})


def test_of_two_halves_of_the_same_sequences_nothing_changed_significantly():
    """Fails if rows are counted for samples: of 12 seeds, 32 tests each, none to few may be below q = 0.01."""
    called, verdicts = [], set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        a, b = recorded(sequences(rng)), recorded(sequences(rng))
        called.append(differences(pairs(a, b)).channels["pre_changed"].mean())
        verdicts |= {*tables(a).layers["verdict"], *tables(b).layers["verdict"]}
    assert np.mean(called) <= 0.01
    assert not any("shifted" in verdict for verdict in verdicts)


def test_errors_are_those_of_samples():
    """Fails if the variance shrinks with the number, or degrees of freedom are still those of rows."""
    x = sequences(np.random.default_rng(3))
    found = tables(recorded(x))
    spread = x.reshape(-1, N_CHANNELS).var(axis=0, ddof=1)
    in_training = spread * np.maximum(1, 1 / x.reshape(-1, N_CHANNELS).var(axis=0))
    expected = np.sqrt((spread / N_SAMPLES + in_training / (19 * 32)) / (1 + 1e-5))
    np.testing.assert_allclose(found.channels["shift_se"], expected, rtol=1e-9)
    assert (found.layers["n_images"] == N_SAMPLES).all()
    assert found.layers["n_values"][0] == x.size
    # the bound holds: no error of whole sequences, by the means of their own, is larger
    of_samples = x.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(N_SAMPLES)
    assert (found.channels["shift_se"] > of_samples).all()
    # what is said of the rows themselves stays: one value each
    np.testing.assert_allclose(found.channels["design_effect"], len(x) * N_STEPS / (len(x) * N_STEPS - 1))


def test_one_row_per_sample_keeps_its_numbers():
    """Fails if anything changes where samples are counted by the layer already, or nobody counted them."""
    rows = some_rows(12)
    plain = recording(drawn.record_of(rows, np.zeros(3), np.ones(3)))
    assert by_sample(plain)[0] is plain.layers[0]
    outside = recorded(sequences(np.random.default_rng(0)), n_forwards=0)
    assert by_sample(outside)[0] is outside.layers[0]
    unknown = recorded(sequences(np.random.default_rng(0)), n_images=0)
    assert by_sample(unknown)[0] is unknown.layers[0]
    expected = alone(plain.layers[0])
    pd.testing.assert_series_equal(
        tables(plain).channels["shift_q"], pd.Series(expected["shift_q"]), check_names=False, check_exact=True
    )


def test_fewer_images_of_the_same_spread():
    """Fails if a cap changes a variance, or takes a channel that saw fewer images to more."""
    images = drawn.record_of(some_rows(12), np.zeros(3), np.ones(3)).pre_images
    images = replace(images, n=np.array([12.0, 12.0, 4.0]))
    fewer = images.at_most(5)
    np.testing.assert_array_equal(fewer.n, [5, 5, 4])
    np.testing.assert_allclose(fewer.var_between, images.var_between, rtol=1e-12)
    point = np.array([1.0, -2.0, 7.0])
    np.testing.assert_allclose(
        fewer.var_of_square_about(point), images.var_of_square_about(point), rtol=1e-12
    )


class Steps(nn.Module):
    """A norm over the steps of sequences (B, T, 3), each a row of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.bn = nn.Linear(3, N_CHANNELS), nn.BatchNorm1d(N_CHANNELS)

    def forward(self, x: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
        x = torch.stack([item.mean((1, 2)) for item in x])[:, None] if isinstance(x, list) else x
        return self.bn(self.linear(x).reshape(-1, N_CHANNELS))


@pytest.mark.parametrize(
    ("x", "n"), [(torch.randn(8, N_STEPS, 3), 8), ([torch.randn(3, 5, 4) for _ in range(5)], 5)]
)
def test_a_model_is_given_samples(x, n):
    """Fails if a list of five images counts as the three channels of its first, or steps count as samples."""
    model = Steps().eval()
    with bnprobe.attach(model) as probe, torch.no_grad():
        model(x)
    found = bnprobe.report(probe)
    assert probe.n_images == n
    assert found.layers["n_images"][0] == n
