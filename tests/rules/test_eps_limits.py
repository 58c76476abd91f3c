"""Beside eps: buffers of zeros, pruned filters, and advice to enlarge weights, each at its limit."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from bnprobe.recording.terms import MANY_EPS, TORCH_EPS
from bnprobe.rules.eps import _long_constant, _more_than_eps, _next_is_off
from bnprobe.rules.values import _beside, _decayed, _not_decayed, _not_finite_in
from rules.edited import edited, edited_rows, evidence, findings, frame, healthy

RULE = "variance-below-eps"
SETS, CONSTANT, LOST = (
    "eps, more than the data, sets",
    "were constant in training",
    "their running variance is almost 0",
)


def says(cells: dict[str, Any], **row: Any) -> list[str]:
    every = {"gamma": [0.5, 2.0, 3.0], "filter_norm": [1.0, 2.0, 3.0], "pre_var": math.nan, **cells}
    return [one.says for one in findings(RULE, edited(evidence(), every, **{"eps": 1e-5, **row}))]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        # a buffer of zeros says nothing of inputs that were not seen, and the same of those that hardly vary
        ({"running_var": 0.0}, []),
        ({"running_var": 0.0, "pre_var": 0.0}, [SETS]),
        ({"running_var": 0.0, "pre_var": 1.0}, [LOST]),
        ({"running_var": [0.0, 1.0, 1.0]}, [CONSTANT]),
        ({"running_var": [0.0, 1.0, 1.0], "pre_var": 0.0}, [CONSTANT]),
        ({"running_var": [0.0, 1.0, 1.0], "pre_var": 1e-9}, [SETS]),
        ({"running_var": [1e-6, 1.0, 1.0]}, [SETS]),
        ({"running_var": [1e-5, 1.0, 1.0]}, []),
        ({"running_var": [1e-6, 1.0, 1.0], "filter_norm": [0.0, 1.0, 1.0]}, [CONSTANT]),
        ({"running_var": [1e-5, 1.0, 1.0], "filter_norm": [0.0, 1.0, 1.0]}, []),
        ({"running_var": [1e-6, 1.0, 1.0], "filter_norm": [0.0, 1.0, 1.0], "pre_var": 1e-9}, [SETS]),
        ({"running_var": [1e-6, 1.0, 1.0], "gamma": [1e-9, 1.0, 1.0]}, []),
        ({"running_var": [1e-6, 1.0, 1.0], "gamma": [math.nan, 1.0, 1.0]}, [SETS]),
        ({"running_var": [-1e-6, 1.0, 1.0]}, []),
    ],
)
def test_which_of_the_three_a_small_variance_is(cells: dict[str, Any], said: list[str]) -> None:
    """Fails if a condition is turned over, or a limit includes itself."""
    found = says(cells)
    assert [words in one for words, one in zip(said, found, strict=True)] == [True] * len(said)


def row(**cells: Any) -> pd.Series:
    return pd.Series({"layer": "bn", "feeder": "conv", "eps": 1e-5, "eps_assumed": False, **cells})


@pytest.mark.parametrize(
    ("cells", "found", "others", "advice"),
    [
        ({}, 1e-2, 1.0, "Larger weights"),
        ({}, MANY_EPS * 1e-5 * 1.001, 1.0, "Larger weights"),
        ({}, MANY_EPS * 1e-5 * 0.999, 1.0, "Scaling the weights up cannot help all"),
        # the smallest of several decides
        ({}, (1e-2, 1e-9), 1.0, "Scaling the weights up cannot help all"),
        ({"feeder": ""}, 1e-2, 1.0, "Check the preceding weights."),
        ({}, 1e-2, 0.0, "Check the preceding weights."),
        ({"eps": TORCH_EPS * 1.01}, 1e-2, 1.0, "Only if training used"),
        ({"eps": TORCH_EPS}, 1e-2, 1.0, "Larger weights"),
    ],
)
def test_what_is_advised_against_a_small_variance(
    cells: dict[str, Any], found: Any, others: float, advice: str
) -> None:
    """Fails if another variance decides, the usual eps is larger than usual, or a median of 0 is divided by."""
    small = list(found) if isinstance(found, tuple) else [found]
    channels = frame(running_var=[*small, *[others] * 5], gamma=[1.5] * (len(small) + 5))
    words, edit = _more_than_eps(row(**cells), channels.iloc[: len(small)], channels)
    assert words.startswith(advice)
    assert (edit is None) is advice.startswith(("Scaling", "Check"))


def test_larger_weights_make_the_typical_variance_one() -> None:
    """Fails if the factor is not one over the typical deviation."""
    channels = frame(running_var=[0.01, 0.25, 0.25], gamma=[1.0] * 3)
    _, edit = _more_than_eps(row(), channels.iloc[:1], channels)
    assert edit is not None
    assert edit.factor == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("discrepancies", "off"),
    [
        ((0.1, 9.0), True),
        ((9.0, 9.0), False),
        ((0.1, 0.1), False),
        ((0.1,), False),
        ((0.1, 0.1, 9.0), False),
        ((math.nan, 9.0), False),
        # at the threshold neither is off
        ((0.1, 0.5), False),
        ((0.5, 9.0), False),
        ((0.49, 0.51), True),
    ],
)
def test_the_next_norm_is_off(discrepancies: tuple[float, ...], off: bool) -> None:
    """Fails if a norm farther on is the next one, or this one must be off as well."""
    layers = pd.DataFrame({"layer": list("abc")[: len(discrepancies)], "discrepancy": discrepancies})
    found: Any = SimpleNamespace(layers=layers, limits=evidence().limits)
    assert _next_is_off(found, layers.iloc[0]) is off


@pytest.mark.parametrize(
    ("momentum", "var", "words"),
    [
        (
            0.1,
            [1e-20, 1e-30],
            "at most 1e-20 in 2 of 3 channels: with momentum 0.1 it takes about 400 batches",
        ),
        (0.1, [1e-20], "is 1e-20 in 1 of 3 channels: with momentum 0.1 it takes about 400 batches"),
        (0.5, [1e-20], "with momentum 0.5 it takes about 70 batches"),
        (1.0, [1e-20], "with momentum 0.1 "),
        (0.0, [1e-20], "with momentum 0.1 "),
        (math.nan, [1e-20], "with momentum 0.1 "),
        (0.1, [0.0], "running_var is exactly 0 in 1 of 3 channels"),
        # a momentum of a half halves it each time
        (0.5, [2.0**-5], "it takes about 5 batches"),
        (0.75, [4.0**-3], "it takes about 3 batches"),
    ],
)
def test_how_long_it_takes(momentum: float, var: list[float], words: str) -> None:
    """Fails if the number of batches is another, or a momentum that says nothing is used: ln(1/v) / −ln(1 − m)."""
    assert words in _long_constant(
        pd.Series({"momentum": momentum}), frame(running_var=var), frame(running_var=[1.0] * 3)
    )


@pytest.mark.parametrize(
    ("vector", "there", "bad"),
    [
        ([1.0, math.nan], True, [False, True]),
        ([math.nan, math.nan], False, [False, False]),
        ([math.nan, math.nan], True, [True, True]),
        ([math.inf, 1.0], True, [True, False]),
        ([-math.inf, math.nan], True, [True, True]),
        ([1e30, 0.0], True, [False, False]),
    ],
)
def test_values_of_a_vector_that_are_not_finite(vector: list[float], there: bool, bad: list[bool]) -> None:
    """Fails if a vector that is missing is NaN, or one that is there is missing."""
    assert _not_finite_in(pd.Series(vector), there).tolist() == bad


def test_filters_that_have_decayed_as_well_are_told_elsewhere() -> None:
    """Fails if short is not a share of the typical length: a tenth of 2, as thresholds have it here."""
    channels = frame(filter_norm=[0.19, 0.21, 2.0, 3.0, math.nan])
    found: Any = SimpleNamespace(limits=SimpleNamespace(decayed_filter=0.2))
    assert list(_not_decayed(channels.iloc[[0, 1, 4]], channels, found).index) == [4]
    found.limits.decayed_filter = 0.18
    assert list(_not_decayed(channels.iloc[[0, 1, 4]], channels, found).index) == [1, 4]


def test_what_is_told_beside_channels_without_a_scale() -> None:
    """Fails if the largest is the smallest, a sign counts, or the others are all."""
    channels = frame(gamma=[1e-4, -3e-3, 0.5, -0.7, 2.0])
    assert _beside(channels.iloc[:2], channels) == " (at most 0.003; the others have a median of 0.7)"
    assert _beside(channels, channels) == ""
    assert _decayed(frame(gamma=[-0.09, 0.01, 5.0])) != ""
    assert _decayed(frame(gamma=[-0.11, 0.01, 5.0])) == ""


@pytest.mark.parametrize(
    ("own_sd", "told"), [(1.0, False), (math.nextafter(1.0, 0), True), (0.0, True), (math.nan, False)]
)
def test_half_of_the_squared_divisor_may_be_eps(own_sd: float, told: bool) -> None:
    """Fails if the limit is beyond itself, or another norm's divisor is looked at: 1² is twice an eps of 0.5."""
    base = edited(edited_rows({}, {"own_sd": own_sd}, {}), {"running_var": 1.0, "gamma": 1.5}, at=1, eps=0.5)
    found = [one.layer for one in findings(RULE, base) if "it hardly normalizes" in one.says]
    assert found == ["b"] * told


