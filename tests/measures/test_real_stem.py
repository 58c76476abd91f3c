"""The stem and the folded layers of the real ResNet-20, on the real images: the published numbers, and what must fail."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from graph.real import DATA, MEAN, STD, ResNet20, needs_data, same
from support.paths import ROOT
from torch import Tensor, nn

import bnprobe
from bnprobe import models
from bnprobe.graph.first_layer import stem as stem_of
from bnprobe.graph.fold import folded
from bnprobe.measures import affine
from bnprobe.measures.stem import stem
from bnprobe.models.image_folder import find_images
from bnprobe.recording import LayerRecord, Recording
from bnprobe.recording.neighbours import Neighbours, Stem
from scripts.article.fold import fold_check

pytestmark = needs_data
TRAINING_MEAN = np.array([0.4914, 0.4822, 0.4465])
"""Of the 50,000 training images of CIFAR-10, as published with many networks."""


def network() -> nn.Module:
    """The architecture, with random weights."""
    spec = importlib.util.spec_from_file_location("cifar_resnet", ROOT / "scripts" / "cifar_resnet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.resnet20().eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    model = network()
    model.load_state_dict(models.load_checkpoint(DATA / "cifar_resnet20.th"), strict=False)
    return model


def images(split: str) -> Tensor:
    source = find_images(DATA / "cifar10_jpeg" / split)
    return torch.cat(
        [torch.stack(b.images) for b in source.batches(models.CropAndScale(size=32, resize=32), 250)]
    )


@pytest.fixture(scope="module")
def test_images() -> Tensor:
    return images("test")


def recorded(model: nn.Module, x: Tensor) -> Recording:
    """Only the stem is run; its neighbours are written down by hand."""
    front = nn.Sequential(model.conv1, model.bn1)
    normalize = (tuple(MEAN), tuple(STD))
    with bnprobe.attach(front, gradients=False, normalize=normalize) as probe, torch.no_grad():
        front(x)
    matrix = stem_of(model.conv1.weight.detach().double().numpy(), None, same(32))
    return with_stem(probe.recording, matrix)


def with_stem(run: Recording, found: Stem, **changes: np.ndarray) -> Recording:
    (record,) = run.layers
    return replace(run, layers=(replace(record, neighbours=Neighbours("relu", stem=found), **changes),))


def stem_matrix(run: Recording) -> Stem:
    neighbours = run.layers[0].neighbours
    assert neighbours is not None
    assert neighbours.stem is not None
    return neighbours.stem


@pytest.fixture(scope="module")
def run(model: nn.Module, test_images: Tensor) -> Recording:
    return recorded(model, test_images)


def test_the_mean_colour_of_the_augmented_training_set_is_decoded(run):
    """Fails if the decoded colour is not the published one, which is within .006 of the truth."""
    found = stem(run)
    assert found.trusted, found.why
    assert tuple(round(value, 3) for value in found.mean_rgb) == (0.431, 0.420, 0.388)
    np.testing.assert_allclose(found.mean_rgb, (0.4255, 0.4176, 0.3866), atol=0.006)
    assert round(found.rmse, 3) == 0.023


def test_the_padding_of_the_training_crops_is_read_back(run):
    """Fails if the share of black is not that of crops with 4 pixels of padding, 13.4%."""
    assumed, found = stem(run).padding, stem(run.with_training_batch(128)).padding
    assert found.pixels == 4
    assert round(found.share, 4) == 0.1341
    assert abs(found.share_mixed - 0.1341) < 0.01
    # which images were run .0065, the running means' own noise .005 at batches of 128; .010 at the 32 that are assumed
    assert 0.0065 < found.share_se < 0.011 < assumed.share_se < 0.016
    assert (assumed.pixels, assumed.possible) == (None, (4, 5))
    assert assumed.share == pytest.approx(0.1341, abs=0.005)
    assert found.rmse < 0.01
    assert found.corr_clean < 0.3
    assert found.corr_padded > 0.995


def test_the_running_mean_is_that_of_padded_images_and_not_of_clean_ones(run):
    """Fails if the correlations with what the training set's own mean colour gives are not the published .26, .995."""
    weights, running = stem_matrix(run), run.layers[0].running_mean
    clean, black = (TRAINING_MEAN - MEAN) / STD, -MEAN / STD
    crop = weights.crops[3]
    assert crop.padding == 4
    as_they_are = weights.matrix @ clean
    padded = crop.matrix @ clean + (weights.matrix - crop.matrix) @ black
    assert round(np.corrcoef(running, as_they_are)[0, 1], 2) == 0.26
    assert round(np.corrcoef(running, padded)[0, 1], 3) == 0.995


