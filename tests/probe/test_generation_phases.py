"""Prefill and decode as phases that passes choose by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe

C, N, PROMPT, T = 12, 3, 5, 9


class Cache:
    """As that of transformers: how many tokens it holds."""

    def __init__(self) -> None:
        self.length = 0

    def get_seq_length(self) -> int:
        return self.length


class Model(nn.Module):
    """Token by token, so that what comes before changes nothing; `fails` at a token of this id."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.norm, self.fails = nn.Embedding(50, C), nn.RMSNorm(C), -1

    def forward(self, input_ids: Tensor, cache: Any = None) -> Tensor:
        y: Tensor = self.norm(self.embedding(input_ids))
        if (input_ids == self.fails).any():
            raise ValueError("a token that the model does not like")
        if cache is not None:
            cache.length += input_ids.shape[1]
        return y


IDS = torch.randint(0, 49, (N, T), generator=torch.Generator().manual_seed(0))


def generate(model: nn.Module) -> None:
    cache = Cache()
    model(IDS[:, :PROMPT], cache=cache)
    for i in range(PROMPT, T):
        model(IDS[:, i : i + 1], cache=cache)


def recorded(run: Callable[[bnprobe.Probe, Model], None], **options: Any) -> bnprobe.Recording:
    model = Model().eval()
    with torch.no_grad(), bnprobe.attach(model, phase="generation", **options) as probe:
        run(probe, model)
    return probe.recording


def test_prefill_and_decode_are_apart():
    """Fails if a loop that is no loop of the user's pools prompts with what is generated, or a phase holds the other's
    tokens, or counts a sequence never, or once per token."""

    def twice(probe: bnprobe.Probe, model: Model) -> None:
        generate(model)
        generate(model)

    found = recorded(twice)
    assert (found.layers, list(found.phases)) == ((), ["prefill", "decode"])
    model = Model().eval()
    for name, ids, positions in (
        ("prefill", IDS[:, :PROMPT], range(PROMPT)),
        ("decode", IDS[:, PROMPT:], range(PROMPT, T)),
    ):
        phase, rows = found.phases[name], model.embedding(ids).detach().numpy().reshape(-1, C)
        (record,) = phase.layers
        np.testing.assert_allclose(record.pre.mean, rows.mean(0), rtol=1e-5, atol=1e-6)
        assert record.tokens is not None
        buckets = np.bincount([i.bit_length() for i in positions] * 2 * N, minlength=len(record.tokens.n))
        np.testing.assert_array_equal(record.tokens.n, buckets)
        assert (phase.about.phase, phase.about.n_images, record.tokens.n_sequences[0]) == (name, 2 * N, 2 * N)


def test_a_phase_of_the_users_goes_before():
    """Fails if passes inside probe.phase go elsewhere, or a pass leaves its phase to what follows."""

    def run(probe: bnprobe.Probe, model: Model) -> None:
        with probe.phase("mine"):
            generate(model)
        generate(model)
        model.norm(torch.ones(2, C))

    found = recorded(run)
    assert {name: part.about.n_images for name, part in found.phases.items()} == {
        "mine": N,
        "prefill": N,
        "decode": N,
    }
    assert found.about.n_images == 2  # of the norm that was called by itself


def test_a_pass_that_fails_leaves_its_phase():
    """Fails if after an exception a norm that runs by itself is recorded among the tokens of a prompt."""

    def run(probe: bnprobe.Probe, model: Model) -> None:
        model.fails = 49
        with pytest.raises(ValueError, match="does not like"):
            model(torch.tensor([[49]]))
        model.norm(torch.ones(2, C))

    found = recorded(run)
    assert found.about.n_images == 2
    assert not found.phases["prefill"].layers


def test_sequences_that_are_not_recorded_are_in_no_phase():
    """Fails if with every=2 tokens of a sequence whose prompt was left out are recorded, or the phases take turns apart."""

    def run(probe: bnprobe.Probe, model: Model) -> None:
        for _ in range(3):
            generate(model)

    found = recorded(run, every=2)
    assert {name: part.about.n_images for name, part in found.phases.items()} == {
        "prefill": 2 * N,
        "decode": 2 * N,
    }
