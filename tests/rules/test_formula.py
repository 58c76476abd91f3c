"""Outputs that are not the formula's: what is said of half precision, of lost rows, and of clipped ends."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bnprobe.rules import formula
from bnprobe.rules.causes import because
from bnprobe.rules.rule import Finding
from rules.edited import edited, evidence, findings


@pytest.mark.parametrize(
    ("instead", "dtype", "words"),
    [
        ("in float16", "float32", ", which it computes in float16."),
        ("without the mean; in bfloat16", "float32", ", which it computes in bfloat16."),
        ("", "float16", ", which it computes in float16."),
        ("", "bfloat16", ", which it computes in bfloat16."),
        ("", "float32", " of the first call."),
        ("", "", " of the first call."),
    ],
)
def test_the_half_precision_in_which_rows_were_lost(instead: str, dtype: str, words: str) -> None:
    """Fails if the precision of the statistics is not named, that of the inputs goes before it, or float32 is half."""
    row = {"zero_rows": 0.2, "computes_instead": instead, "input_dtype": dtype}
    (one,) = findings("rows-zero", edited(evidence(), **row))
    assert one.because.startswith("20.0% of the positions of the first call")
    assert one.because.endswith(words)


@pytest.mark.parametrize(
    ("share", "severity"), [(0.0, None), (1e-3, "warning"), (0.499, "warning"), (0.5, "critical")]
)
def test_half_of_all_rows_lost_is_critical(share: float, severity: str | None) -> None:
    """Fails if a single lost row is nothing, or half of them are a mere warning."""
    found = findings("rows-zero", edited(evidence(), zero_rows=share))
    assert [one.severity for one in found] == ([severity] if severity else [])


@pytest.mark.parametrize(("second", "named"), [(500.0, (0,)), (np.nextafter(500.0, 501), (0, 1))])
def test_the_channels_whose_digits_are_lost(second: float, named: tuple[int, ...]) -> None:
    """Fails if channels are named that keep their digits: of a step of 0.002 at 1,000 σ half is the threshold of 0.001."""
    row = {"rounding_step": 0.002, "mean_in_sds_max": 1000.0, "input_dtype": "float32"}
    cells = {"mean_in_sds": [1000.0, second, 10.0]}
    (one,) = findings("digits-lost", edited(evidence(), cells, **row))
    assert one.channels == named
    assert f"1,000 standard deviations in {len(named)} of 3 channels" in one.because


@pytest.mark.parametrize(("next_best", "words"), [(0.25, "25%"), (-0.5, "0%"), (0.0, "0%")])
@pytest.mark.parametrize(("explains", "share"), [(0.95, "95%"), (0.99, "99%"), (0.995, "more than 99%")])
def test_how_well_a_cause_explains(next_best: float, words: str, explains: float, share: str) -> None:
    """Fails if the next best cause is not named, or one that makes it worse explains less than nothing."""
    cause = pd.Series({"cause": "groups", "explains": explains, "next_best": next_best})
    said = because(cause)
    assert said.startswith(f" This explains {share} of the discrepancy")
    assert said.endswith(f"the next best cause explains {words}.")
    assert because(pd.Series({"cause": "few samples"})) == ""


@pytest.mark.parametrize(
    ("shifted", "told"),
    [
        ((True,), ["0 by much."]),
        ((True, True), ["0 by much. So it is at 1 following norm."]),
        ((True, False, True, True), ["1 by much.", "0 by much. So it is at 2 following norms."]),
        ((False, False), ["0 by much.", "1 by much."]),
    ],
)
def test_shifted_norms_that_lose_digits_are_one_finding(
    shifted: tuple[bool, ...], told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if norms behind the first are counted wrongly, or norms whose inputs match are taken for what runs on."""
    each = [
        (Finding("warning", f"n{i}", "Lost.", f"{i} by much.", "Do."), one) for i, one in enumerate(shifted)
    ]
    monkeypatch.setattr(formula, "_each_digits_lost", lambda _: iter(each))
    assert [one.because for one in formula.digits_lost(evidence())] == told
