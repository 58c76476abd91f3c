"""Rules about tokens and gains: each fires on its fault, and on nothing else of these streams."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bnprobe.measures import tables
from bnprobe.recording import Recording
from bnprobe.rules import gains, judge, tokens
from bnprobe.rules.rule import Evidence
from rules.edited import edited, findings
from rules.of_tokens import faults, loud, quiet, recorded

RULES = (*gains.RULES, *tokens.RULES)
FIRED = [
    {"sink-token", "square-overflows"},
    {"first-block-overwrites", "square-overflows"},
    {"block-off"},
    {"tokens-alike"},
    {"no-final-norm"},
    {"gain-convention"},
    {"gains-decayed"},
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
    ("branch", 50.0, "first-block-overwrites", 0),
    ("branch", 50.1, "first-block-overwrites", 1),
    ("branch", 1e-4, "block-off", 0),
    ("branch", 0.99e-4, "block-off", 1),
    ("largest_input", 256.0, "square-overflows", 0),
    ("largest_input", 256.5, "square-overflows", 1),
])  # fmt: skip
def test_limits_of_single_norms(name, value, rule, speaks):
    """Fails if a threshold moves, or the number itself changes sides."""
    assert len(findings(rule, edited(of(recorded()), at=1, **{name: value}))) == speaks


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