@pytest.mark.parametrize(("least", "told"), [(0.5, True), (1.0, True), (1.5, False)])
def test_a_missing_gamma_is_one(least: float, told: bool) -> None:
    """Fails if it is another number, where the threshold of γ is set around it."""
    cells = {"running_var": [1e-6, 1.0, 1.0], "pre_var": math.nan, "filter_norm": 1.0, "gamma": math.nan}
    base = replace(
        edited(evidence(), cells, eps=1e-5), limits=replace(evidence().limits, constant_gamma=least)
    )
    assert bool(findings(RULE, base)) is told


def test_only_variances_below_eps_were_constant() -> None:
    """Fails if a channel whose filter is 0 is named while its variance is still at eps."""
    cells = {
        "running_var": [1e-5, 1e-6, 1.0],
        "filter_norm": [0.0, 0.0, 1.0],
        "gamma": 1.5,
        "pre_var": math.nan,
    }
    (found,) = findings(RULE, edited(evidence(), cells, eps=1e-5, feeder="conv"))
    assert (CONSTANT in found.says, found.channels) == (True, (1,))
    assert found.because == "the filters in conv are all 0 for 1 of 3 channels."


def test_each_norm_has_its_own_eps() -> None:
    """Fails if the smallest eps of a network hides variances below a larger one, or the largest accuses the others."""
    both = evidence(healthy("a"), healthy("b"))
    for at, eps in enumerate((1e-5, 1e-2)):
        both = edited(both, {"running_var": [1e-3, 1.0, 1.0], "pre_var": math.nan}, at=at, eps=eps)
    assert [one.layer for one in findings(RULE, both)] == ["b"]
