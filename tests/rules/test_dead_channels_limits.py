"""Channels that cannot become positive: reach, eps and what was seen, at and beside each limit."""

from __future__ import annotations

import math
from typing import Any

import pytest
from measures.sites import running_stats_of, site, some_rows

from bnprobe.recording import LayerRecord
from bnprobe.rules.dead_channels import _all_zero, _alone, _reach
from rules.edited import edited, evidence, findings, frame

LIMITS = evidence().limits
K, REACH = LIMITS.dead_sigmas, LIMITS.dead_reach
DEAD = {"beta": -20.0, "gamma": [1.0, -1.5, 2.0], "gamma_effective": [1.0, 1.5, 2.0], "fires": 0.0}


def test_the_reach_of_a_channel_is_beta_and_so_many_gammas() -> None:
    """Fails if a sign of gamma counts, a missing one is not 1, or what eps leaves counts where beta is positive."""
    channels = frame(
        beta=[-1.0, -1.0, 2.0, math.nan, 0.0, 3.0],
        gamma=[2.0, -2.0, -3.0, 0.5, math.nan, math.nan],
        gamma_effective=[0.5, 0.25, 0.1, 0.1, 0.2, 0.2],
    )
    assert _reach(channels, 6.0).tolist() == [2.0, 0.5, 20.0, 3.0, 6.0, 9.0]


@pytest.mark.parametrize(
    ("beta", "gamma", "alone"),
    [
        (-7.0, 1.0, True),
        (-7.0, -1.0, True),
        (REACH - K + 1e-9, 1.0, False),
        (REACH - K - 1e-9, 1.0, True),
        (-7.0, math.nan, True),
        (-K, math.nan, REACH > 0),
        (math.nan, -1.0, False),
        (math.nan, 0.0, REACH > 0),
    ],
)
def test_a_channel_that_is_dead_even_if_gamma_counts_in_full(beta: float, gamma: float, alone: bool) -> None:
    """Fails if a missing vector is another than 1 and 0, or the limit counts as below itself."""
    assert _alone(frame(beta=[beta], gamma=[gamma]), K, LIMITS).tolist() == [alone]


@pytest.mark.parametrize(
    ("gamma", "beta", "zero"),
    [
        ((0.0, 0.0), (0.0, 0.0), True),
        ((0.0, 0.0), (math.nan, math.nan), True),
        ((0.0, 0.1), (0.0, 0.0), False),
        ((0.0, 0.0), (0.0, -0.1), False),
        ((math.nan, 0.0), (0.0, 0.0), False),
    ],
)
def test_a_branch_that_began_at_zero(gamma: Any, beta: Any, zero: bool) -> None:
    """Fails if one channel is enough, or a beta that is missing is none."""
    assert _all_zero(frame(gamma=gamma, beta=beta)) is zero


@pytest.mark.parametrize(
    ("cells", "row", "told"),
    [
        ({}, {"follows": "relu"}, (0, 1, 2)),
        ({}, {"follows": "relu6"}, (0, 1, 2)),
        ({}, {"follows": "unknown"}, (0, 1, 2)),
        ({}, {"follows": "gelu"}, None),
        ({}, {"follows": "relu", "kind": "layer_norm"}, None),
        ({"fires": [0.0, 1e-3, 0.0]}, {"follows": "relu"}, (0, 2)),
        ({"fires": math.nan}, {"follows": "relu"}, (0, 1, 2)),
        ({"fires": 1.0}, {"follows": "relu"}, None),
        ({"beta": [-20.0, 1.0, -20.0]}, {"follows": "relu"}, (0, 2)),
        (
            {"beta": [REACH - K + 1e-9, REACH - 1.5 * K - 1e-9, REACH - 2 * K + 1e-9]},
            {"follows": "relu"},
            (1,),
        ),
    ],
)
def test_dead_channels(cells: dict[str, Any], row: dict[str, Any], told: tuple[int, ...] | None) -> None:
    """Fails if another activation kills, a channel that fired is dead, or the limit is elsewhere."""
    found = findings("channels-dead", edited(evidence(), {**DEAD, **cells}, **row))
    assert [one.channels for one in found] == ([] if told is None else [told])
    for one in found:
        whole, known = len(one.channels) == 3, row["follows"] != "unknown"
        assert (one.severity == "critical") is (whole and known)


