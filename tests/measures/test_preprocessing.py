"""Mistakes of preprocessing, planted into a first norm: the one that was made is found, and no other where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.measures.causes import preprocessing
from bnprobe.measures.causes.input_maps import CIFAR10, IMAGENET, mistakes
from bnprobe.measures.stem import color_order
from bnprobe.recording import Normalize, Recording
from bnprobe.recording.neighbours import Stem
from measures.first_norms import (
    COLOUR,
    CONSTANTS,
    GREY,
    MATRIX,
    MEAN,
    N_CHANNELS,
    PIXELS,
    RNG,
    STD,
    grey_norm,
    inputs_of,
    stem_norm,
)

MADE = {
    "neither scaled nor normalized": lambda p: 255 * p,
    "without subtracting the mean and": lambda p: p,
    "without scaling them to 0 to 1": lambda p: inputs_of(255 * p),
    "1/255 twice before": lambda p: inputs_of(p / 255),
    "1/255 twice and not": lambda p: p / 255,
    "divided by 255": lambda p: inputs_of(p) / 255,
    "normalized twice": lambda p: inputs_of(inputs_of(p)),
    "scaled to -1 to 1 instead": lambda p: (p - 0.5) / 0.5,
    "but not divided by the std": lambda p: p - MEAN[:, None],
    "by the std without": lambda p: p / STD[:, None],
    "-1 to 1 before": lambda p: inputs_of(2 * p - 1),
    "by the std twice": lambda p: inputs_of(p) / STD[:, None],
    "red and blue": lambda p: inputs_of(p[:, ::-1]),
    "swapped": lambda p: inputs_of(p)[:, ::-1],
    "light and dark": lambda p: inputs_of(1 - p),
    "black": lambda p: inputs_of(0 * p),
    "0 to 255 were passed in, neither scaled nor normalized, and red": lambda p: 255 * p[:, ::-1],
    "the std, and red": lambda p: p[:, ::-1],
    "without scaling them to 0 to 1, and red": lambda p: inputs_of(255 * p[:, ::-1]),
    "0 to 255 were passed in, neither scaled nor normalized, and light": lambda p: 255 * (1 - p),
    "the std, and light": lambda p: 1 - p,
    "Caffe's networks": lambda p: 255 * (p - MEAN[:, None]),
    "Caffe's networks, and red": lambda p: 255 * (p - MEAN[:, None])[:, ::-1],
    "changed places": lambda p: (p - STD[:, None]) / MEAN[:, None],
    "normalized twice, and red": lambda p: inputs_of(inputs_of(p[:, ::-1])),
    "divided by the std, and red": lambda p: p[:, ::-1] - MEAN[:, None],
    "of training, and red": lambda p: 2 * p[:, ::-1] - 1,
    "without scaling them to 0 to 1, and light": lambda p: inputs_of(255 * (1 - p)),
}
HARDLY = {"of ImageNet": IMAGENET, "of CIFAR-10": CIFAR10}
"""Constants so near to those of training that they hardly change anything."""


@pytest.mark.parametrize("mistake", MADE)
def test_every_mistake_is_named_first(mistake):
    """Fails if a map of a mistake is wrong, or another one explains the same better."""
    found = preprocessing(stem_norm(MADE[mistake](PIXELS)))
    assert mistake in found["mistake"].iloc[0]
    assert found["certain"].iloc[0], found[["mistake", "misfit", "also"]].to_string()
    assert found["misfit"].iloc[0] < 0.2
    assert found["explains"].iloc[0] > 0.95


@pytest.mark.parametrize("mistake", [name for name in MADE if name != "black"])
def test_the_line_that_undoes_it_does(mistake):
    """Fails if the code that users are told to run gives other inputs than those of training, but for a shade."""
    code = preprocessing(stem_norm(MADE[mistake](PIXELS)))["undo"].iloc[0]
    wrong = torch.tensor(MADE[mistake](PIXELS)[:, :, None].copy())
    names = {"torch": torch, "x": wrong}
    exec(code, names)
    # exchanged before or after the normalization cannot be told apart
    near = 0.3 if mistake == "swapped" else 1e-3
    np.testing.assert_allclose(names["x"][:, :, 0].numpy(), inputs_of(PIXELS), atol=near)


@pytest.mark.parametrize("constants", HARDLY.values())
def test_constants_that_hardly_differ_are_no_mistake(constants):
    """Fails if ImageNet's constants in place of others within .01 of them are called a wrong preprocessing."""
    mean, std = (np.array(v)[:, None] for v in (constants.mean, constants.std))
    assert preprocessing(stem_norm((PIXELS - mean) / std)).empty


