"""Models that put tokens in another order before their norms: a note says so, or what is recorded is of the right tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import bnprobe

C, N, T = 8, 4, 6
LENGTHS = torch.tensor([3, 6, 2, 5])

Within = Callable[[Tensor], Tensor]


def by_rows(x: Tensor, mask: Tensor, within: Within) -> Tensor:
    order = mask.sum(1).argsort(descending=True)
    return within(x[order])[order.argsort()]


def by_index_select(x: Tensor, mask: Tensor, within: Within) -> Tensor:
    order = mask.sum(1).argsort(descending=True)
    return within(x.index_select(0, order)).index_select(0, order.argsort())


def turned(x: Tensor, mask: Tensor, within: Within) -> Tensor:
    return within(x.flip(1)).flip(-2)


def rolled(x: Tensor, mask: Tensor, within: Within) -> Tensor:
    return within(x.roll(2, 1)).roll(-2, -2)


def by_gather(x: Tensor, mask: Tensor, within: Within) -> Tensor:
    order = mask.argsort(dim=1, stable=True)[:, :, None].expand(-1, -1, C)
    return within(x.gather(1, order)).gather(-2, order.argsort(1))


def time_first(x: Tensor, mask: Tensor, within: Within) -> Tensor:
    order = mask.sum(1).argsort()
    return within(x.transpose(0, 1)[:, order]).transpose(0, 1)[order.argsort()]


def in_a_row(x: Tensor, mask: Tensor, within: Within) -> Tensor:
    order = mask.reshape(-1).argsort(stable=True)
    return within(x.reshape(-1, C)[order])[order.argsort()].reshape(x.shape)


def with_lengths(x: Tensor, mask: Tensor, within: Within) -> Tensor:
    """What is moved with the tokens, and put back with them, is not out of order."""
    lengths = mask.sum(1)
    order = lengths.argsort()
    return (within(x[order]) * (lengths[order] > 0)[:, None, None])[order.argsort()] * (lengths > 0)[
        :, None, None
    ]


def with_rows_of_lengths(x: Tensor, mask: Tensor, within: Within) -> Tensor:
    lengths = mask.sum(1, keepdim=True).float()
    order = mask.sum(1).argsort()
    return (within(x[order]) * (lengths[order] > 0)[..., None])[order.argsort()] * (lengths > 0)[..., None]


def packed(x: Tensor, mask: Tensor, within: Within) -> Tensor:
    made = pack_padded_sequence(x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
    padded, _ = pad_packed_sequence(made._replace(data=within(made.data)), batch_first=True, total_length=T)
    return padded


def as_it_is(x: Tensor, mask: Tensor, within: Within) -> Tensor:
    return within(x)


def features_turned(x: Tensor, mask: Tensor, within: Within) -> Tensor:
    return within(x.flip(-1).roll(1, 2)).roll(-1, 2).flip(-1)


class Encoder(nn.Module):
    """Token by token, so that norms of each token are known whatever the order."""

    def __init__(self, way: Callable[[Tensor, Tensor, Within], Tensor] = as_it_is) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.embedding, self.linear = way, nn.Embedding(30, C), nn.Linear(C, C)
        self.first, self.within, self.last = (nn.LayerNorm(C) for _ in range(3))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.first(self.embedding(input_ids))
        y: Tensor = self.last(self.way(x, attention_mask, lambda x: self.within(self.linear(x))))
        return y


def batch(lengths: Tensor = LENGTHS) -> dict[str, Tensor]:
    ids = torch.randint(1, 30, (N, T), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": (torch.arange(T) < lengths[:, None]).long()}


def recorded(model: nn.Module, *batches: dict[str, Any], grad: bool = False) -> bnprobe.Recording:
    with torch.set_grad_enabled(grad), bnprobe.attach(model) as probe:
        for one in batches:
            model(**one)
    return probe.recording


def notes(recording: bnprobe.Recording) -> str:
    return " ".join(note for note in recording.about.notes if "another order" in note)


MOVED = [
    by_rows,
    by_index_select,
    turned,
    rolled,
    by_gather,
    time_first,
    in_a_row,
    with_lengths,
    with_rows_of_lengths,
]
KEPT = [as_it_is, packed, features_turned]


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("way", [*MOVED, *KEPT])
def test_the_note_names_every_norm_whose_tokens_are_elsewhere(way: Any, grad: bool):
    """Fails if a norm has the mask of other tokens without a note, or one after tokens were put back is suspected."""
    found = recorded(Encoder(way), batch(), grad=grad)
    said = notes(found)
    assert ("before within: the mask was applied" in said) is (way in MOVED)
    assert "first" not in said.partition("before ")[2].partition(":")[0]
    valid = batch()["attention_mask"].bool()
    plain = Encoder()
    with torch.no_grad():
        x = plain.embedding(batch()["input_ids"])[valid]
    for record in found.layers:
        if record.layer not in said and record.n_masked and way is not features_turned:
            np.testing.assert_allclose(record.pre.mean, x.mean(0).numpy(), rtol=1e-4, atol=1e-5)
        x = getattr(plain, record.layer)(x).detach()
        x = plain.linear(x).detach() if record.layer == "first" else x


def test_norms_of_heads():
    """Fails if queries of a turned sequence are not suspected, as their heads stand before the tokens."""

    def heads(x: Tensor, mask: Tensor, within: Within) -> Tensor:
        split = x.flip(1).view(N, T, 2, C // 2).transpose(1, 2)
        return within(torch.cat([model.of_head(split), split], -1).transpose(1, 2)[:, :, 0])

    model: Any = Encoder(heads)
    model.of_head = nn.LayerNorm(C // 2)
    assert "of_head" in notes(recorded(model, batch()))


def test_a_batch_that_was_sorted_before_decides_nothing():
    """Fails if what stays in its place in the first pass is trusted in all later ones."""
    in_order = batch(torch.tensor([6, 5, 3, 2]))
    assert not notes(recorded(Encoder(by_rows), in_order, in_order))
    assert "before within" in notes(recorded(Encoder(by_rows), in_order, batch()))


def test_without_a_mask_positions_alone_are_in_question():
    """Fails if padding is spoken of where there is none."""
    found = notes(recorded(Encoder(turned), batch(torch.full((N,), T))))
    assert "before within: Positions, ids" in found


def forms(mask: Tensor) -> dict[str, Tensor]:
    """Ways to say the same mask."""
    far = torch.finfo(torch.float32).min
    added = torch.where(mask == 1, 0.0, far)
    causal = torch.full((T, T), far).triu(1)
    return {
        "added": added,
        "infinite": torch.where(mask == 1, 0.0, -torch.inf),
        "added, 4-D": added[:, None, None, :],
        "causal": torch.maximum(added[:, None, None, :] + causal, torch.tensor(far)),
        "causal, heads": (added[:, None, None, :] + causal).clamp(min=far).expand(-1, 2, -1, -1),
        "boolean, 4-D": (mask == 1)[:, None, None, :].expand(-1, 1, T, -1),
        "numbers, 3-D": mask[:, None, :].expand(-1, T, -1),
    }


class Ignoring(Encoder):
    """Whatever form its mask has."""

    def forward(self, input_ids: Tensor, attention_mask: Any) -> Tensor:
        return super().forward(input_ids, input_ids * 0 + 1)


@pytest.mark.parametrize("form", forms(torch.ones(N, T)))
def test_forms_of_a_mask(form: str):
    """Fails if padding counts because the mask is one that is added to scores, or has a row for each query."""
    plain = batch()
    wanted = recorded(Ignoring(), plain)
    found = recorded(Ignoring(), plain | {"attention_mask": forms(plain["attention_mask"])[form]})
    for one, other in zip(found.layers, wanted.layers, strict=True):
        assert one.n_masked == other.n_masked == N * T - int(LENGTHS.sum())
        np.testing.assert_array_equal(one.pre.mean, other.pre.mean)
    everything = forms(torch.ones(N, T))[form]
    assert all(
        not record.n_masked for record in recorded(Ignoring(), plain | {"attention_mask": everything}).layers
    )


class Changing(Encoder):
    """Copies, inverts and casts its mask, and overwrites what it was given."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        attention_mask.mul_(-1).add_(1)
        added = attention_mask.float() * -1e9
        return super().forward(input_ids, (added == 0).long())


def test_a_mask_that_the_model_changes():
    """Fails if the mask is read when the model has overwritten it."""
    wanted, found = recorded(Encoder(), batch()), recorded(Changing(), batch())
    for one, other in zip(found.layers, wanted.layers, strict=True):
        np.testing.assert_array_equal(one.pre.mean, other.pre.mean)
