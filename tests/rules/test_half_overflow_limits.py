"""By how much inputs must shrink: by what was seen, or by what the running variance says, whichever is larger."""

from __future__ import annotations

from typing import Any

import pytest

from bnprobe.rules.edits import Rescale
from bnprobe.rules.half_overflow import _smaller
from rules.edited import evidence, frame

LIMITS = evidence().limits


@pytest.mark.parametrize(
    ("largest", "var", "factor"),
    [
        # 2^16 is brought to 2^6
        (2.0**16, [1e6, 1e4, 1e4], 2.0**-10),
        # a standard deviation of 2^16 in one channel of three, with inputs that happened to be small
        (2.0**9, [2.0**32, 1e6, 1e5], 2.0**-10),
        (64.0, [4000.0, 100.0, 4.0], 1.0),
    ],
)
def test_the_larger_of_what_was_seen_and_what_is_stored_decides(
    largest: float, var: list[float], factor: float
) -> None:
    """Fails if the smallest channel decides, or what was seen alone."""
    row: Any = {"layer": "bn", "feeder": "conv", "largest_input": largest, "eps": 1e-5, "kind": "batch_norm"}
    channels = frame(running_mean=[0.0] * 3, running_var=var, gamma=[1.0] * 3)
    _, edit = _smaller(row, channels, LIMITS)
    assert isinstance(edit, Rescale)
    assert edit.factor == factor