def test_nothing_undoes_black_images():
    """Fails if a line is offered that turns black images into others."""
    assert preprocessing(stem_norm(MADE["black"](PIXELS)))["undo"].iloc[0] == ""


@pytest.mark.parametrize("constants", [None, CONSTANTS])
@pytest.mark.parametrize("value", [0.0, 1.7])
def test_one_constant_in_all_samples_is_no_gain(constants, value):
    """Fails if a pass of zeros is called inputs that were multiplied by a small number, or is to be undone."""
    whole = replace_about(stem_norm(np.full_like(PIXELS, value)), constants)
    found = preprocessing(whole).iloc[0]
    assert found["mistake"].startswith("every sample is the same constant")
    assert (found["undo"], found["scale_predicted"]) == ("", 0.0)


def test_copies_of_one_image_and_almost_constant_ones_are_not_constant():
    """Fails if it is enough that samples are alike, or that they hardly vary."""
    for images in (np.repeat(PIXELS[:1], 60, 0), 0.5 + 1e-3 * (PIXELS - 0.5)):
        found = preprocessing(replace_about(stem_norm(inputs_of(images)), None))
        assert not any(name.startswith("every sample") for name in found["mistake"])


def replace_about(whole: Recording, constants: Normalize | None) -> Recording:
    return replace(whole, about=replace(whole.about, normalize=constants))


def test_black_images_and_pixels_scaled_twice_are_both_named_where_eps_hides_the_difference():
    """Fails if one of two that no number tells apart is called the cause."""
    eps = float(stem_norm(PIXELS).layers[0].running_var.max())
    found = preprocessing(stem_norm(inputs_of(0 * PIXELS), eps=eps)).iloc[0]
    assert not found["certain"]
    assert {"the images are black", "pixels were scaled by 1/255 twice before they were normalized"} <= {
        found["mistake"],
        *found["also"].split("; "),
    }


LIGHT = {
    "brighter": lambda p: np.clip(p + 0.2, 0, 1),
    "half as bright again": lambda p: np.clip(1.5 * p, 0, 1),
    "darker": lambda p: 0.5 * p,
    "flatter": lambda p: 0.5 * p + 0.25,
    "gamma": lambda p: p ** (1 / 2.2),
}


@pytest.mark.parametrize("given", [True, False], ids=["constants given", "guessed"])
@pytest.mark.parametrize("light", LIGHT.values(), ids=LIGHT)
def test_other_light_is_no_mistake(light, given):
    """Fails if brightness and contrast, which images have by themselves, are called a step of preprocessing left out."""
    whole = stem_norm(inputs_of(light(PIXELS)))
    if not given:
        whole = replace(whole, about=replace(whole.about, normalize=None))
    assert not set(preprocessing(whole)["mistake"]) - {""}


@pytest.mark.parametrize(("contrast", "told"), [(1.0, False), (1.2, True)])
def test_another_contrast_is_named_beside_a_mistake_that_predicts_it_poorly(contrast, told):
    """Fails if images with 0.46 times the contrast are surely called not divided by a std of 0.38, or those that were not
    divided other images."""
    found = preprocessing(grey_norm(lambda pixels: contrast * (pixels - GREY.mean[0]), GREY)).iloc[0]
    assert "but not divided by the std" in found["mistake"]
    assert ("another light or contrast" in found["rarer"]) is told


def test_another_exposure_is_named_beside_a_mistake_that_looks_like_it():
    """Fails if pixels times 2.5 are called divided by the std twice, as only a shade that was added counted as light."""
    mean, std = GREY.mean[0], GREY.std[0]
    found = preprocessing(grey_norm(lambda pixels: (2.5 * pixels - mean) / std, GREY)).iloc[0]
    assert "divided by the std twice" in found["mistake"]
    assert "another light or contrast" in found["rarer"]


