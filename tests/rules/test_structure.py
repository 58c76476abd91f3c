"""Rules about what stands around a norm: what fires each one, and its nearest healthy neighbour."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from measures.sites import call_log, running_stats_of, site, some_rows
from support import oracles

from bnprobe.recording.neighbours import Folded, Neighbours
from bnprobe.rules.edits import DropStatistics, MoveBias, Reinitialize, Remedy, ScaleDown, SetGamma
from bnprobe.stats import Moments
from rules.edited import edited, evidence, findings, healthy
from rules.firing import fired

ROWS = some_rows(40)
LEARNED = {"gamma": 1.5, "beta": 0.1, **running_stats_of(ROWS)}
ONE = np.ones(3)


def biased(bias: object, producer: str = "conv") -> Neighbours:
    return Neighbours("relu", producer, folded=Folded(ONE, -ONE, ONE, bias), feeds_alone=True)


# calls-differ


@pytest.mark.parametrize(("shift", "fires"), [(0.45, 0), (0.55, 1)])
def test_calls_that_lie_apart(shift, fires):
    """Fails if the distance is not in the standard deviations of both, or the first call is compared with itself."""
    moved = ROWS + shift * ROWS.std((0, 2))[:, None]
    found = fired("calls-differ", site(ROWS, **LEARNED), site(moved, call=1, **LEARNED))
    assert len(found) == fires
    if fires:
        assert found["call"].tolist() == [1]


@pytest.mark.parametrize(("factor", "fires"), [(1.9, 0), (2.1, 1), (1 / 1.9, 0), (1 / 2.1, 1)])
def test_calls_that_vary_otherwise(factor, fires):
    """Fails if the ratio of variances is one-sided, or of standard deviations."""
    centre = ROWS.mean((0, 2))[:, None]
    wider = centre + np.sqrt(factor) * (ROWS - centre)
    assert len(fired("calls-differ", site(ROWS, **LEARNED), site(wider, call=1, **LEARNED))) == fires


def test_norms_without_running_statistics_may_be_called_with_anything():
    """Fails if a layer norm, or a batch norm without running statistics, is blamed."""
    for kind in ("layer_norm", "batch_norm"):
        assert fired("calls-differ", site(ROWS, kind=kind), site(ROWS + 9, kind=kind, call=1)).empty


# bias-redundant


def test_a_bias_before_a_norm():
    """Fails if a bias of zeros, or one before a layer norm, is blamed; or every layer is a finding."""
    two = [site(ROWS, name, **LEARNED, neighbours=biased(ONE, f"conv {name}")) for name in "ab"]
    (row,) = fired("bias-redundant", *two).itertuples()
    assert (row.layer, row.because) == (
        "a",
        "2 layers with a bias feed a batch norm: conv a before a, conv b before b.",
    )
    assert fired("bias-redundant", site(ROWS, **LEARNED, neighbours=biased(0 * ONE))).empty
    assert fired("bias-redundant", site(ROWS, **LEARNED, neighbours=biased(None))).empty
    assert fired("bias-redundant", site(ROWS, kind="layer_norm", neighbours=biased(ONE))).empty


@pytest.mark.parametrize(("n", "end"), [(3, "conv 2 before z2."), (5, "conv 2 before z2 and 2 more.")])
def test_the_first_three_biases_are_named(n, end):
    """Fails if the sentence grows with the network, or does not say how many it leaves out."""
    sites = [site(ROWS, f"z{i}", **LEARNED, neighbours=biased(ONE, f"conv {i}")) for i in range(n)]
    (row,) = fired("bias-redundant", *sites).itertuples()
    assert (
        row.because == f"{n} layers with a bias feed a batch norm: conv 0 before z0, conv 1 before z1, {end}"
    )


def test_a_bias_that_not_only_one_norm_meets():
    """Fails if what the pass did not show is taken for granted, at a later call either."""
    shared = replace(biased(ONE), feeds_alone=False)
    assert fired("bias-redundant", site(ROWS, **LEARNED, neighbours=shared)).empty
    calls = site(ROWS, **LEARNED, neighbours=biased(ONE)), site(ROWS, call=1, **LEARNED, neighbours=shared)
    assert fired("bias-redundant", *calls).empty


# norm-folded


def test_norms_that_are_gone():
    """Fails if folded places are forgotten between recording and rules, or called not understood."""
    rows = site(ROWS, **LEARNED)
    found = fired("norm-folded", rows, folded=("bn1", "bn2"))
    assert found["layer"].tolist() == ["bn1"]
    assert fired("layer-unread", rows, folded=("bn1",)).empty


def test_a_neutral_norm_behind_weights_with_a_bias():
    """Fails if a network that is wholly fresh, or a layer without bias, counts as folded."""
    neutral = {"gamma": 1, "beta": 0, "running_mean": 0, "running_var": 1 - 1e-5}
    inside = site(ROWS, "folded", **neutral, neighbours=biased(ONE))
    assert fired("norm-folded", inside, site(ROWS, "bn", **LEARNED))["layer"].tolist() == ["folded"]
    assert fired("norm-folded", inside).empty
    bare = replace(inside, neighbours=biased(None))
    assert fired("norm-folded", bare, site(ROWS, "bn", **LEARNED)).empty


def test_a_norm_that_was_new_when_training_began_is_not_folded():
    """Fails if vectors from before the recording and from after it are taken for those of one moment."""
    new = {"gamma": 1, "beta": 0, "running_mean": 0, "running_var": 1, "neighbours": biased(ONE)}
    after = call_log(n_updates=40, running_mean_after=np.full(len(ONE), 0.5))
    assert fired("norm-folded", site(ROWS, "new", **new, call_log=after), site(ROWS, "bn", **LEARNED)).empty


# branch-off


@pytest.mark.parametrize(("gamma", "fires"), [(0.09, 1), (0.11, 0)])
def test_a_branch_that_adds_nothing(gamma, fires):
    """Fails if the share is of standard deviations, or the threshold moves: 0.01 = g² / (g² + 1) at g = 0.1005."""
    neighbours = Neighbours("add, relu", "conv", skip="bn0", skip_var=ONE, skip_var_initial=ONE)
    found = fired("branch-off", site(ROWS, **{**LEARNED, "gamma": gamma}, neighbours=neighbours))
    assert len(found) == fires


def test_a_branch_of_small_scales_whose_skip_is_not_known():
    """Fails if group norms, whose skip has no variance from parameters, can never be switched off."""
    neighbours = Neighbours("add", "conv", skip="input")
    assert (
        len(fired("branch-off", site(ROWS, kind="group_norm", gamma=1e-3, beta=0.1, neighbours=neighbours)))
        == 1
    )
    alone = replace(neighbours, follows="relu", skip="")
    assert fired("branch-off", site(ROWS, kind="group_norm", gamma=1e-3, beta=0.1, neighbours=alone)).empty


def test_a_whole_branch_is_not_reported_twice():
    """Fails if each channel of a branch that is off is reported as constant, or untrained, as well."""
    neighbours = Neighbours("add, relu", "conv", skip="bn0", skip_var=ONE, skip_var_initial=ONE)
    off = site(ROWS, **{**LEARNED, "gamma": 0.0}, neighbours=neighbours)
    for rule in ("channels-constant", "affine-untrained"):
        assert fired(rule, off).empty
    assert len(fired("branch-off", off)) == 1


# channels


def test_saturated_channels():
    """Fails if the upper end is forgotten, or a quarter of the channels is not a warning."""
    beta = np.array([20.0, 3.0, 3.0])
    norm = site(ROWS, **{**LEARNED, "gamma": 0.5, "beta": beta}, neighbours=Neighbours("relu6", "conv"))
    (row,) = fired("channels-saturated", norm).itertuples()
    assert (row.severity, row.channels) == ("warning", (0,))
    free = replace(norm, neighbours=Neighbours("relu", "conv"))
    assert fired("channels-saturated", free).empty


def test_channels_never_on_are_those_that_could_have_been():
    """Fails if what the vectors rule out is reported twice, or shifted data make every channel silent."""
    beta = np.array([-10.0, -100.0, 0.0])  # silent; dead by its vectors; alive
    norm = site(
        ROWS, **{**LEARNED, "gamma": [-1.8, 1.5, 1.5], "beta": beta}, neighbours=Neighbours("relu", "conv")
    )
    (row,) = fired("channels-silent", norm).itertuples()
    assert row.channels == (0,)
    assert "40 samples" in row.because
    few = site(ROWS[:5], **{**LEARNED, "beta": beta}, neighbours=Neighbours("relu", "conv"))
    assert fired("channels-silent", few).empty
    moved = replace(norm, running_mean=norm.running_mean + 9 * np.sqrt(norm.running_var))
    assert fired("channels-silent", moved).empty


@pytest.mark.parametrize(("size", "severity"), [(5.0, ""), (7.0, "info"), (70.0, "warning")])
def test_outlier_dimensions(size, severity):
    """Fails if a large channel that does not set the divisor is a warning, or batch norm, which has none, is asked."""
    rows = np.random.default_rng(0).normal(size=(40, 100, 6))
    rows[:, 17] *= size
    found = fired("outlier-dimensions", site(rows, kind="layer_norm"))
    assert found["severity"].tolist() == ([severity] if severity else [])
    if severity:
        assert found["channels"][0] == (17,)
    assert fired("outlier-dimensions", site(rows, **running_stats_of(rows))).empty


def test_channels_of_an_instance_norm_share_no_divisor():
    """Fails if a large channel is blamed where it sets nobody else's scale."""
    rows = np.random.default_rng(0).normal(size=(9, 8, 6)) * np.array([40.0, *[1.0] * 7])[:, None]
    assert fired("outlier-dimensions", site(rows, kind="instance_norm")).empty
    (row,) = fired("outlier-dimensions", site(rows, kind="layer_norm")).itertuples()
    assert "this changes the results of a trained network" in row.do


