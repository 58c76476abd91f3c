"""Means of the inputs against a reference: errors and bounds by numpy and scipy, and what is compared with what."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bnprobe.errors import BnprobeError, CannotCompare, NothingRecorded
from bnprobe.measures.drift import DriftTables, _judged, _same_weights, drift_tables
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Folded, Neighbours
from measures.sites import recording, site, some_rows

NOW, REFERENCE = some_rows(9), some_rows(20, seed=4) + 0.3
ONE = np.ones(3)


def tables(now: np.ndarray = NOW, reference: np.ndarray = REFERENCE, alpha: float = 0.01) -> DriftTables:
    return drift_tables(recording(site(now)), recording(site(reference)), alpha)


def test_a_drift_is_in_deviations_of_the_reference_with_the_noise_of_both() -> None:
    """Fails if sides are exchanged, a deviation is that of now, or the error is of one side only: Welch's, by numpy."""
    found = tables()
    sigma = REFERENCE.std((0, 2))
    np.testing.assert_allclose(
        found.channels["drift"], (NOW.mean((0, 2)) - REFERENCE.mean((0, 2))) / sigma, rtol=1e-9
    )
    of_now, of_reference = (rows.mean(2).var(0, ddof=1) / len(rows) for rows in (NOW, REFERENCE))
    se = np.sqrt(of_now + of_reference) / sigma
    np.testing.assert_allclose(found.channels["drift_se"], se, rtol=1e-9)
    row = found.layers.iloc[0]
    assert (row["n_images"], row["n_reference"], row["n_channels"], row["n_drifted"]) == (9, 20, 3, 0)
    assert row["drift_rms"] == pytest.approx(np.sqrt((found.channels["drift"] ** 2).mean()), rel=1e-12)
    assert row["drift_noise"] == pytest.approx(np.sqrt((se**2).mean()), rel=1e-9)
    assert found.channels["channel"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.channels["reference_mean"], REFERENCE.mean((0, 2)), rtol=1e-12)


def test_the_bound_is_that_of_the_information_in_a_difference() -> None:
    """Fails if m is not how many reference samples the error is worth, or Student's t has other degrees of freedom.

    m = V_ref / se², the bound √((m + 100)/m · ln((m + 100)/(100 a²))) of a normal, a = alpha / channels, as Student's t.
    """
    found, alpha = tables(), 0.01
    first, second = (rows.mean(2).var(0, ddof=1) / len(rows) for rows in (NOW, REFERENCE))
    square = first + second
    m = REFERENCE.mean(2).var(0, ddof=1) / square
    degrees = square**2 / (first**2 / 8 + second**2 / 19)
    normal = np.sqrt((m + 100) / m * np.log((m + 100) / (100 * (alpha / 3) ** 2)))
    expected = np.sqrt(square) / REFERENCE.std((0, 2)) * stats.t.isf(stats.norm.sf(normal), degrees)
    np.testing.assert_allclose(found.channels["drift_bound"], expected, rtol=1e-9)


def judged(z: list[float], m: float = 400.0, degrees: float = 1e6, alpha: float = 0.01) -> pd.DataFrame:
    n = len(z)
    return _judged(pd.DataFrame({"drift": z, "drift_se": 1.0, "m": [m] * n, "degrees": [degrees] * n}), alpha)


def e_value(z: float, m: float = 400.0) -> float:
    return math.sqrt(100 / (m + 100)) * math.exp(z * z * m / (m + 100) / 2)


def test_q_is_the_share_that_e_values_allow() -> None:
    """Fails if ranks are counted from the other end: m / (k e) over k, the least from its rank on, by hand."""
    found = judged([6.0, -4.5, 0.1])
    e = [e_value(6.0), e_value(4.5), e_value(0.1)]
    last = min(1.0, 3 / (3 * e[2]))
    middle = min(last, 3 / (2 * e[1]))
    np.testing.assert_allclose(found["drift_q"], [min(middle, 3 / e[0]), middle, last], rtol=1e-3)
    assert found["drifted"].tolist() == [True, True, False]
    level = 0.01 * 2 / 3
    bound = math.sqrt(500 / 400 * math.log(500 / (100 * level**2)))
    np.testing.assert_allclose(found["drift_bound"], bound, rtol=1e-3)


