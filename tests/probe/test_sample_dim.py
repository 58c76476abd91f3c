"""Which dimension is the sample, and what it is called."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe import BnprobeError
from bnprobe.report.chapters.chapter import measured_on, unit_of

T, N, C = 7, 4, 6


class SequenceFirst(nn.Module):
    """(T, N, C) through a layer norm, a batch norm that takes (N, C, T), a functional norm, and pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.batch, self.head = nn.LayerNorm(C), nn.BatchNorm1d(C), nn.LayerNorm(C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.batch(self.tokens(x).permute(1, 2, 0)).permute(2, 0, 1)
        return self.head(nn.functional.layer_norm(x, (C,)).mean(0))


@pytest.fixture
def x() -> Tensor:
    rng = np.random.default_rng(0)
    return torch.tensor(rng.gamma(0.7, size=(T, N, C)) + rng.normal(size=(1, N, C)))


def recorded(x: Tensor, **options) -> bnprobe.Recording:
    torch.manual_seed(0)
    model = SequenceFirst().double().eval()
    with bnprobe.attach(model, **options) as probe, torch.no_grad():
        model(x)
    return probe.recording


def test_samples_are_in_the_dimension_that_was_named(x):
    """Fails if time steps count as samples anywhere: in norms, functions, what has no time, or the whole."""
    recording = recorded(x, sample_dim=1)
    assert recording.about.n_images == N
    assert [record.n_images for record in recording.layers] == [N] * 4
    tokens = recording.layers[0]
    means = x.numpy().mean(0) - tokens.pre_images.origin
    np.testing.assert_allclose(tokens.pre_images.a, means.mean(0), atol=1e-12)
    np.testing.assert_allclose(tokens.pre_images.aa, ((means - means.mean(0)) ** 2).sum(0), rtol=1e-5)
    assert tokens.mismatch < 1e-9
    plain = recorded(x)
    assert (plain.about.n_images, plain.layers[0].n_images) == (T, T)
    np.testing.assert_allclose(plain.layers[0].pre.m4, tokens.pre.m4, rtol=1e-6)


def test_labels_and_masks_follow_the_samples(x):
    """Fails if labels or the rows of a mask are laid over time steps."""
    mask = torch.arange(T)[None] < torch.tensor([[7], [3], [5], [1]])
    model = SequenceFirst().double().eval()
    with (
        bnprobe.attach(model, sample_dim=1) as probe,
        torch.no_grad(),
        probe.mask(mask),
        probe.labels([0, 1, 0, 1]),
    ):
        model(x)
    record = probe.recording.layers[0]
    values = x.transpose(0, 1)[mask].numpy()
    np.testing.assert_allclose(record.pre.mean, values.mean(0), rtol=1e-9)
    assert record.classes.n.tolist() == [2, 2]
    with (
        bnprobe.attach(model) as probe,
        pytest.raises(bnprobe.BadMask, match="say sample_dim="),
        probe.mask(mask),
    ):
        model(x)


def test_gradients_follow_the_samples(x):
    """Fails if the gradient at a norm is cut into other rows than its input."""
    torch.manual_seed(0)
    model, inputs = SequenceFirst().double().eval(), x.clone().requires_grad_()
    with bnprobe.attach(model, sample_dim=1) as probe:
        model(inputs).square().sum().backward()
    gradient = probe.recording.layers[0].gradient
    np.testing.assert_allclose(gradient.dx.mean, inputs.grad.numpy().mean((0, 1)), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("sample_dim", [-1, True, 1.0, "batch", None])
def test_a_dimension_is_a_number(sample_dim):
    """Fails if a dimension that no tensor has is believed, and fails later."""
    with pytest.raises(BnprobeError, match=r"counted from 0\. Pass 1 for inputs of shape"):
        bnprobe.attach(SequenceFirst(), sample_dim=sample_dim)


def test_a_dimension_that_the_tensor_has_not_is_refused_before_the_pass(x):
    """Fails if the pass begins, or leaves something behind, or the model runs no more."""
    model = nn.Sequential(nn.LayerNorm(C)).double()
    with bnprobe.attach(model, sample_dim=2) as probe, torch.no_grad():
        with pytest.raises(
            BnprobeError, match=r"sample_dim=2, but the model was called with a tensor of shape \(4, 6\)"
        ):
            model(x[0])
        model(x)
    assert probe.recording.about.n_forwards == 1
    model(x[0])


def test_samples_are_called_by_their_name(x):
    """Fails if a page says samples, or images, where the user says sequences."""
    recording = recorded(x, sample_dim=1, unit="sequences")
    assert unit_of(recording) == "sequence"
    report = bnprobe.report(recording)
    assert f"Measured on {N} sequences" in report.answer
    assert re.search(rf"{N} sequences( \(\d+ tokens\))? in 1 forward pass", report.to_text(200))
    assert unit_of(recorded(x)) == "sample"
    assert unit_of(recording.merge(recording)) == "sequence"
    with_others = recording.merge(recorded(x, unit="tokens"))
    assert with_others.about.unit == ""
    with pytest.raises(BnprobeError, match="Pass one of images, sequences, tokens, samples"):
        bnprobe.attach(SequenceFirst(), unit="things")


def test_tokens_are_counted_beside_sequences(x):
    """Fails if the page does not say how many tokens count, and how many do not."""
    mask = torch.arange(T)[None] < torch.tensor([[7], [3], [5], [1]])
    model = SequenceFirst().double().eval()
    with bnprobe.attach(model, sample_dim=1, unit="sequences") as probe, torch.no_grad(), probe.mask(mask):
        model(x)
    assert measured_on(probe.recording) == "4 sequences (16 tokens; 12 more left out by masks)"
    assert "4 sequences (16 tokens; 12 more left out by masks) in 1 forward pass" in bnprobe.report(
        probe
    ).to_text(200)