def test_half_of_what_is_off_must_be_explained():
    """Fails if each image standardized by itself is called one of three mistakes that leave most of it."""
    alone = (PIXELS - PIXELS.mean((1, 2), keepdims=True)) / PIXELS.std((1, 2), keepdims=True)
    found = preprocessing(stem_norm(alone))
    assert (found["explains"] >= 0.5).all()


@pytest.mark.parametrize("inverted", [False, True])
def test_inverted_photographs_look_as_if_colors_were_swapped(inverted):
    """Fails if one is named without the other where the mean color of training lies as far from gray as blue from red."""
    color = np.array([0.5, 0.46, 0.42])[:, None]
    photographs = np.clip(color + 0.1 * np.random.default_rng(0).normal(size=(60, 3, 50)), 0, 1)
    trained = np.einsum("cf,nfp->ncp", MATRIX, inputs_of(photographs))
    fed = 1 - photographs if inverted else photographs[:, ::-1]
    whole = stem_norm(inputs_of(fed), running_mean=trained.mean((0, 2)), running_var=trained.var((0, 2)))
    found = preprocessing(whole).iloc[0]
    named = f"{found['mistake']}; {found['also']}; {found['rarer']}"
    assert "red and blue are swapped" in named
    assert "light and dark are exchanged (1 - p)" in named


def test_constants_of_another_data_set():
    """Fails if constants that do change the inputs go unnoticed: a network trained on -1 to 1 that gets ImageNet's."""
    mean, std = (np.array(v)[:, None] for v in (IMAGENET.mean, IMAGENET.std))
    whole = of_training(lambda p: 2 * p - 1, lambda p: (p - mean) / std)
    halves = Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    found = preprocessing(replace(whole, about=replace(whole.about, normalize=halves))).iloc[0]
    assert "with the constants of ImageNet" in f"{found['mistake']}; {found['also']}"


def test_all_mistakes_are_tried_here():
    """Fails if a mistake lands without a case that makes it."""
    assert len(list(mistakes(CONSTANTS))) == len(MADE) + len(HARDLY)


def test_inputs_as_in_training_need_no_explanation():
    """Fails if chance among many mistakes is enough."""
    other = np.clip(COLOUR[:, None] + 0.2 * RNG.normal(size=(60, 3, 50)), 0, 1)
    assert preprocessing(stem_norm(inputs_of(other))).empty


@pytest.mark.parametrize(("running_mean", "named"), [(0.0, False), (1e-9, True)], ids=["new", "trained"])
def test_a_fresh_norm_shows_no_input(running_mean, named):
    """Fails if running statistics of 0 and 1, as they are made, are taken for those of inputs of training."""
    # pixels whose mean is the constants', before weights that give what is normalized a variance of 1
    pixels = MEAN[:, None] + STD[:, None] * (PIXELS - PIXELS.mean((0, 2))[:, None])
    variance = np.einsum("cf,nfp->ncp", MATRIX, inputs_of(pixels)).var((0, 2))
    stem = Stem(MATRIX / np.sqrt(variance)[:, None], None)
    statistics = {
        "running_mean": np.full(N_CHANNELS, running_mean),
        "running_var": np.ones(N_CHANNELS),
    }
    found = preprocessing(stem_norm(pixels, stem, **statistics))
    assert found["mistake"].str.contains("without subtracting the mean").any() == named


@pytest.mark.parametrize(("n_sides", "named"), [(2, True), (0, False), (1, False), (3, True)])
def test_only_images_have_mistakes_of_images(n_sides, named):
    """Fails if what people do wrong with pixels explains three measurements or a sequence, and not the frames of a film."""
    found = preprocessing(stem_norm(255 * PIXELS, Stem(MATRIX, None, n_sides=n_sides)))
    assert bool(found["mistake"].str.contains("neither scaled nor normalized").any()) == named


TRAINED = inputs_of(PIXELS)


