"""What must not move outputs: each probe on models that hold and on planted mistakes, and every wrong use in one line."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from support.model_state import fingerprint
from support.token_models import Gpt, MaskedGpt, tokens
from torch import Tensor, nn

import bnprobe
from bnprobe.errors import BadMask, BnprobeError, NothingRecorded
from bnprobe.experiments.invariances.alignment import distance, earlier, first_samples, without_padding


def rows(model: nn.Module, batches: Any, **options: Any) -> pd.DataFrame:
    return bnprobe.invariances(model.eval(), batches, **options).table.set_index("probe")


# Models that hold


@pytest.mark.parametrize(
    ("model", "n_padded"), [(Gpt(), 8), (MaskedGpt(), 16)], ids=["plain", "with a mask, on both sides"]
)
def test_a_causal_model_holds_exactly(model: nn.Module, n_padded: int) -> None:
    """Fails if rounding, or what a probe changes beside its subject, is taken for a leak."""
    tried = bnprobe.invariances(model.eval(), [tokens(), tokens(seed=1)])
    assert tried.table["holds"].tolist() == [True, True, True]
    assert tried.table.loc[0, "largest_change"] == 0
    assert (tried.table["first_norm"] == "").all()
    assert tried.findings.empty
    assert tried.table["n"].tolist() == [8, n_padded, 2]


def test_the_last_token_really_changes() -> None:
    """Fails if both passes are the same, with which every model is causal."""
    given: list[Tensor] = []
    model = Gpt().eval()

    def call(model: nn.Module, batch: Tensor) -> Any:
        given.append(batch)
        return model(batch)

    bnprobe.invariances(model, [tokens()], probes="causality", call=call)
    first, second = given[-2:]
    assert torch.equal(first[:, :-1], second[:, :-1])
    assert (first[:, -1] != second[:, -1]).all()
    assert set(second[:, -1].tolist()) <= set(first.flatten().tolist())


def test_a_batch_of_one_token_repeated_gets_a_neighboring_one() -> None:
    given: list[Tensor] = []
    bnprobe.invariances(
        Gpt().eval(),
        [torch.zeros(2, 5, dtype=torch.long)],
        probes="causality",
        call=lambda model, batch: (given.append(batch), model(batch))[1],
    )
    assert given[-1][:, -1].tolist() == [1, 1]


# Planted mistakes


@pytest.mark.parametrize(
    ("model", "culprit", "first_norm"),
    [
        (Gpt(norm_over_time=1), "blocks.1.ln1", "blocks.1.ln2"),
        (Gpt(norm_over_time=0), "blocks.0.ln1", "blocks.0.ln2"),
        (Gpt(sees_all=2), "blocks.2.attn", "blocks.2.ln2"),
        (MaskedGpt(sees_all=0), "blocks.0.attn", "blocks.0.ln2"),
    ],
)
def test_a_leak_is_found_with_its_cause(model: nn.Module, culprit: str, first_norm: str) -> None:
    """Fails if the module that is named is one after the mistake, or a container around it."""
    tried = bnprobe.invariances(model.eval(), [tokens()], probes="causality")
    (row,) = tried.table.to_dict("records")
    assert (row["holds"], row["culprit"], row["first_norm"]) == (False, culprit, first_norm)
    (finding,) = tried.findings.to_dict("records")
    assert (finding["rule"], finding["severity"], finding["layer"]) == (
        "future-leaks",
        "critical",
        first_norm,
    )
    assert culprit in finding["says"]
    assert ("causal mask" if "attn" in culprit else "own channels") in finding["do"]
    x, y = tokens(), tokens()
    y[:, -1] = (y[:, -1] + 1) % 30
    a, b = (out["logits"] if isinstance(out, dict) else out for out in (model(x), model(y)))
    assert (a - b)[:, :-1].abs().max() > 1e-3  # a second source: it does leak


def test_a_leak_through_the_model_itself_names_its_class() -> None:
    class Reversed(Gpt):
        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids).flip(1)

    (row,) = bnprobe.invariances(Reversed().eval(), [tokens()], probes="causality").table.to_dict("records")
    assert (row["holds"], row["culprit"], row["first_norm"]) == (False, "Reversed", "")


def test_a_model_that_sees_both_sides_has_no_finding() -> None:
    """Fails if a model for masked tokens is said to leak, by what the user, its attention or its outputs say."""
    model = Gpt(sees_all=0)
    assert bnprobe.invariances(model.eval(), [tokens()], causal=False).findings.empty
    assert len(bnprobe.invariances(model, [tokens()]).findings) == 1
    for block in model.blocks:
        block.attn.is_causal = False
    assert bnprobe.invariances(model, [tokens()]).findings.empty
    # targets that are the next tokens outweigh it
    assert len(bnprobe.invariances(model, [(tokens()[:, :-1], tokens()[:, 1:])]).findings) == 1
    for name in ("TinyForMaskedLM", "TinyBERT", "TinyMLM"):
        named = type(name, (Gpt,), {})(sees_all=0)
        assert bnprobe.invariances(named.eval(), [tokens()]).findings.empty, name
    assert (
        len(bnprobe.invariances(type("BertLMHeadModel", (Gpt,), {})(sees_all=0).eval(), [tokens()]).findings)
        == 1
    )
    tagger = Gpt(sees_all=0)
    tagger.head = nn.Linear(16, 5)
    tried = bnprobe.invariances(tagger.eval(), [tokens()])
    assert tried.findings.empty
    assert "sees both sides" in tried.answer


class Encoder(nn.Module):
    """torch's own, whose layers are given a mask of booleans, or nested tensors."""

    def __init__(self, nested: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.embed = nn.Embedding(20, 16)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
        self.places = nn.Parameter(torch.randn(64, 16))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        x = self.embed(input_ids) + self.places[: input_ids.shape[1]]
        return self.encoder(x, src_key_padding_mask=attention_mask == 0)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("nested", [False, True])
def test_masks_and_nested_tensors_among_what_layers_are_given(nested: bool) -> None:
    """Fails if what has no absolute value, or no shape, is asked for it where a probe does not hold."""
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[1, 4:] = 0
    batch = {"input_ids": torch.randint(0, 20, (3, 7)), "attention_mask": mask}
    table = bnprobe.invariances(Encoder(nested).eval(), [batch], probes="padding").table
    assert table.loc[0, "holds"] is False
    assert not table.loc[0, "meant"]


def test_a_mask_that_is_not_used_moves_outputs() -> None:
    """Fails if left padding is never tried, or without the positions that tokens had."""

    class Deaf(MaskedGpt):
        def forward(self, input_ids: Tensor, attention_mask: Any = None, position_ids: Any = None) -> Any:
            return super().forward(input_ids, None, position_ids)

    row = rows(Deaf(), [tokens()]).loc["padding"]
    assert (row["holds"], row["first_norm"], row["culprit"]) == (False, "blocks.0.ln2", "blocks.0.attn")
    assert "padding before the tokens" in row["note"]

    class NoPositions(MaskedGpt):
        def forward(self, input_ids: Tensor, attention_mask: Any = None) -> Any:
            return super().forward(input_ids, attention_mask)

    row = rows(NoPositions(), [tokens()]).loc["padding"]
    assert (row["holds"], row["first_norm"]) == (False, "blocks.0.ln1")


def test_positions_that_shift_with_padding_are_no_mistake() -> None:
    """Fails if a model that counts positions from the first column, and cannot be told them, has a finding for that; or if
    one that lets padding after the tokens in has none."""

    class Counts(MaskedGpt):
        def forward(self, input_ids: Tensor, attention_mask: Any = None) -> Any:
            return super().forward(input_ids, attention_mask)

    tried = bnprobe.invariances(Counts().eval(), [tokens()], probes="padding")
    assert tried.table["holds"].tolist() == [False]
    assert tried.findings.empty
    assert "takes no position_ids" in tried.answer
    assert "both sides" not in tried.answer
    leaks = Counts(sees_all=0)
    leaks.forward = lambda input_ids, attention_mask=None: MaskedGpt.forward(leaks, input_ids, None)  # type: ignore[method-assign]
    tried = bnprobe.invariances(leaks.eval(), [tokens()], probes="padding", mask="attention_mask")
    assert tried.findings["rule"].tolist() == ["padding-leaks"]
    assert "padding after the tokens" in tried.answer


@pytest.mark.parametrize(
    ("labels", "causal"),
    [("masked", False), ("next, without padding", True), ("the tokens, without a prompt", True)],
)
def test_what_labels_say_of_a_model(labels: str, causal: bool) -> None:
    """Fails if a model that guesses masked tokens is said to leak, or labels of a part of the tokens say nothing."""
    ids = tokens()
    given = ids.clone()
    if labels == "masked":
        ids = ids.clone()
        given[:, ::2] = -100
        ids[:, 1::2] = 29
    elif causal and labels.startswith("next"):
        given = torch.cat([ids[:, 1:], ids[:, :1]], 1)
        given[:, -2:] = -100
    else:
        given[:, :3] = -100

    class Labelled(Gpt):
        def forward(self, ids: Tensor, labels: Any = None) -> Tensor:
            return super().forward(ids)

    batch = {"ids": ids, "labels": given}
    tried = bnprobe.invariances(Labelled(sees_all=0).eval(), [batch], probes="causality")
    assert tried.table["holds"].tolist() == [False]
    assert len(tried.findings) == causal


def test_scores_of_samples_against_each_other_are_not_compared() -> None:
    """Fails if an output of shape (N, N), as of images against texts, is taken for rows of samples."""

    class Contrast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(6)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(x)
            return y @ y.T

    row = rows(Contrast(), [torch.randn(4, 6)]).loc["batch"]
    assert row["holds"] is None
    assert "compared with the others" in row["note"]


def test_padding_of_a_norm_over_time_moves_outputs() -> None:
    row = rows(Gpt(norm_over_time=1), [tokens()]).loc["padding"]
    assert (row["holds"], row["culprit"]) == (False, "blocks.1.ln1")
    assert "no mask" in row["note"]


def vision() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.Flatten()
    )