@pytest.mark.parametrize(("in_one_group", "fires"), [(True, False), (False, True)])
def test_channels_of_a_group_norm_are_compared_within_their_group(in_one_group: bool, fires: bool):
    """Fails if a group of large channels, which share a divisor of their own, is blamed; or a large one hides in it."""
    size = np.array([40.0] * 4 + [1.0] * 12 if in_one_group else [40.0, *[1.0] * 15])
    rows = np.random.default_rng(0).normal(size=(9, 16, 6)) * size[:, None]
    four = np.arange(4.0)[None] + np.zeros((9, 1))
    own = Moments(**oracles.moments(four))
    found = fired("outlier-dimensions", site(rows, kind="group_norm", own_mean=own, own_log_var=own))
    assert len(found) == fires


def test_a_redundant_bias_is_a_note():
    """Fails if what costs nothing is a warning."""
    (row,) = fired("bias-redundant", site(ROWS, **LEARNED, neighbours=biased(ONE))).itertuples()
    assert row.severity == "info"


BIASED = {"filter_bias": 0.5}
FED = {"feeder": "conv", "feeds_alone": 1}


@pytest.mark.parametrize(
    ("cells", "row", "fires"),
    [
        (BIASED, FED, 1),
        ({"filter_bias": [0.0, 0.0, 1e-9]}, FED, 1),
        ({"filter_bias": 0.0}, FED, 0),
        ({"filter_bias": math.nan}, FED, 0),
        (BIASED, {**FED, "feeder": ""}, 0),
        (BIASED, {**FED, "feeds_alone": 0}, 0),
        (BIASED, {**FED, "kind": "instance_norm"}, 0),
        (BIASED, {**FED, "call": 1}, 0),
    ],
)
def test_when_a_bias_has_no_effect(cells: dict[str, Any], row: dict[str, Any], fires: int):
    """Fails if a bias of zeros, or one whose layer is not known or feeds others, is told."""
    found = findings("bias-redundant", edited(evidence(), cells, **row))
    assert len(found) == fires
    for one in found:
        assert one.says.startswith("A bias before this norm has no effect")
        assert one.because == "1 layer with a bias feeds a batch norm: conv before bn."
        assert one.remedy == Remedy((MoveBias((("conv", "bn"),)),))


