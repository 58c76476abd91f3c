"""Channels that pass nothing on: each rule fires on its fault, is silent beside it, and needs no data."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from measures.sites import recording, site

from bnprobe.measures import tables
from bnprobe.recording.neighbours import Neighbours
from bnprobe.rules import judge
from bnprobe.rules.edits import Recalibrate, Reinitialize, Remedy
from bnprobe.rules.thresholds import Limits
from rules.edited import edited, evidence, findings
from rules.firing import fired
from rules.stored import ONE, at, stored, wired

RELU = Neighbours("relu")


@pytest.mark.parametrize(
    ("follows", "severity"),
    [
        ("relu", "info"),
        ("relu6", "info"),
        ("unknown", "info"),
        ("add, relu", None),
        ("silu", None),
        ("relu | add", None),
    ],
)
def test_dead_needs_a_relu_or_no_knowledge(follows, severity):
    """Fails if a norm before a sum or a smooth activation is called dead."""
    found = fired(
        "channels-dead", stored(gamma=at(0.1, 1.5, 3), beta=at(-1, 0.1, 3), neighbours=Neighbours(follows))
    )
    assert list(found["severity"]) == ([severity] if severity else [])
    if severity:
        assert found["channels"].iloc[0] == (3,)
        assert ("if a ReLU follows" in found["says"].iloc[0]) == (follows == "unknown")


def test_a_wholly_dead_layer_is_not_to_be_removed():
    """Fails if all channels are called some, listed one by one, or to be cut out of a network that needs a path."""
    found = fired("channels-dead", stored(gamma=0.1, beta=-1, neighbours=Neighbours("relu")))
    assert found["says"].iloc[0].startswith("All channels are dead")
    assert "Remove" not in found["do"].iloc[0]
    assert "n.weight.data[:] = 1" in found["do"].iloc[0]


def test_dead_is_by_the_size_of_gamma_and_the_bound_itself():
    """Fails if gamma counts with its sign, or k or the reach is another."""
    beta = at(-0.6, 0.1, 0, 1, 2)
    gamma = at(1.0, 1.0)
    gamma[:3] = (0.1 + 1e-5, -(0.1 + 1e-5), 0.1 + 1e-4)
    assert fired("channels-dead", stored(gamma=gamma, beta=beta))["channels"].iloc[0] == (0, 1)


def test_a_channel_that_was_seen_positive_is_not_dead():
    """Fails if measured values do not overrule the bound."""
    rows = np.full((5, 8, 14), -1.0) * np.linspace(1, 2, 14)
    rows[0, 0, 0] = 1e3
    found = fired("channels-dead", site(rows, gamma=0.01, beta=-1, running_mean=0, running_var=1))
    assert found["channels"].iloc[0] == tuple(range(1, 8))


def test_many_dead_channels_are_a_warning_and_all_of_them_critical():
    """Fails if the severity does not grow with the share."""
    for n, severity in ((1, "info"), (2, "warning"), (8, "critical")):
        places = range(n)
        record = stored(gamma=at(0.1, 1.5, *places), beta=at(-1, 0.1, *places), neighbours=Neighbours("relu"))
        assert fired("channels-dead", record)["severity"].tolist() == [severity]


def test_a_branch_initialised_to_nothing_is_not_dead():
    """Fails if a zero-initialised residual branch is called dead."""
    assert fired("channels-dead", stored(gamma=0, beta=0)).empty


def test_filters_decay_only_together_with_gamma():
    """Fails if a short filter under a live gamma, or a dead gamma over a live filter, is called decayed."""
    gamma = at(1e-3, 1.5, 0, 1)
    found = fired("filters-decayed", stored(gamma=gamma, neighbours=wired(at(0.02, 1.0, 0, 2))))
    assert found["channels"].iloc[0] == (0,)
    assert "conv1 (by name)" in found["because"].iloc[0]
    assert fired("filters-decayed", stored(gamma=gamma)).empty


def test_filters_decay_where_eps_leaves_nothing_of_gamma():
    """Fails if a recipe that does not decay γ hides the filters that it did decay: their inputs no longer vary."""
    short = wired(at(0.02, 1.0, 0))
    found = fired("filters-decayed", stored(gamma=1.5 * ONE, running_var=at(1e-10, 1.0, 0), neighbours=short))
    assert found["channels"].iloc[0] == (0,)
    assert "|γ| < 0.01 in 1 of 8 channels, with |γ| √(running_var" in found["because"].iloc[0]
    both = stored(
        gamma=at(1e-3, 1.5, 1), running_var=at(1e-10, 1.0, 0), neighbours=wired(at(0.02, 1.0, 0, 1))
    )
    found = fired("filters-decayed", both)
    assert found["channels"].iloc[0] == (0, 1)
    assert "|γ| < 0.01 in 2 of 8 channels, in 1 of them with |γ| √(running_var" in found["because"].iloc[0]
    # a norm that divides by its variance makes up for a short filter
    alive = stored(gamma=1.5 * ONE, running_var=at(1e-4, 1.0, 0), neighbours=short)
    assert fired("filters-decayed", alive).empty


def test_a_channel_whose_inputs_do_not_vary_is_dead_below_zero():
    """Fails if γ counts in full where eps is what the norm divides by: six of these standard deviations are .006."""
    var = at(1e-12, 1.0, 0)
    flat = stored(gamma=at(1.0, 1.5, 0), beta=at(-0.05, 0.1, 0), running_var=var, eps=1e-5, neighbours=RELU)
    found = fired("channels-dead", flat)
    assert found["channels"].iloc[0] == (0,)
    assert "in 1 of 8 channels, with |γ| √(running_var" in found["because"].iloc[0]
    assert "(eps = 1e-05)" in found["because"].iloc[0]
    # a tenth of eps may be out of date as the data change: there γ counts as it is
    loose = stored(
        gamma=at(1.0, 1.5, 0), beta=at(-0.05, 0.1, 0), running_var=at(1e-6, 1.0, 0), neighbours=RELU
    )
    assert fired("channels-dead", loose).empty


def test_thresholds_reach_the_rules():
    """Fails if a rule uses its own constant and not the settings'."""
    record = stored(gamma=at(0.05, 1.5, 0), beta=at(-0.2, 0.1, 0))
    measured = tables(recording(record))
    assert "channels-dead" not in set(judge(measured)["rule"])
    assert "channels-dead" in set(judge(measured, Limits(dead_sigmas=3))["rule"])
    assert "channels-constant" in set(judge(measured, Limits(constant_gamma=0.1))["rule"])


