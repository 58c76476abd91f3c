"""What the stem reveals: a known data set is read back, and whatever cannot be known is not reported."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from graph.layers import geometry_of, values_of
from torch import nn

import bnprobe
from bnprobe.graph.first_layer import image_share
from bnprobe.graph.first_layer import stem as stem_of
from bnprobe.measures.stem import LARGEST_CONDITION, stem
from bnprobe.recording import Normalize, Recording
from bnprobe.recording.neighbours import Neighbours, Stem
from measures.sites import recording, site, some_rows

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SIZE = 16


def images(n: int = 64, seed: int = 0) -> torch.Tensor:
    """Pixels in 0 to 1 of one mean colour at every position, with smooth differences between images."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(-1, 1, size=(n // 2, 3, 4, 4)))
    rough = nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="nearest") * 0.2
    both = torch.cat([rough, -rough])  # so that the mean is exactly the colour
    return both + torch.tensor([0.55, 0.45, 0.25])[:, None, None]


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def all_crops(pixels: torch.Tensor, padding: int) -> torch.Tensor:
    """Every place at which a random crop can start, so that nothing is left to chance."""
    padded = nn.functional.pad(pixels, (padding,) * 4)
    starts = range(2 * padding + 1)
    return torch.cat([padded[..., i : i + SIZE, j : j + SIZE] for i in starts for j in starts])


class Net(nn.Module):
    def __init__(self, channels: int = 16, seed: int = 0, **options) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, channels, 3, padding=1, **options)
            self.bn = nn.BatchNorm2d(channels, momentum=None)
        self.double()

    def forward(self, x):
        return self.bn(self.conv(x))


def trained(pixels: torch.Tensor, **options) -> Net:
    """A net whose norm has seen all these images once, as one batch."""
    net = Net(**options).train()
    with torch.no_grad():
        net(normalized(pixels))
    return net.eval()


def recorded(net: Net, pixels: torch.Tensor, normalize=(MEAN, STD)) -> Recording:
    """A run of the net on these images, its neighbours written down by hand."""
    with bnprobe.attach(net, gradients=False, normalize=normalize) as probe, torch.no_grad():
        net(normalized(pixels))
    return wired(probe.recording, stem_of(*values_of(net.conv), geometry_of(net.conv.double(), (SIZE, SIZE))))


def wired(run: Recording, found: Stem | None) -> Recording:
    layers = [replace(record, neighbours=Neighbours("none", stem=found)) for record in run.layers]
    return replace(run, layers=tuple(layers))


def stem_weights(run: Recording) -> Stem:
    neighbours = run.layers[0].neighbours
    assert neighbours is not None
    assert neighbours.stem is not None
    return neighbours.stem


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_the_mean_colour_of_the_training_images_is_read_back():
    """Fails if the bias, the border, or mean and std of the preprocessing are left out."""
    found = stem(recorded(trained(images()), images(8, seed=1)))
    assert found.trusted, found.why
    assert found.mean_rgb == pytest.approx((0.55, 0.45, 0.25), abs=0.005)
    assert found.mean_input == pytest.approx(
        ((0.55 - 0.5) / 0.2, (0.45 - 0.4) / 0.25, (0.25 - 0.3) / 0.3), abs=0.03
    )
    assert (found.n_equations, found.n_unknowns, found.layer) == (16, 3, "bn")
    assert found.r2 > 0.99
    assert found.rmse < 0.02
    assert "16 running means of bn for 3 input channels" in found.why


def test_images_that_were_not_padded_show_no_padding():
    """Fails if the share of black is a constant of the method: clean statistics must give none."""
    found = stem(recorded(trained(images()), images()))
    assert found.trusted, found.why
    assert found.padding_share == pytest.approx(0, abs=1e-6)
    assert found.padding.pixels is None
    assert found.padding.corr_clean > 0.999


@pytest.mark.parametrize("padding", [1, 2, 4])
def test_a_random_crop_is_recognised_by_its_padding(padding):
    """Fails if another padding explains the border, or the share is not that of the black pixels."""
    found = stem(recorded(trained(all_crops(images(), padding)), images()))
    assert found.trusted, found.why
    black = 1 - image_share(SIZE, padding).mean() ** 2
    assert (all_crops(torch.ones(1, 1, SIZE, SIZE), padding) == 0).double().mean() == pytest.approx(black)
    assert found.padding.pixels == padding
    assert found.padding_share == pytest.approx(black)
    assert found.padding.share_mixed == pytest.approx(black, abs=0.05)
    assert found.padding.corr_padded > 0.995 > found.padding.corr_clean
    clean = torch.tensor([0.55, 0.45, 0.25])
    assert found.mean_rgb == pytest.approx(tuple((clean * (1 - black)).tolist()), abs=0.03)


def test_black_that_is_not_around_a_crop_is_a_mixture():
    """Fails if only crops are known: here a share of the images is black altogether."""
    pixels = images()
    pixels = torch.cat([pixels, torch.zeros(16, 3, SIZE, SIZE)])
    found = stem(recorded(trained(pixels), images()))
    assert found.padding.pixels is None
    assert found.padding_share == pytest.approx(16 / 80, abs=1e-6)
    assert found.padding.rmse < 1e-6
    assert found.padding.rmse < 1e-6


def test_other_images_than_those_of_training_tell_no_padding():
    """Fails if a darker or a coloured data set passes for one with black pixels."""
    net = trained(images())
    for other in (images() * 0.5, images().flip(1)):
        found = stem(recorded(net, other))
        assert found.trusted
        assert found.padding_share is None
        assert found.mean_rgb is not None
        assert "black borders around these images do not explain" in found.why


