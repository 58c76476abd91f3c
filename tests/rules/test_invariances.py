"""The rule about what must not move outputs: when it speaks, and what it says of each cause."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from bnprobe.rules import judge_invariances
from rules.firing import LEAK


def found(**cells: Any) -> pd.DataFrame:
    return judge_invariances(pd.DataFrame([LEAK | cells]))


@pytest.mark.parametrize("cells", [{"probe": "batch"}, {"holds": True}, {"holds": None}, {"meant": False}])
def test_every_condition_is_needed(cells: dict[str, Any]) -> None:
    """Fails if a model that is not meant to be causal, or that was not tried, is said to leak."""
    assert len(found()) == 1
    assert found(**cells).empty


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


def test_where_no_module_was_found_the_finding_says_so() -> None:
    (finding,) = found(culprit="", culprit_class="", first_norm="").to_dict("records")
    assert finding["says"].startswith("Earlier tokens see later ones")
    assert "no module was found" in finding["because"]
    (finding,) = found(culprit="", culprit_class="").to_dict("records")
    assert finding["because"].endswith("; the first norm whose input changes is blocks.1.ln2.")
