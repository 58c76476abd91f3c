"""Generation of several batches in turn, and with beams: sequences are those that were asked for, whoever comes next."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.probe.generation import alike

C, T = 12, 9


class Cache:
    """As that of transformers: how many tokens it holds."""

    def __init__(self) -> None:
        self.length = 0

    def get_seq_length(self) -> int:
        return self.length


class Model(nn.Module):
    """Token by token, so that what comes before changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.norm = nn.Embedding(50, C), nn.RMSNorm(C)

    def forward(self, input_ids: Tensor, cache: Any = None) -> Tensor:
        y: Tensor = self.norm(self.embedding(input_ids))
        if cache is not None:
            cache.length += input_ids.shape[1]
        return y


def ids(n: int, seed: int, t: int = T) -> Tensor:
    return torch.randint(0, 49, (n, t), generator=torch.Generator().manual_seed(seed))


def in_turn(model: nn.Module, *batches: Tensor, prompt: int = 5) -> None:
    """All prompts, and then the next token of each batch."""
    caches = [Cache() for _ in batches]
    for batch, cache in zip(batches, caches, strict=True):
        model(batch[:, :prompt], cache=cache)
    for i in range(prompt, T):
        for batch, cache in zip(batches, caches, strict=True):
            model(batch[:, i : i + 1], cache=cache)


def recorded(*batches: Tensor, **options: Any) -> bnprobe.Recording:
    model = Model().eval()
    with torch.no_grad(), bnprobe.attach(model, **options) as probe:
        in_turn(model, *batches)
    return probe.recording


def named(recording: bnprobe.Recording) -> set[tuple[float, ...]]:
    """Sequence, position and id of the loudest tokens."""
    (record,) = recording.layers
    assert record.tokens is not None
    return set(map(tuple, record.tokens.loudest[:, 1:4]))


def of_all(*batches: Tensor) -> set[tuple[float, ...]]:
    """Sequence, position and id of every token, by hand."""
    rows = torch.cat(batches)
    return {(float(n), float(t), float(rows[n, t])) for n in range(len(rows)) for t in range(T)}


def test_tokens_are_named_by_the_batch_that_they_continue():
    """Fails if a token of the first of two batches in turn is said to be one of the second."""
    first, second = ids(2, 1), ids(3, 2)
    found = recorded(first, second)
    assert found.about.n_images == 5
    assert named(found) <= of_all(first, second)


def test_each_batch_counts_once_where_it_is_decoded():
    """Fails if of two batches in turn the second has no sequences where tokens follow prompts, or each step counts."""
    found = recorded(ids(2, 1), ids(3, 2), phase="generation")
    assert {name: part.about.n_images for name, part in found.phases.items()} == {"prefill": 5, "decode": 5}


def test_a_cache_that_begins_again_counts_again():
    """Fails if a cache that is emptied and used for other prompts is taken for the sequences it held before."""
    model, cache = Model().eval(), Cache()
    with torch.no_grad(), bnprobe.attach(model, phase="generation") as probe:
        for seed in range(3):
            cache.length = 0
            model(ids(2, seed)[:, :5], cache=cache)
            model(ids(2, seed)[:, 5:6], cache=cache)
    found = probe.recording.phases
    assert {name: part.about.n_images for name, part in found.items()} == {"prefill": 6, "decode": 6}


def test_a_batch_that_is_left_out_stays_so():
    """Fails if with every=2 tokens are recorded or not by the batch that began last."""
    first, second = ids(2, 1), ids(3, 2)
    found = recorded(first, second, every=2)
    (record,) = found.layers
    assert record.tokens is not None
    assert (found.about.n_images, record.tokens.n_tokens) == (2, first.numel())
    assert named(found) <= of_all(first)


BEAMS = 3