def test_batch_norm_couples_samples_in_train_mode_only() -> None:
    """Fails if the mode is changed, or the norm that couples is not named."""
    images, model = torch.randn(5, 3, 8, 8), vision()
    held = rows(model, [images]).loc["batch"]
    assert held["holds"] is True
    tried = bnprobe.invariances(model.train(), [images]).table.set_index("probe")
    assert tried.loc["batch", ["holds", "culprit", "first_norm"]].tolist() == [False, "1", "4"]
    assert tried.loc["causality", "holds"] is None
    assert "no tokens" in tried.loc["causality", "note"]


def test_a_model_that_refuses_one_sample_is_tried_with_two() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    (row,) = bnprobe.invariances(model, [torch.randn(7, 6)], probes="batch").table.to_dict("records")
    assert (row["holds"], row["n"], row["culprit"]) == (False, 2, "1")
    assert "more than 1 value per channel" in row["note"]


def test_a_model_that_reorders_its_batch_is_named() -> None:
    class Sorted(Gpt):
        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids[ids[:, 0].argsort(descending=True)])

    ids = tokens()
    ids[:, 0] = torch.tensor([3, 7, 5, 1])
    row = rows(Sorted(), [ids]).loc["batch"]
    assert row["holds"] is False
    assert "another order: that of the first sample is in row 2" in row["note"]


