"""Norms of A that B holds in the weights before them: what is left of the norm, and whether a bias adds what it added."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from measures.sites import recording, site, some_rows

import bnprobe
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Folded, Neighbours

C = 8
ROWS = some_rows(n_channels=C)
RNG = np.random.default_rng(0)
STORED = {
    "gamma": RNG.normal(1, 0.2, C),
    "beta": RNG.normal(0, 0.5, C),
    "running_mean": RNG.normal(0, 1, C),
    "running_var": RNG.uniform(3, 9, C),
}
NEW = {"gamma": 1.0, "beta": 0.0, "running_mean": 0.0, "running_var": 1.0}
LENGTHS = RNG.uniform(1, 2, C)
SCALE = STORED["gamma"] / np.sqrt(STORED["running_var"] + 1e-5)
ADDED = STORED["beta"] - STORED["running_mean"] * SCALE


def norm(lengths: np.ndarray, bias: np.ndarray | None = None, layer: str = "x", **stored: Any) -> LayerRecord:
    made = site(ROWS, layer, **stored)
    around = Neighbours("relu", "c", folded=Folded(lengths, -lengths, lengths, bias))
    return replace(made, neighbours=around)


def told(a: LayerRecord, b: LayerRecord) -> tuple[list[tuple[str, str]], set[str]]:
    sides = (recording(one, replace(one, layer="y")) for one in (a, b))
    found = bnprobe.compare(*sides).findings
    mine = found[found["rule"] == "fold-unfinished"]
    return list(zip(mine["severity"], mine["says"], strict=True)), set(found["rule"])


def test_a_norm_that_stays_acts_twice() -> None:
    """Fails if a folded norm that kept its vectors passes, or is said to have been frozen while its weights learned."""
    (((severity, says),), rules) = told(norm(LENGTHS, **STORED), norm(LENGTHS * SCALE, ADDED, **STORED))
    assert severity == "critical"
    assert says.endswith("and are in B as well: they act twice.")
    assert "statistics-outdated" not in rules


@pytest.mark.parametrize(
    ("bias_a", "bias_b", "severity"),
    [
        (None, ADDED, "info"),
        (None, None, "critical"),
        (None, -ADDED, "critical"),
        (np.full(C, 2.0), ADDED + 2 * SCALE, "info"),
        (np.full(C, 2.0), ADDED, "critical"),
    ],
    ids=["right", "no bias", "another", "with A's", "without A's"],
)
def test_norms_that_were_built_again(
    bias_a: np.ndarray | None, bias_b: np.ndarray | None, severity: str
) -> None:
    """Fails if the bias is not looked at, or vectors that are in the weights are reported as lost or reset."""
    ((row,), rules) = told(norm(LENGTHS, bias_a, **STORED), norm(LENGTHS * SCALE, bias_b, **NEW))
    assert row[0] == severity
    assert not rules & {"statistics-lost", "affine-reset", "channels-unrelated"}


@pytest.mark.parametrize(
    "lengths",
    [LENGTHS, LENGTHS * SCALE * np.exp(0.05 * (-1.0) ** np.arange(C)), LENGTHS * np.roll(SCALE, 1)],
    ids=["as they were", "5% off", "of other channels"],
)
def test_weights_that_changed_otherwise(lengths: np.ndarray) -> None:
    """Fails if weights of other lengths are taken for folded ones, and lost statistics are not reported for that."""
    (none, rules) = told(norm(LENGTHS, **STORED), norm(lengths, ADDED, **NEW))
    assert none == []
    assert "statistics-lost" in rules


def test_a_norm_that_divides_by_one() -> None:
    """Fails if weights that did not change are said to hold a norm whose factor is 1 in every channel."""
    ones = {**STORED, "gamma": 1.0, "running_var": 1 - 1e-5}
    assert told(norm(LENGTHS, **ones), norm(LENGTHS, **ones))[0] == []


@pytest.mark.parametrize(("lengths", "told_of"), [(LENGTHS * 1.3, True), (LENGTHS, False)])
def test_weights_that_changed_over_the_same_norm(lengths: np.ndarray, told_of: bool) -> None:
    """Fails if merged or pruned weights before a norm of the same statistics are not noted, or there is a note on none."""
    found = bnprobe.compare(recording(norm(LENGTHS, **STORED)), recording(norm(lengths, **STORED))).findings
    of_statistics = found[found["rule"] == "statistics-outdated"]
    assert list(of_statistics["severity"]) == ["info"] * told_of
    assert list(of_statistics["layer"]) == ["x"] * told_of
