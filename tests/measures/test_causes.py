"""Causes of a discrepancy from the running statistics, each planted into one norm and told from the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bnprobe.measures import causes, tables
from bnprobe.measures.causes import fit
from bnprobe.measures.causes.fit import Moments2
from bnprobe.measures.causes.sites import _is_of, _step
from bnprobe.measures.stored_variance import var_as_stored
from bnprobe.recording import LayerRecord
from measures.sites import recording, site

RNG = np.random.default_rng(12)
N, C, P = 240, 16, 30
GROUP = np.repeat(np.arange(4), N // 4)
WEIGHTS = RNG.uniform(0.2, 2.0, C)
"""How much of a channel's variance lies between the four groups."""
ROWS = (
    (GROUP[:, None] - 1.5)[:, :, None] * WEIGHTS[None, :, None] * RNG.choice([-1, 1], C)[None, :, None]
    + RNG.normal(size=(N, C, P))
    + RNG.normal(size=(1, C, 1)) * 2
) * RNG.uniform(0.5, 2, C)[None, :, None]


def found(rows: np.ndarray = ROWS, **changes: Any) -> pd.DataFrame:
    """The causes at a norm with these running statistics."""
    return causes.table(recording(site(rows, **changes)))


def statistics(rows: np.ndarray) -> dict[str, np.ndarray]:
    return {"running_mean": rows.mean((0, 2)), "running_var": rows.var((0, 2))}


def certain(table: pd.DataFrame) -> list[str]:
    return table.loc[table["certain"], "cause"].tolist()


def test_what_is_left_is_that_of_means_and_of_logs_of_the_std():
    """Fails if a mean is measured in one side's standard deviations, or a scale not in its logarithm."""
    seen, predicted = (
        Moments2(np.array([1.0]), np.array([4.0])),
        Moments2(np.array([3.0]), np.array([16.0])),
    )
    assert fit.left(seen, predicted, 0.0)[0] == pytest.approx(2**2 / 10 + np.log(2) ** 2)
    assert fit.left(predicted, seen, 0.0)[0] == pytest.approx(2**2 / 10 + np.log(2) ** 2)
    assert fit.explained(0.5, 1.0) == pytest.approx(0.75)


def test_statistics_that_match_have_no_cause():
    """Fails if chance is explained."""
    assert found(**statistics(ROWS)).empty


def test_buffers_averaged_over_groups_lack_the_variance_between_them():
    """Fails if means that fit, and variances too small by that between groups, are not told."""
    within = np.mean([ROWS[g == GROUP].var((0, 2)) for g in range(4)], axis=0)
    table = found(running_mean=ROWS.mean((0, 2)), running_var=within)
    assert certain(table) == ["groups"]
    assert table["explains"].iloc[0] > 0.95


def test_a_buffer_of_zeros_lacks_no_variance_between_groups():
    """Fails if a running variance that was set by hand, one value for all channels, is put down to groups of samples."""
    table = found(running_mean=ROWS.mean((0, 2)), running_var=np.zeros(C))
    assert not table["cause"].isin(("groups", "one group")).any()


def test_inputs_far_larger_within_samples_are_not_groups():
    """Fails if inputs that are a hundred times too large are said to lack the variance between groups, most of which they
    have: within samples, too, they vary more than statistics without groups allow."""
    within = np.mean([ROWS[g == GROUP].var((0, 2)) for g in range(4)], axis=0)
    larger = ROWS.mean((0, 2))[:, None] + 100 * (ROWS - ROWS.mean((0, 2))[:, None])
    table = found(larger, running_mean=ROWS.mean((0, 2)), running_var=within)
    assert not table["cause"].isin(("groups", "one group")).any()


def test_the_buffers_of_one_group_are_told():
    """Fails if one client's statistics, another mean and less variance in every channel, are not told from all clients'."""
    table = found(**statistics(ROWS[GROUP == 0]))
    assert certain(table) == ["one group"]
    assert table["explains"].iloc[0] > 0.95


