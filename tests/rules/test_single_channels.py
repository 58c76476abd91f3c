"""Single channels whose running statistics are off while the rest of their norm matches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from measures.sites import site, some_rows

from bnprobe.rules import single_channels
from bnprobe.rules.thresholds import DEFAULT
from bnprobe.stats.significance import SIGNIFICANT
from rules.edited import edited, evidence, findings
from rules.firing import fired

ROWS = some_rows(64, n_channels=40)
"""Images (64, 40, P) of channels that differ in mean and scale."""


def stored(**changes: dict[int, float]) -> dict[str, Any]:
    """Running statistics that match but in some channels: a mean moved by so many σ, a std so many times as large."""
    mean, std = ROWS.mean((0, 2)), ROWS.std((0, 2))
    for channel, sigmas in changes.get("moved", {}).items():
        mean[channel] -= sigmas * std[channel]
    for channel, factor in changes.get("scaled", {}).items():
        std[channel] /= factor
    return {"running_mean": mean, "running_var": std**2}


def found(**changes: dict[int, float]) -> pd.DataFrame:
    return fired("channels-shifted", site(ROWS, "bn", gamma=1.5, beta=0.1, **stored(**changes)))


@pytest.mark.parametrize(
    ("changes", "channels"),
    [
        ({}, []),
        ({"moved": {17: 6}}, [17]),
        ({"moved": {17: -6, 3: 4}}, [3, 17]),
        ({"moved": {17: 2.5}}, []),
        ({"scaled": {5: 6.0}}, [5]),
        ({"scaled": {5: 1 / 6}}, [5]),
        ({"scaled": {5: 3.0}}, []),
        ({"moved": {2: 5}, "scaled": {9: 8.0}}, [2, 9]),
        ({"moved": dict.fromkeys(range(3), 6.0)}, []),
        ({"moved": {**dict.fromkeys(range(40), 0.3), 17: 6}}, []),
    ],
    ids=["none", "one", "two", "near", "wider", "narrower", "less wide", "either", "too many", "all moved"],
)
def test_channels_that_stand_alone(changes, channels):
    """Fails if a ruined channel hides behind the median of its norm, or the tail of a shift of all is taken for one."""
    findings = found(**changes)
    assert [list(row) for row in findings["channels"]] == ([channels] if channels else [])


def test_what_is_said_of_one_channel():
    """Fails if the number is not the channel's distance in running σ, or the others are miscounted."""
    findings = found(moved={17: 6})
    assert (
        "1 channel of this norm does not match its running statistics, while the other 39 do"
        in findings["says"][0]
    )
    assert (
        f"mean +6.00 running σ from the running mean (threshold {DEFAULT.channel_shift:g}) in channel 17;"
        in (findings["because"][0])
    )


def test_the_statistic_that_is_off_is_the_one_that_is_printed():
    """Fails if a channel that was found by its scale is reported with its mean."""
    because = found(scaled={5: 6.0})["because"][0]
    assert because.startswith("std 6 times the running one (thresholds 0.25 and 4) in channel 5;")


def test_norms_of_few_channels_and_batches_of_their_own_are_not_judged():
    """Fails if two channels of four, or statistics that are on their way, are called exceptions."""
    few = {name: value[:4] for name, value in stored(moved={1: 6}).items()}
    assert fired("channels-shifted", site(ROWS[:, :4], "bn", gamma=1.5, beta=0.1, **few)).empty
    by_batch = stored(moved={17: 6}) | {"n_calls_running": 0, "n_calls_training": 1}
    assert fired("channels-shifted", site(ROWS, "bn", gamma=1.5, beta=0.1, **by_batch)).empty


@pytest.mark.parametrize("size", [1.0, 0.2], ids=["inputs near 1", "far below their initial variance"])
def test_a_channel_of_a_new_network_is_judged_by_its_mean(size):
    """Fails if variances that hold their initial 1 hide a ruined mean, or are themselves taken for ruined."""
    rows = size * ROWS
    mean, std = rows.mean((0, 2)), rows.std((0, 2))
    young = {"running_var": 0.5 * std**2 + 0.5, "n_batches_tracked": 8, "gamma": 1.0, "beta": 0.01}
    for moved, channels in ((17, [[17]]), (None, [])):
        means = mean.copy()
        if moved is not None:
            means[moved] -= 6 * np.sqrt(young["running_var"][moved])
        found = fired("channels-shifted", site(rows, "bn", **young, running_mean=means))
        assert [list(row) for row in found["channels"]] == channels
        assert set(found["severity"]) <= {"info"}


