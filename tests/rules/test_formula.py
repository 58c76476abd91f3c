"""Outputs that are not the formula's: what is said of half precision, of lost rows, and of clipped ends."""

from __future__ import annotations

import math
from typing import Any

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


NO_KNOWN = {"computes_instead": "", "mismatch_left": math.nan}
DESCRIBE = "If the layer is meant to do so, describe it with bnprobe.register_norm."


@pytest.mark.parametrize(
    ("row", "severity", "says", "because", "do"),
    [
        (
            {"computes_instead": "over channels", "mismatch_left": 0.0},
            "warning",
            "as described: it takes its statistics over the channels at each position.",
            "at the first call, and by 0 with this change.",
            DESCRIBE,
        ),
        (
            {"computes_instead": "over samples, positions", "mismatch_left": 1e-7},
            "warning",
            "it takes its statistics over samples and positions, for each channel.",
            "and by 1e-07 with this change.",
            f"Each output depends on the rest of the batch. Check the dimensions of the mean in its forward. {DESCRIBE}",
        ),
        (
            {"computes_instead": "no groups; over positions", "mismatch_left": 1e-7},
            "warning",
            "it does not tell the groups apart and takes its statistics over the positions of each sample and channel.",
            "and by 1e-07 with this change.",
            "Each position depends on all others, so a causal model sees what comes later, and padding changes the result. "
            "Check the dimensions of the mean in its forward; after a change, retrain: the weights fit what it does now. "
            + DESCRIBE,
        ),
        (
            {"computes_instead": "no groups; in float16", "mismatch_left": 1e-4},
            "warning",
            "as described: it does not tell the groups apart.",
            "and by 0.0001 with this change.",
            DESCRIBE,
        ),
        (
            {"computes_instead": "eps 0.001; gain times 2; relu; no bias", "mismatch_left": 1e-7},
            "info",
            "it uses an eps of 0.001 and multiplies by a further 2 and applies relu to its output and does not use "
            "its bias.",
            "and by 1e-07 with this change.",
            DESCRIBE,
        ),
        (
            {"computes_instead": "eps beside the root", "mismatch_left": 1e-7},
            "info",
            "it adds eps to the root instead of the variance.",
            "and by 1e-07 with this change.",
            DESCRIBE,
        ),
        (
            {"computes_instead": "in bfloat16", "mismatch_left": 0.0},
            "info",
            "This BatchNorm computes in bfloat16: its outputs are that coarse.",
            "and by 0 with this change.",
            DESCRIBE,
        ),
        (
            {**NO_KNOWN, "formula_fits": 0},
            "warning",
            "This BatchNorm does something else than a batch norm, and no usual change to the formula explains it: its "
            "outputs were measured, not derived from its inputs.",
            f"output and formula differ by 0.1 of the largest output at the first call; tried were {formula.TRIED}.",
            f"Usually something fused into the class. {DESCRIBE}",
        ),
        (
            {**NO_KNOWN, "formula_fits": 0, "mismatch": 0.0999},
            "info",
            "explains it: its outputs were measured, not derived from its inputs.",
            f"differ by 0.1 of the largest output at the first call; tried were {formula.TRIED}.",
            f"Usually something fused into the class. {DESCRIBE}",
        ),
        (
            {**NO_KNOWN, "formula_fits": math.nan},
            "info",
            "This BatchNorm does more than a batch norm: its outputs were measured, not derived from its inputs.",
            "output and formula differ by 0.1 of the largest output at the first call.",
            f"Usually something fused into the class. {DESCRIBE}",
        ),
        (
            {**NO_KNOWN, "formula_fits": 0, "mismatch": math.inf},
            "info",
            "outputs were measured, not derived from its inputs.",
            "the output could not be compared with the formula.",
            f"Usually something fused into the class. {DESCRIBE}",
        ),
    ],
)
def test_what_a_norm_does_instead_is_said(
    row: dict[str, Any], severity: str, says: str, because: str, do: str
) -> None:
    """Fails if a deviation is told in other words, is a warning where it does no harm, or has another's remedy."""
    given = {"output": "read", "mismatch": 0.1, "formula_fits": 0, "class_name": "BatchNorm", **row}
    (found,) = findings("more-than-a-norm", edited(evidence(), **given))
    assert (found.severity, found.do) == (severity, do)
    assert found.says.endswith(says)
    assert found.because.endswith(because)


