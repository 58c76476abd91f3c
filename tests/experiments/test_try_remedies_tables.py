"""Findings before and after a remedy, row by row: which is which, what is left, and what a cause explains."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bnprobe.errors import BnprobeError
from bnprobe.experiments.plan import _channel_rows, _median
from bnprobe.experiments.try_remedies import (
    _demand_same_norms,
    _discrepancy,
    _explained,
    _fate,
    _same_finding,
    _serious,
    _why,
)
from bnprobe.rules.tried import CHANGED, GONE, REMAINS

ROW = {"rule": "r", "layer": "bn", "call": 0, "says": "a", "severity": "warning", "channels": (0, 1)}


def table(*changes: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([{**ROW, **change} for change in changes], columns=list(ROW))


@pytest.mark.parametrize(
    ("after", "fate"),
    [
        (table(), GONE),
        (table({}), REMAINS),
        (table({"channels": (0,)}), CHANGED),
        (table({"severity": "info"}), CHANGED),
        (table({"says": "b"}), CHANGED),
        (table({"rule": "other"}), GONE),
        (table({"layer": "other"}), GONE),
        (table({"call": 1}), GONE),
        (table({"says": "b"}, {"channels": (0, 1)}), REMAINS),
        (table({"channels": (2,)}, {"channels": (0, 1)}), REMAINS),
    ],
)
def test_what_became_of_a_finding(after: pd.DataFrame, fate: str) -> None:
    """Fails if other words, channels or severity are the same finding, or another place's is."""
    assert _fate(pd.Series(ROW), table({}), after) == fate


@pytest.mark.parametrize(("n_after", "fate"), [(0, GONE), (1, GONE), (2, CHANGED)])
def test_fewer_findings_at_a_place_are_one_less(n_after: int, fate: str) -> None:
    """Fails if one of two findings of a rule, which is gone, is said to have changed into the other."""
    others = table(*({"says": "b"} for _ in range(n_after)))
    assert _fate(pd.Series(ROW), table({}, {"says": "b"}), others) == fate


@pytest.mark.parametrize(
    ("findings", "at"),
    [
        (table(), None),
        (table({"layer": "x"}, {}), 1),
        (table({"says": "b"}, {}), 1),
        (table({"says": "b"}, {"says": "c"}), 0),
        (table({"rule": "x"}), None),
        (table({"call": 1}), None),
        (table({}, {}), 0),
    ],
)
def test_a_finding_is_found_again_by_its_place_and_words(findings: pd.DataFrame, at: int | None) -> None:
    """Fails if the first at a place is taken where another one has the same words, or one of another place."""
    assert _same_finding(pd.Series(ROW), findings) == at


def layers(**discrepancies: float) -> Any:
    rows = [
        {"layer": name.split("_")[0], "call": int(name.split("_")[1]), "discrepancy": d}
        for name, d in discrepancies.items()
    ]
    return SimpleNamespace(layers=pd.DataFrame(rows))


def test_a_cause_explains_a_share_of_the_squared_discrepancy() -> None:
    """Fails if it is of the discrepancy itself, of another site, or what grew is told as nothing."""
    row = pd.Series({"layer": "bn", "call": 1})
    before = layers(bn_0=9.0, bn_1=2.0, ln_1=7.0)
    assert _discrepancy(row, before.layers) == 2.0
    assert np.isnan(_discrepancy(pd.Series({"layer": "x", "call": 1}), before.layers))
    assert _explained(row, before, layers(bn_0=9.0, bn_1=1.0)) == 0.75
    assert _explained(row, before, layers(bn_0=0.0, bn_1=4.0)) == -3.0
    assert np.isnan(_explained(row, before, None))
    assert np.isnan(_explained(row, layers(bn_1=0.0), layers(bn_1=0.0)))
    assert _explained(row, layers(bn_1=0.5), layers(bn_1=0.0)) == 1.0


