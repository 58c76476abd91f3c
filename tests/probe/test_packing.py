"""Packed sequences: each is a sample, as if it had been run alone, whatever the layout of its tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe import BadMask, Recording
from bnprobe.probe.packing import Packing
from probe.test_masks import assert_alike

C = 6
LENGTHS = (5, 3, 0, 7, 1)
OFFSETS = [0, 5, 8, 8, 15, 16]
T = OFFSETS[-1]


class Packed(nn.Module):
    """Takes tokens of several sequences, and where each begins."""

    def __init__(self, norm: nn.Module, heads: int = 0) -> None:
        super().__init__()
        self.norm, self.heads = norm, heads

    def forward(self, x: Tensor, cu_seqlens: Any = None) -> Tensor:
        x = x.unflatten(-1, (self.heads, -1)) if self.heads else x
        if not isinstance(self.norm, nn.BatchNorm1d) or x.dim() == 2:
            return self.norm(x)
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


NORMS = {
    "layer norm": lambda: Packed(nn.LayerNorm(C)),
    "rms norm": lambda: Packed(nn.RMSNorm(C)),
    "norm of heads": lambda: Packed(nn.LayerNorm(3), heads=2),
    "batch norm": lambda: Packed(nn.BatchNorm1d(C)),
}


@pytest.fixture
def x() -> Tensor:
    """Sequences that differ more than their tokens do."""
    rng = np.random.default_rng(3)
    values = rng.gamma(0.7, size=(T, C)) * [1, 10, 0.1, 1, 1, 3] + [0, 5, -2, 1000, 0, 1]
    return torch.tensor(values + np.repeat(rng.normal(0, 5, len(LENGTHS)), LENGTHS)[:, None])


def model_of(name: str) -> nn.Module:
    torch.manual_seed(1)
    model = NORMS[name]().double().eval()
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2.0)
    return model


def together(model: nn.Module, x: Tensor, given: Any, labels: Any = None) -> Recording:
    with bnprobe.attach(model, mask="cu_seqlens") as probe:
        for _ in range(2):  # the second call knows the scale of its histograms
            with probe.labels([-1] * len(LENGTHS) if labels is None else labels):
                model(x, cu_seqlens=given).square().sum().backward()
    return probe.recording


def one_by_one(model: nn.Module, x: Tensor, labels: Any = None) -> Recording:
    with bnprobe.attach(model) as probe:
        for _ in range(2):
            for i, part in enumerate(x.split(LENGTHS, dim=x.dim() - 2)):
                if part.numel():
                    with probe.labels([-1] if labels is None else [labels[i]]):
                        model(part if part.dim() == 3 else part[None]).square().sum().backward()
    return probe.recording


@pytest.mark.parametrize("batch", [False, True], ids=["tokens", "one row of tokens"])
@pytest.mark.parametrize("name", NORMS)
def test_packed_sequences_are_recorded_as_if_alone(name, batch, x):
    """Fails if tokens count as samples, sequences are mixed, or gradients are of other tokens."""
    model, given = model_of(name), x[None] if batch else x
    (found,) = together(model, given, torch.tensor(OFFSETS, dtype=torch.int32)).layers
    (wanted,) = one_by_one(model, given).layers
    for part in ("pre", "post", "own_mean", "own_log_var", "n_positive"):
        assert_alike(getattr(found, part), getattr(wanted, part))
    assert_alike(found.pre_images.about(wanted.pre_images.origin), wanted.pre_images, 1e-7)
    assert (found.n_images, found.n_masked) == (8, 0)
    for record in (found, wanted):
        assert record.pre_histogram.counts.sum(axis=(0, 2)).tolist() == [
            2 * 16 * (2 if model.heads else 1)
        ] * (3 if model.heads else C)
    for part in ("dy", "dx"):
        assert_alike(getattr(found.gradient, part), getattr(wanted.gradient, part), 1e-7)


@pytest.mark.parametrize("batch", [False, True], ids=["tokens", "one row of tokens"])
@pytest.mark.parametrize("name", ["layer norm", "rms norm", "norm of heads"])
def test_tokens_are_those_of_a_padded_batch(name, batch, x):
    """Fails if tokens of packed sequences are not measured, or have positions and numbers of other sequences."""
    model = model_of(name)
    padded = torch.nn.utils.rnn.pad_sequence(x.split(LENGTHS), batch_first=True)
    counts = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    with bnprobe.attach(model) as probe:
        for _ in range(2):
            with probe.mask(counts):
                model(padded)
    (wanted,) = probe.recording.layers
    (found,) = together(model, x[None] if batch else x, OFFSETS).layers
    assert found.tokens.n_sequences == 2 * len(LENGTHS)
    assert found.tokens.n_tokens == 2 * T * (model.heads or 1)
    for part in ("n", "log_sum", "log_square", "scales", "z_sum", "z_square", "mean_share", "n_sequences"):
        np.testing.assert_allclose(getattr(found.tokens, part), getattr(wanted.tokens, part), rtol=1e-9)
    # each is there twice, and heads of one token may be equally loud
    for column in (0, 1, 2, 4, 5):
        few, all_of_them = found.tokens.loudest[:6, column], wanted.tokens.loudest[:6, column]
        np.testing.assert_allclose(np.sort(few), np.sort(all_of_them), rtol=1e-9)
    # 16 tokens in a row, or their heads: pairs of other sequences and other positions
    sequence = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    position = np.concatenate([np.arange(n) for n in LENGTHS])
    if model.heads:
        sequence, position = np.repeat(sequence, model.heads), np.repeat(position, model.heads)
    apart = (sequence[:, None] != sequence) & (position[:, None] != position)
    assert found.tokens.pairs[0] == 2 * apart.sum() / 2


def test_ids_of_packed_tokens_are_known():
    """Fails if ids in one row, or in none, are not those of their tokens."""

    class Ids(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm = nn.Embedding(20, C), nn.LayerNorm(C)
            nn.init.normal_(self.embed.weight)
            nn.init.constant_(self.embed.weight[17, ::2].detach(), 100.0)

        def forward(self, input_ids: Tensor, cu_seqlens: Any = None) -> Tensor:
            return self.norm(self.embed(input_ids))

    ids = torch.arange(T)
    ids[9] = 17
    for given in (ids, ids[None]):
        model = Ids()
        with bnprobe.attach(model, mask="cu_seqlens") as probe:
            model(given, cu_seqlens=OFFSETS)
        tokens = probe.recording.layers[0].tokens
        assert tokens.loudest[0, 1:4].tolist() == [3, 1, 17]


def test_spread_between_sequences_is_against_numpy(x):
    """Fails if the spread of samples is that of tokens."""
    recording = together(model_of("rms norm"), x, np.array(OFFSETS))
    means = np.array([part.numpy().mean(0) for part in x.split(LENGTHS) if len(part)])
    assert recording.about.n_images == 2 * len(LENGTHS)
    wanted = 2 * ((means - means.mean(0)) ** 2).sum(0)  # of two passes
    np.testing.assert_allclose(recording.layers[0].pre_images.aa, wanted, rtol=1e-9)


def test_labels_are_those_of_sequences(x):
    """Fails if classes need one label per token, or go to other sequences."""
    labels = [0, 1, 0, 1, 0]
    found = together(model_of("layer norm"), x, OFFSETS, labels).layers[0].classes
    wanted = one_by_one(model_of("layer norm"), x[None], labels).layers[0].classes
    assert_alike(found, wanted)


def test_a_batch_norm_in_train_mode(x):
    """Fails if the norm is taken to normalize each sequence by itself, or packing for padding."""
    model = model_of("batch norm").train()
    recording = together(model, x, OFFSETS)
    record = recording.layers[0]
    y = (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + record.eps)
    expected = y.numpy() * record.gamma + record.beta
    np.testing.assert_allclose(record.post.mean, expected.mean(0), atol=1e-9)
    np.testing.assert_allclose(record.post.var_population, expected.var(0), rtol=1e-7)
    assert record.call_log.fewest_values == T
    assert not [note for note in recording.about.notes if "adding" in note]


def test_norms_that_do_not_have_the_tokens_are_recorded_whole(x):
    """Fails if what is pooled is cut by the places of tokens, or nobody is told."""

    class Pools(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = nn.LayerNorm(C), nn.LayerNorm(C), nn.GroupNorm(2, C)

        def forward(self, x: Tensor, cu_seqlens: Tensor) -> Tensor:
            y = self.one(x)
            return self.two(y[:5]).sum() + self.three(y.T[None]).sum()

    recording = together(Pools().double(), x, torch.tensor(OFFSETS))
    assert [record.n_images for record in recording.layers] == [8, 10, 2]
    (note,) = (note for note in recording.about.notes if note.startswith("Inputs without the positions"))
    assert "two: (5, 6); three: (1, 6, 16)" in note


def test_places_that_nobody_asked_for_are_named(x):
    """Fails if tokens of several sequences are counted as they come, and nobody says how to do better."""
    model = model_of("layer norm")
    with bnprobe.attach(model) as probe:
        model(x, cu_seqlens=torch.tensor(OFFSETS))
    assert [note for note in probe.recording.about.notes if 'attach(model, mask="cu_seqlens")' in note]


@pytest.mark.parametrize("given", [OFFSETS, np.array(OFFSETS, np.uint8), torch.tensor(OFFSETS), (0, 5, 16)])
def test_forms(given):
    assert Packing(given).n_valid == T


@pytest.mark.parametrize(
    "given",
    [
        *([0], [], 7, [1, 5], [0, 5, 3], [0, 0], [[0, 5]], [0.0, 5.0], [0, [5]], "05", [False, True]),
        *(
            torch.tensor([0.0, 5]),
            torch.empty(3, dtype=torch.int64, device="meta"),
            torch.tensor([False, True]),
        ),
    ],
)
def test_what_is_no_list_of_places(given):
    """Fails if an error of numpy's, or a sequence from its end to its beginning, is what comes of it."""
    with pytest.raises(BadMask, match="begin with 0 and never fall, such as"):
        Packing(given)


def test_places_of_another_batch_are_refused_before_the_pass(x):
    """Fails if tokens are cut where another batch's sequences end."""
    model = model_of("layer norm")
    with bnprobe.attach(model, mask="cu_seqlens") as probe:
        with pytest.raises(BadMask, match=r"sequences of 15 tokens in all, and an input of shape \(16, 6\)"):
            model(x, cu_seqlens=[0, 5, 15])
        model(x, cu_seqlens=OFFSETS)
    assert probe.recording.about.n_forwards == 1