def test_biases_of_functions_are_moved_by_hand():
    """Fails if a function is asked for its running mean, or modules beside it are left as they are."""
    names = ("bn", "batch_norm:3")
    both = evidence(*map(healthy, names))
    for i, name in enumerate(("conv", "other")):
        both = edited(both, BIASED, at=i, feeder=name, feeds_alone=1)
    (one,) = findings("bias-redundant", both)
    assert one.says.startswith("Biases before these norms have no effect")
    assert one.remedy == Remedy((MoveBias((("conv", "bn"),)),))
    assert "pairs = [('conv', 'bn')]`" in one.do
    assert "; where a function normalizes, subtract the bias from the running mean" in one.do
    alone = edited(evidence(healthy("batch_norm:3")), BIASED, feeder="conv", feeds_alone=1)
    (one,) = findings("bias-redundant", alone)
    assert one.remedy is None
    assert "pairs" not in one.do


def test_a_bias_is_not_moved_into_statistics_that_were_never_updated():
    """Fails if the code for it would hide that they are 0 and 1, or is withheld from the norms that have others."""
    both = evidence(healthy("bn"), healthy("new"))
    for i, name in enumerate(("conv", "other")):
        initial = {"running_mean": 0.0, "running_var": 1.0} if name == "other" else {}
        both = edited(both, {**BIASED, **initial}, at=i, feeder=name, feeds_alone=1)
    (one,) = findings("bias-redundant", both)
    assert "other before new" in one.because
    assert one.remedy == Remedy((MoveBias((("conv", "bn"),)),))
    assert "pairs = [('conv', 'bn')]`" in one.do
    alone = edited(evidence(), {**BIASED, "running_mean": 0.0, "running_var": 1.0}, **FED)
    (one,) = findings("bias-redundant", alone)
    assert one.remedy is None
    assert one.do.endswith("never updated, so there is nothing to move a bias into yet.")


