"""Where a shift opens, is worst, and has healed, from the verdicts of the layers."""

from __future__ import annotations

import pandas as pd
import pytest

from bnprobe.measures.shift_by_depth import Course, course
from bnprobe.recording.names import NO_STATISTICS


def layers(*verdicts: str, distances: list[float] | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        {"verdict": verdicts, "w2_rms": distances or [0.1] * len(verdicts)}, index=range(len(verdicts))
    )


def test_where_it_opens_is_worst_and_has_healed():
    """Fails if a pause in the middle counts as healed, or the worst is sought among the healthy."""
    table = layers(
        "same",
        "scale shifted",
        "same",
        "mean shifted",
        "same",
        "same",
        distances=[0.1, 0.3, 0.1, 0.4, 0.9, 0],
    )
    assert course(table) == Course(opens=1, worst=3, healed=4, n_shifted=2, n_judged=6)


def test_a_shift_that_reaches_the_end_has_not_healed():
    """Fails if a last layer that could not be judged passes for a healed one."""
    table = layers("mean and scale shifted", "same", "mean shifted", "too few samples", NO_STATISTICS)
    assert course(table) == Course(opens=0, worst=0, healed=None, n_shifted=2, n_judged=3)


def test_layers_that_could_not_be_judged_are_passed_over():
    """Fails if a layer norm between two batch norms heals or opens anything."""
    table = layers("never updated", NO_STATISTICS, "scale shifted", NO_STATISTICS, "too few samples", "same")
    assert course(table) == Course(opens=2, worst=2, healed=5, n_shifted=1, n_judged=2)


@pytest.mark.parametrize("verdicts", [(), ("same", "same"), (NO_STATISTICS,)])
def test_no_shift_has_no_course(verdicts):
    """Fails if an empty table raises."""
    found = course(layers(*verdicts))
    assert (found.opens, found.worst, found.healed, found.n_shifted) == (None, None, None, 0)


def test_positions_are_those_of_rows_whatever_the_index():
    """Fails if the labels of a filtered table are taken for positions."""
    table = layers("same", "same", "mean shifted", "same").set_index(pd.Index([7, 3, 9, 1]))
    assert course(table.iloc[1:]) == Course(opens=1, worst=1, healed=2, n_shifted=1, n_judged=3)
