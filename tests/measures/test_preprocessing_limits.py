"""When a mistake of preprocessing is called the cause: every number of that decision, and the constants that are tried."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bnprobe.graph.first_layer import stem as stem_of
from bnprobe.graph.geometry import Geometry
from bnprobe.measures.causes.fit import Moments2
from bnprobe.measures.causes.input_maps import AS_TRAINED, IMAGENET, IN_USE, Mistake, merged, mistakes
from bnprobe.measures.causes.inputs import (
    ALIKE,
    OTHER_IMAGES,
    OTHER_LIGHT,
    Units,
    _first,
    _scale,
    constants_for,
)
from bnprobe.measures.causes.rivals import fits_well, is_clear, is_rarer, is_rival, others
from bnprobe.recording import Normalize
from bnprobe.recording.neighbours import Neighbours
from measures.first_norms import CONSTANTS, PIXELS, STD, inputs_of, stem_norm
from measures.sites import recording, site


def leaves(moved: float, scale: float, shade: float, units: Units = ALIKE) -> tuple[float, float]:
    """What no mistake leaves of inputs with this gain, moved by as many standard deviations, and this much brighter."""
    first = _first(stem_norm(inputs_of(PIXELS)))
    assert first is not None
    brighter = first.equations.matrix @ (shade / STD)
    away = moved * np.sqrt(first.running.var * (1 + scale**2) / 2)
    seen = Moments2(first.running.mean + brighter + away, first.running.var * scale**2)
    exact = replace(
        first, seen=seen, running=Moments2(first.equations.matrix @ first.mean, first.running.var)
    )
    exact = replace(exact, record=replace(first.record, eps=0.0))
    return tuple(exact.leaves(AS_TRAINED, 1 / STD, units))  # type: ignore[return-value]


def test_what_is_left_is_measured_in_units_of_other_images() -> None:
    """Fails if a mean counts like a scale: 0.1 of a mean, 0.25 of a log std or of brightness."""
    assert leaves(0.0, np.exp(0.25), 0.0)[0] == pytest.approx(1, abs=1e-6)
    assert leaves(0.0, 1.0, 0.24)[0] == pytest.approx(0.96, abs=0.01)
    assert leaves(0.0, np.exp(0.5), 0.0, OTHER_IMAGES)[0] == pytest.approx(1, abs=1e-6)
    assert leaves(0.0, 1.0, 0.48, OTHER_IMAGES)[0] == pytest.approx(0.96, abs=0.01)
    assert leaves(0.0, 1.0, 0.48, OTHER_LIGHT)[0] == pytest.approx(0, abs=0.01)
    alternating = np.where(np.arange(12) % 2, 0.3, -0.3)
    assert leaves(alternating, 1.0, 0.0)[0] == pytest.approx(3, rel=0.1)  # type: ignore[arg-type]
    assert leaves(0.0, np.exp(0.4), 0.0)[1] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("best", "other", "clear"),
    [(1.0, 1.51, True), (1.0, 1.49, False), (0.1, 0.51, True), (0.1, 0.49, False), (0.0, 0.41, True)],
)
def test_one_is_clearly_better(best: float, other: float, clear: bool) -> None:
    """Fails if the next best may be nearly as good, by factor or by difference."""
    assert is_clear(best, other) is clear


def row(**changes: Any) -> dict[str, Any]:
    found = {"misfit": 1.0, "weight": 1.0, "constants": "given", "discrepancy": 1.0, "explains": 0.9}
    return {**found, **changes}


@pytest.mark.parametrize(
    ("one", "other", "rivals"),
    [
        (row(), row(misfit=1.4), True),
        (row(), row(misfit=1.6), False),
        (row(misfit=0.4), row(misfit=0.4, weight=3.0), False),
        (row(misfit=1.6), row(misfit=1.0, weight=3.0), True),
        (row(misfit=1.4), row(misfit=1.0, weight=3.0), False),
    ],
)
def test_what_nobody_does_by_accident_must_fit_better_to_count(one: Any, other: Any, rivals: bool) -> None:
    """Fails if exchanged light and dark keep exchanged colors from being named, or never count."""
    assert is_rival(one, other) is rivals


def test_what_would_look_the_same_is_told_where_nobody_does_it_by_accident() -> None:
    """Fails if an ordinary mistake counts as rare, or a rare one that clearly fits worse is told."""
    assert is_rarer(row(), row(weight=3.0, misfit=1.4))
    assert not is_rarer(row(), row(weight=3.0, misfit=1.6))
    assert not is_rarer(row(), row(weight=2.0))
    assert not is_rarer(row(weight=3.0), row(weight=3.0))


def test_each_explanation_is_named_once() -> None:
    """Fails if the mistake itself, or one that fits as well, is named a second time by its other names."""
    facts = {"images": True, "light": False}
    first = row(mistake="a", also="", **facts)
    rival = row(mistake="b", also="a; c", misfit=1.2, **facts)
    rare = row(mistake="c", also="", misfit=1.3, weight=3.0, **facts)
    found = others(first, [first, rival, rare])
    assert found["also"] == "b; c"
    assert found["rarer"] == "these images have another light or contrast than those of training"
    assert not found["certain"]


SWAP = Mistake("", "", np.ones(3), np.zeros(3), exchanged=True)


@pytest.mark.parametrize(
    ("found", "mistake", "fits"),
    [
        (row(misfit=1.99), AS_TRAINED, True),
        (row(misfit=2.01), AS_TRAINED, False),
        (row(explains=0.51), AS_TRAINED, True),
        (row(explains=0.49), AS_TRAINED, False),
        (row(misfit=0.99, constants="guessed"), AS_TRAINED, True),
        (row(misfit=1.01, constants="guessed"), AS_TRAINED, False),
        (row(misfit=0.5, constants="guessed", discrepancy=0.59), AS_TRAINED, False),
        (row(misfit=0.5, constants="guessed", discrepancy=0.59), SWAP, True),
    ],
)
def test_what_fits(found: Any, mistake: Mistake, fits: bool) -> None:
    """Fails if guessed constants are believed as given ones are, or a mistake that leaves most of it is named."""
    assert fits_well(found, mistake) is fits


def test_a_mistake_as_a_map() -> None:
    """Fails if channels are not exchanged before gain and offset."""
    mean = np.array([1.0, 2.0, 3.0])
    gain, offset = np.array([2.0, 3.0, 4.0]), np.array([0.5, 0.0, -1.0])
    np.testing.assert_array_equal(Mistake("", "", gain, offset).on(mean), [2.5, 6.0, 11.0])
    np.testing.assert_array_equal(Mistake("", "", gain, offset, exchanged=True).on(mean), [6.5, 6.0, 3.0])


def test_equal_maps_are_merged_under_the_first_name() -> None:
    """Fails if two names of a map stay two, a map that changes nothing stays, or maps a twentieth apart are one."""
    ones = np.ones(3)
    maps = [
        Mistake("nothing", "", ones, 0 * ones),
        Mistake("common", "", 255 * ones, 0 * ones),
        Mistake("the same", "", 256 * ones, ones, weight=3.0),
        Mistake("another", "", 270 * ones, 0 * ones),
        Mistake("elsewhere", "", 255 * ones, 9 * ones),
    ]
    found = merged(iter(maps))
    assert [one.what for one in found] == ["common", "another", "elsewhere"]
    assert [one.also for one in found] == [("the same",), (), ()]


def test_the_typical_scale_leaves_out_no_channel() -> None:
    """Fails if channels with a running variance below eps are left out: in them, too, a gain shows."""
    whole = stem_norm(255 * inputs_of(PIXELS))
    (first,) = whole.layers
    assert _scale(_first(whole)) == pytest.approx(255, rel=1e-3)
    running = np.where(np.arange(first.n_channels) < 9, 1e-7, first.running_var)
    small = replace(first, running_var=running)
    expected = np.sqrt(np.median((first.pre.var_population + first.eps) / (running + first.eps)))
    assert _scale(_first(replace(whole, layers=(small,)))) == pytest.approx(expected)


def constants_of(mean: tuple[float, ...], given: Normalize | None) -> list[Normalize]:
    return list(constants_for(given, np.array(mean)))


def test_constants_under_which_the_mean_is_a_colour() -> None:
    """Fails if constants are tried under which a pixel would be below 0 or above 1, or of another number of channels."""
    imagenet, halves, cifar, scaled, raw = IN_USE
    assert constants_of((0.0, 0.0, 0.0), None) == [imagenet, halves, cifar, scaled, raw]
    assert constants_of((0.0,), None) == []
    assert constants_of((0.0, 0.0), None) == []
    # 0.5 ± 0.5 · 1 are the ends themselves
    assert constants_of((1.0, -1.0, 0.0), None) == [imagenet, halves, cifar]
    assert constants_of((1.0, 0.5, 0.0), None) == [imagenet, halves, cifar, scaled, raw]
    assert halves not in constants_of((1.01, 0.0, 0.0), None)
    assert halves not in constants_of((0.0, -1.01, 0.0), None)
    assert constants_of((120.0, 110.0, 100.0), None) == [raw]
    assert constants_of((9.0, 9.0, 9.0), CONSTANTS) == [CONSTANTS]
    assert constants_of((0.0,), CONSTANTS) == []


def test_the_constants_in_use_are_those_of_the_data_sets() -> None:
    """Fails if a digit of a published constant changes: torchvision's own presets, and the usual ones of CIFAR."""
    from torchvision.transforms._presets import ImageClassification

    preset = ImageClassification(crop_size=8)
    assert IN_USE[0] == Normalize(tuple(preset.mean), tuple(preset.std))
    assert IN_USE[1] == Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert IN_USE[2] == Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert IN_USE[3:] == (Normalize((0, 0, 0), (1, 1, 1)), Normalize((0, 0, 0), (1 / 255,) * 3))