def test_what_does_not_vary_is_not_judged() -> None:
    """Fails if a channel without an error, or without a degree of freedom, is called drifted, or counts among the others."""
    columns = {"drift": [6.0, 1.0, np.nan, 2.0], "drift_se": [1.0, 0.0, 1.0, 1.0], "m": 400.0}
    found = _judged(pd.DataFrame({**columns, "degrees": [1e6, 1e6, 1e6, 0.0]}), 0.01)
    assert found["drifted"].tolist() == [True, False, False, False]
    assert (
        np.isnan(found["drift_q"]).tolist()
        == np.isnan(found["drift_bound"]).tolist()
        == [False, True, True, True]
    )
    assert found["drift_q"][0] == pytest.approx(1 / e_value(6.0), rel=1e-3)
    none = _judged(pd.DataFrame({**columns, "degrees": 0.0}), 0.01)
    assert not none["drifted"].any()
    assert none["drift_q"].isna().all()


def test_norms_are_found_by_path_call_width_and_kind() -> None:
    """Fails if a norm of another width or kind is compared, a second call is the first, or what is left out is not named."""
    a, b = site(NOW, "a"), site(NOW, "b")
    now = recording(a, b, site(NOW, "b", call=1), site(NOW, "c"), site(NOW, "only now"))
    other = recording(
        a,
        b,
        site(NOW, "b", call=1),
        site(NOW, "c", "layer_norm"),
        site(some_rows(9, 4), "d"),
        site(NOW, "only then"),
    )
    found = drift_tables(now, other, 0.01)
    assert found.layers[["layer", "call"]].to_numpy().tolist() == [["a", 0], ["b", 0], ["b", 1]]
    assert sorted(found.left_out) == ["c", "d", "only now", "only then"]
    assert found.channels["layer"].tolist() == ["a"] * 3 + ["b"] * 6
    assert found.channels.index.tolist() == list(range(9))
    assert not {"m", "degrees"} & set(found.channels)
    wide = drift_tables(
        recording(a, site(some_rows(9, 4), "w")), recording(a, site(some_rows(9, 4), "w")), 0.01
    )
    assert wide.layers["n_channels"].tolist() == [3, 4]
    assert wide.layers["drift_rms"].tolist() == [0, 0]


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, "0.01", None, True, float("nan")])
def test_a_chance_is_between_0_and_1(alpha: Any) -> None:
    """Fails if no false alarm at all, or nothing but false alarms, is accepted."""
    with pytest.raises(BnprobeError, match="between 0 and 1"):
        tables(alpha=alpha)


def test_sides_without_samples_or_without_a_common_norm() -> None:
    """Fails if a side without data drifts, or two models with nothing in common have an empty table."""
    empty = site(NOW[:0], running_mean=ONE, running_var=ONE)
    with pytest.raises(NothingRecorded, match="this recording has no samples"):
        drift_tables(recording(empty), recording(site(NOW)), 0.01)
    with pytest.raises(NothingRecorded, match="the reference has no samples"):
        drift_tables(recording(site(NOW)), recording(empty), 0.01)
    with pytest.raises(CannotCompare, match="has no norm of the same path"):
        drift_tables(recording(site(NOW, "a")), recording(site(NOW, "b")), 0.01)


VECTORS = {"gamma": 1.5, "beta": 0.5, "running_mean": 0.0, "running_var": [1.0, 2.0, np.nan]}


def norm(length: np.ndarray | None = None, **changes: Any) -> LayerRecord:
    made = site(NOW, **{**VECTORS, **changes})
    folded = None if length is None else Folded(length, -ONE, ONE, None)
    return replace(made, neighbours=Neighbours("relu", "conv", folded=folded))


@pytest.mark.parametrize(
    ("now", "reference", "same"),
    [
        (norm(), norm(), True),
        (norm(), norm(gamma=[1.5, 1.5, 1.6]), False),
        (norm(), norm(beta=0.4), False),
        (norm(), norm(running_mean=0.1), False),
        (norm(), norm(running_var=[1.0, 2.0, 3.0]), False),
        (norm(), norm(gamma=None), False),
        (norm(gamma=None), norm(gamma=None), True),
        (norm(ONE), norm(ONE), True),
        (norm(ONE), norm(2 * ONE), False),
        (norm(ONE), norm(), True),
        (norm(), norm(2 * ONE), True),
        (replace(norm(ONE), neighbours=None), norm(2 * ONE), True),
    ],
)
def test_the_same_weights_on_both_sides(now: LayerRecord, reference: LayerRecord, same: bool) -> None:
    """Fails if one vector is not looked at, filters that one side does not know differ, or NaN differs from itself."""
    assert _same_weights(now, reference) is same
