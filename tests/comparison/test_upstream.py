"""What lies before a norm and differs between the sides: the vectors of the norms before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from measures.sites import recording, site, some_rows

from bnprobe.comparison import pairs
from bnprobe.comparison.upstream import Upstream

ROWS = some_rows(20, n_channels=3)
STORED: dict[str, Any] = {
    "gamma": np.ones(3),
    "beta": np.zeros(3),
    "running_mean": np.zeros(3),
    "running_var": np.ones(3),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma", np.array([1, 1, 1.5])),
        ("beta", np.array([0, 0.1, 0])),
        ("running_mean", np.array([0.2, 0, 0])),
        ("running_var", np.array([1, 2.0, 1])),
        ("gamma", None),
    ],
)
def test_a_vector_that_differs_changes_what_comes_after_it(name: str, value: Any) -> None:
    """Fails if a vector that differs, or that one side lacks, is not seen by the next norm, or is by its own."""
    other = {**STORED, name: value}
    a, b = (
        recording(site(ROWS, "first", **mine), site(ROWS, "second", **STORED)) for mine in (STORED, other)
    )
    facts = list(Upstream.of(a, b).facts(pairs(a, b).common))
    assert [fact["weights_before_differ"] for fact in facts] == [False, True]


def test_equal_vectors_change_nothing() -> None:
    """Fails if NaN, or a vector that both sides lack, counts as a difference."""
    odd = {**STORED, "beta": None, "gamma": np.array([1, np.nan, 1])}
    a = recording(site(ROWS, "first", **odd), site(ROWS, "second", **STORED))
    facts = list(Upstream.of(a, a).facts(pairs(a, a).common))
    assert [fact["weights_before_differ"] for fact in facts] == [False, False]
