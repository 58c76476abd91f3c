"""Parts that learn nothing: what is said of several norms of one."""

from __future__ import annotations

import math

import pytest

from bnprobe.rules import frozen_parts
from bnprobe.rules.edits import Remedy, SetMode
from bnprobe.rules.frozen_parts import _updates
from rules.edited import edited_rows, findings, frame


@pytest.mark.parametrize(
    ("updates", "says"),
    [
        ([3, 7], " in 7 updates"),
        ([7, 1], " in 7 updates"),
        ([0, 1], " in 1 update"),
        ([0, 0], ""),
        ([math.nan, 2], " in 2 updates"),
    ],
)
def test_the_most_updates_of_several_norms_are_said(updates: list[float], says: str) -> None:
    """Fails if a norm with fewer decides, or none are said."""
    assert _updates(frame(n_updates=updates)) == says


def test_parts_that_learn_nothing_are_put_into_eval_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if they are put into train mode, or a part is another's: b gets no gradient, and no step changes c."""
    for name, layers in (("without_steps", "c"), ("following_batches", "b"), ("unreached", "b")):
        monkeypatch.setattr(frozen_parts, name, lambda _, layers=layers: frozenset(layers))
    row = {"n_backward": 3, "memory_moved": 0.25, "n_updates": 4}
    without, left_out = findings("moving-without-gradient", edited_rows(row, row, row))
    assert (without.layer, without.remedy) == ("b", Remedy((SetMode("b", training=False),)))
    assert (left_out.layer, left_out.remedy) == ("c", Remedy((SetMode("c", training=False),)))
    for one in (without, left_out):
        assert "moved by up to 0.25 running σ in 4 updates" in one.because
        assert f"`model.{one.layer}.eval()`" in one.do
