"""Rows of a study, the sentence of an effect, and the share of a budget: numbers by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bnprobe.experiments.effect import Effect, _signed
from bnprobe.experiments.measure_variants import Deadline, Measurements, Measuring, Tally
from bnprobe.experiments.outputs import Change
from bnprobe.experiments.replacements import Variant
from bnprobe.experiments.rows import notes, table_of
from bnprobe.recording.terms import AGREEMENT, OUTPUT

NAN = float("nan")


def variant(name: str = "a") -> Variant:
    return Variant("layer", name, "mean", "0", ())


def measured(**tallies: Tally) -> tuple[list[Variant], Measurements]:
    made = [variant(name) for name in tallies]
    before = [np.array([1.0, 0.0]), np.array([1.0, 1.0, 0.5])]
    rest = [np.array([3.0, 5.0]), np.array([4.0, 4.0, 9.0])]
    return made, Measurements("accuracy", before, rest, dict(zip(made, tallies.values(), strict=True)))


def test_a_row_is_of_the_samples_that_a_variant_saw() -> None:
    """Fails if it is compared with all samples, sums are told for means, or the rest is of another variant."""
    whole = Tally([np.array([0.0, 0.0]), np.array([1.0, 0.0, 0.0])], [], agreement=2.0, kl=5.0)
    part = Tally([np.array([1.0, 1.0])], [np.array([4.0, 8.0])], agreement=2.0, kl=1.0)
    made, found = measured(whole=whole, part=part)
    table = table_of(made, found, {})
    assert table["layer"].tolist() == ["whole", "part"]
    assert table["before"].tolist() == [0.7, 0.5]
    assert table["after"].tolist() == [0.2, 1.0]
    np.testing.assert_allclose(table["difference"], [-0.5, 0.5])
    assert table["n"].tolist() == [5, 2]
    np.testing.assert_allclose(table["agreement"], [0.4, 1.0])
    np.testing.assert_allclose(table["kl"], [1.0, 0.5])
    np.testing.assert_allclose(table["difference_rest"], [NAN, 2.0])
    assert table["estimated"].tolist() == [False, False]
    assert table["estimate"].isna().all()
    assert (table["low"] <= table["difference"]).all()
    assert (table["high"] >= table["difference"]).all()


def test_what_was_not_measured_has_its_estimate_or_no_row() -> None:
    """Fails if a variant without a number has a row, or an estimate is told for a measurement."""
    made, found = measured(none=Tally(), estimated=Tally())
    table = table_of(made, found, {made[1]: 0.25})
    (row,) = table.to_dict("records")
    assert (row["layer"], row["estimated"], row["estimate"], row["n"]) == ("estimated", True, 0.25, 0)
    assert row["before"] == 0.7
    assert all(math.isnan(row[name]) for name in ("after", "difference", "low", "high", "agreement", "kl"))


@pytest.mark.parametrize("stopped", ["", "out of time"])
def test_notes_say_where_it_ended(stopped: str) -> None:
    """Fails if a study that ended early reads as whole, or the number of samples is another."""
    _, found = measured()
    found.stopped = stopped
    said = list(notes(found, 1200, ["bn.running_mean"]))
    assert said[-2] == "The model itself changed: bn.running_mean."
    assert said[:-2] == (
        ["Out of time on sample 5 of 1,200: column n says how many each row is of."] if stopped else []
    )


def effect(metric: str, before: list[float], after: list[float], **changes: Any) -> Effect:
    n = len(before)
    fields = {
        "agreement": np.full(n, NAN),
        "kl": np.full(n, NAN),
        "relative": np.arange(n) / 4,
        "largest": np.arange(n) * 2.0,
    }
    change = Change(**{**fields, **changes})
    return Effect.of(metric, np.array(before), np.array(after), change, n_fitted=3, notes=("a note",))


def test_an_effect_is_of_means_and_largest_changes() -> None:
    """Fails if a mean is told for a largest one, the difference has the other sign, or NaN of all is a number."""
    found = effect("score", [1.0, 2.0, 6.0], [2.0, 2.0, 8.0], agreement=np.array([1.0, 0.0, 0.5]))
    assert (found.before, found.after, found.difference, found.n) == (3.0, 4.0, 1.0, 3)
    assert (found.agreement, found.output_change, found.largest_change, found.largest_relative) == (
        0.5,
        0.25,
        4.0,
        0.5,
    )
    assert math.isnan(found.kl)
    assert (found.n_fitted, found.notes) == (3, ("a note",))
    assert found.low <= 1.0 <= found.high


SCORE = {
    "before": 0.5,
    "after": 0.75,
    "difference": 0.25,
    "n": 1200,
    "agreement": 0.9,
    "kl": 0.1,
    "output_change": 0.2,
}


@pytest.mark.parametrize(
    ("metric", "low", "high", "says"),
    [
        (
            "accuracy",
            0.1,
            0.4,
            "accuracy 50.0% → 75.0% (+25.0 points, 95% interval +10.0 to +40.0, 1,200 samples)",
        ),
        (
            "accuracy",
            -0.1,
            0.4,
            "accuracy 50.0% → 75.0% (+25.0 points, 95% interval −10.0 to +40.0, 1,200 samples): the interval includes 0",
        ),
        ("score", 0.1, 0.4, "score 0.5 → 0.75 (+0.2, 95% interval +0.1 to +0.4, 1,200 samples)"),
        (AGREEMENT, 0.1, 0.4, f"{AGREEMENT}: 75.0% of decisions stay, on 1,200 samples"),
        (OUTPUT, 0.1, 0.4, f"{OUTPUT}: 0.75 on 1,200 samples"),
    ],
)
def test_an_effect_in_a_sentence(metric: str, low: float, high: float, says: str) -> None:
    """Fails if shares are not told in percent, the interval is another, or zero in it is not said."""
    found = Effect(metric, low=low, high=high, **SCORE)
    assert found.says == says
    assert found.sure is ("includes" not in says and low > 0)
    assert repr(found) == f"Effect({says})"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.0"),
        (0.05, "+0.1"),
        (-0.05, "−0.1"),
        (0.049, "+0.049"),
        (-0.0123, "−0.012"),
        (12.34, "+12.3"),
        (-3.0, "−3.0"),
    ],
)
def test_small_differences_keep_two_digits(value: float, shown: str) -> None:
    """Fails if a small difference is told as none, or none has a sign."""
    assert _signed(value) == shown


@pytest.mark.parametrize(
    ("left", "whole", "n"),
    [
        (math.inf, 10.0, 4),
        (100.0, 10.0, 4),
        # shares of 1, 0.5, 0.25 and 0.25 of ten seconds: 10, 15, 17.5 and 20, of 0.9 (left - 10)
        (10 + 20 / 0.9 + 0.01, 10.0, 4),
        (10 + 20 / 0.9 - 0.01, 10.0, 3),
        (10 + 17.5 / 0.9 - 0.01, 10.0, 2),
        (10 + 10 / 0.9 - 0.01, 10.0, 1),
        (1.0, 10.0, 1),
    ],
)
def test_as_many_variants_as_the_time_allows(left: float, whole: float, n: int) -> None:
    """Fails if the pass that is to come is not counted, all of the time is planned for, or not even one variant runs."""
    shares = dict(zip((variant(name) for name in "abcd"), (1.0, 0.5, 0.25, 0.25), strict=True))
    for one in shares:
        one.__dict__["changes"] = (1,)

    class Fixed(Deadline):
        left = property(lambda self: left)  # type: ignore[assignment]

    prefix: Any = type("Prefix", (), {"share": staticmethod(shares.get)})
    nobody: Any = None
    measuring = Measuring(nobody, nobody, 1, None, None, prefix, Fixed(None))
    assert measuring._affordable(list(shares), whole) == list(shares)[:n]


def test_what_changes_nothing_takes_no_time() -> None:
    """Fails if a variant that is the model itself is planned for."""
    made = [variant(name) for name in "ab"]
    made[1].__dict__["changes"] = (1,)
    made[0].__dict__["changes"] = ()

    class Fixed(Deadline):
        left = property(lambda self: 22.0)  # type: ignore[assignment]

    prefix: Any = type("Prefix", (), {"share": staticmethod(lambda one: 1.0)})
    nobody: Any = None
    assert Measuring(nobody, nobody, 1, None, None, prefix, Fixed(None))._affordable(made, 10.0) == made


def test_a_deadline_counts_from_when_it_was_made() -> None:
    """Fails if time runs backwards, or without a budget it ends."""
    assert Deadline(None).left == math.inf
    found = Deadline(100.0)
    assert 0 <= found.spent < 50
    assert 50 < found.left <= 100


def test_an_empty_study_has_no_rows() -> None:
    """Fails if nothing tried is an error."""
    assert table_of([], Measurements(), {}).equals(pd.DataFrame([]))