NEUTRAL = {"gamma": 1.0, "beta": 0.0, "running_mean": 0.0, "running_var": 1.0}


@pytest.mark.parametrize(
    ("cells", "row", "fires"),
    [
        ({}, {}, 1),
        ({"running_var": 1 - 1e-3}, {}, 1),
        ({"running_var": 1 - 3e-3}, {}, 0),
        ({"gamma": [1.0, 1.0, 1.003]}, {}, 0),
        ({"beta": [0.0, 0.003, 0.0]}, {}, 0),
        ({"running_mean": [0.0, 0.0, -0.003]}, {}, 0),
        ({"gamma": math.nan}, {}, 0),
        ({"filter_bias": [0.5, 0.5, 0.0]}, {}, 0),
        ({"filter_bias": math.nan}, {}, 0),
        ({}, {"call": 1}, 0),
        ({}, {"memory_moved": 0.1}, 0),
    ],
)
def test_a_norm_that_does_nothing_behind_a_bias(cells: dict[str, Any], row: dict[str, Any], fires: int):
    """Fails if one channel that does something is overlooked, or a norm that was being trained was folded."""
    both = evidence(healthy("a"), healthy("b"))
    both = edited(both, {**NEUTRAL, **BIASED, **cells}, feeder="conv", **{"memory_moved": 0.0, **row})
    found = findings("norm-folded", both)
    assert [one.layer for one in found] == ["a"] * fires
    for one in found:
        assert one.because == (
            "γ is 1, β 0, the running mean 0 and the running variance 1 in all 3 channels, while conv adds a bias and other "
            "norms of the model were trained."
        )


