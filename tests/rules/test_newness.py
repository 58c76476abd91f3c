"""Who is new, and what is no fault there: each rule beside the same network after training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from measures.sites import call_log, gradient, recording, some_rows
from measures.sites import site as recorded

from bnprobe.measures import tables
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Neighbours
from bnprobe.rules.newness import FIRST_BATCHES, beyond_start
from bnprobe.rules.rule import Evidence
from rules.firing import fired

ROWS = some_rows(40)
UNTOUCHED: dict[str, Any] = {
    "gamma": 1,
    "beta": 0,
    "running_mean": 0,
    "running_var": 1,
    "n_batches_tracked": 0,
}
BEGUN = {"gamma": [1, 1.05, 0.95], "beta": [0.02, 0, -0.05], "running_mean": 0.2, "running_var": 0.7}
BEGUN |= {"n_batches_tracked": 5}
TRAINED = {**BEGUN, "gamma": [1, 1.3, 0.7]}


def is_new(*layers: LayerRecord) -> bool:
    return Evidence.of(tables(recording(*layers))).is_new


def bn(layer: str = "bn", **changes: Any) -> LayerRecord:
    return recorded(ROWS, layer, **{**UNTOUCHED, **changes})


def ln(layer: str = "ln", kind: str = "layer_norm", **changes: Any) -> LayerRecord:
    return recorded(ROWS, layer, kind, **{"gamma": 1, "beta": 0, **changes})


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([bn()], True),
        ([bn(gamma=0)], True),
        ([bn(gamma=[1, 0, 1])], False),
        ([bn(gamma=[0.93, 1.08, 1.01])], True),
        ([bn(gamma=[0.93, 1.11, 1.01])], False),
        ([bn(gamma=None, beta=None)], True),
        ([bn(**BEGUN)], True),
        ([bn(**TRAINED)], False),
        ([bn(**{**BEGUN, "beta": [0.02, 0, 0.11]})], False),
        ([bn(**{**BEGUN, "n_batches_tracked": FIRST_BATCHES})], True),
        ([bn(**{**BEGUN, "n_batches_tracked": FIRST_BATCHES + 1})], False),
        ([bn(**{**BEGUN, "n_batches_tracked": None})], False),
        ([bn(**{**BEGUN, "n_batches_tracked": 1})], True),
        ([bn(n_batches_tracked=None)], True),
        ([bn(n_batches_tracked=5000)], False),
        ([bn(gamma=1.01, call_log=call_log(n_updates=100, running_mean_after=np.ones(3)))], True),
        ([bn(gamma=1.01, call_log=call_log(n_updates=101, running_mean_after=np.ones(3)))], False),
        ([bn(**{**BEGUN, "gamma": 1, "beta": 0, "n_batches_tracked": 22})], True),
        ([bn(**{**BEGUN, "gamma": 1, "beta": 0, "n_batches_tracked": 23})], False),
        ([bn(**{**BEGUN, "gamma": None, "beta": None, "n_batches_tracked": 22})], True),
        ([bn(**{**BEGUN, "gamma": None, "beta": None, "n_batches_tracked": 23})], False),
        ([bn("a"), bn("b", **TRAINED)], False),
        ([bn("a", **TRAINED), bn("b"), bn("c")], False),
        ([bn("a"), bn("b", gamma=[1, 0, 1])], False),
        ([ln()], True),
        ([ln(gamma=1.019, beta=-0.019)], True),
        ([ln(gamma=1.021, beta=0.001)], False),
        ([ln(gamma=1, beta=[0, 0, 0.021])], False),
        ([ln(gamma=[0.93, 1.08, 1.01])], True),
        ([ln("rms", "rms_norm", gamma=1.019, beta=None)], True),
        ([ln("rms", "rms_norm", gamma=1.021, beta=None)], False),
        ([ln(gamma=None, beta=None)], False),
        ([ln("in", "instance_norm", gamma=None, beta=None), ln()], True),
        ([], False),
    ],
)  # fmt: skip
def test_who_is_new(layers: list[LayerRecord], expected: bool) -> None:
    """Fails if a trained network with untouched layers is new, one in its first steps is not, or a limit moves."""
    assert is_new(*layers) is expected


def drawn(n: int = 8, n_channels: int = 16, batches: int = 3, **last: Any) -> list[LayerRecord]:
    """Norms whose γ and β one recipe drew, as RepVGG's does; `last` is another of the last one."""
    rng = np.random.default_rng(0)
    rows = some_rows(40, n_channels=n_channels)
    sites = []
    for i in range(n):
        vectors = {"gamma": rng.normal(0.1, 0.1, n_channels), "beta": rng.normal(0, 0.1, n_channels)}
        if i == n - 1:
            vectors |= {name: move(vectors[name]) for name, move in last.items()}
        statistics = {"running_mean": 0.2, "running_var": 0.7, "n_batches_tracked": batches}
        sites.append(recorded(rows, f"bn{i}", **vectors, **statistics))
    return sites


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"n": 7}, False),
        ({"n_channels": 15}, False),
        ({"batches": 22}, True),
        ({"batches": 23}, False),
        ({"batches": None}, False),
        # 0.3 is 12 standard errors of 0.1 / √16
        ({"gamma": lambda gamma: gamma + 0.3}, False),
        ({"beta": lambda beta: beta - 0.3}, False),
        ({"gamma": lambda gamma: gamma.mean() + 3 * (gamma - gamma.mean())}, False),
        ({"gamma": lambda gamma: np.full(16, gamma.mean())}, False),
    ],
)
def test_scales_that_one_recipe_drew_are_new(changes: dict[str, Any], expected: bool) -> None:
    """Fails if γ around 0.1 after three batches are those of training, or norms that training told apart are new."""
    assert is_new(*drawn(**changes)) is expected