def test_beams_are_the_sequence_of_their_prompt():
    """Fails if beams count as sequences, or their tokens are said to be of sequences that nobody gave."""
    prompts = ids(2, 1, 5).repeat_interleave(BEAMS, 0)
    batch = torch.cat([prompts, ids(2 * BEAMS, 2, T - 5)], 1)
    found = recorded(batch)
    (record,) = found.layers
    assert record.tokens is not None
    assert (found.about.n_images, record.tokens.n_sequences[0], record.tokens.n_tokens) == (
        2,
        2,
        batch.numel(),
    )
    every = {(n // BEAMS, t, i) for n, t, i in of_all(batch)}
    assert named(found) <= every


def test_copies_that_nobody_generates_from_are_samples():
    """Fails if equal rows of a batch without a cache are taken for beams."""
    model = Model().eval()
    with torch.no_grad(), bnprobe.attach(model) as probe:
        model(ids(2, 1).repeat_interleave(BEAMS, 0))
    assert probe.recording.about.n_images == 2 * BEAMS


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([1, 2, 3], 1),
        ([1, 1, 2, 2], 2),
        ([1, 1, 1, 1], 4),
        ([1, 1, 1, 1, 2, 2], 2),
        ([1, 1, 1, 2, 2], 1),
        ([1], 1),
        ([], 1),
    ],
)
def test_rows_of_one_prompt(numbers: list[int], expected: int):
    """Fails if runs of other lengths are rounded, or a prompt that was given twice is no multiple of its beams."""
    n = len(numbers)
    rows = torch.tensor(numbers, dtype=torch.long).reshape(n, 1).repeat(1, 2)
    assert alike([rows, torch.zeros(n + 1)], n) == expected
    if n > 1:  # what else differs from row to row parts them
        assert alike([rows, torch.arange(n)], n) == 1


class Encoder(nn.Module):
    """Takes a mask, as encoders do that generation calls by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(50, C), nn.RMSNorm(C)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        y: Tensor = self.norm(self.embedding(input_ids))
        return y


class Both(nn.Module):
    """An encoder and a decoder."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = Encoder(), Model()

    def forward(self, decoder_input_ids: Tensor, encoder_outputs: Tensor, cache: Any = None) -> Tensor:
        y: Tensor = self.decoder(decoder_input_ids, cache) + encoder_outputs.mean(1, keepdim=True)
        return y


class Headed(nn.Module):
    """A head around both, as of models that generate."""

    def __init__(self, model: Both) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Tensor:
        y: Tensor = self.model(**inputs)
        return y


@pytest.mark.parametrize("under_a_head", [False, True])
def test_an_encoder_called_by_itself_has_its_mask(under_a_head: bool):
    """Fails if padding counts where generation calls the encoder, or beams of equal first tokens are one sequence."""
    given, mask = ids(2, 1), torch.ones((2, T), dtype=torch.long)
    mask[0, :4] = 0
    both, cache = Both().eval(), Cache()
    model = Headed(both).eval() if under_a_head else both
    with torch.no_grad(), bnprobe.attach(model) as probe:
        seen = both.encoder(input_ids=given, attention_mask=mask).repeat_interleave(BEAMS, 0)
        start = torch.zeros((2 * BEAMS, 1), dtype=torch.long)
        for _ in range(3):
            model(decoder_input_ids=start, encoder_outputs=seen, cache=cache)
    found = probe.recording
    encoder = found.layers[0].tokens
    assert encoder is not None
    assert (found.about.n_images, encoder.n_tokens) == (2, mask.sum())
    np.testing.assert_array_equal(sorted(set(encoder.loudest[:, 1])), [0, 1])
    # positions are counted from the first token that is none of padding: 5 tokens in one row and 9 in the other
    np.testing.assert_array_equal(encoder.n[:5], [2, 2, 4, 1 + 4, 1])


@pytest.mark.parametrize("times", [1, 2])
def test_tokens_that_go_on_belong_to_the_batch_of_their_sequences(times):
    """Fails if the same next token, twice, is called a batch that was recorded twice, or a batch that was is not."""
    batch = ids(3, 1)
    batch[:, 6:] = batch[:, 5:6]
    model = Model().eval()
    with torch.no_grad(), bnprobe.attach(model) as probe:
        for _ in range(times):
            in_turn(model, batch)
    report = bnprobe.report(probe)
    assert report.layers["n_calls"].item() == times * (1 + T - 5)
    assert report.layers["batches_recorded"].item() == times
    (folds,) = (record.pre_folds for record in probe.recording.layers)
    assert folds.n[:, 0].tolist() == [3 * (1 + T - 5)] * times
    said = report.findings.query("rule == 'samples-alike'")["says"].tolist()
    assert said == ["The same samples were recorded more than once: of 2 batches only 1 is different."] * (
        times - 1
    )
