"""Each rule of a comparison on the fault that it is for, and silent on a healthy pair."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from measures.sites import recording, running_stats_of, site, some_rows

import bnprobe
from bnprobe.recording import LayerRecord
from bnprobe.rules import COMPARED

ROWS = some_rows(n=40)
STATISTICS = running_stats_of(ROWS)
GAMMA, BETA = [0.7, 0.5, 0.4], [0.1, 0.2, 0.3]


def norm(layer: str = "bn", rows: np.ndarray = ROWS, **changes: object) -> LayerRecord:
    return site(rows, layer, **{"gamma": GAMMA, "beta": BETA, **STATISTICS, **changes})


def found(a: list[LayerRecord], b: list[LayerRecord], rule: str) -> pd.DataFrame:
    findings = bnprobe.compare(recording(*a), recording(*b)).findings
    return findings[findings["rule"] == rule].reset_index(drop=True)


def holes() -> np.ndarray:
    rows = ROWS.copy()
    rows[3, 1, 2] = np.nan
    return rows


CASES = {
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
    assert "1 finding left out by" in quiet.to_text()
    file.write_text("[thresholds]\ngap = 50")
    assert bnprobe.compare(*pair, config=file).findings.empty
