"""Rules about tokens and gains: each fires on its fault, and on nothing else of these streams."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from measures.sites import site, some_rows
from torch import nn

from bnprobe.measures import tables
from bnprobe.recording import Recording
from bnprobe.rules import Finding, gains, judge, tokens
from bnprobe.rules.rule import Evidence
from rules.edited import edited, evidence, findings, healthy
from rules.of_tokens import ATTENTION, C, faults, loud, quiet, recorded

RULES = (*gains.RULES, *tokens.RULES)
FIRED = [
    {"sink-token", "square-overflows"},
    {"first-block-overwrites", "square-overflows"},
    {"block-off"},
    {"tokens-alike"},
    {"no-final-norm"},
    {"gain-convention"},
    {"gains-decayed"},
    {"attention-saturates"},
]


def of(recording: Recording) -> Evidence:
    return Evidence.of(tables(recording))


def fired(recording: Recording) -> list[Any]:
    return list(judge(tables(recording), rules=RULES).itertuples())


@pytest.fixture(scope="module")
def wrong() -> list[Recording]:
    return faults()


@pytest.mark.parametrize("i", range(len(FIRED)))
def test_each_fault_is_told_and_nothing_else(wrong, i):
    """Fails if a rule is silent on its fault, or speaks of another one."""
    assert {one.rule for one in fired(wrong[i])} == FIRED[i]


def test_a_healthy_stream_is_silent():
    """Fails if a trained stream of ordinary tokens is told of, or an untrained one whose branches are small."""
    assert fired(recorded()) == []
    assert fired(recorded(quiet)) == []


def test_where_the_loud_tokens_are(wrong):
    """Fails if the position, the channel or the norms are those of another token."""
    (one,) = (one for one in fired(wrong[0]) if one.rule == "sink-token")
    assert "the token at position 0 is up to" in one.says
    assert "in channel 5;" in one.because
    assert one.layer == "blocks.0.first"
    (later,) = (one for one in fired(recorded(x=loud(2000.0, 1))) if one.rule == "sink-token")
    assert "position 1 is" in later.says


@pytest.mark.parametrize(("at", "says"), [(0, "One vector is in every token"), (1, "Tokens are all alike")])
def test_tokens_that_are_alike_before_any_block(at, says):
    """Fails if a vector that is added to embeddings is taken for attention that mixes all tokens, or the reverse."""
    rows = of(recorded())
    for i in range(len(rows.layers)):
        rows = edited(rows, at=i, common=0.5 if i < at else 0.95)
    (one,) = findings("tokens-alike", rows)
    assert one.says.startswith(says)


@pytest.mark.parametrize(
    ("row", "speaks"),
    [
        ({"loudest_token": 10.0, "position_share": 0.9}, False),
        ({"loudest_token": 10.1, "position_share": 0.9}, True),
        ({"loudest_token": 99.0, "position_share": 0.35}, False),
        ({"loudest_token": 99.0, "position_share": 0.351}, True),
    ],
)
def test_limits_of_a_sink(row, speaks):
    """Fails if a threshold moves, or one of both conditions is enough."""
    assert len(findings("sink-token", edited(of(recorded()), **row))) == speaks


@pytest.mark.parametrize(("name", "value", "rule", "speaks"), [
    ("branch", 30.0, "first-block-overwrites", 0),
    ("branch", 30.1, "first-block-overwrites", 1),
    ("branch", 1e-4, "block-off", 0),
    ("branch", 0.99e-4, "block-off", 1),
    ("largest_input", 256.0, "square-overflows", 0),
    ("largest_input", 256.5, "square-overflows", 1),
])  # fmt: skip
def test_limits_of_single_norms(name, value, rule, speaks):
    """Fails if a threshold moves, or the number itself changes sides."""
    assert len(findings(rule, edited(of(recorded()), at=1, **{name: value}))) == speaks


@pytest.mark.parametrize(
    ("role", "most"), [("attention output", 60.0), ("MLP output", 60.0), ("attention", 30.0)]
)
def test_a_branch_that_ends_in_a_norm_may_move_the_stream_farther(role, most):
    """Fails if norms at the end of branches, as in OLMo 2, are warned of what they are made to do, or no norm is."""
    rows = edited(of(recorded()), at=0, norm_role=role)
    for branch, speaks in ((most, 0), (most + 0.1, 1)):
        assert len(findings("first-block-overwrites", edited(rows, at=1, branch=branch))) == speaks


def test_tokens_erased_by_half_precision_are_critical():
    """Fails if a norm that computes in float32 is called broken, or one that erased tokens is not."""
    large = {"largest_input": 300.0, "input_dtype": "float16"}
    for zero_rows, severity in ((0.0, "info"), (0.1, "critical")):
        (found,) = findings("square-overflows", edited(of(recorded()), **large, zero_rows=zero_rows))
        assert found.severity == severity


def test_half_of_the_norms_with_negative_gains_are_not_enough():
    """Fails if two of five norms, or four zeros, are taken for another convention."""

    def turned(model: Any) -> None:
        for norm in (model.blocks[0].first, model.final):
            norm.weight.mul_(-1)

    assert fired(recorded(turned)) == []


def test_a_new_network_hears_that_it_is_new_before_what_follows_from_that():
    """Fails if small inputs of an untrained transformer, as OLMo 2 begins, stand before the one thing to know of it."""

    def new(model: Any) -> None:
        for p in model.parameters():
            p.mul_(1e-4)
        for norm in (one for one in model.modules() if isinstance(one, nn.RMSNorm)):
            norm.weight.fill_(1)
            norm.eps = 1e-6

    found = judge(tables(recorded(new, torch.randn(6, 12, C) * 1e-4)))["rule"].tolist()
    assert found[0] == "affine-untrained"
    assert "variance-below-eps" in found


def test_a_new_network_is_what_it_should_be():
    """Fails if branches that start at 0 are called a fault without saying that they are meant to."""

    def new(model: Any) -> None:
        for name, p in model.named_parameters():
            if p.dim() == 1 and "weight" in name:
                p.fill_(1)
            if "mlp" in name:
                p.zero_()

    found = [one for one in fired(recorded(new)) if one.rule == "block-off"]
    assert [one.layer for one in found] == ["blocks.1.first", "final"]
    assert all("as intended" in one.says for one in found)
    assert all(one.severity == "info" for one in found)


def test_a_network_whose_gates_are_all_0_is_told_of_once():
    """Fails if each block of the identity is a finding, or one block that adds something is missed."""

    def without(*names: str) -> Any:
        def change(model: Any) -> None:
            for name, p in model.named_parameters():
                if any(one in name for one in names):
                    p.zero_()

        return change

    (one,) = findings("block-off", of(recorded(without("attention", "mlp"))))
    assert (one.severity, one.layer) == ("info", "blocks.0.second")
    assert one.says.startswith("No block adds anything")
    assert "each of 4 norms" in one.because
    some = findings("block-off", of(recorded(without("mlp", "blocks.1.attention"))))
    assert [found.layer for found in some] == ["blocks.1.first", "blocks.1.second", "final"]
    assert all(found.says.startswith("Nothing was added") for found in some)


def test_a_block_that_never_began_is_a_warning():
    """Fails if gate and last weights that are both 0 are a note, or a block that was trained and removed is a warning."""

    def stuck(gain: float | None) -> Any:
        def change(model: Any) -> None:
            model.blocks[0].mlp.weight.zero_()
            model.blocks[0].mlp.bias.zero_()
            norm = model.blocks[0].second
            norm.weight = None if gain is None else nn.Parameter(torch.full((C,), gain))

        return change

    for gain, severity in ((1.0, "warning"), (1.5, "info"), (None, "info")):
        (one,) = findings("block-off", of(recorded(stuck(gain))))
        assert (one.severity, one.layer) == (severity, "blocks.1.first")
        assert ("neither gets a gradient" in one.do) == (severity == "warning")


def test_a_few_decayed_gains_beside_none():
    """Fails if a norm whose gains are all nothing, or zero by design, is told of here."""
    assert fired(recorded(lambda model: model.final.weight.fill_(1e-9))) == []
    (found,) = fired(recorded(lambda model: model.final.weight[3:5].fill_(1e-9)))
    assert found.channels == (3, 4)
    assert torch.is_grad_enabled()


def test_gains_of_the_whole_network_that_have_shrunk():
    """Fails if small γ in most norms are passed over, those of one norm are reported, or other conventions are."""

    def small(*factors: float) -> Any:
        def scaled(model: Any) -> None:
            norms = [
                m for m in model.modules() if getattr(m, "weight", None) is not None and m.weight.dim() == 1
            ]
            norms = [m for m in norms if "Norm" in type(m).__name__]
            for norm, factor in zip(norms, factors, strict=False):
                norm.weight.mul_(factor)

        return scaled

    typical = of(recorded()).layers["gamma_abs_median"]
    assert len(typical) == 5
    assert (typical > 0.1).all()
    (found,) = fired(recorded(small(0.02, 0.02, 0.02)))
    assert (found.rule, found.severity) == ("gains-decayed", "info")
    assert "below 0.1 in 3 of 5 norms" in found.because
    assert fired(recorded(small(0.02, 0.02))) == []
    # as branches begin at 0: nothing has shrunk
    assert "gains-decayed" not in {one.rule for one in fired(recorded(small(0, 0, 0)))}


def norms(*rows: dict[str, Any]) -> Evidence:
    """RMS norms a, b, c, ... with these cells."""
    base = evidence(
        *(site(some_rows(20), name, "rms_norm", gamma=[0.8, 1.1, 1.2]) for name in "abcdef"[: len(rows)])
    )
    for i, row in enumerate(rows):
        base = edited(base, at=i, **row)
    return base


def said_of(rule: str, *rows: dict[str, Any]) -> list[Finding]:
    return findings(rule, norms(*rows))


SINK = {
    "loudest_token": 20.0,
    "position_share": 0.5,
    "loudest_position": 0.0,
    "loudest_channel": 2.0,
    "loudest_channel_share": 0.75,
    "loud_share": 0.01,
}
QUIET = {**SINK, "loudest_token": 2.0}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([QUIET, SINK, QUIET], "b: at b the token at position 0 is up to 20 times"),
        (
            [SINK, {**SINK, "loudest_token": 30.0}, SINK],
            "a: from a to c the token at position 0 is up to 30 times",
        ),
        (
            [SINK, QUIET, {**SINK, "loudest_token": 30.0}, SINK],
            "c: from c to d the token at position 0 is up to 30 times",
        ),
        ([{**SINK, "loudest_token": 30.0}, QUIET, SINK], "a: at a the token at position 0 is up to 30 times"),
        ([{**SINK, "loudest_position": -1.0}], "a: at a one token is up to 20 times"),
        ([{**SINK, "loudest_token": 10.0}], None),
        ([{**SINK, "position_share": 0.35}], None),
        ([{**SINK, "loudest_token": math.nan}], None),
    ],
)
def test_where_the_loudest_tokens_are(rows: list[dict[str, Any]], says: str | None) -> None:
    """Fails if another stretch of norms, or another norm of it, is told; or tokens are at the threshold."""
    found = said_of("sink-token", *rows)
    assert len(found) == (says is not None)
    for one in found:
        assert f"{one.layer}: {one.says.partition(': ')[2]}".startswith(str(says))
        assert one.because == (
            "75% of its energy is in channel 2; position accounts for 50% of the variance of log scales (threshold "
            "35%), 1.0% "
            "of the tokens are loud."
        )


LARGE = {"largest_input": 300.0, "n_tokens": 9.0, "input_dtype": "float32", "zero_rows": 0.0}


@pytest.mark.parametrize(
    ("rows", "severity", "layer", "because"),
    [
        (
            [LARGE],
            "info",
            "a",
            "the largest input is 300; its square is infinite in float16 from 256 on, and 1/√∞ is 0, without NaN. "
            "That holds in 1 norm.",
        ),
        (
            [LARGE, {**LARGE, "largest_input": 900.0}],
            "info",
            "b",
            "the largest input is 900; its square is infinite in float16 from 256 on, and 1/√∞ is 0, without NaN. "
            "That holds in 2 norms.",
        ),
        (
            [LARGE, {**LARGE, "input_dtype": "float16", "zero_rows": 0.1}],
            "critical",
            "b",
            "That holds in 2 norms.",
        ),
        ([{**LARGE, "input_dtype": "float16"}], "info", "a", "That holds in 1 norm."),
        ([{**LARGE, "zero_rows": 0.1}], "info", "a", "That holds in 1 norm."),
        ([{**LARGE, "largest_input": 256.0}], None, "", ""),
        ([{**LARGE, "n_tokens": 0.0}], None, "", ""),
        ([{**LARGE, "kind": "layer_norm"}], None, "", ""),
    ],
)
def test_inputs_whose_squares_overflow(
    rows: list[dict[str, Any]], severity: str | None, layer: str, because: str
) -> None:
    """Fails if what was erased is a note, what was not is critical, or the largest input is another's."""
    found = said_of("square-overflows", *rows)
    assert [(one.severity, one.layer) for one in found] == ([(severity, layer)] if severity else [])
    for one in found:
        assert one.because.endswith(because)


