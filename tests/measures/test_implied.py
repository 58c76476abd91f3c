"""What was implied: columns against loops, and every mistake and fresh network that must do worse."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnprobe.measures import implied, tables
from bnprobe.recording.neighbours import Implied, Neighbours
from measures.sites import recording, site, some_rows

OF_FILES = (
    "means_fit",
    "means_fit_unfolded",
    "means_fit_negated",
    "fits_like",
    "fits_layout",
    "directly_fed",
)
"""Columns that `checkpoints.fits` works out."""


def an_implied(c: int, mean: np.ndarray, var: np.ndarray, seed: int = 4) -> Implied:
    """Controls are the mean with growing noise."""
    noise = np.random.default_rng(seed).normal(size=(4, c))
    return Implied(mean, var, *(mean + (i + 1) * noise[i] for i in range(4)))


def a_site(c: int = 5, layer: str = "bn", seed: int = 1, **changes):
    rng = np.random.default_rng(seed)
    mean, var = rng.normal(size=c) * 3, rng.uniform(0.2, 4, size=c)
    guess = an_implied(c, mean + 0.3 * rng.normal(size=c), var * rng.uniform(0.3, 1, size=c), seed)
    fields = {"running_mean": mean, "running_var": var, "neighbours": Neighbours("relu", implied=guess)}
    return site(some_rows(n_channels=c), layer, eps=0.5, **{**fields, **changes})


def r2(truth: list[float], predicted: list[float]) -> float:
    mean = math.fsum(truth) / len(truth)
    left = math.fsum((t - p) ** 2 for t, p in zip(truth, predicted, strict=True))
    return 1 - left / math.fsum((t - mean) ** 2 for t in truth)


def test_columns_are_those_of_a_loop():
    """Fails if eps is left out of the standard deviation, the gap has the other sign, or the ratio is inverted."""
    record = a_site()
    guess = record.neighbours.implied
    found = implied.channel_columns(record)
    for c in range(5):
        sigma = math.sqrt(record.running_var[c] + 0.5)
        assert found["implied_mean"][c] == guess.mean[c]
        assert found["implied_gap"][c] == pytest.approx((record.running_mean[c] - guess.mean[c]) / sigma)
        assert found["implied_var_ratio"][c] == pytest.approx(record.running_var[c] / guess.var[c])


def test_a_layer_is_judged_in_running_sigmas():
    """Fails if R2 is that of a correlation, is taken in raw units, or a control is another's."""
    record = a_site()
    sigma = [math.sqrt(v + 0.5) for v in record.running_var]
    truth = [m / s for m, s in zip(record.running_mean, sigma, strict=True)]
    found = implied.layer_columns(record)

    def of(name: str) -> float:
        return r2(
            truth, [m / s for m, s in zip(getattr(record.neighbours.implied, name), sigma, strict=True)]
        )

    assert found["implied_mean_r2"] == pytest.approx(of("mean"))
    for name in implied.CONTROLS:
        assert found[f"implied_r2_{name}"] == pytest.approx(of(f"mean_{name}"))
    numbers = [value for name, value in found.items() if name not in OF_FILES]
    assert len({round(number, 6) for number in numbers}) == len(numbers)
    constant = [m / s for m, s in zip(record.neighbours.implied.mean_constant, sigma, strict=True)]
    guess = [m / s for m, s in zip(record.neighbours.implied.mean, sigma, strict=True)]
    left, by_constant = (
        math.fsum((t - p) ** 2 for t, p in zip(truth, tried, strict=True)) for tried in (guess, constant)
    )
    assert found["implied_skill"] == pytest.approx(1 - left / by_constant)
    without = [r2(truth[:c] + truth[c + 1 :], guess[:c] + guess[c + 1 :]) for c in range(5)]
    se = math.sqrt(4 / 5 * math.fsum((v - math.fsum(without) / 5) ** 2 for v in without))
    assert found["implied_r2_se"] == pytest.approx(se)
    gaps = implied.channel_columns(record)["implied_gap"]
    assert found["implied_mean_rmse"] == pytest.approx(math.sqrt(sum(g * g for g in gaps) / 5))
    ratios = sorted(implied.channel_columns(record)["implied_var_ratio"])
    assert found["implied_var_ratio_median"] == pytest.approx(ratios[2])


def test_layers_together_are_one_fit_about_one_mean():
    """Fails if layers are averaged: a layer far from the others adds to the total sum of squares."""
    first, second = a_site(5, "a"), a_site(3, "b", seed=2)
    far = replace(second, running_mean=second.running_mean + 50)
    far = replace(
        far,
        neighbours=Neighbours("relu", implied=an_implied(3, second.neighbours.implied.mean + 50, np.ones(3))),
    )
    found = implied.pooled([first, site(some_rows()), far])
    truth, guess = [], []
    for record in (first, far):
        sigma = np.sqrt(record.running_var + 0.5)
        truth += list(record.running_mean / sigma)
        guess += list(record.neighbours.implied.mean / sigma)
    assert (found.n_layers, found.n_channels) == (2, 8)
    assert found.r2 == pytest.approx(r2(truth, guess))
    assert found.r2 > max(implied.pooled([record]).r2 for record in (first, far))
    assert set(found.controls) == set(implied.CONTROLS)


def test_a_network_that_was_never_trained_has_nothing_to_imply():
    """Fails if means of 0 and variances of 1 pass for a perfect or a hopeless prediction."""
    fresh = a_site(running_mean=np.zeros(5), running_var=np.ones(5))
    found = implied.layer_columns(fresh)
    assert math.isnan(found["implied_mean_r2"])
    assert found["implied_mean_rmse"] > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"neighbours": None},
        {"neighbours": Neighbours("relu")},
        {"running_mean": None, "running_var": None},
        {"running_mean": None},
        {"running_var": None},
    ],
    ids=[
        "nothing found",
        "nothing implied",
        "no running statistics",
        "no running mean",
        "no running variance",
    ],
)
def test_what_is_not_known_is_nan(changes):
    """Fails if a norm without neighbours or running statistics is shown a number."""
    found = tables(recording(a_site(**changes)))
    for column in implied.COLUMNS:
        table = found.layers if column.table == "layers" else found.channels
        if column.name in ("fits_like", "fits_layout", "directly_fed"):
            assert not table[column.name].any(), column.name
        else:
            assert table[column.name].isna().all(), column.name


def test_a_constant_source_has_no_variance_to_compare_with():
    """Fails if a channel fed by dead channels only has an infinite ratio."""
    record = a_site()
    var = np.array([0.0, 1.0, np.nan, 2.0, 1.0])
    record = replace(
        record, neighbours=Neighbours("relu", implied=replace(record.neighbours.implied, var=var))
    )
    ratio = implied.channel_columns(record)["implied_var_ratio"]
    assert np.isnan(ratio).tolist() == [True, False, True, False, False]


def test_one_channel_that_is_not_finite_spoils_no_other():
    """Fails if one broken running mean makes a layer's R2 NaN."""
    record = a_site()
    mean = record.running_mean.copy()
    mean[2] = np.nan
    kept = np.array([0, 1, 3, 4])
    sigma = np.sqrt(record.running_var + 0.5)
    found = implied.pooled([replace(record, running_mean=mean)])
    assert found.n_channels == 4
    assert found.r2 == pytest.approx(
        r2(list((mean / sigma)[kept]), list((record.neighbours.implied.mean / sigma)[kept]))
    )
    assert not any(math.isnan(value) for value in found.controls.values())
