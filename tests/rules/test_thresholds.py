"""Every number that a rule compares, exactly at its threshold and a hair to either side.

The documentation of thresholds says on which side the number itself lies: "from which" and "at least" speak at
it, "above which" and "below which" are silent there. The numbers here are written out, not taken from the code.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from measures.sites import memory_of, recording, site, some_rows

import bnprobe
from bnprobe.rules.rule import Evidence
from bnprobe.rules.thresholds import Limits
from rules.edited import compared, edited, evidence, findings, healthy

SKIP = {"skip": "bn0", "follows": "add"}
MOVED = {"shifted_share": 1.0, "shift_rms": 9.0}
"""A layer whose mean moved for sure."""
SCALED = {"scaled_share": 1.0}
"""One whose scale did, however little."""


def hair(value: float, to: float) -> float:
    """The next number on the way to `to`."""
    return float(np.nextafter(value, to))


def above(value: float) -> tuple[float, float]:
    """Silent at the value, speaks above it."""
    return value, hair(value, math.inf)


def from_(value: float) -> tuple[float, float]:
    """Silent below the value, speaks at it."""
    return hair(value, -math.inf), value


def below(value: float) -> tuple[float, float]:
    """Silent at the value, speaks below it."""
    return value, hair(value, -math.inf)


def up_to(value: float) -> tuple[float, float]:
    """Silent above the value, speaks at it."""
    return hair(value, math.inf), value


LIMITS = {
    "shift": 0.5,
    "variance_ratio": 2,
    "groups": 0.3,
    "ranks_apart": 0.2,
    "samples_apart": 0.3,
    "slight": 0.3,
    "kinds_apart": 0.5,
    "batches_apart": 0.5,
    "surely_shifted": 0.5,
    "constant_gamma": 0.01,
    "few_images": 30,
    "same_samples": 0.1,
    "samples_alike": 2,
    "formula_mismatch": 0.01,
    "channel_shift": 3,
    "channel_scale": 4,
    "large_mismatch": 0.1,
    "rounding_step": 0.001,
    "rounding_step_half": 0.1,
    "saturated_outputs": 0.01,
    "constant_rows": 0.01,
    "gradient_step": 30,
    "gradient_gap": 0.01,
    "silent_snr": 0.1,
    "dead_sigmas": 6,
    "dead_reach": 1e-4,
    "many_channels": 0.25,
    "decayed_filter": 0.05,
    "few_values": 32,
    "no_values": 2,
    "high_momentum": 0.5,
    "initial_weight": 0.1,
    "branch_off": 0.01,
    "scale_off": 1e-6,
    "outlier_energy": 0.5,
    "outlier_energy_tokens": 0.9,
    "sink_scale": 10,
    "largest_logit": 100,
    "uneven_attention": 0.25,
    "attention_factor": 2,
    "qk_bound": 2000,
    "sink_position": 0.35,
    "overwritten": 30,
    "unchanged": 1e-4,
    "common_direction": 0.9,
    "negative_gains": 0.2,
    "decayed_gain": 1e-6,
    "few_tokens": 1000,
    "half_headroom": 2,
    "gap": 0.5,
    "gap_of_frozen": 0.1,
    "tensor_scale": 10,
    "fired": 0.001,
    "common_factor": 5,
    "half_overflow": 65504,
}


def test_every_limit_has_the_number_that_users_know() -> None:
    """Fails if a limit moves or changes its name in passing: settings, baselines and pages of users rest on both."""
    assert asdict(Limits()) == LIMITS


FROZEN = {"learns": "none", "normalized_by": "batch"}
ROWS: list[tuple[str, str, tuple[float, float], dict[str, Any]]] = [
    ("data-shifted", "shift_rms", above(0.5), MOVED),
    ("data-shifted", "shifted_share", above(0.5), MOVED),
    ("data-shifted", "var_ratio_median", above(2.0), SCALED),
    ("data-shifted", "var_ratio_median", below(0.5), SCALED),
    ("data-shifted", "var_ratio_median", above(2.0), {"scaled_share": math.nan}),
    ("data-shifted", "scaled_share", above(0.5), {"var_ratio_median": 9.0}),
    ("branch-off", "branch_share", below(0.01), SKIP),
    ("identity-violated", "gap_centre", above(0.01), {}),
    ("identity-violated", "gap_map", above(0.01), {}),
    ("identity-violated", "gap_weight", above(0.01), {}),
    ("gradient-no-signal", "gamma_snr_upper", below(0.1), {"n_backward": 8}),
    ("gradient-no-signal", "beta_snr_upper", below(0.1), {"n_backward": 8}),
    ("gradient-no-signal", "beta_snr_upper", (-0.5, 0.0), {"n_backward": 8}),
    ("gradient-no-signal", "no_gradient", (hair(1, 0), 1), {"n_backward": 1}),
    ("half-overflow", "largest_input", above(65504.0 / 2), {}),
    ("half-overflow", "largest_input", (math.inf, 65504.0 * 9), {}),
    ("variance-below-eps", "own_sd", (0.1, 0.0999), {"eps": 0.1**2 / 2}),
    ("few-values", "fewest_values", (32, 31), {"normalized_by": "batch", "fewest_images": 2, "fewest_call": 0}),
    ("few-values", "fewest_values", (32, 31), {"normalized_by": "both", "fewest_images": 2, "fewest_call": 0}),
    ("few-values", "fewest_values", (3, 2), {"normalized_by": "sample", "fewest_images": 2, "fewest_call": 0}),
    ("momentum-odd", "momentum", from_(0.5), {}),
    ("momentum-odd", "momentum", (hair(0, 1), 0.0), {"normalized_by": "batch"}),
    ("few-images", "n_images", (30, 29), {}),
    ("digits-lost", "rounding_step", above(1e-3), {"input_dtype": "float32"}),
    ("digits-lost", "rounding_step", above(1e-3), {"input_dtype": ""}),
    ("digits-lost", "rounding_step", above(0.1), {"input_dtype": "float16"}),
    ("digits-lost", "rounding_step", above(0.1), {"input_dtype": "bfloat16"}),
    ("samples-alike", "batch_effect_least", from_(2.0), {}),
    ("samples-alike", "batches_apart", above(0.5), {"n_calls_learning": 1}),
    ("samples-alike", "n_calls_learning", (1, 0), {"batch_effect_least": 3.0, "mode": "train"}),
    ("few-images", "n_images", (0, 1), {}),
    ("more-than-a-norm", "mismatch", above(0.01), {"output": "read"}),
    ("updated-twice", "n_updates", (2, 3), {"mode": "train", "n_calls": 2}),
    ("frozen-but-moving", "memory_moved", (0.0, hair(0, 1)), {**FROZEN, "n_calls_learning": 1}),
    ("frozen-but-moving", "n_calls_learning", (0, 1), {**FROZEN, "memory_moved": 1.0}),
    ("sync-alone", "n_ranks", (2, 1), {"class_name": "SyncBatchNorm", "normalized_by": "batch", "n_calls_learning": 1}),
    ("sync-alone", "n_calls_learning", (0, 1), {"class_name": "SyncBatchNorm", "normalized_by": "both", "n_ranks": 1}),
    ("ranks-drifted", "ranks_stored_apart", (0.0, hair(0, 1)), {}),
    ("ranks-unlike", "ranks_apart", from_(0.2), {"ranks_apart_chance": 0.01}),
    ("ranks-unlike", "ranks_apart_chance", (hair(0.1, 1), 0.1), {"ranks_apart": 0.4}),
    ("input-size", "detail_ratio", above(2.0**0.5), {"verdict": "same", "n_images": 30}),
    ("input-size", "detail_ratio", below(1 / 2.0**0.5), {"verdict": "same", "n_images": 30}),
    ("input-size", "n_images", (29, 30), {"verdict": "same", "detail_ratio": 2.0}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "column", "values", "others"), ROWS)
def test_a_number_of_a_layer(
    rule: str, column: str, values: tuple[float, float], others: dict[str, Any]
) -> None:
    """Fails if a threshold moves, or the number itself changes sides."""
    silent, speaks = (edited(evidence(), **{**others, column: value}) for value in values)
    assert findings(rule, silent) == []
    assert len(findings(rule, speaks)) == 1


CHANNELS: list[tuple[str, str, tuple[float, float], dict[str, Any], dict[str, Any]]] = [
    ("channels-constant", "gamma", below(0.01), {}, {}),
    (
        "channels-dead",
        "beta",
        below(1e-4),
        {"gamma": 0.0, "gamma_effective": 0.0, "fires": 0.0},
        {"follows": "relu"},
    ),
    (
        "channels-dead",
        "fires",
        (hair(0, 1), 0.0),
        {"gamma_effective": 0.01, "beta": -1.0},
        {"follows": "relu"},
    ),
    (
        "channels-dead",
        "gamma_effective",
        below(0.5),
        {"beta": -3.0 + 1e-4, "fires": 0.0},
        {"follows": "relu6"},
    ),
    ("filters-decayed", "filter_norm", below(0.05), {"gamma_effective": 0.0}, {"feeder": "conv"}),
    ("filters-decayed", "gamma_effective", below(0.01), {"filter_norm": 1e-6}, {"feeder": "conv"}),
    ("variance-below-eps", "running_var", below(1e-3), {"gamma": 1.0}, {"eps": 1e-3}),
    ("variance-below-eps", "running_var", (-hair(0, 1), 0.0), {"gamma": 1.0}, {"eps": 1e-3}),
    ("variance-below-eps", "gamma", from_(0.01), {"running_var": 0.0}, {"eps": 1e-3}),
    ("half-overflow", "gamma", above(65504.0), {}, {}),
    ("half-overflow", "beta", (-65504.0, -65505.0), {}, {}),
    ("half-overflow", "running_mean", (math.inf, 1e9), {}, {}),
    ("statistics-poisoned", "running_var", (0.0, -hair(0, 1)), {}, {}),
]


@pytest.mark.parametrize(("rule", "column", "values", "cells", "row"), CHANNELS)
def test_a_number_of_one_channel(
    rule: str, column: str, values: tuple[float, float], cells: dict[str, Any], row: dict[str, Any]
) -> None:
    """Fails if a threshold moves, the number itself changes sides, or another channel is named."""
    base = evidence()
    given = base.channels[["gamma", "gamma_effective", "beta", "running_mean", "running_var", "fires"]].copy()
    given["filter_norm"] = 1.0
    silent, speaks = (
        edited(
            base, {name: [value, *given[name][1:]] for name, value in {**cells, column: it}.items()}, **row
        )
        for it in values
    )
    if "filter_norm" in {column, *cells}:
        assert given["filter_norm"].median() == 1.0
    assert findings(rule, silent) == []
    (found,) = findings(rule, speaks)
    assert found.channels == (0,)


GAPS: list[tuple[str, str, tuple[float, float], dict[str, Any]]] = [
    ("inputs-differ", "pre_gap", from_(0.5), {"pre_noise": 0.1}),
    ("inputs-differ", "pre_noise", (hair(0.25, 1), 0.25), {"pre_gap": 0.75}),
    ("modes-disagree", "post_gap", from_(0.5), {"pre_gap": 0.0, "post_noise": 0.1, "normalized_by_b": "batch"}),
    ("modes-disagree", "post_noise", (hair(0.25, 1), 0.25), {"pre_gap": 0.0, "post_gap": 0.75, "normalized_by_b": "batch"}),
    ("modes-disagree", "pre_gap", (0.5, hair(0.5, 0)), {"post_gap": 1.0, "post_noise": 0.1, "normalized_by_b": "batch"}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "column", "values", "others"), GAPS)
def test_a_gap_between_two_recordings(
    rule: str, column: str, values: tuple[float, float], others: dict[str, Any]
) -> None:
    """Fails if a threshold of a comparison moves, or the number itself changes sides."""
    silent, speaks = (edited(compared(), **{**others, column: value}) for value in values)
    assert findings(rule, silent) == []
    assert len(findings(rule, speaks)) == 1


@pytest.mark.parametrize(("values", "expected"), [(below(0.1), ["warning", "info"])])
def test_the_severity_of_statistics_that_moved(values: tuple[float, float], expected: list[str]) -> None:
    """Fails if the threshold of 0.1 moves, from which statistics under the same γ and β are a warning."""
    moved = [edited(compared(), {"running_mean_b": 0.0}, running_gap=value) for value in values]
    assert [findings("frozen-statistics-moved", one)[0].severity for one in moved] == expected


def test_a_gap_of_rounding_is_no_cause() -> None:
    """Fails if 1e-5 σ, which the order of additions makes, is said to be where two recordings part."""
    far = {"pre_noise": 1e-9, "post_noise": 1e-9}
    first = edited(compared_twice(), pre_gap=1e-5, post_gap=1e-5, **far)
    both = edited(first, at=1, pre_gap=0.9, post_gap=0.9, **far)
    (found,) = findings("inputs-differ", both)
    assert "inputs of b already differ" in found.do
    (found,) = findings("inputs-differ", edited(both, pre_gap=hair(1e-5, 1)))
    assert "inputs of a already differ" in found.do
    (found,) = findings("inputs-differ", edited(both, post_gap=hair(1e-5, 1)))
    assert "begins inside a" in found.do


def test_a_gap_within_its_noise_is_no_cause() -> None:
    """Fails if three times the noise is not enough, or less than that is: the gap that opens must be certain."""
    far = {"pre_gap": 0.9, "post_gap": 0.9, "pre_noise": 1e-9, "post_noise": 1e-9}
    for side, says in (("pre", "inputs of a already differ"), ("post", "begins inside a")):
        other = "post" if side == "pre" else "pre"
        same = {f"{other}_gap": 0.0, f"{other}_noise": 0.25, f"{side}_gap": 0.75}
        certain, not_certain = (
            edited(edited(compared_twice(), **same, **{f"{side}_noise": noise}), at=1, **far)
            for noise in (0.25, hair(0.25, 1))
        )
        assert says in findings("inputs-differ", certain)[-1].do
        assert "inputs of b already differ" in findings("inputs-differ", not_certain)[-1].do


def compared_twice() -> Evidence:
    """Two norms, a and b, the same on both sides."""
    one = recording(healthy("a"), healthy("b"))
    comparison = bnprobe.compare(one, one)
    return Evidence(comparison.layers, comparison.channels, comparison.unmatched)


@pytest.mark.parametrize(("positive", "fires"), [(1e-3, 1), (hair(1e-3, 0), 0)])
def test_channels_that_fell_silent(positive: float, fires: int) -> None:
    """Fails if the share of 0.1% from which a channel was active moves."""
    found = edited(compared(), {"fires_a": [positive, 0.5, 0.5], "fires_b": [0.0, 0.5, 0.5]})
    assert [one.channels for one in findings("channels-silenced", found)] == [(0,)] * fires
    once = edited(compared(), {"fires_a": positive, "fires_b": [hair(0, 1), 0.5, 0.5]})
    assert findings("channels-silenced", once) == []


@pytest.mark.parametrize(("gap", "fires"), [(1e-3, 0), (hair(1e-3, 1), 1)])
def test_statistics_that_stood_still(gap: float, fires: int) -> None:
    """Fails if a γ that moved by a thousandth of its scale asks for new statistics."""
    found = edited(compared(), {"gamma_b": [0.6, -0.7, 1.2]}, affine_gap=gap)
    assert len(findings("statistics-outdated", found)) == fires


@pytest.mark.parametrize(
    ("mean", "var", "fires"),
    [(0.5, 1.0, 0), (hair(0.5, 1), 1.0, 1), (0.0, 2.0, 0), (0.0, hair(2.0, 3), 1), (0.0, 0.5, 0), (0.0, hair(0.5, 0), 1)],
)  # fmt: skip
def test_calls_of_one_norm(mean: float, var: float, fires: int) -> None:
    """Fails if calls within 0.5 σ and a factor 2 are called different; σ² is the mean of both variances."""
    base = evidence(healthy(), healthy(call=1))
    one = edited(base, {"pre_mean": 0.0, "pre_var": 1.0})
    both = edited(one, {"pre_mean": mean * math.sqrt((1 + var) / 2), "pre_var": var}, at=1)
    assert len(findings("calls-differ", both)) == fires


@pytest.mark.parametrize(("gamma", "fires"), [(0.01, 0), (hair(0.01, 0), 1), (-hair(0.01, 0), 1)])
def test_a_branch_by_its_scale(gamma: float, fires: int) -> None:
    """Fails if |γ| of 0.01 in a branch whose share is not known counts as switched off, or one channel is enough."""
    assert len(findings("branch-off", edited(evidence(), {"gamma": gamma}, **SKIP))) == fires
    assert findings("branch-off", edited(evidence(), {"gamma": [gamma, gamma, 0.02]}, **SKIP)) == []
    assert findings("branch-off", edited(evidence(), {"gamma": gamma})) == []


@pytest.mark.parametrize(
    ("row", "fires"),
    [
        ({}, 1),
        ({"n_images": 29}, 0),
        ({"shift_rms": 0.5}, 1),
        ({"shift_rms": hair(0.5, 1)}, 0),
        ({"var_ratio_median": 2.0}, 1),
        ({"var_ratio_median": hair(2.0, 3)}, 0),
        ({"var_ratio_median": 0.5}, 1),
        ({"var_ratio_median": hair(0.5, 0)}, 0),
        ({"var_ratio_median": math.nan}, 1),
    ],
)
def test_channels_that_were_silent_on_data_as_remembered(row: dict[str, Any], fires: int) -> None:
    """Fails if data that moved the whole layer are blamed on channels, or few images are enough."""
    roles = {"role": ["dead", "mixed", "mixed"], "dead_predicted": 0.0}
    found = findings("channels-silent", edited(evidence(), roles, **{"n_images": 30, **row}))
    assert [one.channels for one in found] == [(0,)] * fires


@pytest.mark.parametrize(
    ("ratio", "severity"), [(6.0, None), (hair(6.0, 7), "warning"), (hair(6.0, 7) / 6.0, None)]
)
def test_an_outlier_is_six_times_the_typical_channel(ratio: float, severity: str | None) -> None:
    """Fails if the threshold of Dettmers et al. moves."""
    found = findings(
        "outlier-dimensions", edited(evidence(), {"rms_ratio": [ratio, 1.0, 1.0]}, feeder="conv")
    )
    assert [one.severity for one in found] == ([severity] if severity else [])


@pytest.mark.parametrize(("last", "severity"), [(4.0, "info"), (3.99, "warning")])
def test_outliers_decide_with_more_than_half_of_the_energy(last: float, severity: str) -> None:
    """Fails if energy is not the square, or half of it is enough: 8² is four times 4²."""
    rows = some_rows(40, n_channels=5)
    norm = site(rows, kind="layer_norm", gamma=1.1, beta=0.1)
    shape = {"rms_ratio": [8.0, 4.0, 4.0, 4.0, last]}
    (found,) = findings("outlier-dimensions", edited(evidence(norm), shape, feeder="conv"))
    assert (found.severity, found.channels) == (severity, (0,))


@pytest.mark.parametrize(("last", "severity"), [(1.01, "info"), (0.99, "warning")])
def test_of_tokens_most_of_the_energy_in_one_dimension_is_usual(last: float, severity: str) -> None:
    """Fails if a healthy language model, with up to .85 in four dimensions, is warned of: 12² is 90% beside 4·2²."""
    norm = site(some_rows(40, n_channels=5), kind="rms_norm", gamma=1.1, beta=0.1)
    shape = {"rms_ratio": [12.0, 2.0, 2.0, 2.0, 2.0 * last]}
    (found,) = findings("outlier-dimensions", edited(evidence(norm), shape, n_tokens=500))
    assert found.severity == severity
    damped = replace(norm, gamma=np.array([1e-9, 1, 1, 1, 1]))
    (found,) = findings("outlier-dimensions", edited(evidence(damped), shape, n_tokens=500))
    assert found.severity == "info"


@pytest.mark.parametrize(
    ("ratio", "fires"), [(30.0, 0), (hair(30.0, 31), 1), (1 / 30, 0), (hair(1 / 30, 0), 1)]
)
def test_a_break_of_the_gradient(ratio: float, fires: int) -> None:
    """Fails if a factor of 30 between neighbours counts as a break, or way and place are exchanged."""
    found = findings(
        "gradient-breaks",
        edited(edited(evidence(healthy("a"), healthy("b")), grad_out=ratio), at=1, grad_out=1.0),
    )
    assert len(found) == fires
    for one in found:
        assert one.layer == "a"
        assert ("explodes" if ratio > 1 else "vanishes") in one.says


@pytest.mark.parametrize(("k", "fires"), [(21, 1), (22, 0)])
def test_running_statistics_that_are_young(k: int, fires: int) -> None:
    """Fails if 10% of initial values is no longer the limit: 0.9^21 is 10.9%, 0.9^22 is 9.8%."""
    left = 0.9**k
    seen = [1.0, -2.0, 3.0]
    cells = {"pre_mean": seen, "running_mean": [value * (1 - left) for value in seen], "running_var": 1.0}
    row = {"mode": "eval", "momentum": 0.1, "n_batches_tracked": k}
    assert len(findings("statistics-young", edited(evidence(), cells, **row))) == fires
    assert findings("statistics-young", edited(evidence(), {**cells, "running_mean": seen}, **row)) == []


def test_the_limit_itself_is_young() -> None:
    """Fails if (1 − m)^k of exactly the limit is old enough: half of a half is a quarter."""
    cells = {"pre_mean": [1.0, -2.0, 4.0], "running_mean": [0.75, -1.5, 3.0], "running_var": 1.0}
    row = {"mode": "eval", "momentum": 0.5, "n_batches_tracked": 2}
    for limit, fires in ((0.25, 1), (hair(0.25, 1), 0)):
        found = edited(evidence(limits=Limits(initial_weight=limit)), cells, **row)
        assert len(findings("statistics-young", found)) == fires


@pytest.mark.parametrize(("n", "severity"), [(1, "info"), (2, "warning")])
def test_a_quarter_of_the_channels_is_many(n: int, severity: str) -> None:
    """Fails if the share from which channels are a warning moves: two of eight are a quarter."""
    rows = some_rows(40, n_channels=8)
    norm = site(rows, gamma=[0.0] * n + [1.0] * (8 - n), beta=0.1, **memory_of(rows))
    (found,) = findings("channels-constant", evidence(norm))
    assert found.severity == severity