@pytest.mark.parametrize(("names", "told"), [(("a",), "1 place"), (("a", "b"), "2 places")])
def test_places_where_norms_were_folded(names: tuple[str, ...], told: str):
    """Fails if one place is counted in the plural, or another reason for a missing norm is told as this one."""
    gone = pd.DataFrame({"layer": [*names, "c"], "why": ["folded"] * len(names) + ["never called"]})
    (one,) = findings("norm-folded", replace(evidence(), unread=gone))
    assert one.layer == "a"
    assert one.because == f"{told} with an identity after a convolution with a bias ({', '.join(names)})."


@pytest.mark.parametrize(
    ("cells", "row", "because"),
    [
        (
            {},
            {"branch_share": 0.009},
            "the branch has 0.009 of the block's variance (threshold 0.01); the largest |γ| is 1.2.",
        ),
        (
            {},
            {"branch_share": 0.009, "branch_share_initial": 0.5},
            "the branch has 0.009 of the block's variance (threshold 0.01, 50% at initialization); the largest |γ| is 1.2.",
        ),
        ({"gamma": [0.001, -0.005, 0.0]}, {"skip": "a"}, "the largest |γ| is 0.005 (threshold 0.01)."),
        ({"gamma": [0.001, -0.01, 0.0]}, {"skip": "a"}, None),
        ({"gamma": 0.001}, {"skip": ""}, None),
        ({"gamma": 0.001}, {"skip": "a", "layer_scale": "g", "branch_share": 0.5}, None),
        (
            {},
            {"layer_scale": "g", "branch_share": 0.99e-6},
            "the branch has 9.9e-07 of the block's variance, measured in the first pass (threshold 1e-06), after its "
            "product "
            "with g.",
        ),
        ({}, {"layer_scale": "g", "branch_share": 1e-6}, None),
    ],
)
def test_what_is_said_of_branches_that_are_off(
    cells: dict[str, Any], row: dict[str, Any], because: str | None
):
    """Fails if a scale of its own is passed over, γ of one channel hides, or a share that is not known is told."""
    given = {"layer_scale": "", "skip": "", "branch_share": math.nan, "branch_share_initial": math.nan, **row}
    found = findings("branch-off", edited(evidence(), cells, **given))
    assert [(one.severity, one.because) for one in found] == ([("warning", because)] if because else [])
    for one in found:
        assert one.remedy == (None if given["layer_scale"] else Remedy((SetGamma("bn"),)))


def test_a_new_network_may_begin_with_branches_that_are_off():
    """Fails if what initialization does is a warning."""
    start = {"gamma": 0.0, "beta": 0.0, "running_mean": 0.0, "running_var": 1.0}
    row = {"n_batches_tracked": 0, "n_updates": 0, "skip": "a", "layer_scale": ""}
    new = edited(evidence(), start, **row)
    assert new.is_new
    assert [one.severity for one in findings("branch-off", new)] == ["info"]
    scaled = edited(new, layer_scale="g", branch_share=1e-9)
    assert [one.severity for one in findings("branch-off", scaled)] == ["info"]