def test_chance_is_no_exception():
    """Fails if the farthest of many channels of a handful of images counts although chance explains it."""
    rows = 0.5 + np.random.default_rng(0).standard_normal((8, 4000, 1))
    assert rows.std((0, 2)).min() < 1 / DEFAULT.channel_scale
    statistics = {"running_mean": np.full(4000, 0.5), "running_var": np.ones(4000)}
    assert fired("channels-shifted", site(rows, "bn", gamma=1.5, beta=0.1, **statistics)).empty


@pytest.mark.parametrize(("n", "of_data"), [(1, False), (2, False), (3, True)])
def test_several_norms_with_such_channels_are_one_finding(n: int, of_data: bool):
    """Fails if gray images are a finding per norm, if norms are left out, or an edited filter is blamed on the data."""
    sites = [site(ROWS, f"bn{i}", gamma=1.5, beta=0.1, **stored(moved={i: 6})) for i in range(n)]
    (row,) = fired("channels-shifted", *sites).itertuples()
    assert (row.layer, row.channels) == ("bn0", (0,))
    assert all(f"bn{i}" in row.because for i in range(1, n))
    assert ("data of another kind" in row.do) == of_data


def test_channels_behind_wrong_inputs_are_not_blamed(monkeypatch):
    """Fails if inputs that are wrong are a finding in every norm of which they upset single channels."""
    monkeypatch.setattr(single_channels, "reported_at", lambda evidence: "bn")
    assert found(moved={17: 6}).empty


def test_a_channel_behind_a_norm_that_is_far_off_is_not_blamed_first():
    """Fails if data far from those of training, seen at the first norm, are said to suit the other channels."""
    off = site(ROWS, "first", gamma=1.5, beta=0.1, **stored(moved=dict.fromkeys(range(40), 6.0)))
    single = site(ROWS, "bn", gamma=1.5, beta=0.1, **stored(moved={17: 6}))
    (do,) = fired("channels-shifted", off, single)["do"]
    assert do.startswith("Inputs already differ at first: look there first.")
    assert "The data suit" not in do
    near = site(ROWS, "first", gamma=1.5, beta=0.1, **stored(moved=dict.fromkeys(range(40), 0.3)))
    assert fired("channels-shifted", near, single)["do"][0].startswith("The data suit the other channels")


@pytest.mark.parametrize(
    ("columns", "speaks"),
    [
        ({"shift": 3.0, "shift_q": 1e-9}, False),
        ({"shift": -3.0001, "shift_q": 1e-9}, True),
        ({"shift": 3.0001, "shift_q": SIGNIFICANT}, False),
        ({"scale_ratio": 3.9999, "scale_q": 1e-9}, False),
        ({"scale_ratio": 4.0001, "scale_q": 1e-9}, True),
        ({"scale_ratio": 1 / 4.0001, "scale_q": 1e-9}, True),
        ({"scale_ratio": 4.0001, "scale_q": SIGNIFICANT}, False),
        ({"scale_ratio": np.inf, "scale_q": 1e-9}, False),
    ],
)
def test_how_far_a_channel_may_be_off(columns: dict[str, float], speaks: bool):
    """Fails if 3 running σ or a factor of 4 are no longer what a channel may have, or chance is not asked."""
    base = evidence(site(ROWS[:, :8], "bn", gamma=1.5, beta=0.1, **few(8)))
    off = {name: [value, *base.channels[name][1:]] for name, value in columns.items()}
    assert [one.channels for one in findings("channels-shifted", edited(base, off))] == [(0,)] * speaks


@pytest.mark.parametrize(("n", "speaks"), [(8, True), (7, False)])
def test_a_norm_of_eight_channels_is_judged(n: int, speaks: bool):
    """Fails if the number of channels from which one is an exception moves."""
    one = few(n)
    one["running_mean"] = one["running_mean"] - np.eye(n)[2] * 6 * np.sqrt(one["running_var"])
    assert len(fired("channels-shifted", site(ROWS[:, :n], "bn", gamma=1.5, beta=0.1, **one))) == speaks