# What the zeros around an image make of a mean that is far from 0


SIDE = 12
IMAGES = np.clip(0.5 + 0.2 * np.random.default_rng(6).normal(size=(40, 3, SIDE, SIDE)), 0, 1)
WEIGHT = np.random.default_rng(7).normal(size=(14, 3, 3, 3)) / 5


def convolved(images: np.ndarray) -> np.ndarray:
    """A convolution of 3 x 3 with one zero on each side, position by position."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    out = np.einsum("nfhwab,cfab->nchw", windows, WEIGHT)
    return out.reshape(*out.shape[:2], -1)


def test_flat_inputs_vary_at_the_border_and_this_is_predicted() -> None:
    """Fails if the variance that zeros around the image cause is not counted: scaled twice, nothing else is left."""
    mean, std = (np.array(v)[:, None, None] for v in (CONSTANTS.mean, CONSTANTS.std))
    trained, seen = (convolved((p - mean) / std) for p in (IMAGES, IMAGES / 255))
    geometry = Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), 1, (SIDE, SIDE), (SIDE, SIDE))
    found = stem_of(WEIGHT, None, geometry)
    record = site(
        seen,
        running_mean=trained.mean((0, 2)),
        running_var=trained.var((0, 2)),
        neighbours=Neighbours("relu", "conv", ("input",), source="input", stem=found),
    )
    from bnprobe.measures.causes import preprocessing

    best = preprocessing(recording(record, normalize=CONSTANTS)).iloc[0]
    assert "1/255 twice before" in best["mistake"]
    # the std is 100 times what the gain alone would give
    assert best["scale"] > 30 * best["scale_predicted"]
    assert best["misfit"] < 0.1


def test_the_border_is_the_covariance_over_positions() -> None:
    """Fails if the variance of a constant image's output is not that of the convolution itself."""
    geometry = Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), 1, (SIDE, SIDE), (SIDE, SIDE))
    border = stem_of(WEIGHT, None, geometry).border
    for color in ([1.0, 0.0, 0.0], [0.3, -2.0, 1.1]):
        constant = np.broadcast_to(np.array(color)[None, :, None, None], (1, 3, SIDE, SIDE))
        expected = convolved(constant)[0].var(axis=1)
        np.testing.assert_allclose(np.einsum("cfg,f,g->c", border, color, color), expected, rtol=1e-9)


