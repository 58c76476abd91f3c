"""Channels of a model's input that are off: planted into a first norm of which everything is made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bnprobe.measures.causes import preprocessing
from bnprobe.recording import Normalize, Recording
from bnprobe.recording.neighbours import Neighbours, Stem
from measures.sites import recording, site

N_BANDS, WIDTH = 8, 16
MEAN = np.array([0.12, 0.06, 0.2, 0.15, 0.3, 0.45, 0.38, 0.25])
STD = 0.3 * MEAN
RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(size=(WIDTH, N_BANDS))
BANDS = MEAN[:, None] + STD[:, None] * (RNG.normal(size=(60, 1, 30)) + RNG.normal(size=(60, N_BANDS, 30)))
CONSTANTS = Normalize(tuple(MEAN), tuple(STD))


def inputs_of(bands: np.ndarray) -> np.ndarray:
    return (bands - MEAN[:, None]) / STD[:, None]


def first_norm(trained: np.ndarray, seen: np.ndarray, given: Normalize | None, **stem: Any) -> Recording:
    """A first norm that was trained on some inputs (N, F, P), and sees others."""
    before, now = (np.einsum("cf,nfp->ncp", WEIGHTS, x) for x in (trained, seen))
    statistics = {"running_mean": before.mean((0, 2)), "running_var": before.var((0, 2))}
    layer = Stem(WEIGHTS, None, **stem)
    neighbours = Neighbours("relu", "conv", ("input",), source="input", stem=layer)
    return recording(
        site(now, "bn1", gamma=1.5, beta=0.1, **statistics, neighbours=neighbours), normalize=given
    )


def changed(channel: int, to: Any) -> np.ndarray:
    bands = BANDS.copy()
    bands[:, channel] = to(bands[:, channel])
    return bands


def swapped(i: int, j: int) -> np.ndarray:
    order = np.arange(N_BANDS)
    order[[i, j]] = j, i
    return BANDS[:, order]


def said(bands: np.ndarray, given: Normalize | None = CONSTANTS) -> str:
    found = preprocessing(first_norm(inputs_of(BANDS), inputs_of(bands), given))
    return "" if found.empty else str(found.iloc[0]["mistake"])


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (changed(5, lambda x: 0 * x), "input channel 5 alone is missing or empty (mean 0.45 in training, 0 here)"),
        (changed(2, lambda x: 10 * x), "input channel 2 alone has another range (mean 0.2 in training, 2 here)"),
        (BANDS[:, ::-1], "the input channels are in another order: 7, 6, 5, 4, 3, 2, 1, 0"),
        (swapped(1, 4), "the input channels are in another order: 0, 4, 2, 3, 1, 5, 6, 7"),
        (np.roll(BANDS, 1, 1), "the input channels are in another order: 7, 0, 1, 2, 3, 4, 5, 6"),
    ],
    ids=["empty", "not scaled", "reversed", "two exchanged", "moved by one"],
)  # fmt: skip
def test_what_is_off_is_named_by_its_channels(bands: np.ndarray, expected: str) -> None:
    """Fails if another channel or order is named than was planted, or numbers that are not those of the files."""
    mean = BANDS.mean((0, 2))
    told = said(bands)
    assert told.partition(" (")[0] == expected.partition(" (")[0]
    if "(" in expected:
        channel = 5 if "empty" in expected else 2
        assert f"mean {mean[channel]:.3g} in training" in told


def test_the_code_puts_channels_back() -> None:
    """Fails if the order is undone in the wrong direction, which two exchanged channels do not show."""
    came = np.roll(BANDS, 1, 1)
    found = preprocessing(first_norm(inputs_of(BANDS), inputs_of(came), CONSTANTS)).iloc[0]
    names: dict[str, Any] = {"x": came}
    exec(found["undo"], names)
    np.testing.assert_array_equal(names["x"], BANDS)


@pytest.mark.parametrize(
    "bands",
    [
        BANDS,
        1.8 * BANDS,
        BANDS + 0.2,
        MEAN[:, None] + 3 * (BANDS - MEAN[:, None]),
        BANDS + STD[:, None] * RNG.normal(size=(N_BANDS, 1)),
    ],
    ids=["as in training", "more light", "haze", "contrast", "other scenes"],
)
def test_what_concerns_all_channels_is_not_said_of_some(bands: np.ndarray) -> None:
    """Fails if light, haze or other scenes, which move all channels, are called a fault of a few."""
    assert "channel" not in said(bands)


def test_without_constants_a_normalized_channel_is_not_called_empty() -> None:
    """Fails if a mean of −3.3 is called missing, where nobody gave what it is normalized by."""
    assert said(changed(5, lambda x: 0 * x), None).startswith("input channel 5 alone has another range")


def test_a_factor_of_all_inputs_is_none_of_one_channel() -> None:
    """Fails if inputs of which one channel alone has a mean, all of them times 50, are said to be off in that channel."""
    trained = inputs_of(BANDS) + np.eye(N_BANDS)[3][:, None] * 4
    found = preprocessing(first_norm(trained, 50 * trained, None)).iloc[0]
    assert "alone" not in found["mistake"]


def test_two_channels_that_the_weights_hardly_tell_apart_are_not_named() -> None:
    """Fails if one of two channels is named where the other explains as much."""
    alike = WEIGHTS.copy()
    alike[:, 4] = alike[:, 5] + 0.02 * alike[:, 4]
    bands = changed(5, lambda x: 0 * x)
    before, now = (np.einsum("cf,nfp->ncp", alike, inputs_of(x)) for x in (BANDS, bands))
    neighbours = Neighbours("relu", "conv", ("input",), source="input", stem=Stem(alike, None))
    statistics = {"running_mean": before.mean((0, 2)), "running_var": before.var((0, 2))}
    norm = site(now, "bn1", gamma=1.5, beta=0.1, **statistics, neighbours=neighbours)
    found = preprocessing(recording(norm, normalize=CONSTANTS))
    assert not any("alone" in what for what in found["mistake"])


def test_features_of_a_table_are_called_so_and_may_be_more_than_channels() -> None:
    """Fails if 40 features of a table before 16 channels are not looked at, or are called channels."""
    weights = RNG.normal(size=(WIDTH, 40))
    x = RNG.normal(size=(400, 40))
    off = x.copy()
    off[:, 31] += 6
    before, now = x @ weights.T, off @ weights.T
    neighbours = Neighbours("relu", "lin", ("input",), source="input", stem=Stem(weights, None, n_sides=0))
    norm = site(
        now[:, :, None], "bn1", gamma=1.5, beta=0.1, running_mean=before.mean(0), running_var=before.var(0)
    )
    found = preprocessing(recording(replace(norm, neighbours=neighbours))).iloc[0]
    assert found["mistake"] == "input feature 31 alone is off: by +6 in the mean"
