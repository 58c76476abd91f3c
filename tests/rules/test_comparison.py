"""Each rule of a comparison on the fault that it is for, and silent on a healthy pair."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from measures.sites import recording, running_stats_of, site, some_rows

import bnprobe
from bnprobe.recording import LayerRecord, Recording, TensorTable
from bnprobe.rules import COMPARED, Finding
from bnprobe.rules.rule import Evidence
from rules.edited import edited, findings

ROWS = some_rows(n=40)
STATISTICS = running_stats_of(ROWS)
GAMMA, BETA = [0.7, 0.5, 0.4], [0.1, 0.2, 0.3]
PLUS_ONE = [1.7, 1.5, 1.4]


def norm(layer: str = "bn", rows: np.ndarray = ROWS, **changes: object) -> LayerRecord:
    return site(rows, layer, **{"gamma": GAMMA, "beta": BETA, **STATISTICS, **changes})


def found(a: list[LayerRecord] | Recording, b: list[LayerRecord] | Recording, rule: str) -> pd.DataFrame:
    sides = (side if isinstance(side, Recording) else recording(*side) for side in (a, b))
    findings = bnprobe.compare(*sides).findings
    return findings[findings["rule"] == rule].reset_index(drop=True)


def holes() -> np.ndarray:
    rows = ROWS.copy()
    rows[3, 1, 2] = np.nan
    return rows


def beside(name: str, size: float, other: float = 0.0) -> Recording:
    """A norm, and a tensor beside it; `other` is the checksum of one more, which is so much larger than 2."""
    table = TensorTable(
        (name, "z"), ("float32",) * 2, ("3",) * 2, np.array([size, other]), np.array([size, 2 + other])
    )
    return replace(recording(norm()), tensors=table)


def of_one_training(seed: int, scale: float = 1.0) -> list[LayerRecord]:
    """Two norms whose vectors are drawn for this seed, channel by channel; their inputs are `scale` times as large."""
    rng = np.random.default_rng(seed)
    rows = some_rows(n=40, n_channels=60) * scale
    stored = running_stats_of(rows)
    return [
        site(
            rows,
            layer,
            gamma=rng.uniform(0.5, 1.5, 60),
            beta=rng.normal(size=60),
            running_mean=rng.normal(size=60),
            running_var=stored["running_var"].mean() * rng.uniform(0.5, 2, 60),
        )
        for layer in ("a", "b")
    ]


CASES = {
    "channels-unrelated": (of_one_training(1), of_one_training(2), "info"),
    "tensors-differ": (beside("m.scale", 1.0), beside("m.scale", 1e-6), "warning"),
    "tensors-unmatched": (beside("m.gamma", 1.0), beside("m.weight", 1.0), "warning"),
    "inputs-differ": ([norm()], [norm(rows=ROWS * 2 + 3)], "warning"),
    "modes-disagree": (
        [norm(running_mean=STATISTICS["running_mean"] + 2 * np.sqrt(STATISTICS["running_var"]))],
        [replace(site(ROWS, "bn", gamma=GAMMA, beta=BETA), n_calls_training=1, **{
            k: STATISTICS[k] for k in ("running_mean", "running_var")
        })],
        "warning",
    ),
    "statistics-outdated": ([norm()], [norm(gamma=[0.9, 0.5, 0.4])], "warning"),
    "frozen-statistics-moved": ([norm()], [norm(running_mean=STATISTICS["running_mean"] * 1.2)], "warning"),
    "statistics-lost": ([norm()], [norm(gamma=[0.9, 0.5, 0.4], running_mean=0.0, running_var=1.0)], "critical"),
    "channels-silenced": ([norm()], [norm(beta=[0.1, 0.2, -9.0])], "warning"),
    "became-nonfinite": ([norm()], [norm(rows=holes())], "critical"),
    "norm-replaced": ([norm()], [norm(eps=1e-3)], "warning"),
    "changed-alike": ([norm(), norm("next")], [norm(gamma=PLUS_ONE), norm("next", gamma=PLUS_ONE)], "warning"),
    "layers-unmatched": ([norm(), norm("more")], [norm()], "info"),
}  # fmt: skip


@pytest.mark.parametrize("rule", [rule.id for rule in COMPARED])
def test_each_rule_finds_its_fault_and_nothing_in_a_healthy_pair(rule):
    """Fails if a rule lands without a planted fault, is blind to it, or speaks where nothing changed."""
    a, b, severity = CASES[rule]
    assert list(found(a, b, rule)["severity"]) == [severity]
    assert found(a, a, rule).empty
    assert found(b, b, rule).empty


def test_what_says_the_sentence_names_the_numbers():
    """Fails if a finding of a comparison does not keep the form of all others."""
    for rule, (a, b, _) in CASES.items():
        row = found(a, b, rule).iloc[0]
        assert row["says"].endswith(".")
        assert any(c.isdigit() for c in row["because"]), rule
        assert len(row["do"]) > 20
        assert "nan" not in row["because"]


def test_inputs_of_unrelated_channels_are_not_compared():
    """Fails if networks from two initializations are said to get other inputs, channel by channel."""
    one, other = of_one_training(1), of_one_training(2, scale=3.0)
    assert not found(one, other, "channels-unrelated").empty
    assert found(one, other, "inputs-differ").empty


def test_tensors_beside_the_norms_are_counted():
    """Fails if one tensor is counted in the plural, or two in the singular."""
    one, far = beside("m.scale", 1.0), beside("m.scale", 1e-6)
    (row,) = found(one, far, "tensors-differ").itertuples()
    assert row.says.startswith("One tensor beside the norms differs in size by a factor of ")
    (row,) = found(one, beside("m.scale", 1e-6, 1e6), "tensors-differ").itertuples()
    assert row.says.startswith("2 tensors beside the norms differ in size by a factor of ")


def test_a_value_that_is_not_finite_names_the_vectors_too():
    """Fails if poisoned buffers pass because no data went through."""
    bad = np.array([np.nan, 1.0, 1.0])
    row = found([norm()], [norm(running_var=bad)], "became-nonfinite").iloc[0]
    assert row["channels"] == (0,)


def test_a_note_where_frozen_statistics_hardly_moved():
    """Fails if a thousandth of a standard deviation is a warning."""
    shifted = STATISTICS["running_mean"] + 1e-3 * np.sqrt(STATISTICS["running_var"])
    assert list(found([norm()], [norm(running_mean=shifted)], "frozen-statistics-moved")["severity"]) == [
        "info"
    ]


def test_statistics_that_moved_with_trained_weights_are_as_they_should_be():
    """Fails if fine-tuning that works is called a fault."""
    tuned = norm(gamma=[0.9, 0.5, 0.4], running_mean=STATISTICS["running_mean"] * 1.1)
    names = ("statistics-outdated", "frozen-statistics-moved", "statistics-lost")
    assert all(found([norm()], [tuned], name).empty for name in names)


def test_settings_leave_out_and_move_thresholds(tmp_path):
    """Fails if the rules of a comparison cannot be suppressed, or their thresholds not set."""
    file = tmp_path / "own.toml"
    pair = recording(norm()), recording(norm(rows=ROWS * 2 + 3))
    file.write_text('ignore = ["inputs-differ:bn"]')
    quiet = bnprobe.compare(*pair, config=file)
    assert quiet.findings.empty
    assert "1 finding ignored by" in quiet.to_text()
    file.write_text("[thresholds]\ngap = 50")
    assert bnprobe.compare(*pair, config=file).findings.empty


def between_modes(n_wider: int, name: str = "0 (p = 0.5)") -> list[Finding]:
    """What is said where so many of ten channels vary more in train mode, and dropout may be before the norm."""
    rows = some_rows(n=40, n_channels=10)
    side = recording(site(rows, **running_stats_of(rows)))
    tables = bnprobe.compare(side, side)
    evidence = edited(
        Evidence(tables.layers, tables.channels, tables.unmatched),
        {"pre_var_a": [4.0] * n_wider + [0.5] * (10 - n_wider), "pre_var_b": 1.0},
        mode_a="train",
        mode_b="eval",
        pre_gap=0.8,
        post_gap=0.0,
        dropout_before=name,
    )
    return findings("modes-disagree", evidence)


def test_dropout_widens_nearly_all_channels():
    """Fails if dropout is blamed where two of ten channels vary less in train mode, or is not where one of ten does."""
    (said,) = between_modes(9)
    assert "Dropout before this norm" in said.says
    assert "larger in 90% of the channels" in said.because
    assert between_modes(8) == []
    assert between_modes(10, name="") == []