@pytest.mark.parametrize(
    ("roles", "severity", "channels"),
    [
        (["saturated", "mixed", "mixed"], "warning", (0,)),
        (["mixed", "saturated", "saturated"], "warning", (1, 2)),
        (["mixed"] * 3, None, None),
    ],
)
def test_what_is_said_of_saturated_channels(
    roles: list[str], severity: str | None, channels: tuple[int, ...] | None
):
    """Fails if another channel is named, or made anew."""
    found = findings("channels-saturated", edited(evidence(), {"role": roles}, follows="relu6"))
    assert [(one.severity, one.channels) for one in found] == ([(severity, channels)] if severity else [])
    for one in found:
        assert (
            one.because
            == f"in {len(channels or ())} of 3 channels more than half of the outputs are beyond the upper end."
        )
        assert "the ReLU6 after this norm" in one.says
        assert one.remedy == Remedy((Reinitialize("bn", channels or ()),))


SILENT = {
    "role": ["dead", "mixed", "mixed"],
    "dead_predicted": 0.0,
    "filter_norm": 1.0,
    "n_values": [600.0, 2.0, 2.0],
}
MATCHES = {"n_images": 30, "shift_rms": 0.1, "var_ratio_median": 1.0, "follows": "relu"}


@pytest.mark.parametrize(
    ("cells", "row", "fires"),
    [
        ({}, {}, 1),
        ({"dead_predicted": 1.0}, {}, 0),
        ({"dead_predicted": math.nan}, {}, 1),
        ({"filter_norm": 0.0}, {}, 0),
        ({"filter_norm": math.nan}, {}, 1),
        ({}, {"n_images": 29}, 0),
        ({}, {"shift_rms": 0.51}, 0),
        ({}, {"var_ratio_median": 2.1}, 0),
        ({}, {"var_ratio_median": 0.49}, 0),
        ({}, {"var_ratio_median": math.nan}, 1),
        ({}, {"follows": "hardtanh"}, 1),
    ],
)
def test_what_is_said_of_channels_that_never_got_past(cells: dict[str, Any], row: dict[str, Any], fires: int):
    """Fails if what the vectors, pruning or other data explain is told, or the output is called 0 where it is not."""
    found = findings("channels-silent", edited(evidence(), {**SILENT, **cells}, **{**MATCHES, **row}))
    assert len(found) == fires
    for one in found:
        assert one.because == "none of 600 outputs passed in 1 of 3 channels, on 30 samples."
        assert one.says.endswith("was constant." if "follows" in row else "was always 0.")
        assert (one.channels, one.severity) == ((0,), "warning")


LARGE = {"rms_ratio": [8.0, 1.0, 1.0], "gamma": 1.0}


@pytest.mark.parametrize(
    ("cells", "row", "severity", "because"),
    [
        (
            {},
            {"n_tokens": 0},
            "warning",
            "channel 0 is 8 times as large as the typical one (threshold 6); 97% of the energy is in 1 of 3 channels "
            "(threshold 50%).",
        ),
        ({}, {"n_tokens": 9, "kind": "rms_norm"}, "warning", "in 1 of 3 channels (threshold 90%)."),
        # of three channels, one can hold no more than two thirds once the mean is taken off
        (
            {"gamma": [0.25, 1, 1]},
            {"n_tokens": 9},
            "warning",
            "67% of the energy is in 1 of 3 channels (threshold 60%).",
        ),
        ({"gamma": [0.25, 1, 1]}, {"n_tokens": 9, "kind": "rms_norm"}, "info", "67% of the energy"),
        (
            {"gamma": [0.1, 1.0, 1.0]},
            {"n_tokens": 9},
            "info",
            "24% of the energy is in 1 of 3 channels (threshold 60%).",
        ),
        ({"gamma": [0.1, 1.0, 1.0]}, {"n_tokens": 0}, "warning", "97% of the energy is"),
        ({"gamma": math.nan}, {"n_tokens": 9}, "warning", "97% of the energy is"),
        (
            {"rms_ratio": [1.0, 7.0, 20.0]},
            {"n_tokens": 0},
            "warning",
            "channel 2 is 20 times as large as the typical one (threshold 6); 100% of the energy is in 2 of 3 channels",
        ),
        ({"rms_ratio": [6.0, 1.0, 1.0]}, {"n_tokens": 0}, None, None),
        ({}, {"n_tokens": 0, "kind": "instance_norm"}, None, None),
        (
            {"rms_ratio": [math.nan, 7.0, 1.0]},
            {"n_tokens": 0},
            "warning",
            "channel 1 is 7 times as large as the typical one (threshold 6); 98% of the energy is in 1 of 3",
        ),
    ],
)
def test_what_is_said_of_large_channels(
    cells: dict[str, Any], row: dict[str, Any], severity: str | None, because: str | None
):
    """Fails if energy is not the square, γ is left out of tokens or takes part elsewhere, or another channel is named."""
    base = edited(evidence(healthy(kind="layer_norm")), {**LARGE, **cells}, feeder="conv", **row)
    found = findings("outlier-dimensions", base)
    assert [one.severity for one in found] == ([severity] if severity else [])
    for one in found:
        assert str(because) in one.because