def severities(rule: str, *layers: LayerRecord) -> list[str]:
    return list(fired(rule, *layers)["severity"])


@pytest.mark.parametrize(
    ("start", "severity"), [(BEGUN, "info"), (TRAINED, "warning")], ids=["new", "trained"]
)
def test_a_gradient_that_changes_its_size(start: dict[str, Any], severity: str) -> None:
    """Fails if the gradients of a network in its first steps are a warning, or those of a trained one no more."""
    layers = bn("a", **start, gradient=gradient(ROWS / 100)), bn("b", **start, gradient=gradient(ROWS))
    assert severities("gradient-breaks", *layers) == [severity]


@pytest.mark.parametrize(
    ("start", "severity"), [(BEGUN, "info"), (TRAINED, "warning")], ids=["new", "trained"]
)
def test_a_branch_that_starts_at_zero(start: dict[str, Any], severity: str) -> None:
    """Fails if γ of 0 at the end of a branch is a warning in a new network, or no warning after training."""
    branch = bn("b", **{**start, "gamma": 0, "beta": 0}, neighbours=Neighbours("add, relu", "conv", skip="a"))
    assert severities("branch-off", bn("a", **start), branch) == [severity]


@pytest.mark.parametrize(
    ("start", "n_backward", "severity"),
    [(BEGUN, 7, "info"), (TRAINED, 7, "warning"), (BEGUN, 8, "warning")],
    ids=["new", "trained", "many passes"],
)
def test_a_gradient_of_zero(start: dict[str, Any], n_backward: int, severity: str) -> None:
    """Fails if norms before what starts at 0 are a warning, or a gradient that never arrives is not."""
    silent = gradient(np.zeros_like(ROWS), n_passes=n_backward)
    assert severities("gradient-no-signal", bn("a", **start, gradient=silent), bn("b", **start)) == [severity]