def test_filters_that_were_set_to_0_under_statistics_of_before() -> None:
    """Fails if pruning without new running statistics is missed, blamed on weight decay, or seen where they followed."""
    pruned, gamma = wired(at(0.0, 1.0, 0, 2)), 1.5
    far = {"running_mean": at(2.0, 0.1, 0, 2), "running_var": 1.0 * ONE}
    (row,) = fired("filters-decayed", stored(gamma=gamma, neighbours=pruned, **far)).itertuples()
    assert (row.severity, row.channels) == ("warning", (0, 2))
    assert "up to 2 running σ off" in row.because
    near = {**far, "running_mean": 0.1 * ONE}
    followed = {**far, "running_var": at(1e-9, 1.0, 0, 2)}
    for fields in (near, followed):
        assert fired("filters-decayed", stored(gamma=gamma, neighbours=pruned, **fields)).empty
    # what a bias of the layer gives instead is no surprise
    biased = replace(pruned, folded=replace(pruned.folded, bias=2.0 * ONE))
    assert fired("filters-decayed", stored(gamma=gamma, neighbours=biased, **far)).empty


DEAD = {
    "beta": [-1.0, 0.5, 0.5],
    "gamma": [0.1, 1.0, 1.0],
    "gamma_effective": [0.1, 1.0, 1.0],
    "fires": [0.0, 0.5, 0.5],
}


@pytest.mark.parametrize(
    ("cells", "row", "severity", "because"),
    [
        ({}, {}, "warning", "β + 6|γ| < 0.0001 in 1 of 3 channels."),
        ({}, {"follows": "relu6"}, "warning", "in 1 of 3 channels."),
        ({}, {"follows": "unknown"}, "warning", "in 1 of 3 channels."),
        ({}, {"follows": "tanh"}, None, ""),
        ({}, {"kind": "layer_norm"}, None, ""),
        ({"fires": [0.01, 0.5, 0.5]}, {}, None, ""),
        ({"fires": math.nan}, {}, "warning", "in 1 of 3 channels."),
        ({"beta": -9.0, "fires": 0.0}, {}, "critical", "in 3 of 3 channels."),
        ({"beta": -9.0, "fires": 0.0}, {"follows": "unknown"}, "warning", "in 3 of 3 channels."),
        ({"gamma": 0.0, "gamma_effective": 0.0, "beta": 0.0, "fires": 0.0}, {}, None, ""),
        (
            {"gamma": 0.0, "gamma_effective": 0.0, "beta": [0.0, 0.0, -1.0], "fires": 0.0},
            {},
            "critical",
            "in 3 of 3 channels.",
        ),
        ({"gamma": 0.0, "gamma_effective": 0.0, "beta": math.nan, "fires": 0.0}, {}, None, ""),
        (
            {"gamma": [0.5, 1.0, 1.0]},
            {},
            "warning",
            "in 1 of 3 channels, with |γ| √(running_var / (running_var + eps)) for |γ|, as their inputs hardly vary "
            "(eps = 1e-05).",
        ),
        (
            {
                "beta": [-1.0, -1.0, 0.5],
                "gamma": [0.5, 0.1, 1.0],
                "gamma_effective": [0.1, 0.1, 1.0],
                "fires": 0.0,
            },
            {},
            "warning",
            "in 2 of 3 channels, in 1 of them with |γ| √(running_var / (running_var + eps)) for |γ|, as",
        ),
        (
            {"beta": [0.5e-4, 0.5, 0.5], "gamma": [1.0, 1.0, 1.0], "gamma_effective": [0.0, 1.0, 1.0]},
            {},
            None,
            "",
        ),
    ],
)
def test_what_is_said_of_dead_channels(
    cells: dict[str, Any], row: dict[str, Any], severity: str | None, because: str
):
    """Fails if a channel that fired is dead, a branch that starts at 0 is, or eps is not told where it decides."""
    base = edited(evidence(), {**DEAD, **cells}, **{"follows": "relu", **row})
    found = findings("channels-dead", base)
    assert [one.severity for one in found] == ([severity] if severity else [])
    for one in found:
        assert because in one.because
        assert one.says.startswith("All channels" if "3 of 3" in because else "Some channels")
        assert ("can never be positive" in one.says) == (row.get("follows") == "unknown")
        assert ("Neither values nor gradients pass" in one.do) == ("3 of 3" in because)
        assert one.remedy == Remedy((Reinitialize("bn", one.channels),))