@pytest.mark.parametrize(
    ("role", "severity"),
    [("query", "info"), ("key", "info"), ("inner", "info"), ("MLP", "warning"), ("", "warning")],
)
def test_large_channels_of_heads_and_behind_gates_are_usual(role: str, severity: str):
    """Fails if rotary heads, or what a gate lets through, are a warning, or those of the stream are none."""
    norm = evidence(healthy(kind="layer_norm"))
    given = edited(norm, {"rms_ratio": [100.0, 1.0, 1.0]}, n_tokens=500, norm_role=role)
    (found,) = findings("outlier-dimensions", given)
    assert found.severity == severity
    assert "they alone set the scale" in found.says


def test_weights_of_one_layer_are_scaled_down_by_what_is_too_large():
    """Fails if weights of several layers are to be changed, or channels and ratios do not go together."""
    given = edited(
        evidence(healthy(kind="layer_norm")), {"rms_ratio": [7.123, 1.0, 20.0]}, feeder="conv", n_tokens=0
    )
    (one,) = findings("outlier-dimensions", given)
    assert one.remedy == Remedy((ScaleDown("conv", (0, 2), (7.12, 20.0)),))
    (one,) = findings("outlier-dimensions", edited(given, feeder=""))
    assert one.remedy is None
    assert "; they are in more than one layer here" in one.do


@pytest.mark.parametrize(
    ("kind", "stored", "told"),
    [("batch_norm", 1.0, True), ("batch_norm", math.nan, False), ("layer_norm", 1.0, False)],
)
def test_calls_that_are_compared(kind: str, stored: float, told: bool):
    """Fails if norms that keep no running statistics are to have one per call, or numbers are those of another call."""
    both = evidence(healthy(), healthy(call=1), healthy(call=2))
    for i, (mean, var) in enumerate(((0.0, 1.0), (0.0, 1.0), (3.0, 3.0))):
        cells = {"pre_mean": mean, "pre_var": var, "running_var": stored}
        both = edited(both, cells, at=i, kind=kind, n_images=1)
    found = findings("calls-differ", both)
    assert [one.call for one in found] == ([2] if told else [])
    for one in found:
        assert one.because == (
            "call 3 against call 1: means 2.12 σ apart (root mean square over channels, threshold 0.5), typical variance 3 "
            "times that of call 1 (thresholds 0.5 and 2), on 1 sample."
        )
        assert one.remedy == Remedy((DropStatistics("bn"),))


def test_channels_that_are_not_known_do_not_count_between_calls():
    """Fails if one channel without a value hides that the others lie apart."""
    both = edited(evidence(healthy(), healthy(call=1)), {"pre_mean": 0.0, "pre_var": 1.0})
    cells = {"pre_mean": [2.0, math.nan, 2.0], "pre_var": [1.0, math.nan, 0.0]}
    (one,) = findings("calls-differ", edited(both, cells, at=1))
    # 2 / 1 and 2 / √(1/2)
    assert "means 2.45 σ apart" in one.because