def few(n: int) -> dict[str, np.ndarray]:
    """Matching running statistics of the first channels."""
    return {name: value[:n] for name, value in stored().items()}


USUAL = {"shift": 0.0, "scale_ratio": 1.0, "shift_q": 0.001, "scale_q": 0.001}


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({}, None),
        (
            {"shift": 3.1},
            "mean +3.10 running σ from the running mean (threshold 3) in channel 7; out of bounds in 1 of 40 channels.",
        ),
        ({"shift": -3.1}, "mean -3.10 running σ from"),
        ({"shift": 3.0}, None),
        ({"scale_ratio": 4.1}, "std 4.1 times the running one (thresholds 0.25 and 4) in channel 7"),
        ({"scale_ratio": 0.24}, "std 0.24 times the running one"),
        ({"scale_ratio": 4.0}, None),
        ({"scale_ratio": 0.26}, None),
        ({"shift": 3.1, "shift_q": 0.01}, None),
        ({"shift": 3.1, "shift_q": np.nan}, None),
        ({"scale_ratio": 4.1, "scale_q": 0.01}, None),
        ({"scale_ratio": 0.0}, None),
        ({"shift": 6.0, "scale_ratio": 15.9}, "mean +6.00"),
        ({"shift": 6.0, "scale_ratio": 16.1}, "std 16.1"),
    ],
)
def test_one_channel_at_its_limits(cells: dict[str, float], told: str | None) -> None:
    """Fails if chance counts, a limit moves, or the statistic that is named is not the farther one."""
    base = evidence(site(ROWS, gamma=1.5, beta=0.1, **stored()))
    columns = {name: [usual] * 7 + [cells.get(name, usual)] + [usual] * 32 for name, usual in USUAL.items()}
    found = findings("channels-shifted", edited(base, columns, normalized_by="running"))
    assert len(found) == (told is not None)
    for one in found:
        assert one.because.startswith(str(told))
        assert one.channels == (7,)


@pytest.mark.parametrize(("n", "told"), [(1, True), (2, True), (3, False)])
def test_a_twentieth_of_the_channels_are_single_ones(n: int, told: bool) -> None:
    """Fails if more than a twentieth, or fewer, are an exception: of 40 channels two are."""
    base = evidence(site(ROWS, gamma=1.5, beta=0.1, **stored()))
    columns = {
        **{name: value for name, value in USUAL.items() if name != "shift"},
        "shift": [5.0] * n + [0.0] * (40 - n),
    }
    found = findings("channels-shifted", edited(base, columns, normalized_by="running"))
    assert len(found) == told
    for one in found:
        words = (
            "1 channel of this norm does not match its"
            if n == 1
            else "2 channels of this norm do not match their"
        )
        assert one.says == f"{words} running statistics, while the other {40 - n} do."
        assert (", the farthest" in one.because) is (n > 1)


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"shift": 0.24}, True),
        ({"shift": -0.26}, False),
        ({"scale_ratio": 1.41}, True),
        ({"scale_ratio": 1.42}, False),
        ({"scale_ratio": 0.7}, False),
    ],
)
def test_the_others_must_match(others: dict[str, float], told: bool) -> None:
    """Fails if the tail of a shift of all is told as an exception: half the limit of a norm, and √2."""
    base = evidence(site(ROWS, gamma=1.5, beta=0.1, **stored()))
    columns: dict[str, Any] = {**USUAL, **others}
    columns["shift"] = [5.0] + [others.get("shift", 0.0)] * 39
    found = findings("channels-shifted", edited(base, columns, normalized_by="running"))
    assert len(found) == told


@pytest.mark.parametrize(("n", "told"), [(8, True), (7, False)])
def test_a_few_stand_out_among_eight(n: int, told: bool) -> None:
    """Fails if one channel of any number stands out, or eight are too few."""
    rows = ROWS[:, :n]
    base = evidence(
        site(rows, gamma=1.5, beta=0.1, running_mean=rows.mean((0, 2)), running_var=rows.var((0, 2)))
    )
    columns = {**USUAL, "shift": [5.0] + [0.0] * (n - 1)}
    assert len(findings("channels-shifted", edited(base, columns, normalized_by="running"))) == told
    assert findings("channels-shifted", edited(base, columns, normalized_by="batch")) == []
