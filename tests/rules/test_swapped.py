"""Vectors in each other's place: found in nearly all norms of a network, and exchanged by the advice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from measures.sites import memory_of, site, some_rows
from torch import nn

import bnprobe
from bnprobe.recording import LayerRecord
from rules.firing import fired

SWAPPED = "vectors-swapped"
C = 40


def vectors(seed: int) -> dict[str, np.ndarray]:
    """Of a trained norm."""
    rng = np.random.default_rng(seed)
    return {
        "gamma": np.abs(rng.normal(0.8, 0.25, C)),
        "beta": rng.normal(0.05, 0.3, C),
        "running_mean": rng.normal(0, 1, C),
        "running_var": rng.uniform(0.3, 1.6, C),
    }


def norm(layer: str, seed: int, *pair: str, **changes: Any) -> LayerRecord:
    """One norm, the vectors of `pair` exchanged."""
    held = vectors(seed)
    if pair:
        held[pair[0]], held[pair[1]] = held[pair[1]], held[pair[0]]
    return site(some_rows(n_channels=C), layer, **{**held, **changes})


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        (("gamma", "beta"), "γ and β have changed places in 3 norms"),
        (("running_mean", "running_var"), "Running mean and variance have changed places in 3 norms"),
    ],
)
def test_vectors_in_each_others_place(pair, says):
    """Fails if a converter's order is told on data only, or said of the wrong vectors."""
    (row,) = fired(SWAPPED, *(norm(name, i, *pair) for i, name in enumerate("abc"))).itertuples()
    assert (row.severity, row.layer) == ("critical", "a")
    assert says in row.says


@pytest.mark.parametrize(
    ("rule", "gamma", "beta"), [("channels-constant", 0.001, 0.8), ("channels-dead", 1e-6, 1e-5)]
)
def test_gains_that_are_shifts_are_not_reinitialized(rule: str, gamma: float, beta: float):
    """Fails if channels are to be reinitialized, or removed, because the β that stands for their γ is near 0."""

    def found_in_a_file(*names: str) -> set[str]:
        """Rules that speak of three norms with these names of γ and β, whose first channel reads so."""
        state: dict[str, torch.Tensor] = {}
        for i in range(3):
            columns = zip((*names, "running_mean", "running_var"), vectors(i).values(), strict=True)
            state |= {f"{i}.{name}": torch.from_numpy(values) for name, values in columns}
            state[f"{i}.weight"][0], state[f"{i}.bias"][0] = gamma, beta
        return set(bnprobe.check(state).findings["rule"])

    assert rule in found_in_a_file("weight", "bias")
    found = found_in_a_file("bias", "weight")
    assert SWAPPED in found
    assert rule not in found


def test_trained_norms_are_in_their_places():
    """Fails if γ of a few negative channels, or β that is mostly positive, is enough."""
    assert fired(SWAPPED, *(norm(name, i) for i, name in enumerate("abc"))).empty
    one_sign = [norm(name, i, beta=1.5 + np.abs(vectors(i)["beta"])) for i, name in enumerate("abc")]
    assert fired(SWAPPED, *one_sign).empty
    below = [
        norm(name, i, beta=2 + 0.1 * vectors(i)["beta"], gamma=-vectors(i)["gamma"])
        for i, name in enumerate("abc")
    ]
    assert fired(SWAPPED, *below).empty, (
        "values that are all negative lie around 0 no more than positive ones"
    )
    both_signs = [norm(name, i, gamma=vectors(i + 9)["beta"]) for i, name in enumerate("abc")]
    assert fired(SWAPPED, *both_signs).empty


@pytest.mark.parametrize(
    ("negative", "fires"), [(0.0, 0), (0.075, 0), (0.1, 1), (0.9, 1), (0.925, 0), (1.0, 0)]
)
def test_a_tenth_on_either_side_of_0_is_around_it(negative: float, fires: int):
    """Fails if a tenth of the channels itself is too few, below 0 or above."""
    gamma = np.where(np.arange(40) < round(40 * negative), -0.5, 0.5)
    rows = some_rows(n_channels=40)
    norms = [
        site(rows, name, gamma=gamma, beta=2.0 + 0.01 * np.arange(40), **memory_of(rows)) for name in "abc"
    ]
    assert len(fired(SWAPPED, *norms)) == fires


def test_norms_that_lack_one_of_both_say_nothing():
    """Fails if norms without an offset, or later calls of the same norms, hide that all others were exchanged."""
    swapped = [norm(name, i, "gamma", "beta") for i, name in enumerate("abc")]
    without = [norm(name, i, **{"gamma" if name in "df" else "beta": None}) for i, name in enumerate("defg")]
    (row,) = fired(SWAPPED, *swapped, *without).itertuples()
    assert "in 3 norms" in row.says
    again = [norm(name, i, call=1) for i, name in enumerate("abc")]
    assert len(fired(SWAPPED, *swapped, *again)) == 1


def test_new_norms_are_in_their_places():
    """Fails if γ at 1 or at 0, and β at 0, look exchanged."""
    for gamma in (1.0, 0.0):
        assert fired(SWAPPED, *(norm(name, 0, gamma=gamma, beta=0.0) for name in "abc")).empty


def test_one_norm_of_several_is_no_converter():
    """Fails if a single norm with unusual signs is said to hold vectors in each other's place."""
    assert fired(SWAPPED, norm("a", 0, "gamma", "beta"), norm("b", 1), norm("c", 2)).empty
    four = [norm(name, i, "gamma", "beta") for i, name in enumerate("abcd")]
    assert len(fired(SWAPPED, *four, norm("e", 5))) == 1


def test_variances_that_are_means_are_reported_once():
    """Fails if their negative values are reported as poisoned as well, or a variance that is negative by itself is not."""
    pair = "running_mean", "running_var"
    assert fired("statistics-poisoned", *(norm(name, i, *pair) for i, name in enumerate("abc"))).empty
    held = vectors(1)["running_var"]
    held[3] = -1
    assert len(fired("statistics-poisoned", norm("a", 0), norm("b", 1, running_var=held))) == 1


@pytest.mark.parametrize("pair", [("weight", "bias"), ("running_mean", "running_var")])
def test_the_advice_puts_them_back(pair):
    """Fails if the line in the finding leaves the network other than it was: its outputs are the same to the bit."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, C, 3), nn.BatchNorm2d(C), nn.Conv2d(C, C, 3), nn.BatchNorm2d(C)).eval()
    names = {"gamma": "weight", "beta": "bias"}
    with torch.no_grad():
        for i in (1, 3):
            for name, values in vectors(i).items():
                getattr(model[i], names.get(name, name)).copy_(torch.from_numpy(values))
    x = torch.randn(40, 3, 9, 9)
    before = model(x)
    state = model.state_dict()
    for i in (1, 3):
        a, b = (f"{i}.{name}" for name in pair)
        state[a], state[b] = state[b].clone(), state[a].clone()
    model.load_state_dict(state)
    found = bnprobe.report(bnprobe.record(model, [[x]])).findings.set_index("rule")
    exec(found.loc[SWAPPED, "do"].split("`")[1], {"model": model})
    assert torch.equal(model(x), before)
    assert SWAPPED not in set(bnprobe.report(bnprobe.record(model, [[x]])).findings["rule"])