@pytest.mark.parametrize(
    "constants", [Normalize((0.0,) * 3, (1 / 255,) * 3), Normalize((0.0,) * 3, (1.0,) * 3)]
)
def test_a_step_that_changes_nothing_is_no_second_mistake(constants: Normalize) -> None:
    """Fails if, of pixels that are only scaled, exchanged colors are also told as exchanged and not normalized."""
    swapped = [
        one
        for one in merged(mistakes(constants))
        if one.exchanged and one.is_like(Mistake("", "", np.ones(3), np.zeros(3), True))
    ]
    assert [(one.what, one.also) for one in swapped] == [("red and blue are swapped", ())]


@pytest.mark.parametrize(
    "step",
    [
        "divided by the std, and red",
        "scaled to -1 to 1 instead of normalized with the constants of training, and red",
    ],
)
def test_two_mistakes_at_once_are_undone_by_their_line(step: str) -> None:
    """Fails if the line does not give back inputs as in training, or changes the order of colors before their constants."""
    (one,) = (one for one in mistakes(IMAGENET) if step in one.what)
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    m, s = (torch.tensor(v, dtype=torch.float64).view(-1, 1, 1) for v in (IMAGENET.mean, IMAGENET.std))
    wrong = x.flip(1) - m if "divided" in step else 2 * x.flip(1) - 1
    scope = {"torch": torch, "x": wrong}
    exec(one.undo, scope)
    torch.testing.assert_close(scope["x"], (x - m) / s, rtol=1e-5, atol=1e-5)
    mapped = torch.tensor(one.gain).view(-1, 1, 1) * ((x - m) / s).flip(1) + torch.tensor(one.offset).view(
        -1, 1, 1
    )
    torch.testing.assert_close(mapped, wrong)