def young(layer: str, **changes: Any) -> LayerRecord:
    """A norm in eval mode after 5 batches with momentum 0.1, in which 59% of the initial 0 and 1 are left."""
    mean, var, left = ROWS.mean((0, 2)), ROWS.var((0, 2)), 0.9**5
    stored = {
        "running_mean": (1 - left) * mean,
        "running_var": (1 - left) * var + left,
        "n_batches_tracked": 5,
    }
    return bn(layer, **{"gamma": 1.01, "beta": 0.01, **stored, **changes})


def test_what_is_left_of_the_initial_0_is_no_shift() -> None:
    """Fails if means of many standard deviations, which lag in the first batches, are reported in a new network."""
    rows = ROWS / 30 + np.arange(1, 4)[:, None] * 5
    left = 0.9**5
    stored = {
        "running_mean": (1 - left) * rows.mean((0, 2)),
        "running_var": (1 - left) * rows.var((0, 2)) + left,
    }
    far = recorded(rows, "far", gamma=1.01, beta=0.01, n_batches_tracked=5, momentum=0.1, **stored)
    row, channels = Evidence.of(tables(recording(far))).sites[0]
    assert row["shift_rms"] > 5
    np.testing.assert_allclose(beyond_start(row, channels), 0, atol=1e-6)
    assert fired("data-shifted", far).empty


def test_young_statistics_of_a_new_network_are_one_note() -> None:
    """Fails if a new network hears of its running statistics norm by norm, or that its inputs do not match them."""
    (note,) = fired("statistics-young", young("a"), young("b")).itertuples()
    assert (note.severity, note.layer) == ("info", "a")
    assert "in 2 norms" in note.because
    assert severities("statistics-young", young("a", gamma=1.3), young("b")) == ["warning", "warning"]
    off = {"running_mean": 50.0}
    assert severities("data-shifted", young("a", **off), young("b", **off)) == []
    assert severities("data-shifted", young("a", **off, gamma=1.3), young("b", **off)) == ["warning"]


def test_scales_drawn_around_one_are_initial_values() -> None:
    """Fails if the γ of a new DCGAN, or of a branch that starts at 0, are called trained without statistics."""
    drawn = fired("statistics-never-updated", bn("a", gamma=[0.98, 1.03, 1]), bn("b", gamma=0))
    assert list(drawn["severity"]) == ["info"]
    assert drawn["because"][0].startswith("so it is at all 2 places; at a, ")
    assert drawn["because"][0].endswith("γ is near 1 and β is 0.")
    (branch,) = fired("statistics-never-updated", bn("b", gamma=0))["because"]
    assert "γ is 0 and β is 0" in branch
    learned = fired("statistics-never-updated", bn("a", gamma=[0.5, 1.03, 1]), bn("b", gamma=0))
    assert list(learned["severity"]) == ["critical", "info"]


@pytest.mark.parametrize(
    ("gamma", "eps", "severity"), [(1, 1e-6, "info"), (1.3, 1e-6, "warning"), (1, 1e-2, "warning")]
)
def test_small_inputs_of_a_new_network(gamma: float, eps: float, severity: str) -> None:
    """Fails if inputs as small as the new weights are a warning, or an eps that is too large is not."""
    small = recorded(ROWS * math.sqrt(eps) / 100, "ln", "layer_norm", gamma=gamma, beta=0, eps=eps)
    assert severities("variance-below-eps", small) == [severity]


@pytest.mark.parametrize(
    ("gamma", "factor", "severity"), [(1, 90, "info"), (1, 110, "warning"), (1.3, 90, "warning")]
)
def test_unequal_channels_of_a_new_network(gamma: float, factor: float, severity: str) -> None:
    """Fails if what random weights make is a warning, or a channel that nothing random makes is not."""
    rows = np.random.default_rng(4).normal(size=(40, 8, 14))
    rows[:, 3] *= factor
    assert severities("outlier-dimensions", recorded(rows, "ln", "layer_norm", gamma=gamma, beta=0)) == [
        severity
    ]


