"""Numbers that half precision cannot hold: what is looked at, who is blamed, and by how much weights are scaled."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from measures.first_norms import PIXELS, stem_norm
from measures.sites import site

import bnprobe
from bnprobe.measures import tables
from bnprobe.rules import half_overflow, judge
from bnprobe.rules.edits import Remedy, Rescale
from rules.edited import edited, evidence, findings
from rules.firing import fired
from rules.stored import FED, ONE, ROWS, STATISTICS, at, stored


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"running_var": at(65505, 1, 2)}, "running_var of 1 of 8"),
        ({"running_mean": at(-65505, 1, 2)}, "largest input"),
        ({"gamma": at(-7e4, 1, 2)}, "γ of 1"),
        ({"running_mean": at(60000, 0, 2), "running_var": at(1e6, 1, 2)}, "largest input 66,000"),
    ],
)
def test_what_half_precision_cannot_hold(changes, word):
    """Fails if a vector is not looked at, or the reach of the input is not six standard deviations."""
    found = fired("half-overflow", stored(**changes))
    assert found["severity"].tolist() == ["warning"]
    assert word in found["because"].iloc[0]


def test_half_precision_goes_by_what_was_seen_where_data_were_seen():
    """Fails if a measured extreme is not used, or the running statistics overrule it."""
    assert fired("half-overflow", stored(running_mean=6e4, running_var=ONE)).empty
    for largest, fires in ((7e4, 1), (3.3e4, 1), (3.2e4, 0)):  # room for inputs twice as large
        loud = ROWS.copy()
        loud[0, 0, 0] = -largest
        assert len(fired("half-overflow", site(loud, gamma=1.5, beta=0, **STATISTICS))) == fires
    assert fired(
        "half-overflow", stored(running_mean=np.inf, running_var=np.nan)
    ).empty  # statistics-poisoned says it


def test_data_that_do_not_fit_are_not_the_weights_fault():
    """Fails if a layer with small running statistics is scaled down because these data are large."""
    (row,) = fired(
        "half-overflow", site(3e5 * ROWS, "bn", gamma=1.5, beta=0, **STATISTICS, neighbours=FED)
    ).itertuples()
    assert row.says.startswith("On these data, the input")
    assert "look at the inputs" in row.do
    assert "`" not in row.do


def test_inputs_that_are_too_large_are_told_of_where_they_enter() -> None:
    """Fails if each norm behind inputs of 0 to 255 is warned of for itself."""
    large = stem_norm(255 * PIXELS)
    (first,) = large.layers
    later = site(3e5 * ROWS, "bn2", gamma=1.5, beta=0, **STATISTICS, neighbours=FED)
    found = judge(tables(replace(large, layers=(first, later))))
    assert "input-not-as-trained" in set(found["rule"])
    assert "half-overflow" not in set(found["rule"])


def a_layer(bias: bool, scale: float) -> tuple[Any, Any]:
    """A linear layer with large weights, its norm with statistics as they are, and inputs."""

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8, bias=bias), torch.nn.BatchNorm1d(8)).double()
    x = torch.randn(400, 6, dtype=torch.float64)
    with torch.no_grad():
        model[0].weight *= scale
        if bias:
            model[0].bias += 3e4
        model[1].momentum = 1.0
        model(x)
    return model.eval(), x


def advice(model: Any, x: Any) -> str:
    """What to do about its overflow."""

    with bnprobe.attach(model) as probe:
        model(x)
    found = bnprobe.report(probe).findings
    (row,) = found[found["rule"] == "half-overflow"].itertuples()
    return str(row.do)


@pytest.mark.parametrize(("bias", "scale"), [(False, 1e5), (True, 3e3)])
def test_scaling_down_leaves_the_output(bias, scale):
    """Fails if the bias is left as it was, or the code for the weights changes what follows the norm."""
    model, x = a_layer(bias, scale)
    before = model(x).detach()
    exec(advice(model, x).split("`")[1], {"model": model})
    np.testing.assert_allclose(model(x).detach(), before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("least", "with_eps", "possible"), [(1e7, 0, 1), (1e5, 1, 1), (10.0, 0, 0)])
def test_no_scaling_into_eps(least, with_eps, possible):
    """Fails if running_var is scaled down to where eps, or half precision's smallest number, sets it."""
    # what lies above 2^20 is scaled by 2^-15, and with it a variance by 2^-30
    loud = stored(
        running_mean=2.0**20 * ONE, running_var=at(least, 1e7, 2), gamma=ONE, neighbours=FED, eps=1e-5
    )
    do = fired("half-overflow", loud)["do"].iloc[0]
    assert ("f.parameters()" in do) == possible
    assert ("n.eps *=" in do) == with_eps
    assert ("does not help" in do) != possible


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
    assert "β of 1 of 3 channels above 65504" in stored
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


@pytest.mark.parametrize(("least", "possible"), [(2.0**-8, True), (float(np.nextafter(2.0**-8, 0)), False)])
def test_the_smallest_full_number_of_half_precision_is_held(
    monkeypatch, least: float, possible: bool
) -> None:
    """Fails if a variance that falls to the smallest number with all digits, and no further, is called lost."""
    monkeypatch.setattr(half_overflow, "SMALLEST_HALF", 2.0**-30)
    # 70000 is scaled by 2^-11, and a variance by 2^-22
    row = {"largest_input": 70000.0, "var_ratio_median": 1.0, "feeder": "conv", "eps": 1e-5}
    vectors = {"running_mean": 0.0, "running_var": [1e8, 1e8, least], "gamma": 1.0}
    assert ("does not help" in overflow(row, vectors)) != possible


