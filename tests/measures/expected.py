"""The tables of a recording against the columns of `reference.py`, from what plain hooks kept of the same calls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.models import Norm
from support.reference_probe import ReferenceProbe, rounding

from bnprobe.measures import tables
from bnprobe.recording import Recording
from measures import reference

STEADY = 1e-6
"""A spread below this part of the largest value is mostly rounding, and so is what is divided by it."""

BY_SPREAD = ("skew", "kurtosis", "shift_se", "shift_z", "shift_p", "scale_se", "scale_z", "kl", "share_")
"""Columns, by a part of their names, that divide by a spread or take its logarithm."""


def facts_of(record: Any) -> dict[str, Any]:
    names = ("gamma", "beta", "running_mean", "running_var", "eps", "momentum", "pools")
    return {**{name: getattr(record, name) for name in names}, "tracked": record.n_batches_tracked}


def assert_columns(
    found: pd.DataFrame, expected: dict[str, np.ndarray], where: str, steady: Any = True
) -> None:
    """Each column to 1e-8 of its size, where `steady` holds."""
    for name, values in expected.items():
        mine, theirs = found[name].to_numpy(dtype=float)[steady], values[steady]
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs), err_msg=f"{where} {name}")
        # p reaches down to 1e-300, and there the last digits of z are worth several of p
        rtol = 1e-6 if name in ("shift_p",) else 1e-8
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=1e-9, err_msg=f"{where} {name}")


def assert_tables_true(
    recording: Recording, norms: Mapping[str, Norm], kept: ReferenceProbe, all_steady: bool = True
) -> None:
    """Every column of both tables agrees; unless `all_steady`, what rounding alone decides is left out."""
    measured = tables(recording)
    assert len(measured.channels) == sum(record.n_channels for record in recording.layers)
    _assert_adjusted_together(measured.channels)
    for i, record in enumerate(recording.layers):
        norm, calls = norms[record.layer], kept.calls[record.layer, record.call]
        rows, y = (np.concatenate([norm.rows(getattr(call, side)) for call in calls]) for side in "xy")
        mine = measured.channels[
            measured.channels["layer"].eq(record.layer) & measured.channels["call"].eq(record.call)
        ]
        assert mine["channel"].tolist() == list(range(rows.shape[1]))
        row, where = measured.layers.iloc[i], record.site
        _assert_facts(row, norm, calls, rows, where)
        steady = np.full(rows.shape[1], True) if all_steady else _steady(rows) & _steady(y)
        expected = reference.channel_columns(rows, y, facts_of(record))
        shaky = {name for name in expected if any(part in name for part in BY_SPREAD)}
        # the sign of an output that is zero but for rounding is the layer's own affair
        signed = ~(np.abs(y) <= rounding(record, calls)).any((0, 2))
        assert_columns(mine, {"fires": expected["fires"]}, where, signed)
        exact = {n: v for n, v in expected.items() if n not in shaky and n != "fires"}
        assert_columns(mine, exact, where)
        assert_columns(mine, {n: expected[n] for n in shaky}, where, steady)
        wanted = reference.layer_columns(
            {n: mine[n].to_numpy(dtype=float) for n in expected}, mine["shift_q"], facts_of(record)
        )
        own = dict.fromkeys(("own_mean", "own_mean_sd", "own_sd", "own_log_var_sd"), math.nan)
        if norm.pools != "batch" and not (norm.running and not calls[0].training):
            own = reference.own_columns(rows, norm.pools, record.eps, norm.n_groups, norm.centred)
        for name, value in {**wanted, **own}.items():
            assert row[name] == pytest.approx(value, rel=1e-8, abs=1e-9, nan_ok=True), f"{where} {name}"


def _assert_adjusted_together(channels: pd.DataFrame) -> None:
    """q of all sites and of both tests is that of one family."""
    p, q = (channels[[f"shift_{name}", f"scale_{name}"]].to_numpy(dtype=float).T.ravel() for name in "pq")
    np.testing.assert_allclose(q, reference.adjusted(p), rtol=1e-9)


def _assert_facts(row: pd.Series, norm: Norm, calls: list[Any], rows: np.ndarray, where: str) -> None:
    """What is said of a site besides its measures."""
    assert row["kind"] == norm.kind, where
    assert (row["n_channels"], row["n_calls"], row["n_images"]) == (rows.shape[1], len(calls), len(rows))
    assert (row["n_values"], row["n_nonfinite"]) == (rows.size, 0), where
    # a frozen norm is in evaluation, whatever its flag
    assert row["mode"] == ("train" if calls[0].training and not norm.frozen else "eval"), where


def _steady(rows: np.ndarray) -> np.ndarray:
    """Channels of (N, C, P) whose values, images' means and images' mean squares spread by more than rounding."""
    far = np.abs(rows).max((0, 2)) + np.finfo(float).tiny
    about = rows - rows.mean((0, 2), keepdims=True)
    squares = (about**2).mean(2).std(0) / np.maximum((about**2).mean((0, 2)), np.finfo(float).tiny)
    between = rows.mean(2).std(0) / far
    alone = len(rows) == 1  # then there is no spread over images to divide by
    return (rows.std((0, 2)) > STEADY * far) & (alone | ((between > STEADY) & (squares > STEADY)))
