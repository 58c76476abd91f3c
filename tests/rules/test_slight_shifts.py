"""A mismatch below the thresholds: a note where it begins inside the network, and none otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bnprobe.recording.names import SAME, SHIFTED, TOO_FEW
from bnprobe.rules.rule import Evidence
from rules.edited import edited, evidence, findings, healthy

OFF = {"verdict": SHIFTED[0], "discrepancy": 0.4, "shifted_share": 0.9, "shift_rms": 0.35}
MATCHES = {"verdict": SAME, "discrepancy": 0.05}


def network(**second: Any) -> Evidence:
    """Three norms: one that matches, one of these cells, and one that is off a little."""
    found = evidence(*(healthy(name) for name in "abc"))
    for i, cells in enumerate((MATCHES, {**OFF, **second}, {**OFF, "discrepancy": 0.45})):
        found = edited(found, at=i, **cells)
    return found


def test_where_a_slight_mismatch_begins() -> None:
    """Fails if another norm is named, or it is more than a note."""
    (found,) = findings("data-shifted", network())
    assert (found.severity, found.layer) == ("info", "b")
    assert "0.4 running σ, 0.05 at a; up to 0.45 at 2 norms" in found.because


@pytest.mark.parametrize(
    ("cells", "layer"),
    [
        ({"discrepancy": 0.3}, "c"),
        ({"discrepancy": np.nextafter(0.3, 1)}, "b"),
        ({"verdict": SAME}, "c"),
        ({"verdict": TOO_FEW}, "c"),
        ({"shifted_share": 0.5, "scaled_share": 0.5}, "c"),
        ({"shifted_share": 0.1, "scaled_share": 0.9}, "b"),
    ],
)
def test_what_is_small_or_within_sampling_error_does_not_count(cells: dict[str, Any], layer: str) -> None:
    """Fails if a norm speaks that matches, that chance explains, or that is not beyond 0.3."""
    assert [found.layer for found in findings("data-shifted", network(**cells))] == [layer]


def test_inputs_that_are_a_little_different_are_no_such_note() -> None:
    """Fails if the note says that the inputs are right where the first norm shows that they are not quite."""
    assert findings("data-shifted", edited(network(), discrepancy=0.15)) == []
    assert len(findings("data-shifted", edited(network(), discrepancy=0.149))) == 1


def test_a_larger_mismatch_takes_its_place() -> None:
    """Fails if the note stands beside the warning on the same mismatch."""
    (found,) = findings("data-shifted", edited(network(), at=2, shift_rms=0.9, shifted_share=0.9))
    assert (found.severity, found.layer) == ("warning", "c")


@pytest.mark.parametrize(("ratio", "named"), [(1.3, True), (1.0, False)])
def test_branches_that_training_drops_are_named_in_the_note(ratio: float, named: bool) -> None:
    """Fails if stochastic depth without its rescaling, which may stay below the thresholds, has no name there."""
    found = evidence(*(healthy(name) for name in "abcd"))
    same = {**MATCHES, "follows": "add, relu"}
    for i, cells in enumerate((MATCHES, same, {**OFF, "var_ratio_median": ratio}, OFF)):
        found = edited(found, at=i, **cells)
    (note,) = findings("data-shifted", found)
    assert note.do.startswith("Inputs match up to the sum that b enters") == named


@pytest.mark.parametrize(
    ("cells", "speaks"),
    [
        ({"verdict": SHIFTED[0], "scaled_share": 0.6}, True),
        ({"verdict": SHIFTED[0], "scaled_share": 0.5}, False),  # within sampling error
        ({"verdict": SAME, "scaled_share": 0.6}, False),
    ],
)
def test_inputs_that_are_a_little_different_are_a_note_at_the_first_norm(
    cells: dict[str, Any], speaks: bool
) -> None:
    """Fails if recordings without their filter go unsaid because each norm is a little off, or chance is a note."""
    found = edited(network(), **{"discrepancy": 0.21, "shifted_share": 0.0, **cells})
    notes = findings("data-shifted", found)
    assert [(note.severity, note.layer) for note in notes] == [("info", "a")] * speaks
    assert all(
        "prepared as in training" in note.do and "0.21 running σ here; up to 0.45 at 2 norms" in note.because
        for note in notes
    )