@pytest.mark.parametrize(
    ("row", "fires"),
    [
        ({}, 1),
        ({"formula_fits": 1}, 0),
        ({"output": "derived"}, 0),
        ({"zero_rows": 0.1, "mismatch_left": 0.0}, 0),
        ({"zero_rows": 0.1, "mismatch_left": 0.0, "computes_instead": "in float16"}, 0),
        ({"zero_rows": 0.1, "mismatch_left": 0.0, "computes_instead": "no bias"}, 1),
        ({"zero_rows": 0.1, "mismatch_left": math.nan}, 1),
        ({"zero_rows": 1.0, "mismatch_left": math.nan}, 0),
        ({"zero_rows": 1.0, "mismatch_left": math.nan, "computes_instead": "no bias"}, 1),
        ({"zero_rows": 0.0, "mismatch_left": 0.0}, 1),
    ],
)
def test_an_output_that_is_not_the_formulas(row: dict[str, Any], fires: int) -> None:
    """Fails if outputs that fit or were derived are blamed, or rows of zeros, which have a finding, a second time."""
    given = {"output": "read", "mismatch": 0.5, "formula_fits": 0, **NO_KNOWN, **row}
    assert len(findings("more-than-a-norm", edited(evidence(), **given))) == fires


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"zero_positions": 0.01, "constant_rows": 0.01}, None),
        ({"zero_positions": 0.02, "constant_rows": 0.5}, "as padding does: they count in its mean and variance."),
        (
            {"zero_positions": 0.02, "normalized_by": "sample"},
            "so that what it makes of a sample depends on how far that is padded.",
        ),
        ({"zero_positions": 0.01, "constant_rows": 0.02}, "as padding does: its output there is β."),
    ],
)  # fmt: skip
def test_rows_without_information(row: dict[str, Any], expected: str | None) -> None:
    """Fails if positions of zeros and rows of one value are exchanged, or told where they are at the threshold."""
    found = findings("rows-constant", edited(evidence(), **row))
    assert len(found) == (expected is not None)
    for one in found:
        assert one.says.endswith(str(expected))


@pytest.mark.parametrize(
    ("instead", "words"), [("", "(threshold 1%)."), ("no bias; relu6", "; it applies relu6 to its output.")]
)
def test_saturated_outputs_name_what_clips_them(instead: str, words: str) -> None:
    """Fails if the deviation that is named is not the last, which acts on the outputs."""
    (found,) = findings(
        "outputs-saturated", edited(evidence(), saturated_outputs=0.5, computes_instead=instead)
    )
    assert found.because.endswith(words)


@pytest.mark.parametrize(
    ("row", "begins"),
    [
        ({}, "Subtract the common number"),
        ({"verdict": "mean shifted", "shift_rms": 0.51}, "The inputs are not those of training here"),
        ({"verdict": "mean shifted", "shift_rms": 0.5}, "Subtract the common number"),
        ({"verdict": "same", "shift_rms": 9.0}, "Subtract the common number"),
        ({"verdict": "never updated", "shift_rms": 9.0}, "Subtract the common number"),
    ],
)
def test_inputs_of_another_kind_are_mended_first(row: dict[str, Any], begins: str) -> None:
    """Fails if lost digits are blamed on the data where the running statistics fit, or not where they do not."""
    given = {"rounding_step": 0.002, "mean_in_sds_max": 1000.0, "input_dtype": "float32", **row}
    (found,) = findings("digits-lost", edited(evidence(), **given))
    assert found.do.startswith(begins)