def test_shifts_of_about_one_size_are_not_those_of_one_group():
    """Fails if a free sign for every channel makes a group of any shifts of about the predicted sizes: these are the same in
    every channel, while the groups lie up to ten times as far apart in one as in another."""
    sizes = np.linspace(0.2, 2.0, C)
    rows = (GROUP[:, None, None] - 1.5) * sizes[:, None] + np.random.default_rng(0).normal(size=(N, C, 10))
    within = np.mean([rows[g == GROUP].var((0, 2)) for g in range(4)], axis=0)
    away = 0.45 * np.sqrt(rows.var((0, 2)) - within)
    told = found(rows, running_mean=rows.mean((0, 2)) + away, running_var=within)
    assert certain(told) == ["one group"]
    alike = found(rows, running_mean=rows.mean((0, 2)) + away.mean(), running_var=within)
    assert certain(alike) == []


def test_another_spread_is_not_a_lack_of_groups():
    """Fails if data that vary 1.4 times as much in every channel are said to come in groups."""
    now = statistics(ROWS)
    assert certain(found(running_mean=now["running_mean"], running_var=now["running_var"] / 2)) == []


def test_a_mean_that_moved_is_not_one_group():
    """Fails if a mean alone makes a group: the variances fit."""
    now = statistics(ROWS)
    away = 1.3 * np.sqrt(now["running_var"]) * WEIGHTS
    assert certain(found(running_mean=now["running_mean"] + away, running_var=now["running_var"])) == []


@pytest.mark.parametrize("k", [999.98, 1 / 300, 5.0])
def test_a_common_factor_is_told_from_a_gain(k):
    """Fails if mean and variance times k are taken for larger inputs (mean times k, variance times k²), or the reverse."""
    now = statistics(ROWS)
    table = found(**{name: k * value for name, value in now.items()})
    assert certain(table) == ["factor"]
    assert table["facts"].iloc[0]["factor"] == pytest.approx(k, rel=0.01)
    louder = found(running_mean=k * now["running_mean"], running_var=k**2 * now["running_var"])
    assert certain(louder) == []
    assert louder["cause"].iloc[0] == "gain"


@pytest.mark.parametrize(("updates", "momentum"), [(1, 0.1), (5, 0.1), (20, 0.1), (100, 0.01)])
def test_young_statistics_hold_their_initial_values(updates, momentum):
    """Fails if 0 and 1 that are left in the running statistics are taken for other data."""
    left = (1 - momentum) ** updates
    now = statistics(5 * ROWS)
    young = {
        "running_mean": (1 - left) * now["running_mean"],
        "running_var": left + (1 - left) * now["running_var"],
    }
    table = found(5 * ROWS, **young, n_batches_tracked=updates, momentum=momentum)
    assert certain(table) == ["young"]
    assert table["left_over"].iloc[0] < 1e-6
    # the same numbers after a thousand updates come from elsewhere
    assert "young" not in set(found(5 * ROWS, **young, n_batches_tracked=1000)["cause"])


def test_a_cause_must_predict_both():
    """Fails if running statistics that are a third of the mean, as young ones, may have any variance."""
    now, left = statistics(ROWS), 0.9**4
    assert (
        certain(
            found(
                running_mean=(1 - left) * now["running_mean"],
                running_var=4 * now["running_var"],
                n_batches_tracked=4,
                momentum=0.1,
            )
        )
        == []
    )


def test_channels_that_are_not_finite_say_nothing():
    """Fails if a NaN, an infinity or a negative variance in one channel hides the cause of the others, or warns."""
    now = statistics(ROWS)
    broken = {name: 300 * value for name, value in now.items()}
    broken["running_mean"][0], broken["running_var"][1], broken["running_var"][2] = np.nan, np.inf, -1
    assert certain(found(**broken)) == ["factor"]