@pytest.mark.parametrize("n_sides", [0, 1])
@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (1e6 * TRAINED, "multiplied by 1e+06 (or −1e+06)"),
        (TRAINED / 1000, "multiplied by 0.001 (or −0.001)"),  # far below eps
        (3 * TRAINED + 1, "multiplied by 3 (or −3) and shifted by a constant"),
        (1.2 * TRAINED, ""),
        (TRAINED * np.array([[1.0], [4.0], [16.0]]), ""),
        (3 * TRAINED + np.array([[1.0], [-6.0], [6.0]]), ""),
    ],
    ids=[
        "volts",
        "thousandths",
        "scaled and shifted",
        "a little more",
        "units of their own",
        "offsets of their own",
    ],
)
def test_signals_in_another_unit(inputs: np.ndarray, words: str, n_sides: int) -> None:
    """Fails if one factor and one offset in all channels are not told, are from a few, or are not undone by the code."""
    whole = stem_norm(inputs, Stem(MATRIX, None, n_sides=n_sides))
    found = preprocessing(replace(whole, about=replace(whole.about, normalize=None)))
    assert found["mistake"].tolist() == ([f"every input was {words}"] if words else [""])
    assert not found["certain"].any()
    assert set(found["constants"]) == {"no pixels"}
    if words:
        names = {"x": torch.tensor(inputs), "torch": torch}
        exec(found["undo"].iloc[0], names)
        torch.testing.assert_close(names["x"], torch.tensor(TRAINED), rtol=1e-3, atol=0.01)


def test_constants_in_use_are_tried_where_none_are_given():
    """Fails if a user who does not give the constants is never told."""
    whole = stem_norm(255 * PIXELS)
    found = preprocessing(replace(whole, about=replace(whole.about, normalize=None)))
    assert "neither scaled nor normalized" in found["mistake"].iloc[0]
    assert set(found["constants"]) == {"guessed"}


@pytest.mark.parametrize(("contrast", "fires"), [(0.33, 0), (1.0, 1)])
def test_a_mistake_that_keeps_the_mean_must_predict_the_scale(contrast, fires):
    """Fails if any scale somewhere near the one that it predicts is taken for a mistake, and no mean speaks for it."""
    found = preprocessing(stem_norm((PIXELS - MEAN[:, None]) * (1 + contrast) / 2))
    assert found["mistake"].str.startswith("the mean was subtracted").any() == fires


def test_a_mean_alone_names_no_mistake():
    """Fails if inputs with the mean of pixels scaled twice are called so, although they vary a hundred times as much."""
    noise = np.random.default_rng(4).normal(size=PIXELS.shape)
    flat = inputs_of(PIXELS / 255)
    assert "1/255 twice before" in preprocessing(stem_norm(flat))["mistake"].iloc[0]
    assert preprocessing(stem_norm(flat + 0.447 * noise)).empty