# Batches of all kinds


def test_padded_batches_are_tried_on_their_longest_sequences() -> None:
    """Fails if padding stands where the last token is changed, or is counted as a token."""
    ids, mask = tokens(3), torch.ones(3, 24, dtype=torch.long)
    mask[0, 20:] = 0
    mask[1, :6] = 0
    mask[2, :4] = 0
    table = rows(MaskedGpt(), [{"input_ids": ids, "attention_mask": mask}])
    assert table["holds"].tolist() == [True, True, True]
    assert table["n"].tolist() == [2, 4, 1]


def test_a_mask_that_is_true_for_padding_is_turned_round() -> None:
    class Fairseq(MaskedGpt):
        def forward(self, ids: Tensor, padding_mask: Any = None, position_ids: Any = None) -> Any:
            return super().forward(ids, None if padding_mask is None else ~padding_mask, position_ids)

    assert rows(Fairseq(), [tokens()])["holds"].tolist() == [True, True, True]
    mask = torch.zeros(4, 24, dtype=torch.bool)
    mask[0, 20:] = True
    assert rows(Fairseq(), [(tokens(), mask)])["holds"].tolist() == [True, True, True]

    class Odd(Fairseq):
        def forward(self, ids: Tensor, off: Any = None, position_ids: Any = None) -> Any:
            return super().forward(ids, off, position_ids)

    assert rows(Odd(), [(tokens(), mask)], mask="~off")["holds"].tolist() == [True, True, True]
    with pytest.raises(BnprobeError, match="forward has ids, off, position_ids"):
        rows(Odd(), [(tokens(), mask)], mask="off2")