def test_statistics_of_clean_images_claim_no_augmentation(model, run):
    """Fails if padding is found where there is none: the norm's statistics again from 1,000 clean training images."""
    with torch.no_grad():
        x = model.conv1(images("train")).double()
    mean, var = x.mean((0, 2, 3)).numpy(), x.var((0, 2, 3)).numpy()
    found = stem(with_stem(run, stem_matrix(run), running_mean=mean, running_var=var))
    assert found.trusted, found.why
    assert found.padding.pixels is None
    assert abs(found.padding_share) < 0.02
    np.testing.assert_allclose(found.mean_rgb, TRAINING_MEAN, atol=0.02)


def test_a_fresh_network_and_permuted_rows_are_not_trusted(run, test_images):
    """Fails if anything but the running statistics of a trained stem is believed."""
    fresh = stem(recorded(network(), test_images[:10]))
    assert not fresh.trusted
    assert "never updated" in fresh.why
    rng, weights = np.random.default_rng(0), stem_matrix(run)
    for _ in range(100):
        order = rng.permutation(16)
        assert not stem(with_stem(run, Stem(weights.matrix[order], None))).trusted


def test_a_dark_data_set_in_place_of_the_right_one_tells_no_padding(model):
    """Fails if any other images pass for training images with or without black around them."""
    other = (torch.rand(50, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.3).sub(
        torch.tensor(MEAN)[:, None, None]
    )
    found = stem(recorded(model, (other / torch.tensor(STD)[:, None, None]).float()))
    assert found.trusted
    assert found.padding is None


def records(net: ResNet20) -> dict[str, LayerRecord]:
    """A record of each norm as far as its parameters go: the stem's, with the arrays of another norm."""
    from measures.sites import site, some_rows

    found = {}
    for at in net.norms:
        gamma, beta = net[f"{at}.weight"], net[f"{at}.bias"]
        mean, var = net[f"{at}.running_mean"], net[f"{at}.running_var"]
        rows = net[f"{at.replace('bn', 'conv')}.weight"].reshape(gamma.size, -1)
        neighbours = Neighbours("relu", folded=folded(rows, None, gamma, mean, var, 1e-5))
        vectors = {"gamma": gamma, "beta": beta, "running_mean": mean, "running_var": var}
        found[at] = site(
            some_rows(n_channels=gamma.size), at, neighbours=neighbours, histograms=False, **vectors
        )
    return found


def test_folded_ranges_are_those_of_a_network_that_quantizes_well():
    """Fails if the typical channel's range is not about half of its layer's widest, as was published."""
    layers = {at: affine.layer_columns(record) for at, record in records(ResNet20.load()).items()}
    spread = [layer["folded_spread"] for layer in layers.values()]
    assert 0.46 < np.median(spread) < 0.53
    assert 0.11 < min(spread) < 0.31
    assert max(layer["bits_lost_worst"] for layer in layers.values()) < 6


def test_dead_filters_kept_the_norm_of_an_old_day():
    """Fails if the length of the weights is not theirs: dead channels hold .0155 of the initial norm, √2."""
    dead = []
    for record in records(ResNet20.load()).values():
        if record.layer.endswith(".bn1"):
            off = record.beta + 6 * np.abs(record.gamma) < 1e-4
            dead.append(affine.channel_columns(record)["filter_norm"][off])
    dead = np.concatenate(dead)
    assert dead.size == 11
    assert round(float(dead.mean() / np.sqrt(2)), 4) == 0.0155


def test_folding_changes_the_real_network_by_rounding_alone(model, test_images):
    """Fails if folding the stem changes an output by more than float32 rounds."""
    assert 0 < fold_check(model.conv1, model.bn1, test_images[:100]) < 1e-5