def test_maps_that_are_equal_are_one():
    """Fails if with mean 0 and std 1 two names of one map keep each other from being certain, or one of them is lost."""
    scaled = Normalize((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    whole = of_training(lambda p: p, lambda p: 255 * p)
    found = preprocessing(replace(whole, about=replace(whole.about, normalize=scaled)))
    assert "neither scaled nor normalized" in found["mistake"].iloc[0]
    assert found["certain"].iloc[0]
    assert "normalized without scaling" in found["also"].iloc[0]


@pytest.mark.parametrize(
    ("trained", "fed", "named"),
    [
        (lambda p: p, lambda p: 255 * p, "neither scaled nor normalized"),
        (lambda p: 255 * p, lambda p: p, "scaled by 1/255"),
    ],
    ids=["0 to 1", "0 to 255"],
)
def test_a_plain_gain_is_found_without_constants(trained, fed, named):
    """Fails if a network trained on pixels that were only scaled, or not even that, gets no word on 0 to 255 or 0 to 1."""
    whole = of_training(trained, fed)
    found = preprocessing(replace(whole, about=replace(whole.about, normalize=None)))
    assert named in f"{found['mistake'].iloc[0]}; {found['also'].iloc[0]}"
    assert found["certain"].iloc[0]


def of_training(trained: Callable[..., np.ndarray], fed: Callable[..., np.ndarray]) -> Recording:
    """The first norm, trained on PIXELS prepared in one way, that sees them prepared in another."""
    before = np.einsum("cf,nfp->ncp", MATRIX, trained(PIXELS))
    return stem_norm(fed(PIXELS), running_mean=before.mean((0, 2)), running_var=before.var((0, 2)))


def test_channels_below_eps_count_in_the_scale():
    """Fails if a gain of 255 is silent where all running variances are below eps, as with pixels through small weights."""
    eps = float(10 * stem_norm(PIXELS).layers[0].running_var.max())
    found = preprocessing(stem_norm(inputs_of(255 * PIXELS), eps=eps))
    assert "without scaling them" in found["mistake"].iloc[0]


def test_two_mistakes_that_fit_alike_are_both_named():
    """Fails if the better of two that hardly differ is called the cause, or the other is not told."""
    between = (inputs_of(inputs_of(PIXELS)) + inputs_of(PIXELS) / STD[:, None]) / 2
    found = preprocessing(stem_norm(between))
    assert len(found) >= 2
    assert not found["certain"].iloc[0]
    named = {found["mistake"].iloc[0], *found["also"].iloc[0].split("; ")}
    assert {"inputs were normalized twice", "inputs were divided by the std twice"} <= named


@pytest.mark.parametrize(
    ("color", "order"),
    [
        ((0.49, 0.46, 0.40), "RGB"),
        ((0.40, 0.46, 0.49), "BGR"),
        ((0.45, 0.45, 0.45), ""),
        ((0.6, 0.5, 0.3), "RGB"),
    ],
)
def test_the_order_of_the_colours_is_that_of_photographs(color, order):
    """Fails if blue photographs are taken for red ones, or gray ones have an order."""
    assert color_order(np.array(color)) == order


@pytest.mark.parametrize("bgr", [False, True])
def test_swapped_colours_have_the_right_direction(bgr):
    """Fails if images are called BGR as cv2.imread returns them where training was BGR and the images are RGB."""
    order = slice(None, None, -1 if bgr else 1)
    photographs = np.clip(0.9 * PIXELS, 0, 1)
    fed = photographs[:, ::-1]
    before = np.einsum("cf,nfp->ncp", MATRIX, inputs_of(photographs[:, order]))
    whole = stem_norm(
        inputs_of(fed[:, order]), running_mean=before.mean((0, 2)), running_var=before.var((0, 2))
    )
    name = preprocessing(whole)["mistake"].iloc[0]
    assert ("training used BGR" in name) == bgr
    assert ("these images are BGR" in name) != bgr


# What enters the first norm, whatever it is: images of any number of channels, sequences, volumes, measurements

INPUTS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "measurements": (lambda: nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16)), (8,)),
    "three measurements": (lambda: nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16)), (3,)),
    "a sequence": (lambda: nn.Sequential(nn.Conv1d(3, 16, 3), nn.BatchNorm1d(16)), (3, 20)),
    "a sequence of four": (lambda: nn.Sequential(nn.Conv1d(4, 16, 3), nn.BatchNorm1d(16)), (4, 20)),
    "a volume": (lambda: nn.Sequential(nn.Conv3d(3, 16, 3), nn.BatchNorm3d(16)), (3, 5, 8, 8)),
    **{
        f"images of {c} channels": (
            lambda c=c: nn.Sequential(nn.Conv2d(c, 16, 3), nn.BatchNorm2d(16)),  # type: ignore[misc]
            (c, 8, 8),
        )
        for c in (1, 2, 3, 4, 5, 12)
    },
}


@pytest.mark.parametrize("moved", [False, True], ids=["as in training", "moved"])
@pytest.mark.parametrize("what", INPUTS)
def test_any_input_has_a_report(what, moved, tmp_path):
    """Fails if the constants of photographs meet channels that they do not have, or explain what is no photograph."""
    make, shape = INPUTS[what]

    def some() -> Tensor:
        return torch.randn(64, *shape)

    model = make().train()
    for _ in range(60):
        model(some())
    batches = [(3 * some() + 2 if moved else some(), None) for _ in range(2)]
    recording = bnprobe.record(model.eval(), batches)
    report = bnprobe.report(recording)
    assert report.findings["rule"].isin(["data-shifted", "input-not-as-trained"]).sum() == moved
    assert report.to_html(tmp_path / "page.html").stat().st_size
    found = set(preprocessing(recording)["mistake"]) - {""}
    if moved and what in ("measurements", "three measurements", "a sequence", "a sequence of four"):
        (mistake,) = found  # three times as much plus 2, as in another unit
        assert "every input was multiplied by " in mistake
        assert mistake.endswith("and shifted by a constant")
    elif what not in ("images of 1 channels", "images of 3 channels", "a volume"):
        assert not found
