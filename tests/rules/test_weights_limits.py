"""Counts of batches beside calls and parts, without a model: rows by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from bnprobe.rules.weights import _as_called


def as_called(
    layer: str, counts: dict[str, int], calls: dict[str, int] | None = None, times: float = 2.0
) -> str:
    """What is said of a norm whose count is so many times the usual one."""
    layers = list(counts)
    counted = pd.DataFrame({"layer": layers, "n_batches_tracked": [float(n) for n in counts.values()]})
    of_calls = pd.Series({name: (calls or {}).get(name, 0) for name in layers})
    return _as_called(of_calls, layer, times, counted)


D4 = {"g.a": 40, "g.b": 40, "d.a": 80, "d.b": 80}


@pytest.mark.parametrize(
    ("calls", "says"),
    [
        ({"g.a": 1, "g.b": 1, "d.a": 2, "d.b": 2}, ", as it is called"),
        ({"g.a": 5, "g.b": 5, "d.a": 10, "d.b": 5}, ", as it is called"),
        ({"g.a": 5, "g.b": 5, "d.a": 5, "d.b": 10}, ""),
        ({"g.a": 5, "g.b": 5, "d.a": 15, "d.b": 10}, ""),
        # a single call that does not explain the count is an answer, too
        ({"g.a": 1, "g.b": 1, "d.a": 1, "d.b": 1}, ""),
        # of unequal others the median
        ({"g.a": 1, "g.b": 3, "d.a": 4, "d.b": 1}, ", as it is called"),
        # without calls, of itself or of the others, names tell
        ({}, ", in all norms of d"),
        ({"d.a": 2, "d.b": 2}, ", in all norms of d"),
        ({"g.a": 1, "g.b": 1}, ", in all norms of d"),
    ],
)
def test_a_count_that_calls_explain(calls: dict[str, int], says: str) -> None:
    """Fails if a single call is none, calls are compared with all norms, or the factor is turned over."""
    assert as_called("d.a", D4, calls) == says


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        (D4, ", in all norms of d"),
        # the first level at which names differ, after a common one
        ({f"net.{name}": n for name, n in D4.items()}, ", in all norms of d"),
        # one norm is no part, on either side
        ({"g.a": 40, "g.b": 40, "d.a": 80}, ""),
        ({"g.a": 40, "d.a": 80, "d.b": 80}, ""),
        # a part, or the rest, of several counts
        ({**D4, "d.c": 40}, ""),
        ({**D4, "g.c": 20}, ""),
        ({**D4, "g.c": 80}, ""),
        # a norm that is no part of anything has no name of one
        ({"g.a": 40, "g.b": 40, "net.d.a": 80, "net.d.b": 80}, ", in all norms of net"),
        ({"g": 40, "h": 40, "d": 80, "e": 80}, ""),
        # nor is it a part of itself, where another norm lies in it
        ({"g.a": 40, "g.b": 40, "d": 80, "d.a": 80}, ""),
    ],
)
def test_a_part_that_was_updated_as_a_whole(counts: dict[str, int], says: str) -> None:
    """Fails if a single norm is a part, other counts within one go unseen, or names are compared at another level."""
    layer = next(name for name in counts if name.split(".")[-1] in ("a", "d") and counts[name] == 80)
    assert as_called(layer, counts) == says


def test_one_norm_that_is_called_often_does_not_speak_for_the_others() -> None:
    """Fails if calls are compared with the mean of the others, which a single one moves."""
    counts = {"g.a": 40, "g.b": 40, "g.c": 40, "d.a": 80}
    assert as_called("d.a", counts, {"g.a": 1, "g.b": 1, "g.c": 10, "d.a": 2}) == ", as it is called"
    assert as_called("d.a", counts, {"g.a": 1, "g.b": 1, "g.c": 10, "d.a": 8}) == ""