SHRUNK = {"filter_norm": [0.01, 1.0, 1.0], "gamma": [0.001, 1.0, 1.0], "gamma_effective": [0.001, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("cells", "row", "because"),
    [
        (
            {},
            {},
            "|γ| < 0.01 in 1 of 3 channels; their filters in conv have a length of at most 0.01, 1.0% of the layer's "
            "median (threshold 5%).",
        ),
        ({"filter_norm": [1e-5, 1.0, 1.0]}, {}, "at most 1e-05, under 0.1% of the layer's median"),
        ({"filter_norm": [0.002, 2.0, 2.0]}, {}, "at most 0.002, 0.1% of the layer's median"),
        ({"filter_norm": [0.05, 1.0, 1.0]}, {}, None),
        ({"gamma_effective": [0.01, 1.0, 1.0]}, {}, None),
        ({"filter_norm": math.nan}, {}, None),
        (
            {"gamma": [0.5, 1.0, 1.0]},
            {},
            "|γ| < 0.01 in 1 of 3 channels, with |γ| √(running_var / (running_var + eps)) for |γ|",
        ),
    ],
)
def test_what_is_said_of_decayed_filters(cells: dict[str, Any], row: dict[str, Any], because: str | None):
    """Fails if a share is of another filter than the typical one, or a filter that is 0 has decayed."""
    found = findings("filters-decayed", edited(evidence(), {**SHRUNK, **cells}, feeder="conv", **row))
    assert len(found) == (because is not None)
    for one in found:
        assert str(because) in one.because
        assert (one.channels, one.severity) == ((0,), "warning")
        assert one.remedy == Remedy((Reinitialize("bn", (0,), "conv", statistics=True),))
        assert "n.running_mean[at] = 0; n.running_var[at] = 1`" in one.do
    other = edited(evidence(), {**SHRUNK}, feeder="conv (by name)", kind="layer_norm")
    (one,) = findings("filters-decayed", other)
    assert one.remedy == Remedy((Reinitialize("bn", (0,), "conv", statistics=False),))
    assert "running_mean" not in one.do


PRUNED = {
    "filter_norm": [0.0, 1.0, 1.0],
    "running_mean": [2.0, 0.0, 0.0],
    "running_var": 4.0,
    "filter_bias": math.nan,
}


@pytest.mark.parametrize(
    ("cells", "row", "because"),
    [
        (
            {},
            {},
            "filters in conv of length 0 for 1 of 3 channels, whose running means are up to 1 running σ off "
            "(threshold 0.5).",
        ),
        ({"running_mean": [-2.0, 0.0, 0.0]}, {}, "up to 1 running σ off"),
        ({"filter_bias": [2.0, 0.0, 0.0]}, {}, None),
        ({"filter_bias": [-2.0, 0.0, 0.0]}, {}, "up to 2 running σ off"),
        ({"running_mean": [0.99, 0.0, 0.0]}, {}, None),
        ({"running_var": [1e-6, 4.0, 4.0]}, {}, None),
        ({"filter_norm": 1.0}, {}, None),
        ({}, {"normalized_by": "batch"}, None),
    ],
)
def test_what_is_said_of_pruned_filters(cells: dict[str, Any], row: dict[str, Any], because: str | None):
    """Fails if the bias that is left counts as a shift, or statistics that fit a filter of 0 are those of before."""
    found = findings("filters-decayed", edited(evidence(), {**PRUNED, **cells}, feeder="conv", **row))
    assert [one.channels for one in found] == ([(0,)] if because else [])
    for one in found:
        assert str(because) in one.because
        assert one.remedy == Remedy((Recalibrate(),))
