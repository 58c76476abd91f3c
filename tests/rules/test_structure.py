"""Rules about what stands around a norm: what fires each one, and its nearest healthy neighbour."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from measures.sites import call_log, running_stats_of, site, some_rows
from support import oracles

from bnprobe.recording.neighbours import Folded, Neighbours
from bnprobe.stats import Moments
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