PRUNED = {"filter_norm": 0.0, "running_mean": [2.0, 4.0, -6.0], "running_var": 4.0, "filter_bias": 0.0}


@pytest.mark.parametrize(
    ("cells", "eps", "channels"),
    [
        ({}, 0.0, (0, 1, 2)),
        ({"filter_norm": [0.0, 0.0, 1.0]}, 0.0, (0, 1)),
        ({"filter_norm": 1.0}, 0.0, None),
        ({"filter_norm": math.nan}, 0.0, None),
        # of a running standard deviation of 2: the threshold is 0.5
        ({"running_mean": [1.0, 1.0001, -1.0001]}, 0.0, (1, 2)),
        ({"running_mean": 1.0}, 0.0, None),
        # what a filter of 0 leaves is its bias
        ({"running_mean": 5.0, "filter_bias": [5.0, 3.0, 7.0]}, 0.0, (1, 2)),
        ({"running_mean": [0.0, 5.0, 5.0], "filter_bias": math.nan}, 0.0, (1, 2)),
        # the variance has not yet gone to where eps hides it, and eps counts in the deviation
        ({"running_mean": 9.0, "running_var": [2.0, 2.1, 1.9]}, 2.0, (1,)),
        ({"running_mean": [1.5, 1.51, -1.51], "running_var": 5.0}, 4.0, (1, 2)),
    ],
)
def test_filters_that_were_set_to_zero(
    cells: dict[str, Any], eps: float, channels: tuple[int, ...] | None
) -> None:
    """Fails if a norm all of whose filters are 0 is passed over, or a limit is beyond itself."""
    found = findings("filters-decayed", edited(evidence(), {**PRUNED, **cells}, feeder="conv", eps=eps))
    assert [one.channels for one in found] == ([channels] if channels else [])


SHRUNK = {"running_var": 1.0, "running_mean": 0.0}
SMALL, LENGTH = LIMITS.constant_gamma, LIMITS.decayed_filter


@pytest.mark.parametrize(
    ("gamma", "length", "channels", "most"),
    [
        ([0.0, 0.0, 1.0, 1.0, 1.0], [0.01, 0.02, 1.0, 1.0, 1.0], (0, 1), "at most 0.02, 2.0% of"),
        ([0.0, SMALL, 1.0, 1.0, 1.0], [0.01, 0.02, 1.0, 1.0, 1.0], (0,), "at most 0.01, 1.0% of"),
        ([0.0, 0.0, 1.0, 1.0, 1.0], [0.01, LENGTH, 1.0, 1.0, 1.0], (0,), "at most 0.01"),
        ([0.0, 0.0, 1.0, 1.0, 1.0], [0.01, 0.0, 1.0, 1.0, 1.0], (0,), "at most 0.01"),
        ([SMALL] * 5, [0.01, 1.0, 1.0, 1.0, 1.0], None, ""),
    ],
)
def test_filters_that_were_decayed(
    gamma: list[float], length: list[float], channels: tuple[int, ...] | None, most: str
) -> None:
    """Fails if a limit is below itself, or the shortest filter is told as the longest."""
    cells = {**SHRUNK, "gamma": gamma, "gamma_effective": gamma, "filter_norm": length}
    base = edited(evidence(healthy_of(5)), cells, feeder="conv")
    found = findings("filters-decayed", base)
    assert [one.channels for one in found] == ([channels] if channels else [])
    for one in found:
        assert most in one.because


def healthy_of(n: int) -> LayerRecord:
    rows = some_rows(40, n_channels=n)
    return site(rows, gamma=1.5, beta=0.1, **running_stats_of(rows))
