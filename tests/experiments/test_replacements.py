"""Stages of a network, and what replaces a vector where layers before a norm imply it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from measures.sites import site, some_rows

from bnprobe.experiments.replacements import _implied, stages
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Implied, Neighbours

VALUES = (np.array([1.0, 2.0]), np.array([3.0, 4.0]))
IMPLIED = replace(
    site(some_rows(n_channels=2)),
    neighbours=Neighbours("relu", implied=Implied(*VALUES, *[np.zeros(2)] * 4)),
)


def norms(*paths: str) -> Any:
    return [type("Norm", (), {"path": path})() for path in paths]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (("a.1", "a.2", "b.1"), {"a": ["a.1", "a.2"]}),
        (("a.1", "a.2", "b.1", "b.2"), {"a": ["a.1", "a.2"], "b": ["b.1", "b.2"]}),
        (("m.a.1", "m.a.2", "m.b.1", "m.b.2"), {"m.a": ["m.a.1", "m.a.2"], "m.b": ["m.b.1", "m.b.2"]}),
        (("m.x.a.1", "m.x.a.2", "m.x.b.1"), {"m.x.a": ["m.x.a.1", "m.x.a.2"]}),
        # a path ends where the others go on
        (("m", "m.a.1", "m.a.2"), {}),
        (("m.a", "m.a.1", "m.a.2", "m.b"), {"m.a": ["m.a", "m.a.1", "m.a.2"]}),
        (("a.1", "a.2"), {}),
        (("a", "b"), {}),
        (("a",), {}),
        ((), {}),
    ],
)
def test_stages_are_parts_of_the_first_level_that_differs(
    paths: tuple[str, ...], expected: dict[str, list[str]]
) -> None:
    """Fails if a common beginning is a stage, one norm is, or all are."""
    found = stages(norms(*paths))
    assert {name: [norm.path for norm in members] for name, members in found.items()} == expected


@pytest.mark.parametrize(
    ("records", "known"),
    [
        ([IMPLIED], True),
        ([IMPLIED, IMPLIED], False),  # a shared norm, whose calls may get other inputs
        ([replace(IMPLIED, neighbours=None)], False),
        ([replace(IMPLIED, neighbours=Neighbours("relu"))], False),
        ([replace(IMPLIED, neighbours=None), IMPLIED], False),
    ],
)
def test_what_layers_before_imply_is_of_one_call(records: list[LayerRecord], known: bool) -> None:
    """Fails if a norm that is called twice takes what its first call gets, or one without neighbours is an error."""
    norm: Any = SimpleNamespace(records=records, layer=SimpleNamespace(n_channels=2))
    mean, var = _implied(norm, "mean"), _implied(norm, "var")
    np.testing.assert_array_equal(mean, [1.0, 2.0] if known else [np.nan] * 2)
    np.testing.assert_array_equal(var, [3.0, 4.0] if known else [np.nan] * 2)