def test_rules_that_are_more_than_notes() -> None:
    """Fails if a note counts, or a warning does not."""
    found = table({"severity": "info", "rule": "x"}, {"rule": "y"}, {"severity": "critical", "rule": "z"})
    assert _serious(SimpleNamespace(findings=found)) == {"y", "z"}


def judged(**n_channels: int) -> Any:
    rows = [{"layer": name, "call": 0, "n_channels": n} for name, n in n_channels.items()]
    about = SimpleNamespace(about=SimpleNamespace(model="Net"))
    return SimpleNamespace(
        layers=pd.DataFrame(rows, columns=["layer", "call", "n_channels"]), recording=about
    )


def test_norms_of_another_width_are_of_another_model() -> None:
    """Fails if a norm with other channels is tried, or norms that only one side has are compared."""
    _demand_same_norms(judged(a=3, b=4), judged(a=3, c=9))
    with pytest.raises(BnprobeError, match="b has 5 channels here and 4 there"):
        _demand_same_norms(judged(a=3, b=4), judged(a=3, b=5))


NOT_SHOWN = "it does not show on these batches"


def report(n_backward: float) -> Any:
    return SimpleNamespace(layers=pd.DataFrame({"n_backward": [0.0, n_backward]}))


@pytest.mark.parametrize(
    ("rule", "at", "n_backward", "loss", "why"),
    [
        ("batches-of-two-kinds", None, 0, None, None),
        ("dead-channels", 3, 0, None, "here the advice is not one to carry out"),
        ("dead-channels", 0, 0, None, "here the advice is not one to carry out"),
        ("dead-channels", None, 0, None, f"{NOT_SHOWN}, with the model in this mode"),
        (
            "dead-channels",
            None,
            1,
            None,
            f"{NOT_SHOWN}, which were run without a backward pass: pass loss=",
        ),
        ("dead-channels", None, 1, print, f"{NOT_SHOWN}, with the model in this mode"),
    ],
)
def test_why_nothing_was_tried(
    rule: str, at: int | None, n_backward: float, loss: Any, why: str | None
) -> None:
    """Fails if the first finding is none, or a loss is asked for that was given or never needed."""
    bench: Any = SimpleNamespace(loss=loss)
    said = _why(rule, at, report(n_backward), bench)
    assert said == why if why else "batch" in said


def test_a_typical_value_is_the_median_of_those_that_are_known() -> None:
    """Fails if it is a mean, or nothing is a number: of 1, 2 and 9."""
    assert _median(pd.Series([1.0, np.nan, 9.0, 2.0])) == 2.0
    assert np.isnan(_median(pd.Series([np.nan, np.nan])))


def test_rows_of_renewed_statistics() -> None:
    """Fails if before and after change places, the shift is of another unit, or an error of 0 divides."""
    torch = pytest.importorskip("torch")
    old = np.array([1.0, 2.0]), np.array([4.0, 9.0])
    new = torch.tensor([2.0, 0.5]), torch.tensor([8.0, 3.0])
    norm = SimpleNamespace(statistics=old, sigma=np.array([2.0, 3.0]))
    renewal: Any = SimpleNamespace(norm=norm, new=new, error_in_sigmas=np.array([0.25, 0.0]))
    found = _channel_rows("bn", renewal)
    assert found["layer"].tolist() == ["bn", "bn"]
    assert found["channel"].tolist() == [0, 1]
    np.testing.assert_allclose(found[["mean_before", "mean_after"]], [[1.0, 2.0], [2.0, 0.5]])
    np.testing.assert_allclose(found[["var_before", "var_after"]], [[4.0, 8.0], [9.0, 3.0]])
    np.testing.assert_allclose(found["shift"], [0.5, -0.5])
    np.testing.assert_allclose(found["shift_z"], [2.0, np.nan])
    np.testing.assert_allclose(found["var_ratio"], [2.0, 1 / 3])
