"""Every condition of a rule is needed: one cell of a firing table changed, and it is silent, or speaks otherwise."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bnprobe.rules import Finding
from bnprobe.rules.rule import Evidence
from rules.edited import compared, edited, evidence, findings, healthy

Cells = dict[str, Any]
"""Cells of a layer's row; a name that begins with "c:" is a column of its channels."""


def with_cells(found: Evidence, cells: Cells, at: int = 0) -> Evidence:
    row = {name: value for name, value in cells.items() if not name.startswith("c:")}
    channels = {name[2:]: value for name, value in cells.items() if name.startswith("c:")}
    return edited(found, channels, at, **row)


CELLS: dict[str, tuple[str, Cells, list[Cells]]] = {
    "norms in train mode": (
        "train-mode-in-evaluation",
        {"normalized_by": "batch", "mode": "train", "n_calls_learning": 0},
        [
            {"normalized_by": "running"},
            {"mode": "eval", "affine_by": "batch"},
            {"n_calls_learning": 1},
            {"kind": "layer_norm"},
            {"n_calls": 0},
        ],
    ),
    "norms in train mode at some calls": (
        "train-mode-in-evaluation",
        {"normalized_by": "both", "mode": "mixed", "n_calls_learning": 0},
        [{"normalized_by": "sample"}, {"mode": "eval"}, {"n_calls_learning": 2}],
    ),
    "frozen vectors over statistics that move": (
        "frozen-but-moving",
        {"learns": "none", "n_calls_learning": 2, "memory_moved": 0.5, "normalized_by": "batch"},
        [
            {"learns": "γ"},
            {"call": 1},
            {"n_calls_learning": 0},
            {"memory_moved": 0.0},
            {"normalized_by": "running"},
            {"memory_moved": math.nan},
        ],
    ),
    "frozen statistics under vectors that learn": (
        "learning-but-frozen",
        {"n_calls": 3, "n_calls_model_training": 3, "n_calls_learning": 1, "mode": "eval", "learns": "β"},
        [
            {"stepped": 0.0},
            {"n_calls_model_training": 2},
            {"n_calls_learning": 0},
            {"mode": "mixed"},
            {"normalized_by": "both"},
            {"learns": "none"},
            {"learns": ""},
        ],
    ),
    "more updates than calls": (
        "updated-twice",
        {"mode": "train", "n_calls": 2, "n_updates": 4},
        [{"mode": "mixed"}, {"n_calls": 4}, {"n_updates": 2}, {"n_updates": math.nan}],
    ),
    "a momentum of 0": (
        "momentum-odd",
        {"momentum": 0.0, "normalized_by": "both"},
        [
            {"normalized_by": "running"},
            {"momentum": 0.1},
            {"call": 1},
            {"n_calls": 0},
            {"affine_by": "observed"},
            {"n_batches_tracked": math.nan},
        ],
    ),
    "a plain average while learning": (
        "momentum-odd",
        {"momentum": math.nan, "normalized_by": "batch", "n_calls_learning": 1, "verdict": "same"},
        [{"normalized_by": "running"}, {"n_calls_learning": 0}, {"momentum": 0.1}],
    ),
    "a plain average of other data": (
        "momentum-odd",
        {"momentum": math.nan, "verdict": "mean shifted"},
        [{"verdict": "same"}, {"verdict": "never updated"}, {"momentum": 0.2}],
    ),
    "learning in eval mode": (
        "learning-in-eval",
        {"n_learned_in_eval": 2, "n_backward": 3, "memory_moved": 0.0},
        [{"n_learned_in_eval": 0}, {"n_backward": 0}, {"memory_moved": math.nan}, {"kind": "layer_norm"}],
    ),
    "running statistics that stand still": (
        "statistics-not-updated",
        {
            "mode": "train",
            "normalized_by": "batch",
            "n_calls": 2,
            "n_calls_learning": 2,
            "n_backward": 2,
            "memory_moved": 0.0,
            "n_updates": math.nan,
        },
        [
            {"mode": "mixed"},
            {"normalized_by": "both"},
            {"n_calls_learning": 1},
            {"n_backward": 0},
            {"memory_moved": 0.1},
            {"n_updates": 1},
            {"momentum": 0.0},
            {"kind": "instance_norm"},
        ],
    ),
    "positions for channels": (
        "positions-as-channels",
        {"features_elsewhere": "linear after", "n_last": 6},
        [{"features_elsewhere": ""}, {"kind": "group_norm"}, {"call": 1}, {"n_channels": 1}],
    ),
    "young statistics": (
        "statistics-young",
        {
            "n_batches_tracked": 1,
            "momentum": 0.5,
            "mode": "eval",
            "c:pre_mean": [2.0, -4.0, 1.0],
            "c:running_mean": [1.0, -2.0, 0.5],
            "c:running_var": 1.0,
        },
        [
            {"call": 1},
            {"n_batches_tracked": 0},
            {"momentum": 0.0},
            {"momentum": 1.0},
            {"mode": "train"},
            {"c:running_mean": [2.0, -4.0, 1.0]},
            {"c:running_mean": 0.0},
            {"c:running_var": 0.0},
            {"c:pre_mean": math.nan},
            {"n_batches_tracked": 9},
        ],
    ),
    "a SyncBatchNorm alone": (
        "sync-alone",
        {"class_name": "SyncBatchNorm", "n_ranks": 1, "normalized_by": "batch", "n_calls_learning": 3},
        [
            {"class_name": "BatchNorm2d"},
            {"n_ranks": 2},
            {"normalized_by": "running"},
            {"n_calls_learning": 0},
        ],
    ),
    "values that are not finite": (
        "values-not-finite",
        {"c:n_nonfinite": [0, 3, 0]},
        [{"c:n_nonfinite": 0}],
    ),
    "a vector that is not finite": (
        "values-not-finite",
        {"c:gamma": [1.0, math.inf, 1.0]},
        [{"call": 1}, {"c:gamma": 1.0}],
    ),
    "another formula": (
        "more-than-a-norm",
        {"output": "read", "mismatch": 0.5},
        [{"output": "derived"}, {"mismatch": 0.0}],
    ),
    "a bias before a norm": (
        "bias-redundant",
        {"feeds_alone": 1, "feeder": "conv", "c:filter_bias": [0.0, 0.5, 0.0]},
        [
            {"feeds_alone": 0},
            {"feeder": ""},
            {"c:filter_bias": 0.0},
            {"c:filter_bias": math.nan},
            {"kind": "group_norm"},
            {"call": 1},
        ],
    ),
    "dead channels": (
        "channels-dead",
        {
            "follows": "relu",
            "c:gamma": 0.1,
            "c:gamma_effective": 0.1,
            "c:beta": [-1.0, 0.5, 0.5],
            "c:fires": [0.0, 0.5, 0.5],
        },
        [
            {"follows": "silu"},
            {"kind": "layer_norm"},
            {"c:beta": 0.5},
            {"c:fires": 0.5},
            {"c:gamma_effective": 0.5},
            {"c:gamma": 0.0, "c:beta": 0.0},
        ],
    ),
    "channels that may be dead": (
        "channels-dead",
        {"follows": "unknown", "c:gamma_effective": 0.1, "c:beta": -1.0, "c:fires": math.nan},
        [{"follows": "add"}, {"c:fires": 0.1}],
    ),
    "saturated channels": (
        "channels-saturated",
        {"c:role": ["saturated", "mixed", "mixed"], "follows": "relu6"},
        [{"c:role": "mixed"}],
    ),
    "statistics that were never updated": (
        "statistics-never-updated",
        {"c:running_mean": 0.0, "c:running_var": 1.0},
        [
            {"c:running_mean": [0.0, 0.0, 0.1]},
            {"c:running_var": [1.0, 1.0, 1.1]},
            {"memory_moved": 0.1},
        ],
    ),
    "poisoned statistics": (
        "statistics-poisoned",
        {"c:running_mean": [0.0, math.nan, 0.0]},
        [{"c:running_mean": 0.0}, {"stores": "γ, β"}],
    ),
    "batches that normalize themselves": (
        "batch-normalized",
        {"normalized_by": "batch"},
        [{"normalized_by": "running"}, {"kind": "instance_norm"}],
    ),
    "no gradient at all": (
        "gradient-no-signal",
        {"n_backward": 1, "no_gradient": 1.0},
        [{"n_backward": 0}, {"no_gradient": 0.5}],
    ),
    "noise": (
        "gradient-no-signal",
        {"n_backward": 8, "gamma_snr_upper": 0.05, "beta_snr_upper": 0.05},
        [
            {"n_backward": 0},
            {"gamma_snr_upper": 0.2},
            {"beta_snr_upper": 0.2},
            {"gamma_snr_upper": math.nan, "beta_snr_upper": math.nan},
        ],
    ),
    "an input of another size": (
        "input-size",
        {"detail_ratio": 0.5, "verdict": "same", "n_images": 30},
        [
            {"detail_ratio": 1.0},
            {"detail_ratio": math.nan},
            {"verdict": "never updated"},
            {"n_images": 29},
            {"call": 1},
        ],
    ),
    "a decayed filter": (
        "filters-decayed",
        {"feeder": "conv", "c:filter_norm": [0.01, 1.0, 1.0], "c:gamma_effective": [0.001, 1.0, 1.0]},
        [{"c:filter_norm": 1.0}, {"c:gamma_effective": 1.0}, {"c:filter_norm": math.nan}],
    ),
    "a layer folded into its weights": (
        "norm-folded",
        {
            "feeder": "conv",
            "c:filter_bias": 0.5,
            "c:gamma": 1.0,
            "c:beta": 0.0,
            "c:running_mean": 0.0,
            "c:running_var": 1.0,
        },
        [
            {"c:filter_bias": [0.5, 0.5, 0.0]},
            {"c:gamma": [1.0, 1.0, 1.1]},
            {"c:beta": [0.1, 0.0, 0.0]},
            {"c:running_mean": [0.0, 0.1, 0.0]},
            {"c:running_var": [1.0, 1.0, 0.9]},
            {"c:running_var": [1.0, 1.0, math.nan]},
            {"call": 1},
            {"memory_moved": 0.1},
        ],
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_each_condition_silences_the_rule(name: str) -> None:
    """Fails if a condition of a rule is dropped, turned around, or joined with "or" where both are needed."""
    rule, cells, flips = CELLS[name]
    base = evidence(healthy("bn"), healthy("other"))
    assert [one.layer for one in findings(rule, with_cells(base, cells))] == ["bn"]
    for flip in flips:
        assert findings(rule, with_cells(base, {**cells, **flip})) == [], flip


COMPARED: dict[str, tuple[str, Cells, list[Cells]]] = {
    "modes that disagree": (
        "modes-disagree",
        {"normalized_by_b": "batch", "post_gap": 1.0, "post_noise": 0.1, "pre_gap": 0.1},
        [
            {"normalized_by_b": "running"},
            {"normalized_by_a": "batch"},
            {"normalized_by_a": "sample"},
            {"post_gap": 0.4},
            {"post_noise": 0.4},
            {"pre_gap": 0.6},
        ],
    ),
    "statistics that moved": (
        "frozen-statistics-moved",
        {"running_gap": 0.2, "c:running_mean_b": 0.5},
        [
            {"running_gap": 0.0},
            {"c:gamma_b": 0.9},
            {"c:beta_b": 0.9},
            {"c:gamma_a": math.nan, "c:gamma_b": math.nan},
            {"c:running_mean_b": 0.0, "c:running_var_b": 1.0},
            {"c:running_var_a": math.nan, "c:running_var_b": math.nan},
        ],
    ),
    "statistics that stood still": (
        "statistics-outdated",
        {"affine_gap": 0.1, "c:gamma_b": 0.9},
        [
            {"affine_gap": 0.0},
            {"c:gamma_b": [0.5, -0.7, 1.2]},
            {"c:running_mean_b": 0.5},
            {"c:running_var_b": 0.5},
            {"c:running_var_a": math.nan, "c:running_var_b": math.nan},
        ],
    ),
    "statistics that were lost": (
        "statistics-lost",
        {"c:running_mean_b": 0.0, "c:running_var_b": 1.0},
        [
            {"c:running_mean_b": [0.0, 0.0, 0.1]},
            {"c:running_var_b": [1.0, 1.0, 1.1]},
            {"c:running_mean_a": 0.0, "c:running_var_a": 1.0},
            {"c:running_var_a": math.nan},
        ],
    ),
    "a scale that was reset": (
        "affine-reset",
        {"c:gamma_a": 0.5, "c:gamma_b": 1.0},
        [{"c:gamma_b": 1.05}, {"c:gamma_a": 0.95}, {"missing_b": "running_var"}],
    ),
    "statistics that are missing": (
        "statistics-lost",
        {"missing_b": "running_mean, running_var", "c:running_var_b": math.nan},
        [{"missing_b": "γ"}, {"kind_b": "layer_norm"}],
    ),
    "values that became infinite": (
        "became-nonfinite",
        {"n_nonfinite_b": 4},
        [{"n_nonfinite_b": 0}, {"n_nonfinite_a": 1}],
    ),
    "a vector that was poisoned": (
        "became-nonfinite",
        {"poison_b": "γ of 1 channel is not finite", "c:poisoned_b": [True, False, False]},
        [{"poison_b": ""}],
    ),
    "another eps": (
        "norm-replaced",
        {"eps_b": 1e-3},
        [{"eps_b": 1e-5}, {"mode_a": "weights only"}, {"mode_b": "weights only"}],
    ),
    "another number of groups": (
        "norm-replaced",
        {"kind_a": "group_norm", "kind_b": "group_norm", "own_groups_a": 4.0, "own_groups_b": 8.0},
        [{"own_groups_b": 4.0}, {"own_groups_b": math.nan}, {"kind_a": "layer_norm", "kind_b": "layer_norm"}],
    ),
    "another kind": (
        "norm-replaced",
        {"kind_b": "layer_norm"},
        [{"kind_b": "batch_norm"}, {"kind_b": "unknown_norm"}, {"kind_a": "unknown_norm"}],
    ),
    "a missing vector": (
        "norm-replaced",
        {"missing_b": "γ, running_var"},
        [{"missing_b": "running_var"}, {"missing_b": ""}],
    ),
}


@pytest.mark.parametrize("name", COMPARED)
def test_each_condition_silences_the_rule_of_a_comparison(name: str) -> None:
    """Fails if a condition of a rule about two recordings is dropped, turned around, or joined with "or"."""
    rule, cells, flips = COMPARED[name]
    assert len(findings(rule, with_cells(compared(), cells))) == 1
    for flip in flips:
        assert findings(rule, with_cells(compared(), {**cells, **flip})) == [], flip


def said(rule: str, cells: Cells, found: Evidence | None = None) -> Finding:
    (one,) = findings(rule, with_cells(found or evidence(), cells))
    return one


@pytest.mark.parametrize(
    ("rule", "cells", "severity"),
    [
        (
            "channels-dead",
            {"follows": "relu", "c:gamma_effective": 0.1, "c:beta": -1.0, "c:fires": 0.0},
            "critical",
        ),
        (
            "channels-dead",
            {"follows": "unknown", "c:gamma_effective": 0.1, "c:beta": -1.0, "c:fires": 0.0},
            "warning",
        ),
        ("statistics-never-updated", {"c:running_mean": 0.0, "c:running_var": 1.0}, "critical"),
        (
            "statistics-never-updated",
            {"c:running_mean": 0.0, "c:running_var": 1.0, "normalized_by": "batch"},
            "warning",
        ),
        (
            "statistics-never-updated",
            {"c:running_mean": 0.0, "c:running_var": 1.0, "c:gamma": 1.0, "c:beta": 0.0},
            "info",
        ),
        (
            "statistics-never-updated",
            {"c:running_mean": 0.0, "c:running_var": 1.0, "c:gamma": 1.0, "c:beta": [0.0, 0.1, 0.0]},
            "critical",
        ),
        (
            "statistics-never-updated",
            {"c:running_mean": 0.0, "c:running_var": 1.0, "c:gamma": math.nan, "c:beta": math.nan},
            "info",
        ),
    ],
)
def test_how_severe_it_is(rule: str, cells: Cells, severity: str) -> None:
    """Fails if a network that was never trained is critical, or one that lost its statistics is not."""
    assert said(rule, cells).severity == severity


def test_few_values_in_words() -> None:
    """Fails if the call is counted from 0, the noise is that of another number, or the advice is for other norms."""
    cells = {"normalized_by": "batch", "fewest_values": 9, "fewest_images": 3, "fewest_call": 4, "n_calls": 6}
    batch = said("few-values", {**cells, "n_values": 3 * 6 * 9})
    # the variance of 9 independent values has a relative error of √(2/8)
    for fact in ("9 values per channel in call 5 of 6", "3 samples", "50%", "threshold 32"):
        assert fact in batch.because
    assert "drop_last" not in batch.do
    # on average over all calls more than twice as many values: it is the last batch alone
    assert "drop_last" not in said("few-values", {**cells, "n_values": 3 * 6 * 18}).do
    assert "drop_last=True" in said("few-values", {**cells, "n_values": 3 * 6 * 18 + 18}).do
    assert "drop_last" not in said("few-values", {**cells, "n_values": 9999, "n_calls": 1}).do
    own = said("few-values", {**cells, "normalized_by": "sample", "fewest_values": 1, "kind": "group_norm"})
    assert "num_groups = 1" in own.do
    assert "error" not in own.because
    assert "num_groups" not in said("few-values", {**cells, "normalized_by": "sample", "fewest_values": 2}).do


@pytest.mark.parametrize(
    ("n_updates", "n_calls", "momentum", "acts"),
    [(4, 2, 0.1, "0.19"), (6, 2, 0.5, "0.875"), (4, 2, 1.0, None), (4, 2, 0.0, None)],
)
def test_momentum_of_several_updates(n_updates: int, n_calls: int, momentum: float, acts: str | None) -> None:
    """Fails if k updates per call do not act as 1 − (1 − m)^k."""
    found = said(
        "updated-twice", {"mode": "train", "n_calls": n_calls, "n_updates": n_updates, "momentum": momentum}
    )
    assert f"{n_updates / n_calls:g} per call" in found.because
    assert ("acts as" in found.because) == (acts is not None)
    if acts:
        assert f"acts as {acts}" in found.because


def test_updates_are_counted_over_all_calls_of_a_layer() -> None:
    """Fails if a norm that is called twice and updated twice counts as updated twice per call."""
    both = evidence(healthy("bn"), healthy("bn", call=1))
    twice = with_cells(
        with_cells(both, {"mode": "train", "n_updates": 2}), {"mode": "train", "n_updates": 2}, at=1
    )
    assert findings("updated-twice", twice) == []
    four = with_cells(
        with_cells(both, {"mode": "train", "n_updates": 4}), {"mode": "train", "n_updates": 4}, at=1
    )
    assert len(findings("updated-twice", four)) == 1


def test_momentum_is_worth_so_many_batches() -> None:
    """Fails if (2 − m)/m batches are others: 3 at 0.5, 1.5 at 0.8."""
    assert "3 batches" in said("momentum-odd", {"momentum": 0.5}).because
    assert "1.5 batches" in said("momentum-odd", {"momentum": 0.8}).because


@pytest.mark.parametrize(
    ("rms", "ratio", "what"),
    [(0.9, 1.0, "mean"), (0.1, 3.0, "scale"), (0.9, 3.0, "mean and scale"), (0.9, 0.1, "mean and scale")],
)
def test_what_of_the_data_moved(rms: float, ratio: float, what: str) -> None:
    """Fails if mean and scale are exchanged in the sentence, or the channels are not those that moved for sure."""
    cells = {
        "shift_rms": rms,
        "var_ratio_median": ratio,
        "shifted_share": 1.0,
        "scaled_share": 1.0,
        "n_images": 100,
    }
    certain = {"c:shift_q": [0.0, 0.01, 0.0], "c:shift": [-0.9, 0.9, 0.5]}
    found = said("data-shifted", {**cells, **certain})
    words = found.says.partition(":")[0] + found.says
    assert ("mean" in words) == ("mean" in what)
    assert ("scale" in words) == ("scale" in what)
    assert found.channels == (0,)


def test_a_short_way_back_is_named_at_the_last_norm_before_the_gap() -> None:
    """Fails if a cut-off run of norms is reported at its start, once per norm, or across norms that do learn."""
    base = evidence(*(healthy(name) for name in "abcd"))
    learning = {"learns": "both", "n_calls_learning": 2}
    rows = {
        0: {"n_backward": 0},
        1: {"n_backward": 0},
        2: {"n_backward": 3, "no_gradient": 0.0},
        3: {"n_backward": 0},
    }
    for at, row in rows.items():
        base = with_cells(base, {**learning, **row}, at)
    found = findings("gradient-no-signal", base)
    assert [one.layer for one in found] == ["b", "d"]
    assert "'a', 'b'" in found[0].do
    assert "['d']" in found[1].do
    for flip in ({"learns": "none"}, {"n_calls_learning": 0}, {"n_backward": 1, "no_gradient": 0.0}):
        assert [one.layer for one in findings("gradient-no-signal", with_cells(base, flip, at=3))] == ["b"]
    none = with_cells(base, {"n_backward": 0}, at=2)
    assert findings("gradient-no-signal", none) == []


def test_a_way_of_weights_is_told_where_one_channel_is_never_finite() -> None:
    """Fails if weights are blamed for one bad image, or the images for one bad filter."""
    filters = {"feeder": "conv", "c:n_nonfinite": [0, 9, 0], "c:n_values": [9, 0, 9]}
    assert "conv" in said("values-not-finite", filters).do
    for flip in ({"feeder": ""}, {"c:n_values": [9, 1, 9]}, {"c:n_nonfinite": [1, 9, 1]}):
        assert "weights of conv" not in said("values-not-finite", {**filters, **flip}).do


def test_scaled_down_by_how_much_each_is_too_large() -> None:
    """Fails if factors are those of other channels, or more digits than three are given."""
    cells = {"feeder": "conv", "c:rms_ratio": [12.345, 0.9, 7.0]}
    found = said("outlier-dimensions", cells, evidence(healthy(kind="layer_norm")))
    assert "[12.3, 7.0]" in found.do
    assert "[0, 2]" in found.do
    assert found.channels == (0, 2)
    assert "channel 0" in found.because
    assert (
        "[12.3"
        not in said("outlier-dimensions", {**cells, "feeder": ""}, evidence(healthy(kind="layer_norm"))).do
    )
