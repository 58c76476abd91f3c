"""The statistics that norms take from each sample, on both sides: against the samples' own means and variances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from measures.sites import site, some_rows

from bnprobe.comparison.pairs import Pair
from bnprobe.comparison.per_sample import NAMES, own_columns

ROWS, OTHER = some_rows(9, 4), 1.5 * some_rows(9, 4, seed=3) + 0.7
EPS = 0.3


def groups(rows: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean over samples of each group's mean and of its variance, shape (G,), by numpy."""
    if kind == "instance_norm":
        return rows.mean(2).mean(0), rows.var(2).mean(0)
    if kind == "group_norm":
        return rows.mean((1, 2)).mean(0)[None], rows.var((1, 2)).mean(0)[None]
    if kind == "layer_norm":
        return np.array([rows.mean(1).mean()]), np.array([rows.var(1).mean()])
    return np.zeros(1), np.array([(rows**2).mean()])


@pytest.mark.parametrize("kind", ["instance_norm", "group_norm", "layer_norm", "rms_norm"])
@pytest.mark.parametrize("eps", [(EPS, EPS), (EPS, 9.0), (9.0, EPS)])
def test_what_each_sample_gives(kind: str, eps: tuple[float, float]) -> None:
    """Fails if sides are exchanged, a ratio is of variances, or the larger eps belongs to the unit."""
    found = own_columns(Pair(site(ROWS, kind=kind, eps=eps[0]), site(OTHER, kind=kind, eps=eps[1])))
    (mean_a, var_a), (mean_b, var_b) = groups(ROWS, kind), groups(OTHER, kind)
    unit = np.sqrt((var_a + var_b) / 2 + EPS)
    shift, width = (mean_b - mean_a) / unit, (np.sqrt(var_b) - np.sqrt(var_a)) / unit
    assert found["own_shift"] == pytest.approx(np.mean(shift), rel=1e-9)
    ratio = np.sqrt(var_b / var_a)
    assert found["own_ratio"] == pytest.approx(np.prod(ratio) ** (1 / len(ratio)), rel=1e-9)
    assert found["own_gap"] == pytest.approx(np.sqrt(np.mean(shift**2 + width**2)), rel=1e-9)


def test_the_same_on_both_sides_is_no_difference() -> None:
    """Fails if a group without variance has no ratio to itself."""
    flat = np.ones((5, 4, 6))
    for rows in (ROWS, flat):
        one = site(rows, kind="instance_norm")
        assert own_columns(Pair(one, one)) == {"own_shift": 0.0, "own_ratio": 1.0, "own_gap": 0.0}


def unknown(a: Any, b: Any) -> bool:
    found = own_columns(Pair(a, b))
    assert list(found) == list(NAMES)
    return bool(np.isnan(list(found.values())).all())


def test_sides_that_take_none_or_other_groups_have_no_difference() -> None:
    """Fails if a batch norm, or groups of another number, are compared as if they were alike."""
    norms = {kind: site(ROWS, kind=kind) for kind in ("batch_norm", "instance_norm", "group_norm")}
    assert unknown(norms["batch_norm"], norms["group_norm"])
    assert unknown(norms["group_norm"], norms["batch_norm"])
    assert unknown(norms["instance_norm"], norms["group_norm"])
    assert not unknown(norms["group_norm"], norms["group_norm"])