FITS = {"running_mean": 0.0, "running_var": 1.0, "gamma": 1.0, "beta": 0.0}
USUAL = {"largest_input": 10.0, "n_values": 99, "var_ratio_median": 1.0, "feeder": "", "eps": 1e-5}


@pytest.mark.parametrize(
    ("cells", "row", "says", "because"),
    [
        (
            {"gamma": [7e4, 1.0, 1.0]},
            {},
            "This layer does not fit into half precision",
            "γ of 1 of 3 channels above 65504.",
        ),
        (
            {"beta": [-7e4, 1.0, 1.0], "running_var": [1.0, 7e4, 1.0]},
            {},
            "This layer does not fit",
            "β and running_var of 2 of 3 channels above 65504.",
        ),
        (
            {"gamma": [7e4, 1.0, 1.0]},
            {"largest_input": 4e4},
            "This layer does not fit",
            "γ of 1 of 3 channels above 65504; largest input 40,000 (threshold 32752), half precision ends at 65504.",
        ),
        (
            {"gamma": [7e4, 1.0, 1.0]},
            {"largest_input": 32752.0},
            "This layer does not fit",
            "γ of 1 of 3 channels above 65504.",
        ),
        (
            {},
            {"largest_input": 4e4},
            "This layer only just fits",
            "largest input 40,000 (threshold 32752), half precision ends at 65504.",
        ),
        ({}, {"largest_input": 32752.0}, None, ""),
        (
            {},
            {"largest_input": 7e4},
            "This layer does not fit",
            "largest input 70,000 (threshold 32752), half precision ends at 65504.",
        ),
        (
            {},
            {"largest_input": 7e4, "n_values": 0},
            "This layer does not fit",
            "largest input 70,000 expected from the running statistics, half precision ends at 65504.",
        ),
        ({}, {"largest_input": 4e4, "n_values": 0}, None, ""),
        ({}, {"largest_input": math.inf}, None, ""),
        (
            {},
            {"largest_input": 7e4, "var_ratio_median": 2.1},
            "On these data, the input of this layer does not fit",
            "largest input 70,000",
        ),
        (
            {},
            {"largest_input": 4e4, "var_ratio_median": 2.1},
            "On these data, the input of this layer only just fits",
            "largest input 40,000",
        ),
        ({}, {"largest_input": 4e4, "var_ratio_median": 2.0}, "This layer only just fits", ""),
        ({"running_var": 3.2e4}, {"largest_input": 4e4, "var_ratio_median": 9.0}, "On these data", ""),
        (
            {"running_mean": 3.2e4, "running_var": 3.2e4},
            {"largest_input": 4e4, "var_ratio_median": 9.0},
            "This layer only just",
            "",
        ),
    ],
)
def test_what_is_said_of_numbers_beyond_half_precision(
    cells: dict[str, Any], row: dict[str, Any], says: str | None, because: str
) -> None:
    """Fails if vectors, inputs and data change places, or headroom is asked for where nothing was measured."""
    found = findings("half-overflow", edited(evidence(), {**FITS, **cells}, **{**USUAL, **row}))
    assert len(found) == (says is not None)
    for one in found:
        assert one.says.startswith(str(says))
        assert one.because.startswith(because) if not because.endswith(".") else one.because == because
        of_data = str(says).startswith("On these data")
        assert (one.do == half_overflow.OTHER_DATA) is of_data
        assert one.remedy is None


@pytest.mark.parametrize(
    ("cells", "row", "factor", "with_eps", "words"),
    [
        ({}, {}, 2.0**-10, False, ", or scale down the preceding weights, which leaves"),
        ({"running_var": [1e4, 1e4, 70.0]}, {"largest_input": 65536.0}, 2.0**-10, True, ", or scale down"),
        ({}, {"largest_input": 65537.0}, 2.0**-11, False, ", or scale down"),
        ({"running_var": [9e6, 9e6, 4e3]}, {"largest_input": 3000.0}, 2.0**-6, False, ", or scale down"),
        (
            {"running_var": [1e4, 1e4, 1.0]},
            {},
            None,
            False,
            ". Scaling down the preceding weights does not help: the smallest running_var would fall to 9.5e-07, and "
            "eps = 1e-05.",
        ),
        (
            {"running_var": [1e4, 1e4, 1.0], "gamma": [7e4, 1.0, 0.001]},
            {},
            2.0**-10,
            False,
            ", or scale down",
        ),
        ({"running_var": [1e4, 1e4, 0.0]}, {}, 2.0**-10, False, ", or scale down"),
        ({}, {"feeder": ""}, None, False, "."),
        ({"running_mean": math.nan}, {}, None, False, "."),
    ],
)
def test_by_how_much_weights_are_scaled_down(
    cells: dict[str, Any], row: dict[str, Any], factor: float | None, with_eps: bool, words: str
) -> None:
    """Fails if the largest input does not come to 64 at most, by a power of two, or eps stays where it would count."""
    given = {**USUAL, "largest_input": 65536.0, "feeder": "conv", "eps": 1e-5, **row}
    base = edited(evidence(), {**FITS, "running_var": 1e4, "gamma": [7e4, 1.0, 1.0], **cells}, **given)
    (one,) = findings("half-overflow", base)
    expected = None if factor is None else Remedy((Rescale("conv", "bn", factor, with_eps),))
    assert one.remedy == expected
    assert words in one.do
