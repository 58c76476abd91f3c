"""The rule about what must not move outputs: when it speaks, and what it says of each cause."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from bnprobe.rules import judge_invariances
from rules.firing import LEAK


def found(**cells: Any) -> pd.DataFrame:
    return judge_invariances(pd.DataFrame([LEAK | cells]))


@pytest.mark.parametrize("cells", [{"probe": "other"}, {"holds": True}, {"holds": None}, {"meant": False}])
@pytest.mark.parametrize("probe", ["causality", "padding", "batch"])
def test_every_condition_is_needed(probe: str, cells: dict[str, Any]) -> None:
    """Fails if a model that is not meant to be causal, or that was not tried, is said to leak."""
    assert len(found(probe=probe)) == 1
    assert found(**{"probe": probe, **cells}).empty


@pytest.mark.parametrize(
    ("probe", "kind", "rule", "says", "advice", "unit"),
    [
        (
            "padding",
            "BatchNorm1d",
            "padding-leaks",
            "lets padding change",
            "positions that count",
            "4 sequences",
        ),
        (
            "padding",
            "SelfAttention",
            "padding-leaks",
            "lets padding change",
            "Give the attention",
            "4 sequences",
        ),
        (
            "padding",
            "WindowAttn",
            "padding-leaks",
            "lets padding change",
            "Give the attention",
            "4 sequences",
        ),
        ("padding", "Conv1d", "padding-leaks", "lets padding change", "Multiply by the mask", "4 sequences"),
        (
            "batch",
            "BatchNorm2d",
            "samples-mixed",
            "depend on the rest of its batch",
            "`model.eval()`",
            "4 samples",
        ),
        (
            "batch",
            "Whitener",
            "samples-mixed",
            "depend on the rest of its batch",
            "over dimension 0",
            "4 samples",
        ),
    ],
)
def test_what_moves_with_padding_or_the_batch(
    probe: str, kind: str, rule: str, says: str, advice: str, unit: str
) -> None:
    """Fails if a probe that does not hold has no finding, or one with advice for another cause."""
    (finding,) = found(probe=probe, culprit_class=kind).to_dict("records")
    assert (finding["rule"], finding["severity"], finding["layer"]) == (rule, "warning", "blocks.1.ln2")
    assert finding["says"].startswith("blocks.1.ln1 ")
    assert says in finding["says"]
    assert advice in finding["do"]
    assert f"by up to 0.75 (outputs reach 12; {unit})" in finding["because"]
    (finding,) = found(probe=probe, culprit="", culprit_class="").to_dict("records")
    assert says.split(" ", 1)[1].split(" ")[-1] in finding["says"]


def test_a_leak_of_later_tokens_is_not_reported_again_as_one_of_padding() -> None:
    """Fails if one fault has two findings."""
    both = pd.DataFrame([LEAK, {**LEAK, "probe": "padding"}])
    assert judge_invariances(both)["rule"].tolist() == ["future-leaks"]
    both.loc[0, "meant"] = False  # as a tagger that sees both sides
    assert judge_invariances(both).empty
    both.loc[0, "holds"] = True
    assert judge_invariances(both)["rule"].tolist() == ["padding-leaks"]


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("NormOverTime", "its own channels"),
        ("BatchNorm1d", "its own channels"),
        ("SelfAttention", "is_causal=True"),
        ("GPT2Attn", "is_causal=True"),
        ("Conv1d", "on the left only"),
        ("Mixer", "without a causal mask"),
    ],
)
def test_the_advice_fits_the_module(kind: str, advice: str) -> None:
    (finding,) = found(culprit_class=kind).to_dict("records")
    assert advice in finding["do"]
    assert (finding["severity"], finding["layer"]) == ("critical", "blocks.1.ln2")
    assert f"blocks.1.ln1 ({kind})" in finding["because"]
    assert "by up to 0.75 (outputs reach 12; 4 sequences)" in finding["because"]


@pytest.mark.parametrize(
    ("culprit", "advice"),
    [
        ("blocks.1.self_attn", "is_causal=True"),
        ("blocks.1.attn2", "is_causal=True"),
        ("blocks.1.attn_mixer", "without a causal mask"),
        ("attention.1.mlp", "without a causal mask"),
    ],
)
def test_attention_of_any_class_is_known_by_what_the_model_calls_it(culprit: str, advice: str) -> None:
    """Fails if a class called GQA is no attention, or all inside of a stack called attention is."""
    (finding,) = found(culprit=culprit, culprit_class="GQA").to_dict("records")
    assert advice in finding["do"]
    (finding,) = found(probe="padding", culprit=culprit, culprit_class="GQA").to_dict("records")
    assert ("Give the attention the mask" in finding["do"]) is (advice == "is_causal=True")


def test_where_no_module_was_found_the_finding_says_so() -> None:
    (finding,) = found(culprit="", culprit_class="", first_norm="").to_dict("records")
    assert finding["says"].startswith("Earlier tokens see later ones")
    assert "no module was found" in finding["because"]
    (finding,) = found(culprit="", culprit_class="").to_dict("records")
    assert finding["because"].endswith("; the first norm whose input changes is blocks.1.ln2.")


def test_eval_mode_is_advised_where_it_helps() -> None:
    """Fails if model.eval() is the advice for a norm without running statistics, or in eval mode already."""
    (finding,) = found(probe="batch", culprit_class="BatchNorm2d").to_dict("records")
    assert "`model.eval()`" in finding["do"]
    (finding,) = found(probe="batch", culprit_class="BatchNorm2d", culprit_stores=False).to_dict("records")
    assert "model.eval()" not in finding["do"]
    assert "no running statistics" in finding["do"]
