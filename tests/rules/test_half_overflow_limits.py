"""By how much inputs must shrink: by what was seen, or by what the running variance says, whichever is larger."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from bnprobe.recording.terms import MANY_EPS
from bnprobe.rules.edits import Rescale
from bnprobe.rules.half_overflow import _data_only, _smaller
from rules.edited import edited, evidence, findings, frame

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


@pytest.mark.parametrize(("eps", "with_eps"), [(2.0**-10, False), (2.0**-9.9, True), (2.0**-11, False)])
def test_eps_is_scaled_where_variances_come_near_it(eps: float, with_eps: bool) -> None:
    """Fails if a hundred times eps itself is near it: variances of 2^10 fall to 2^-10, by 2^-20."""
    row: Any = {"layer": "bn", "feeder": "conv", "largest_input": 2.0**16, "eps": eps / MANY_EPS}
    assert MANY_EPS * (2.0**-10 / MANY_EPS) == 2.0**-10
    _, edit = _smaller(
        row, frame(running_mean=[0.0] * 2, running_var=[2.0**10, 2.0**30], gamma=[1.0] * 2), LIMITS
    )
    assert edit == Rescale("conv", "bn", 2.0**-10, with_eps)


REACH = LIMITS.half_overflow / LIMITS.half_headroom


@pytest.mark.parametrize(
    ("ratio", "mean", "of_data"),
    [
        (9.0, [0.0, 0.0], True),
        (LIMITS.variance_ratio, [0.0, 0.0], False),
        (math.nextafter(LIMITS.variance_ratio, 9), [0.0, 0.0], True),
        (9.0, [REACH, 0.0], False),
        (9.0, [0.0, -REACH], False),
        (9.0, [math.nextafter(REACH, 0), 0.0], True),
        (math.nan, [0.0, 0.0], False),
    ],
)
def test_data_are_at_fault_where_running_statistics_fit(
    ratio: float, mean: list[float], of_data: bool
) -> None:
    """Fails if one channel that does not fit is passed over, or a limit is on the other side of itself."""
    assert (
        _data_only(
            pd.Series({"var_ratio_median": ratio}), frame(running_mean=mean, running_var=[0.0] * 2), LIMITS
        )
        is of_data
    )


@pytest.mark.parametrize("name", ["gamma", "beta", "running_mean", "running_var"])
@pytest.mark.parametrize(("value", "told"), [(65504.0, False), (65505.0, True), (math.inf, False)])
def test_the_largest_half_number_fits(name: str, value: float, told: bool) -> None:
    """Fails if it does not, or a vector is not looked at."""
    cells = {"running_mean": 0.0, "running_var": 1.0, "gamma": 1.0, "beta": 0.0, name: [value, 1.0, 1.0]}
    assert bool(findings("half-overflow", edited(evidence(), cells, largest_input=1.0))) is told