def instance(record_rows: np.ndarray, **changes: Any) -> LayerRecord:
    return site(record_rows, kind="instance_norm", **changes)


def test_an_instance_norm_stores_the_variance_within_samples():
    """Fails if the variance between samples, which an instance norm never sees, is missed in its running variance."""
    within = ROWS.var(axis=2).mean(axis=0)
    record = instance(ROWS, running_mean=ROWS.mean((0, 2)), running_var=within)
    np.testing.assert_allclose(var_as_stored(record), within, rtol=1e-9)
    assert causes.discrepancy(record) < 1e-6
    row = tables(recording(record)).layers.iloc[0]
    assert row["var_ratio_median"] == pytest.approx(1, rel=1e-6)
    assert row["verdict"] == "same"
    np.testing.assert_allclose(var_as_stored(replace(record, pools="batch")), ROWS.var((0, 2)), rtol=1e-9)


def stalled(rows: np.ndarray, momentum: float, dtype: str = "bfloat16") -> dict[str, Any]:
    """Running statistics of these rows, updated until rounding to `dtype` takes every update, by torch's own numbers."""
    torch_dtype = getattr(torch, dtype)
    mean, var = torch.zeros(C, dtype=torch_dtype), torch.ones(C, dtype=torch_dtype)
    target = [torch.tensor(one, dtype=torch.float32) for one in statistics(rows).values()]
    for _ in range(6000):
        mean, var = (
            (old.float() + momentum * (new - old.float())).to(torch_dtype)
            for old, new in zip((mean, var), target, strict=True)
        )
    return {
        "running_mean": mean.double().numpy(),
        "running_var": var.double().numpy(),
        "momentum": momentum,
        "parameter_dtype": dtype,
    }


def test_statistics_that_half_precision_could_not_move_are_named():
    """Fails if other data are blamed where updates were rounded away, or statistics in float32 have that cause."""
    coarse = stalled(ROWS, 0.002)
    table = found(**coarse)
    assert certain(table) == ["coarse"]
    assert table["facts"].iloc[0] == {"dtype": "bfloat16", "momentum": 0.002}
    assert table["explains"].iloc[0] > 0.99
    assert "coarse" not in certain(found(**{**coarse, "parameter_dtype": "float32"}))
    kept = {**coarse, "running_mean": coarse["running_mean"] * (1 + 1e-5)}
    assert "coarse" not in certain(found(**kept))


@pytest.mark.parametrize(("gain", "away"), [(4.0, 0.0), (1.0, 3.0), (0.25, 0.0)])
def test_other_inputs_are_not_blamed_on_half_precision(gain: float, away: float):
    """Fails if the type alone explains a discrepancy that is larger than what rounding can take, or on its other side."""
    trained = (
        4 * ROWS
    )  # variances above 1: of larger inputs all are farther on the way from the initial 0 and 1
    rows = trained * gain + away * trained.std((0, 2))[:, None] * RNG.choice([-1, 1], C)[:, None]
    assert "coarse" not in certain(found(rows, **stalled(trained, 0.1)))


@pytest.mark.parametrize(("dtype", "bits"), [("bfloat16", 8), ("float16", 11)])
def test_the_step_of_half_precision_is_that_of_torch(dtype: str, bits: int):
    """Fails if numbers of a type are not known as such, or the next one is elsewhere than torch has it."""
    values = torch.tensor([0.3, 1.0, 1.7, 5.0, 300.0]).to(getattr(torch, dtype))
    following = torch.nextafter(values, torch.full_like(values, torch.inf))
    step = (following.double() - values.double()).numpy()
    np.testing.assert_array_equal(_step(values.double().numpy(), dtype), step)
    assert _is_of(values.double().numpy(), dtype)
    assert not _is_of(values.double().numpy() * (1 + 2.0 ** -(bits + 2)), dtype)
    assert _step(np.zeros(1), dtype)[0] == 0