def test_two_streams_are_tried_as_far_as_they_can_be() -> None:
    """Fails if images that belong to tokens are cut off with them, or samples are taken apart without their images."""

    class Seeing(MaskedGpt):
        def forward(self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Any = None) -> Any:
            x = self.embedded(input_ids).index_put(torch.where(input_ids == 7), pixel_values.reshape(-1, 16))
            for block in self.blocks:
                x = block(x, attention_mask)
            return self.head(self.ln_f(x))

    ids = tokens(2, 16).masked_fill(tokens(2, 16) == 7, 8)
    ids[:, 2:4] = 7
    given = {"input_ids": ids, "pixel_values": torch.randn(4, 16)}
    model = Seeing()
    model.config = type("Config", (), {})()
    model.config.image_token_id = 7
    table = rows(model, [given], probes=("causality", "batch"))
    assert table.loc["causality", "holds"] is True
    assert table.loc["batch", "holds"] is None
    assert "pixel_values has no row per sample" in table.loc["batch", "note"]


def test_transformers_models_hold() -> None:
    """Fails if a decoder that masks as it should is said to leak, or a bidirectional encoder is."""
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 4, "max_position_embeddings": 32}
    ids, mask = tokens(3, 20), torch.ones(3, 20, dtype=torch.long)
    mask[1, :5] = 0
    given = [{"input_ids": ids, "attention_mask": mask}]
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**small)).eval()
    assert bnprobe.invariances(llama, given).table["holds"].tolist() == [True, True, True]
    bert = bnprobe.invariances(transformers.BertForMaskedLM(transformers.BertConfig(**small)).eval(), given)
    assert bert.table["holds"].tolist() == [False, True, True]
    assert bert.findings.empty


# Wrong uses, and the model afterwards


def test_the_model_is_left_as_it_was() -> None:
    """Fails if a hook, a mode, a statistic or a random state is left changed, also after an exception."""
    torch.manual_seed(3)
    model = vision().train()
    before = fingerprint(model)
    assert bnprobe.invariances(model, [torch.randn(5, 3, 8, 8, generator=torch.Generator())]).notes == ()
    assert fingerprint(model) == before

    class Fails(Gpt):
        n = 0

        def forward(self, ids: Tensor) -> Tensor:
            self.n += 1
            if self.n > 4:
                raise ZeroDivisionError
            return super().forward(ids)

    failing = Fails(norm_over_time=1).eval()
    with pytest.raises(ZeroDivisionError):  # where it looks for the module
        bnprobe.invariances(failing, [tokens()])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in failing.modules())