@pytest.mark.parametrize(("gamma", "n"), [(1, 0), (1.3, 1)], ids=["new", "trained"])
def test_identities_of_a_new_network_are_its_own(gamma: float, n: int) -> None:
    """Fails if nothing was learned, and a norm is said to have been folded with what it learned."""
    assert len(fired("norm-folded", bn(gamma=gamma), folded=("conv.bn",))) == n


def test_tables_without_a_norm_are_not_new() -> None:
    """Fails if the concatenation of no tables is asked for."""
    assert Evidence(pd.DataFrame(), pd.DataFrame(columns=["layer", "call"]), pd.DataFrame()).is_new is False


@pytest.mark.parametrize(
    ("gamma", "beta"),
    [(1.0, [0.0, -0.1, 0.0]), ([0.5, 1, 1], 0.0), ([-0.1, 1, 1], 0.0), ([1, 1, 1.1001], None)],
)
def test_a_trained_network_is_known_without_a_look_at_each_norm(gamma: Any, beta: Any) -> None:
    """Fails if every norm of a large trained network is looked at, once for each sentence of its page."""
    rows = some_rows(8)
    stored = {"running_mean": 0.3, "running_var": 2.0, "n_batches_tracked": 1}
    trained = Evidence.of(tables(recording(recorded(rows, gamma=gamma, beta=beta, **stored))))
    assert not trained.is_new
    assert "sites" not in vars(trained)
    near = Evidence.of(tables(recording(recorded(rows, gamma=1.0, beta=[0.0, -0.0999, 0.0], **stored))))
    assert near.is_new


def test_what_a_new_network_in_eval_mode_brings_is_a_note() -> None:
    """Fails if statistics of three batches, which normalize little, make numbers or rounding a warning."""
    loud = recorded(1e5 * ROWS, "bn", **BEGUN)
    trained = recorded(1e5 * ROWS, "bn", **TRAINED)
    assert set(severities("half-overflow", loud)) == {"info"}
    assert set(severities("half-overflow", trained)) == {"warning"}
    far = recorded(ROWS + 1e6, "bn", **BEGUN)
    assert set(severities("digits-lost", far)) == {"info"}
    assert set(severities("digits-lost", recorded(ROWS + 1e6, "bn", **TRAINED))) == {"warning"}
    begins_at_0 = [ln(name, gamma=[-0.003, 0.003, -0.002], beta=0.001) for name in "abc"]
    assert severities("gain-convention", *begins_at_0) == []
    assert severities("gain-convention", *(ln(name, gamma=[-0.3, 0.3, -0.2]) for name in "abc")) == [
        "critical"
    ]


OLD = {**UNTOUCHED, "running_mean": 0.2, "running_var": 0.7, "n_batches_tracked": FIRST_BATCHES + 1}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([bn(**OLD), bn("next", **OLD)], True),
        ([bn(**OLD), bn("next", **{**OLD, "gamma": [0.95, 1.09, 1]})], True),
        ([bn(**OLD), bn("next", **{**OLD, "gamma": [0.95, 1.11, 1]})], False),
        ([bn(**OLD), bn("next", **{**OLD, "beta": [0, 0, 1e-6]})], False),
        ([bn(**OLD), bn("next", **{**OLD, "n_batches_tracked": FIRST_BATCHES})], False),
        ([bn(**OLD), bn("next", **{**OLD, "n_batches_tracked": None})], True),
        ([bn(**OLD), bn("next")], False),
        ([bn(**OLD), bn("next", **{**OLD, "gamma": None, "beta": None})], False),
        ([bn(**OLD), bn("next", **OLD), ln(gamma=0.3)], True),
        ([bn(**OLD)], False),
    ],
)
def test_whose_vectors_began_again(layers: list[LayerRecord], expected: bool):
    """Fails if a network that learned, a new one, or one norm alone counts, or what has no running statistics does."""
    assert Evidence.of(tables(recording(*layers))).begun_again is expected