@pytest.mark.parametrize(
    ("common", "told"),
    [
        ([0.95, 0.95, 0.1], ("a", "above 0.9 in 2 of 3 norms, at most 0.95")),
        ([0.1, 0.95, 0.97], ("b", "above 0.9 in 2 of 3 norms, at most 0.97")),
        ([0.95, 0.1], ("a", "above 0.9 in 1 of 2 norms, at most 0.95")),
        ([0.95, 0.1, 0.1], None),
        ([0.9, 0.9], None),
        ([0.95, math.nan], ("a", "above 0.9 in 1 of 1 norm, at most 0.95")),
        ([math.nan, math.nan], None),
    ],
)
def test_tokens_that_are_all_alike(common: list[float], told: tuple[str, str] | None) -> None:
    """Fails if less than half of the norms are enough, half are not, or norms without tokens count."""
    found = said_of("tokens-alike", *({"common": value} for value in common))
    assert [one.layer for one in found] == ([told[0]] if told else [])
    for one in found:
        assert told is not None
        assert told[1] in one.because


@pytest.mark.parametrize(
    ("gamma", "beta", "severity"),
    [
        (1.09, 0.09, "info"),
        (1.11, 0.09, "warning"),
        (1.09, 0.11, "warning"),
        (math.nan, math.nan, "warning"),
    ],
)
def test_tokens_are_alike_in_the_first_steps(gamma: float, beta: float, severity: str) -> None:
    """Fails if a network that has learned nothing yet but how often each token is gets a warning, or one without γ, of
    which nobody knows how long it was trained, gets none."""
    rows = edited(
        evidence(healthy("a"), healthy("b")),
        {"gamma": 1.0, "beta": 0.0, "running_mean": math.nan},
        common=0.5,
    )
    rows = edited(rows, {"gamma": gamma, "beta": beta, "running_mean": math.nan}, at=1, common=0.95)
    if math.isnan(gamma):
        rows = edited(rows, {"gamma": gamma, "beta": beta}, common=0.5)
    (one,) = findings("tokens-alike", rows)
    assert one.severity == severity
    assert ("near their initial values" in one.because) == (severity == "info")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "queries look at next to nothing"),
        ({"largest_logit": 100.0}, ""),
        ({"attention_evenness": 0.25}, ""),
        (
            {"largest_logit": 40.0, "attention_factor": 16.0, "attention_evenness": 0.29},
            "multiplied by 16/√d",
        ),
        ({"largest_logit": 40.0, "attention_factor": 16.0, "attention_evenness": 0.3}, ""),
        ({"largest_logit": 40.0, "attention_factor": 2.0}, ""),
        ({"norm_role": "query"}, ""),
    ],
)
def test_attention_that_saturates(change, says):
    """Fails if one of logit and entropy is enough, the factor is not told as the cause, or a layer is told of twice."""
    found = findings("attention-saturates", edited(of(recorded()), **(ATTENTION | change)))
    assert [says in one.says for one in found] == [True] * bool(says)


def test_a_factor_in_a_few_layers_is_no_cause():
    """Fails if one layer with a scale of its own is warned of."""
    one = edited(of(recorded()), **(ATTENTION | {"largest_logit": 40.0, "attention_factor": 1.0}))
    assert findings("attention-saturates", edited(one, at=1, attention_factor=16.0)) == []