def test_a_model_that_fails_on_a_changed_batch_is_a_note() -> None:
    class Fixed(Gpt):
        def forward(self, ids: Tensor) -> Tensor:
            if ids.shape[1] != 24:
                raise ValueError("length")
            return super().forward(ids)

    table = rows(Fixed(), [tokens()])
    assert table["holds"].tolist() == [True, None, True]
    assert "failed on the changed batch (ValueError: length)" in table.loc["padding", "note"]


def test_dropout_is_refused() -> None:
    model = nn.Sequential(nn.Embedding(30, 8), nn.Dropout(0.5), nn.LayerNorm(8), nn.Linear(8, 30)).train()
    with pytest.raises(BnprobeError, match=r"dropout is on in 1 module\. Call model\.eval\(\) first"):
        bnprobe.invariances(model, [tokens()])


def all_pads() -> dict[str, Tensor]:
    return {"input_ids": tokens(), "attention_mask": torch.zeros(4, 24, dtype=torch.long)}


@pytest.mark.parametrize(
    ("given", "options", "error", "advice"),
    [
        ([{"input_ids": tokens(), "attention_mask": torch.ones(4, 23)}], {}, BadMask, "one value per token"),
        ([all_pads()], {}, BadMask, "keeps no position"),
        ([tokens()[:, :0]], {}, NothingRecorded, "at least two tokens"),
        ([], {}, NothingRecorded, "no samples"),
        ([tokens()], {"probes": "order"}, BnprobeError, r"Pass for example \('causality', 'padding'\)"),
        (tokens(), {}, BnprobeError, r"Wrap a single batch in a list"),
    ],
)
def test_wrong_batches_are_refused_in_a_line(given: Any, options: Any, error: type, advice: str) -> None:
    model = MaskedGpt().eval()
    before = fingerprint(model)
    with pytest.raises(error, match=advice) as raised:
        bnprobe.invariances(model, given, **options)
    assert "\n" not in str(raised.value)
    assert fingerprint(model) == before


def test_what_is_no_model_or_gives_no_tensor_is_refused() -> None:
    with pytest.raises(BnprobeError, match="Pass the model itself"):
        bnprobe.invariances("model", [tokens()])  # type: ignore[arg-type]
    with pytest.raises(BnprobeError, match="Pass call="):
        bnprobe.invariances(Gpt(), [tokens()], call=lambda model, batch: None)


def test_one_sample_and_one_token_say_why_they_are_not_tried() -> None:
    table = rows(MaskedGpt(), [tokens(1, 1)])
    assert table["holds"].tolist() == [None, None, None]
    assert "one token" in table.loc["causality", "note"]
    assert "one sample" in table.loc["batch", "note"]


def test_a_report_has_the_finding() -> None:
    model = Gpt(norm_over_time=1).eval()
    tried = bnprobe.invariances(model, [tokens()])
    report = bnprobe.report(bnprobe.record(model, [tokens()]), invariances=tried)
    assert "future-leaks" in set(report.findings["rule"])
    assert "lets earlier tokens see later ones" in report.to_text()
    with pytest.raises(BnprobeError, match="must be what"):
        bnprobe.report(bnprobe.record(model, [tokens()]), invariances=tried.table)  # type: ignore[arg-type]


def test_the_answer_is_a_sentence_per_probe() -> None:
    tried = bnprobe.invariances(Gpt(norm_over_time=1).eval(), [tokens()])
    assert len(tried.sentences) == 3
    assert tried.sentences[0].startswith("Causality does not hold: outputs of earlier tokens change by up to")
    assert "starts in blocks.1.ln1, and the first norm whose input changes is blocks.1.ln2." in tried.answer
    assert repr(tried) == "Invariances(Gpt: causality does not hold, padding does not hold, batch holds)"
    assert "blocks.1.ln1" in tried._repr_html_()


