"""Stages of a network: the parts of the first level at which the paths of norms differ."""

from __future__ import annotations

from typing import Any

import pytest

from bnprobe.experiments.replacements import stages


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
