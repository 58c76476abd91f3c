"""Where tokens are: pads and caches change nothing of what is recorded of the others."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.probe.generation import Masks
from bnprobe.probe.masks import Mask
from bnprobe.probe.places import CountedCaches, Earlier, Places, earlier, places_of

C = 12


class Cache:
    """As that of transformers: how many tokens it holds."""

    def __init__(self) -> None:
        self.length = 0

    def get_seq_length(self) -> int:
        return self.length


class Model(nn.Module):
    """Token by token, so that what comes before and after changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(50, C), nn.RMSNorm(C)

    def forward(self, input_ids: Tensor, attention_mask: Any = None, past_key_values: Any = None) -> Tensor:
        y: Tensor = self.norm(self.embedding(input_ids))
        if past_key_values is not None:
            past_key_values.length += input_ids.shape[1]
        return y


IDS = torch.randint(0, 50, (3, 9), generator=torch.Generator().manual_seed(0))


def recorded(model: Model, *calls: dict[str, Any], **options: Any) -> bnprobe.Recording:
    with torch.no_grad(), bnprobe.attach(model, **options) as probe:
        for kwargs in calls:
            model(**kwargs)
    return probe.recording


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model().eval()


def assert_alike(found: Any, expected: Any) -> None:
    for name in ("n", "log_sum", "log_square", "scales", "z_sum", "z_square", "mean_share", "n_sequences"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), 1e-6, 1e-9, err_msg=name)
    np.testing.assert_array_equal(
        sorted(map(tuple, found.loudest[:, 1:])), sorted(map(tuple, expected.loudest[:, 1:]))
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_pads_shift_and_add_nothing(model, side):
    """Fails if pads are counted, or left ones move the tokens that follow to later positions."""
    pads = torch.zeros((3, 4), dtype=torch.long)
    parts, masks = [pads, IDS], [pads, torch.ones_like(IDS)]
    if side == "right":
        parts, masks = parts[::-1], masks[::-1]
    plain = recorded(model, {"input_ids": IDS})
    padded = recorded(
        model,
        {"input_ids": torch.cat(parts, 1), "attention_mask": torch.cat(masks, 1)},
        mask="attention_mask",
    )
    assert_alike(padded.layers[0].tokens, plain.layers[0].tokens)


@pytest.mark.parametrize("name", ["past_key_values", "cache", "kv"])
def test_a_cache_continues_its_sequences(name):
    """Fails if every generated token counts as a sample, or stands at position 0, whatever the cache is called."""

    class Named(Model):
        def forward(self, input_ids: Tensor, **caches: Any) -> Tensor:
            return super().forward(input_ids, None, caches[name])

    model, cache = Named().eval(), Cache()
    steps = [{"input_ids": IDS[:, :5], name: cache}]
    steps += [{"input_ids": IDS[:, i : i + 1], name: cache} for i in range(5, 9)]
    plain, generated = recorded(model, {"input_ids": IDS, name: Cache()}), recorded(model, *steps)
    assert_alike(generated.layers[0].tokens, plain.layers[0].tokens)
    assert generated.about.n_images == plain.about.n_images == 3
    assert bnprobe.report(generated).layers["n_images"].tolist() == [3]


def test_a_cache_of_tuples_continues_its_sequences():
    """Fails if caches of older models, a pair of tensors (N, heads, tokens, channels) per block, count as none."""
    past = ((torch.zeros(2, 4, 7, 3), torch.zeros(2, 4, 7, 3)),)
    kwargs = {"input_ids": torch.ones((2, 1), dtype=torch.long), "past_key_values": past}
    found = places_of((), kwargs, None, 0, earlier(kwargs))
    assert found.continues
    np.testing.assert_array_equal(found.positions, [[7], [7]])


def test_a_cache_without_a_length_ends_no_pass():
    """Fails if what a cache of a state space model raises reaches the user's pass."""

    class States:
        def get_seq_length(self) -> int:
            raise ValueError("no attention layers")

    assert not earlier({"cache": States()}).continues


class States:
    """A cache of states, as those of Mamba: whether it holds something, and not of how many tokens."""

    def __init__(self) -> None:
        self.held = False

    def get_seq_length(self) -> int:
        raise ValueError("no attention layers")

    def has_previous_state(self) -> bool:
        return self.held


class StateModel(Model):
    """One that is given a cache of states."""

    def forward(self, input_ids: Tensor, attention_mask: Any = None, cache: Any = None) -> Tensor:
        if cache is not None:
            cache.held = True
        return super().forward(input_ids)


def steps(cache: States, *bounds: int) -> list[dict[str, Any]]:
    """Calls with the tokens between these places, one behind the other."""
    return [{"input_ids": IDS[:, a:b], "cache": cache} for a, b in pairwise(bounds)]


def test_a_cache_of_states_continues_its_sequences():
    """Fails if each token that a state space model generates counts as a sample, or stands at position 0, because its cache
    does not tell how many went before; or if a cache that was emptied goes on."""
    torch.manual_seed(0)
    model, cache = StateModel().eval(), States()
    plain = recorded(model, {"input_ids": IDS}, {"input_ids": IDS})
    with torch.no_grad(), bnprobe.attach(model) as probe:
        for _ in range(2):
            for kwargs in steps(cache, 0, 5, 6, 7, 9):
                model(**kwargs)
            cache.held = False
    generated = probe.recording
    assert_alike(generated.layers[0].tokens, plain.layers[0].tokens)
    assert generated.about.n_images == 6


def test_a_mask_of_the_prompt_holds_for_what_follows():
    """Fails if what is generated after left pads stands as many places later, or is not among what counts, since models of
    states are given no mask with it; or if the next prompt in the cache has the mask of the last one."""
    torch.manual_seed(0)
    model, cache = StateModel().eval(), States()
    mask = torch.ones_like(IDS)
    mask[0, :4], mask[2, :1] = 0, 0
    plain = recorded(model, {"input_ids": IDS, "attention_mask": mask}, {"input_ids": IDS})
    with torch.no_grad(), bnprobe.attach(model) as probe:
        for prompt in ({"attention_mask": mask[:, :5]}, {}):
            first, *others = steps(cache, 0, 5, 6, 7, 9)
            for kwargs in (first | prompt, *others):
                model(**kwargs)
            cache.held = False
    generated = probe.recording
    assert_alike(generated.layers[0].tokens, plain.layers[0].tokens)
    assert (generated.about.n_positions, generated.about.n_masked) == (
        int(mask.sum()),
        int((mask == 0).sum()),
    )


def test_a_mask_belongs_to_the_rows_of_its_cache():
    """Fails if a cache that goes on with other rows, of which nothing is known, has the pads of those before."""
    masks, cache = Masks(), States()
    mask = Mask(torch.ones_like(IDS))
    assert masks.of(cache, mask, IDS, continues=False) is mask
    assert masks.of(cache, None, IDS[:2, :1], continues=True) is None
    carried = masks.of(cache, None, IDS[:, :1], continues=True)
    assert isinstance(carried, Mask)
    assert carried.shape == (3, 1)
    assert carried.history.shape == (3, 10)


def test_generation_of_a_state_space_model_of_other_people():
    """Fails if left pads move what Mamba-2 generates, or its gated norm has other tokens than the stream."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "state_size": 8,
        "num_heads": 4,
        "head_dim": 8,
        "n_groups": 2,
    }
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    config = transformers.Mamba2Config(vocab_size=60, expand=2, chunk_size=4, **sizes, **ids)
    model = transformers.Mamba2ForCausalLM(config).eval()
    prompt, mask, n_new = torch.randint(3, 60, (2, 7)), torch.ones((2, 7), dtype=torch.long), 4
    prompt[0, :3], mask[0, :3] = 0, 0
    with torch.no_grad(), bnprobe.attach(model) as probe:
        model.generate(
            prompt, attention_mask=mask, max_new_tokens=n_new, min_new_tokens=n_new, do_sample=False
        )
    # of each row the prompt without pads, and all that is generated but the last token
    positions = [p for n in mask.sum(1).tolist() for p in range(n + n_new - 1)]
    expected = np.bincount([p.bit_length() for p in positions])
    records = {record.layer: record for record in probe.recording.layers}
    norm, gated = records["backbone.layers.0.norm"], records["backbone.layers.0.mixer.norm"]
    assert norm.tokens is not None
    np.testing.assert_array_equal(norm.tokens.n[: len(expected)], expected)
    assert norm.tokens.n_tokens == gated.pre.n[0] == probe.recording.about.n_positions == len(positions)
    assert gated.mismatch < 1e-5


def test_tokens_behind_a_cache_that_was_filled_before_have_no_position():
    """Fails if the first token that is seen passes for the first of its sequence."""
    torch.manual_seed(0)
    model, cache = StateModel().eval(), States()
    cache.held = True
    found = recorded(model, *steps(cache, 5, 6, 9)).layers[0].tokens
    assert found is not None
    assert found.n.sum() == 0
    assert set(found.loudest[:, 2]) == {-1}


class Bare:
    """A cache to which nothing can refer weakly."""

    __slots__ = ("has_previous_state",)

    def __init__(self, held: bool) -> None:
        self.has_previous_state = held


def test_a_cache_that_cannot_be_referred_to_is_not_counted():
    """Fails if the user's pass ends in an error of the probe's bookkeeping."""
    counted, ids = CountedCaches(), torch.ones((2, 3), dtype=torch.long)
    assert [counted.earlier((ids,), {"cache": Bare(held)}).n for held in (False, True)] == [0, None]
    assert not Earlier().continues


def test_generation_behind_pads_is_the_plain_pass(model):
    """Fails if the mask of a call with a cache, which holds the tokens before as well, is laid over nothing, or the new
    tokens are counted from the first pad."""
    pads, ones = torch.zeros((3, 4), dtype=torch.long), torch.ones((3, 5), dtype=torch.long)
    ids, mask, cache = torch.cat([pads, IDS], 1), torch.cat([pads, ones], 1), Cache()
    calls = [{"input_ids": ids[:, :9], "attention_mask": mask, "past_key_values": cache}]
    for i in range(9, 13):
        mask = torch.cat([mask, torch.ones((3, 1), dtype=torch.long)], 1)
        calls.append({"input_ids": ids[:, i : i + 1], "attention_mask": mask, "past_key_values": cache})
    plain, found = recorded(model, {"input_ids": IDS}), recorded(model, *calls)
    assert_alike(found.layers[0].tokens, plain.layers[0].tokens)
    assert (found.about.n_images, found.about.n_masked, found.about.notes) == (3, 12, ())


def test_tokens_in_a_row_are_those_of_their_sequences():
    """Fails if a norm that is given (N * T, C), as after a reshape, takes each token for a sequence, or they lose their
    branch."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.first, self.up = nn.Embedding(50, C), nn.RMSNorm(C), nn.Linear(C, C)
            self.flat, self.shaped = nn.RMSNorm(C), nn.RMSNorm(C)

        def forward(self, input_ids: Tensor) -> Any:
            x = self.embedding(input_ids)
            x = x + self.up(self.first(x))
            return self.flat(x.reshape(-1, C)), self.shaped(x)

    torch.manual_seed(0)
    _, flat, shaped = recorded(Flat().eval(), {"input_ids": IDS}).layers
    assert_alike(flat.tokens, shaped.tokens)
    for name in ("pairs", "centred_pairs", "branch"):
        np.testing.assert_allclose(getattr(flat.tokens, name), getattr(shaped.tokens, name), err_msg=name)
    assert flat.tokens.branch[0] == IDS.numel()


def test_positions_given_to_the_model_count():
    """Fails if they are counted from 0 in every row, or a row for all sequences is refused."""
    given = torch.tensor([[4, 5, 6]])
    found = places_of(
        (), {"input_ids": torch.ones((2, 3), dtype=torch.long), "position_ids": given}, None, 0, Earlier()
    )
    np.testing.assert_array_equal(found.positions, [[4, 5, 6], [4, 5, 6]])


def test_positions_beyond_the_last_bucket_are_in_it():
    """Fails if a position of millions, or a negative one, ends the user's pass, or counts nowhere."""
    given = torch.tensor([[-5, 1, (1 << 22) - 1, 1 << 22, 1 << 23, 1 << 40]])
    ids = torch.ones((2, 6), dtype=torch.long)
    placed = places_of((), {"input_ids": ids, "position_ids": given}, None, 0, Earlier()).on(
        (2, 6), torch.device("cpu")
    )
    # 0, 1, 2-3, 4-7, ...: bucket 22 ends before 2 ** 22, and the last one, 23, has no end
    assert placed.bucket.tolist() == [0, 1, 22, 23, 23, 23] * 2
    assert placed.names[:6, 1].tolist() == [0, 1, (1 << 22) - 1, 1 << 22, 1 << 23, 1 << 40]


def test_heads_have_the_positions_of_their_tokens():
    """Fails if (N, T, heads) or (N, heads, T) is taken for T * heads positions, or two equal sizes are guessed."""
    places = Places(np.arange(3)[None].repeat(2, 0), None)
    for sizes, expected in (((2, 3, 5), [0] * 5 + [1] * 5 + [2] * 5), ((2, 5, 3), [0, 1, 2] * 5)):
        names = places.on(sizes, torch.device("cpu")).names
        np.testing.assert_array_equal(names[:15, 1], expected)
    assert (places.on((2, 3, 3), torch.device("cpu")).names[:, 1] == -1).all()


def test_ids_and_later_sequences_are_named(model):
    """Fails if the second batch's sequences are numbered from 0 again, or ids are those of other tokens."""
    model.embedding.weight.data[7] *= 100
    quiet = IDS.clone()
    quiet[quiet == 7] = 8
    quiet[2, 4] = 7
    record = recorded(model, {"input_ids": IDS % 7}, {"input_ids": quiet}).layers[0]
    np.testing.assert_array_equal(record.tokens.loudest[0, 1:4], [5, 4, 7])