# Which values must be equal


def test_positions_are_found_wherever_they_lie() -> None:
    """Fails if a layout is not understood: a leak would be seen where there is none, or not seen."""
    n, t = 3, 5
    for a in (torch.zeros(n, t, 4), torch.zeros(n, 2, t, t), torch.zeros(n, 4, t), torch.zeros(t, n, 4)):
        for dim in (i for i, size in enumerate(a.shape) if size == t):
            b = a.clone()
            b.select(dim, t - 1).add_(1)
            assert min(distance(*pair) for pair in earlier(n, t)(a, b)) == 0
        b = a + 1
        assert min(distance(*pair) for pair in earlier(n, t)(a, b)) == 1
    flat = torch.zeros(n * t, 4)
    for view in (flat.view(n, t, 4)[:, -1], flat.view(t, n, 4)[-1]):
        b = flat.clone()
        b.view(-1)  # the same storage as the view below
        other = b.view(n, t, 4) if view.shape[0] == n and view.stride()[0] == t * 4 else b.view(t, n, 4)
        (other[:, -1] if other.shape[:2] == (n, t) else other[-1]).add_(1)
        assert min(distance(*pair) for pair in earlier(n, t)(flat, b)) == 0


def test_padding_and_samples_are_found_wherever_they_lie() -> None:
    a = torch.arange(3 * 5 * 2.0).view(3, 5, 2)
    b = torch.full((3, 7, 2), -1.0)
    b[:, 2:] = a
    align = without_padding(3, 5, 7, 2)
    assert min(distance(*pair) for pair in align(a, b)) == 0
    assert min(distance(*pair) for pair in align(a.view(15, 2), b.view(21, 2))) == 0
    assert not list(align(a, b[:, :6]))
    whole = torch.arange(4 * 5 * 2.0).view(4, 5, 2)
    alone = first_samples(1, 4)
    assert min(distance(*pair) for pair in alone(whole[:1], whole)) == 0
    assert min(distance(*pair) for pair in alone(whole[0], whole.view(20, 2))) == 0
    by_position = whole.transpose(0, 1).reshape(20, 2)
    assert min(distance(*pair) for pair in alone(whole[0], by_position)) == 0
    assert min(distance(*pair) for pair in alone(whole[1:2], whole)) > 0


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, float("nan")], [1.5, float("nan")], 0.5),
        ([1.0, float("inf")], [1.0, float("inf")], 0.0),
        ([1.0, float("nan")], [1.0, 2.0], float("inf")),
        ([float("inf")], [-float("inf")], float("inf")),
    ],
)
def test_a_distance_knows_what_is_not_finite(a: list[float], b: list[float], expected: float) -> None:
    assert distance(torch.tensor(a), torch.tensor(b)) == expected


class Nested(nn.Module):
    """Takes its images out of dicts and tuples."""

    def __init__(self, mixes: bool) -> None:
        super().__init__()
        self.net, self.mixes = vision().eval(), mixes

    def forward(self, inputs: dict) -> dict:
        x, scale = inputs["views"]["first"]
        x = x - x.mean(0, keepdim=True) if self.mixes else x
        return {"heads": {"logits": self.net(x) * scale}}


@pytest.mark.parametrize("mixes", [True, False])
def test_samples_are_found_in_nested_inputs(mixes: bool) -> None:
    """Fails if what lies in dicts and tuples counts as one sample, or what depends on the batch has no finding."""
    given = {"inputs": {"views": {"first": (torch.randn(5, 3, 8, 8), 2.0)}}}
    tried = bnprobe.invariances(Nested(mixes), [given], probes="batch")
    assert tried.table["holds"].tolist() == [not mixes]
    assert tried.findings["rule"].tolist() == (["samples-mixed"] if mixes else [])
