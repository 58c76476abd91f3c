"""What the stored vectors say in corners: counts of updates, initial values, copies, and numbers of half precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from measures.sites import memory_of, site, some_rows

from rules.edited import edited, evidence, findings, healthy


def counted(*counts: float, **row: Any) -> list[tuple[str, str]]:
    """Layer and severity of what is said of norms with these counts."""
    base = evidence(*(healthy(f"n{i}") for i in range(len(counts))))
    for i, n in enumerate(counts):
        base = edited(base, at=i, n_batches_tracked=n, **row)
    return [(one.layer, one.severity) for one in findings("batches-differ", base)]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((40, 40, 40), []),
        ((40, 40, 80), [("n2", "warning")]),
        ((40, 40, 120), [("n2", "warning")]),
        ((40, 40, 60), [("n2", "info")]),
        ((40, 40, 0), [("n2", "info")]),
        ((0, 0, 40), [("n2", "info")]),
        ((40, 80), [("n1", "warning")]),
        ((80, 80, 40), [("n2", "info")]),
        ((40, math.nan, 40), []),
        ((40, math.nan, 80), [("n2", "warning")]),
    ],
)
def test_norms_that_were_updated_more_or_less_often(
    counts: tuple[float, ...], expected: list[tuple[str, str]]
) -> None:
    """Fails if a norm that was never counted is several times the others, or the rarer of two counts is not usual."""
    assert counted(*counts) == expected


def test_counts_of_instance_norms_and_later_calls_are_no_counts() -> None:
    """Fails if a buffer that torch leaves at 0, or the same buffer at a second call, is compared."""
    assert counted(40, 40, 80, kind="instance_norm") == []
    both = evidence(healthy("a"), healthy("a", call=1))
    assert findings("batches-differ", edited(both, at=1, n_batches_tracked=80)) == []


def untrained(
    cells: dict[str, Any], other: dict[str, Any] | None = None, **row: Any
) -> list[tuple[str, str, str]]:
    """Layer, severity and first words of what is said of a norm with these vectors beside another."""
    base = evidence(healthy("a"), healthy("b"))
    base = edited(edited(base, cells, **row), other or {}, at=1)
    return [(one.layer, one.severity, one.says) for one in findings("affine-untrained", base)]


NEVER, SCALE = "γ and β never left their initial values.", "γ never left its initial value, while β did."
CREATED = "This norm is untrained: nothing was learned."
NEW = {"running_mean": math.nan, "running_var": math.nan}
ONES, ZEROS = {"gamma": 1.0, "beta": 0.0}, {"gamma": 0.0, "beta": 0.0}


@pytest.mark.parametrize(
    ("cells", "other", "expected"),
    [
        ({}, {}, []),
        (ONES, {}, [("a", "warning", NEVER)]),
        (ZEROS, {}, [("a", "warning", NEVER)]),
        ({**ONES, **NEW}, {}, [("a", "warning", NEVER)]),
        ({**ONES, **NEW}, {**ONES, **NEW}, [(n, "info", CREATED) for n in "ab"]),
        ({"gamma": 1.0, "beta": math.nan, **NEW}, {}, [("a", "warning", NEVER)]),
        ({"gamma": 1.0, "beta": 0.5}, {}, [("a", "warning", SCALE)]),
        ({"gamma": 1.0, "beta": 0.5}, {"gamma": 1.0, "beta": 0.5}, [(n, "info", SCALE) for n in "ab"]),
        ({"gamma": [1.0, 1.0, 0.0]}, {}, []),
        ({"gamma": 2.0, "beta": 0.0}, {}, []),
        ({"gamma": math.nan, "beta": math.nan}, {}, []),
        ({"gamma": [1.0, 1.0, math.nan], "beta": 0.0}, {}, []),
    ],
)  # fmt: skip
def test_vectors_at_their_initial_values(
    cells: dict[str, Any], other: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    """Fails if training elsewhere is not seen, a start at 0 is no start, or a single channel makes a layer untrained."""
    assert untrained(cells, other) == expected


def test_a_branch_that_starts_at_zero_is_told_by_another_rule() -> None:
    """Fails if γ of 0 behind a skip connection is called untrained, or γ of 1 is not."""
    assert untrained(ZEROS, skip="bn0") == []
    assert [one[2] for one in untrained(ONES, skip="bn0")] == [NEVER]


def test_updated_statistics_make_an_untrained_layer_a_finding() -> None:
    """Fails if a network of initial vectors whose statistics moved, in mean or in variance, counts as new."""
    start = {"running_mean": 0.0, "running_var": 1.0}
    for moved in ({"running_mean": [0.0, 0.1, 0.0]}, {"running_var": [1.0, 1.0, 1.1]}):
        found = untrained({**ONES, **start, **moved}, {**ONES, **start})
        assert found == [("a", "warning", NEVER)]


def alike(cells: dict[str, Any], other: dict[str, Any] | None = None, **row: Any) -> list[str]:
    rows = some_rows(20, n_channels=4)
    fields = {"gamma": [1.0, 2, 3, 4], "beta": 0.1, **memory_of(rows)}
    base = evidence(
        site(rows, "a", **fields), site(rows, "b", **{**fields, "gamma": 1.5, "running_var": [1.0, 2, 3, 4]})
    )
    base = edited(edited(base, cells, **row), other or {}, at=1)
    return [one.layer for one in findings("statistics-alike", base)]


def test_one_variance_for_all_channels() -> None:
    """Fails if two equal variances are enough, or one that was never updated is called a copy."""
    assert alike({}) == []
    assert alike({"running_var": 2.0}) == ["a"]
    assert alike({"running_var": [2.0, 2.0, 2.0, 3.0]}) == []
    assert alike({"running_var": [2.0, 2.0, 2.0, math.nan]}) == []
    assert alike({"running_var": 1.0, "running_mean": 0.0}) == []
    assert alike({"running_var": 2.0}, memory_moved=0.1) == []


def test_statistics_of_another_layer() -> None:
    """Fails if a norm that shares its weights too is a copy, or means alone make one."""
    same = {"running_mean": [1.0, 2, 3, 4], "running_var": [2.0, 3, 4, 5]}
    assert alike(same, same) == ["b"]
    assert alike(same, {**same, "gamma": [1.0, 2, 3, 4]}) == []
    assert alike(same, {"running_mean": [1.0, 2, 3, 4]}) == []
    assert alike(same, {**same, "running_mean": [1.0, 2, 3, 4.5]}) == []


def overflow(row: dict[str, Any], cells: dict[str, Any] | None = None) -> str:
    (one,) = findings("half-overflow", edited(evidence(), cells, **row))
    return f"{one.says} {one.because} {one.do}"


def test_what_does_not_fit_into_half_precision() -> None:
    """Fails if a layer that just fits is said to overflow, or the data are blamed for stored vectors."""
    fits = overflow({"largest_input": 40000.0, "var_ratio_median": 1.0})
    assert "only just fits" in fits
    assert "does not fit" in overflow({"largest_input": 65505.0, "var_ratio_median": 1.0})
    assert "only just fits" in overflow({"largest_input": 65504.0, "var_ratio_median": 1.0})
    assert "On these data" in overflow({"largest_input": 70000.0, "var_ratio_median": 2.1})
    assert "This layer does not fit" in overflow({"largest_input": 70000.0, "var_ratio_median": 2.0})
    stored = overflow({"largest_input": 1.0, "var_ratio_median": 9.0}, {"beta": [7e4, 0.0, 0.0]})
    assert "beta of 1 of 3 channels above 65504" in stored
    assert "expected from" not in stored
    assert "largest input" not in stored


@pytest.mark.parametrize(
    ("largest", "var", "told"),
    [(1.0, 0.0, True), (0.0, 1.0, True), (0.0, 0.0, False), (math.inf, 1.0, False)],
)
def test_inputs_are_scaled_down_only_where_there_are_any(largest: float, var: float, told: bool) -> None:
    """Fails if weights are to be divided by nothing, or by infinity, where a large β alone does not fit."""
    found = edited(
        evidence(), {"beta": [7e4, 0.0, 0.0], "running_var": var}, largest_input=largest, feeder="conv"
    )
    assert ("preceding weights" in findings("half-overflow", found)[0].do) == told


def test_without_data_the_largest_input_needs_no_headroom() -> None:
    """Fails if six deviations from a running mean are doubled once more."""
    one = {"n_values": 0, "var_ratio_median": math.nan}
    assert findings("half-overflow", edited(evidence(), largest_input=40000.0, **one)) == []
    assert findings("half-overflow", edited(evidence(), largest_input=65504.0, **one)) == []
    assert len(findings("half-overflow", edited(evidence(), largest_input=65505.0, **one))) == 1


def test_weights_are_scaled_by_a_power_of_two_into_reach() -> None:
    """Fails if the factor does not bring the largest input to 64 or below, or eps is scaled where it need not be."""
    row = {"largest_input": 70000.0, "var_ratio_median": 1.0, "feeder": "conv", "eps": 1e-5}
    large = {"running_mean": 0.0, "running_var": 1e8, "gamma": 1.0}
    # 70000 / 2^11 = 34.2 and 70000 / 2^10 = 68.4: the factor is 2^-11
    said = overflow(row, large)
    assert f"mul_({2.0**-11:.3g})" in said
    assert "n.eps" not in said
    # 1e8 / 2^22 = 23.8 is more than 100 eps; a channel of 4e2 falls to 9.5e-5, less than 100 eps and more than 6.1e-5
    assert "n.eps *=" in overflow(row, {**large, "running_var": [1e8, 1e8, 4e2]})
    # and one of 2e2 to 4.8e-5, which half precision does not hold
    assert "does not help" in overflow(row, {**large, "running_var": [1e8, 1e8, 2e2]})
    # a channel that is switched off does not count
    off = {**large, "running_var": [1e8, 1e8, 2e2], "gamma": [1.0, 1.0, np.nextafter(0.01, 0)]}
    assert "does not help" not in overflow(row, off)
    assert "mul_" not in overflow({**row, "feeder": ""}, large)


@pytest.mark.parametrize(
    ("own_sd", "eps", "advice"),
    [(1e-3, 1e-3, "eps = 1e-05"), (1e-3, 1e-5, "weights"), (1e-3, 1.1e-5, "eps = 1e-05")],
)
def test_an_eps_larger_than_usual_is_named(own_sd: float, eps: float, advice: str) -> None:
    """Fails if torch's own eps is called too large, or a larger one is not."""
    (one,) = findings("variance-below-eps", edited(evidence(), own_sd=own_sd, eps=eps))
    assert advice in one.do
    assert (advice == "weights") == (".eps = " not in one.do)


def test_inputs_that_vary_are_told_from_those_that_hardly_do() -> None:
    """Fails if a hundred times eps is not the limit between a lost buffer and inputs too small."""
    row, cells = {"eps": 1e-3}, {"running_var": [0.0, 1.0, 1.0], "gamma": 1.0}
    (flat,) = findings("variance-below-eps", edited(evidence(), {**cells, "pre_var": [0.1, 9, 9]}, **row))
    more = [float(np.nextafter(0.1, 1)), 9, 9]
    (lost,) = findings("variance-below-eps", edited(evidence(), {**cells, "pre_var": more}, **row))
    assert flat.channels == lost.channels == (0,)
    assert flat.says != lost.says
    # of a buffer that was lost the advice is to make it again, and the variance of the inputs is named
    assert "0.1" in lost.because
    assert "update_bn" in lost.do
    assert "update_bn" not in flat.do
