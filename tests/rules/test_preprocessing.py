"""Mistakes of preprocessing, planted into a first norm whose numbers are made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from measures.sites import recording, site

from bnprobe.measures import tables
from bnprobe.measures.preprocessing import _is_certain, mistakes, preprocessing
from bnprobe.recording import Normalize, Recording
from bnprobe.recording.neighbours import Folded, Neighbours, Stem
from bnprobe.rules import judge

RNG = np.random.default_rng(3)
CONSTANTS = Normalize((0.48, 0.45, 0.40), (0.23, 0.22, 0.22))
MEAN, STD = np.array(CONSTANTS.mean), np.array(CONSTANTS.std)
COLOUR = np.array([0.55, 0.45, 0.3])
N_CHANNELS = 12
MATRIX = RNG.normal(size=(N_CHANNELS, 3))
NORM = 3 * np.linalg.norm(MATRIX, axis=1) / RNG.uniform(0.3, 2.8, N_CHANNELS)
PIXELS = np.clip(COLOUR[:, None] + 0.2 * RNG.normal(size=(60, 3, 50)), 0, 1)


def inputs_of(pixels: np.ndarray) -> np.ndarray:
    return (pixels - MEAN[:, None]) / STD[:, None]


def stem_norm(inputs: np.ndarray, **changes: Any) -> Recording:
    """The first norm, trained on PIXELS as they should be, that now sees these inputs (N, 3, P)."""
    trained, seen = (np.einsum("cf,nfp->ncp", MATRIX, x) for x in (inputs_of(PIXELS), inputs))
    neighbours = Neighbours("relu", "conv", ("input",), source="input", stem=Stem(MATRIX, None))
    folded = Folded(NORM, -np.ones(N_CHANNELS), np.ones(N_CHANNELS), None)
    statistics = {"running_mean": trained.mean((0, 2)), "running_var": trained.var((0, 2))}
    first = site(
        seen, "bn1", gamma=1.5, beta=0.1, **statistics, neighbours=replace(neighbours, folded=folded)
    )
    return recording(replace(first, **changes), normalize=CONSTANTS)


MADE = {
    "neither scaled nor normalized": lambda p: 255 * p,
    "without subtracting the mean": lambda p: p,
    "without scaling them to 0 to 1": lambda p: inputs_of(255 * p),
    "normalized twice": lambda p: inputs_of(inputs_of(p)),
    "1/255 twice": lambda p: inputs_of(p / 255),
    "scaled to -1 to 1": lambda p: (p - 0.5) / 0.5,
    "but not divided by the std": lambda p: p - MEAN[:, None],
    "-1 to 1 before": lambda p: inputs_of(2 * p - 1),
    "by the std twice": lambda p: inputs_of(p) / STD[:, None],
    "brightness is inverted": lambda p: inputs_of(1 - p),
    "red and blue": lambda p: inputs_of(p[:, ::-1]),
}


@pytest.mark.parametrize("mistake", MADE)
def test_every_mistake_is_named_first(mistake):
    """Fails if a map of a mistake is wrong, or another one explains the same better."""
    found = preprocessing(stem_norm(MADE[mistake](PIXELS)))
    assert mistake in found["mistake"].iloc[0]
    assert found["left_over"].iloc[0] < 1e-6 * max(1, found["scale_predicted"].iloc[0])


@pytest.mark.parametrize("mistake", MADE)
def test_the_line_that_undoes_it_does(mistake):
    """Fails if the code that users are told to run gives other inputs than those of training."""
    import torch

    code = preprocessing(stem_norm(MADE[mistake](PIXELS)))["undo"].iloc[0]
    wrong = torch.tensor(MADE[mistake](PIXELS)[:, :, None].copy())
    names = {"torch": torch, "x": wrong}
    exec(code, names)
    np.testing.assert_allclose(names["x"][:, :, 0].numpy(), inputs_of(PIXELS), atol=1e-3)


def test_all_mistakes_are_tried_here():
    """Fails if a mistake lands without a case that makes it."""
    assert len(list(mistakes(CONSTANTS))) == len(MADE)


def test_inputs_as_in_training_need_no_explanation():
    """Fails if chance among many mistakes is enough."""
    other = np.clip(COLOUR[:, None] + 0.2 * RNG.normal(size=(60, 3, 50)), 0, 1)
    assert preprocessing(stem_norm(inputs_of(other))).empty


@pytest.mark.parametrize("change", [lambda p: 0.6 * p, lambda p: 0.5 + 0.5 * (p - 0.5), lambda p: p**2])
def test_other_images_are_no_mistake(change):
    """Fails if a darker, flatter or steeper camera is taken for a mistake of preprocessing."""
    found = judge(tables(stem_norm(inputs_of(change(PIXELS)))))
    assert "input-not-as-trained" not in set(found["rule"])


def test_a_fresh_norm_shows_no_input():
    """Fails if running statistics of 0 and 1 are taken for a mean input of 0."""
    fresh = {"running_mean": np.zeros(N_CHANNELS), "running_var": np.ones(N_CHANNELS)}
    assert preprocessing(stem_norm(255 * PIXELS, **fresh)).empty


def test_constants_in_use_are_tried_where_none_are_given():
    """Fails if a user who does not give the constants is never told."""
    whole = stem_norm(255 * PIXELS)
    found = preprocessing(replace(whole, about=replace(whole.about, normalize=None)))
    assert "neither scaled nor normalized" in found["mistake"].iloc[0]
    assert set(found["constants"]) == {"guessed"}


@pytest.mark.parametrize(("detail", "fires"), [(0.69, 1), (0.72, 0), (1.40, 0), (1.43, 1)])
def test_detail_is_compared_with_areas(detail, fires):
    """Fails if the threshold moves, or fine and coarse filters are exchanged."""
    whole = stem_norm(inputs_of(PIXELS))
    (first,) = whole.layers
    coarse = np.linalg.norm(MATRIX, axis=1) / NORM
    fine = coarse < np.sort(coarse)[N_CHANNELS // 3]
    # more running variance in fine filters is what smoother images look like
    running = np.where(fine, first.running_var / detail**2, first.running_var)
    found = judge(tables(replace(whole, layers=(replace(first, running_var=running),))))
    found = found[found["rule"] == "input-size"]
    assert len(found) == fires
    if fires:
        assert ("smoother" in found["says"].iloc[0]) == (detail < 1)


@pytest.mark.parametrize(("areas", "apart", "fires"), [(1, 1, 1), (0.7, 1, 0), (1.4, 1, 0), (1, 2.1, 0)])
def test_detail_is_not_reported_where_areas_changed_as_well(areas, apart, fires):
    """Fails if another contrast, a lost colour, or running statistics that are wrong are called enlarged or noisy."""
    whole = stem_norm(inputs_of(PIXELS))
    (first,) = whole.layers
    coarse = np.linalg.norm(MATRIX, axis=1) / NORM
    n = N_CHANNELS // 3
    factor = np.where(coarse < np.sort(coarse)[n], 0.6, areas)
    factor[np.argmax(coarse)] *= apart
    running = first.running_var / factor**2
    found = judge(tables(replace(whole, layers=(replace(first, running_var=running),))))
    assert (found["rule"] == "input-size").sum() == fires


@pytest.mark.parametrize(("contrast", "fires"), [(0.33, 0), (1.0, 1)])
def test_a_mistake_that_keeps_the_mean_must_predict_the_scale(contrast, fires):
    """Fails if any scale somewhere near the one that it predicts is taken for a mistake, and no mean speaks for it."""
    found = preprocessing(stem_norm((PIXELS - MEAN[:, None]) * (1 + contrast) / 2))
    assert found["mistake"].str.startswith("the mean was subtracted").any() == fires


DIGITS = RNG.beta(0.153, 0.347, size=(60, 1, 50))
GREY = Normalize((DIGITS.mean(),), (DIGITS.std(),))


def grey_norm(change: Any, constants: Normalize | None) -> Recording:
    """The first norm of one channel, trained on normalized DIGITS, that sees them changed."""
    weights = RNG.normal(size=(N_CHANNELS, 1))
    trained = np.einsum("cf,nfp->ncp", weights, (DIGITS - DIGITS.mean()) / DIGITS.std())
    seen = np.einsum("cf,nfp->ncp", weights, change(DIGITS))
    statistics = {"running_mean": trained.mean((0, 2)) + 1e-4, "running_var": trained.var((0, 2))}
    neighbours = Neighbours("relu", "conv", ("input",), source="input", stem=Stem(weights, None))
    first = site(seen, "bn1", gamma=1.5, beta=0.1, **statistics, neighbours=neighbours)
    return recording(first, normalize=constants)


def symmetric(pixels: np.ndarray) -> np.ndarray:
    return (pixels - 0.5) / 0.5


def of_inputs(whole: Recording) -> Any:
    """The one finding about the preprocessing."""
    found = judge(tables(whole))
    (row,) = found[found["rule"] == "input-not-as-trained"].itertuples()
    return row


def test_one_channel_without_constants_names_no_cause():
    """Fails if constants in use, which fit by chance, name a cause, and the images are inverted to undo it."""
    row = of_inputs(grey_norm(symmetric, None))
    assert "as if every input was multiplied by 0.7" in row.says
    assert "brightness is inverted (1" not in row.says
    assert "normalize=(mean, std)" in row.do


def test_one_channel_with_constants_names_the_cause():
    """Fails if the caution about unknown constants silences known ones."""
    row = of_inputs(grey_norm(symmetric, GREY))
    assert "scaled to -1 to 1" in row.says
    assert "normalize=" not in row.do


def test_gain_and_offset_are_undone():
    """Fails if the line for one channel does not bring mean and std back."""
    wrong = 255 * DIGITS
    row = of_inputs(grey_norm(lambda pixels: 255 * pixels, None))
    assert row.severity == "critical"
    names = {"x": wrong}
    exec(row.do.split("`")[1], names)
    np.testing.assert_allclose(names["x"], (DIGITS - DIGITS.mean()) / DIGITS.std(), atol=2e-3)


def test_a_cause_that_misses_the_std_is_not_named():
    """Fails if the mean alone names a cause: light for dark, with three quarters of the contrast."""
    row = of_inputs(stem_norm(inputs_of(0.5 + 0.75 * (1 - PIXELS - 0.5) + 0.125 * (0.5 - COLOUR[:, None]))))
    assert "not certain" in row.says
    assert "`" not in row.do


def test_two_causes_that_do_equally_well_are_not_named():
    """Fails if the better of two that hardly differ is called the cause."""
    whole = tables(stem_norm(inputs_of(1 - PIXELS)))
    rivals = whole.preprocessing.iloc[[0, 0]].assign(mistake=["one", "another"], left_over=[0.01, 0.02])
    assert [_is_certain(row, rivals.to_dict("records")) for row in rivals.to_dict("records")] == [
        False,
        False,
    ]
    far = rivals.assign(scale_predicted=rivals["scale_predicted"] * [1, 1.2]).to_dict("records")
    assert _is_certain(far[0], far)


@pytest.mark.parametrize(("constants", "asked"), [(None, True), (CONSTANTS, False)])
def test_a_shift_without_constants_asks_for_them(constants, asked):
    """Fails if the cause could be named, and nobody tells the user what for; or the constants are there."""
    whole = stem_norm(inputs_of(0.3 * PIXELS + 0.6))
    found = judge(tables(replace(whole, about=replace(whole.about, normalize=constants))))
    (do,) = found.loc[found["rule"] == "data-shifted", "do"]
    assert ("normalize=(mean, std)" in do) == asked