def test_without_the_preprocessing_there_are_only_units_of_the_input():
    """Fails if constants are guessed: the means of one checkpoint differ between repositories."""
    found = stem(recorded(trained(images()), images(), normalize=None))
    assert found.trusted
    assert found.mean_input[0] == pytest.approx(0.25, abs=0.03)
    assert found.mean_rgb is found.seen_pixels is found.padding_share is None
    assert "normalize=(mean, std)" in found.why


def test_a_fresh_network_is_not_trusted():
    """Fails if running means of 0 pass for running statistics of grey images."""
    found = stem(recorded(Net().eval(), images()))
    assert not found.trusted
    assert found.mean_rgb is None
    assert found.padding_share is None
    assert "never updated" in found.why


def test_running_means_of_other_channels_are_not_trusted():
    """Fails if any sixteen numbers are explained by three: rows in another order must not be."""
    run = recorded(trained(images()), images())
    weights = stem_weights(run)
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = wired(run, Stem(weights.matrix[rng.permutation(16)], weights.bias))
        found = stem(other)
        assert not found.trusted, found
        assert found.mean_rgb is None
        assert found.mean_input is not None


def test_small_means_that_no_colour_explains_are_not_trusted():
    """Fails if a small residual is enough: these means are all small, and a mean input explains none of them."""
    run = recorded(trained(images()), images())
    noise = 0.05 * np.random.default_rng(1).normal(size=16)
    weights = Stem(stem_weights(run).matrix, None)
    record = replace(run.layers[0], running_mean=noise, running_var=np.ones(16))
    found = stem(wired(replace(run, layers=(record,)), weights))
    assert found.rmse < 0.06
    assert not found.trusted
    assert "explains too little" in found.why


def test_a_mean_that_is_no_colour_is_not_trusted():
    """Fails if constants of another preprocessing give a colour beyond white."""
    found = stem(recorded(trained(images()), images(), normalize=((0.5, 0.4, 3.0), STD)))
    assert not found.trusted
    assert "preprocessing" in found.why


def test_filters_that_see_no_colour_cannot_tell_it():
    """Fails if a direction that hardly reaches the norm is divided by."""
    net = Net()
    with torch.no_grad():
        net.conv.weight[:, 2] = net.conv.weight[:, 1] * (1 + 1e-4)
    net.train()(normalized(images()))
    found = stem(recorded(net.eval(), images()))
    assert found.condition > LARGEST_CONDITION
    assert not found.trusted
    assert "condition number" in found.why


def test_too_few_channels_are_too_few_equations():
    """Fails if five numbers for three unknowns are called a fit."""
    found = stem(recorded(trained(images(), channels=5), images()))
    assert not found.trusted
    assert found.why.startswith("Not identifiable here: 5 running means of bn are too few for 3")


def test_one_input_channel_is_told_in_pixels_and_not_as_a_colour():
    """Fails if a grey input is made up to three channels."""
    run = recorded(trained(images(), channels=8), images())
    matrix = np.linspace(-1, 1, 8)[:, None]
    record = run.layers[0]
    record = replace(
        record,
        running_mean=matrix[:, 0] * 0.4,
        running_var=np.ones(8),
        neighbours=Neighbours("none", stem=Stem(matrix, None)),
    )
    about = replace(run.about, normalize=Normalize((0.3,), (0.5,)))
    found = stem(replace(run, layers=(record,), about=about))
    assert found.trusted
    assert "8 running means of bn for 1 input channel (" in found.why
    assert found.mean_input == pytest.approx((0.4,), rel=1e-4)
    assert found.mean_pixels == pytest.approx((0.5,), rel=1e-4)
    assert found.mean_rgb is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "no norm was seen that the model's input reaches"),
        ({"neighbours": Neighbours("relu")}, "no norm was seen that the model's input reaches"),
        (
            {"neighbours": Neighbours("relu", stem=Stem(np.ones((3, 3)), None))},
            "stores no running statistics",
        ),
    ],
    ids=["nothing found", "no stem", "no running statistics"],
)
def test_other_networks_get_a_sentence_and_no_colour(changes, says):
    """Fails if a network without such a stem has a colour, or an error instead of a sentence."""
    report = bnprobe.report(recording(site(some_rows(), **changes)))
    assert not report.stem.trusted
    assert report.stem.why.startswith("Not identifiable here: ")
    assert says in report.stem.why
    assert report.stem.mean_rgb is None
    assert math.isnan(report.stem.r2)


def test_constants_travel_with_the_recording(tmp_path):
    """Fails if a saved recording forgets the preprocessing, or two that differ are merged as if they were one."""
    run = recorded(trained(images()), images())
    loaded = bnprobe.load(run.save(tmp_path / "run.bnp"))
    assert loaded.about.normalize == Normalize(MEAN, STD)
    assert bnprobe.report(loaded).stem == stem(run)
    assert run.merge(loaded).about.normalize == Normalize(MEAN, STD)
    other = replace(loaded, about=replace(loaded.about, normalize=None))
    assert run.merge(other).about.normalize is other.merge(run).about.normalize is None


@pytest.mark.parametrize(
    "constants", [((0.5,), (0.2, 0.3)), ((), ()), ((0.5,), (0.0,)), ((0.5,), (math.nan,))]
)
def test_constants_that_do_not_go_together_are_refused(constants):
    """Fails if a division by zero is found only in the report."""
    with pytest.raises(bnprobe.BnprobeError, match="Give one number of each per channel"):
        bnprobe.attach(Net(), normalize=constants)
