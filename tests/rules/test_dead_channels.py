"""Channels that pass nothing on: each rule fires on its fault, is silent beside it, and needs no data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from measures.sites import recording, site

from bnprobe.measures import tables
from bnprobe.recording.neighbours import Neighbours
from bnprobe.rules import judge
from bnprobe.rules.thresholds import Limits
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
