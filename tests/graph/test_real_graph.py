"""The real CIFAR ResNet-20 on a thousand images: the graph as the paper draws it, and what follows from it.

The hand-written neighbours of `real` and the graph that was executed must agree to the last bit.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.paths import ROOT

import bnprobe
from bnprobe import models
from bnprobe.models.image_folder import find_images
from bnprobe.recording import Recording
from graph.real import DATA, ResNet20, needs_data

pytestmark = needs_data


@pytest.fixture(scope="module")
def recording() -> Recording:
    model = _model()
    preprocess = models.CropAndScale(size=32, resize=32)
    batches = find_images(DATA / "cifar10_jpeg" / "test").batches(preprocess, 100)
    with bnprobe.attach(model, gradients=False) as probe, torch.no_grad():
        for batch in batches:
            model(torch.stack(batch.images))
    return probe.recording


def _model() -> torch.nn.Module:
    path = ROOT / "scripts" / "cifar_resnet.py"
    spec = importlib.util.spec_from_file_location("cifar_resnet", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.resnet20()
    model.load_state_dict(models.load_checkpoint(DATA / "cifar_resnet20.th"), strict=False)
    return model.eval()


@pytest.fixture(scope="module")
def report(recording: Recording) -> Any:
    return bnprobe.report(recording)


def test_the_graph_is_that_of_the_paper(recording: Recording):
    """ReLU inside a block, a sum and then ReLU at its end; the shortcut of a new stage is no layer's."""
    before = "bn1"
    for record in recording.layers[1:]:
        neighbours, (block, _, norm) = record.neighbours, record.layer.rpartition(".")
        assert neighbours.producer == f"{block}.conv{norm[-1]}"
        if norm == "bn1":
            assert (neighbours.follows, neighbours.skip) == ("relu", "")
            assert neighbours.sources[0] == before
        else:
            assert (neighbours.follows, neighbours.skip_activation) == ("add, relu", "relu")
            assert neighbours.skip == (before if before == "bn1" else f"sum at {before}")
            assert (neighbours.source, neighbours.sources) == ("norm", (f"{block}.bn1",))
            before = record.layer
        assert neighbours.activation == "relu"
    stem = recording.layers[0].neighbours
    assert (stem.follows, stem.producer, stem.sources) == ("relu", "conv1", ("input",))
    assert stem.stem is not None


def test_the_executed_graph_gives_what_the_architecture_gives_by_hand(recording: Recording):
    """Fails if one geometry, border, channel order or source differs from the hand-written ones."""
    real = ResNet20.load()
    by_hand = {**real.inside, **real.between}
    found = {
        record.layer: record.neighbours.implied for record in recording.layers if record.layer in by_hand
    }
    assert found.keys() == by_hand.keys()
    for layer, expected in by_hand.items():
        for name, values in vars(expected).items():
            np.testing.assert_array_equal(getattr(found[layer], name), values, err_msg=f"{layer} {name}")


def before_relu(report: Any) -> pd.DataFrame:
    layers = report.layers
    names = layers.loc[layers["follows"] == "relu", "layer"]
    return report.channels[report.channels["layer"].isin(names)]


def test_dead_channels_are_known_from_the_parameters(report: Any):
    """Precision 1 and recall above .75 against a thousand images; 12 are predicted, 15 never fire."""
    channels = before_relu(report)
    assert len(channels) == 16 + 336
    predicted, dead = channels["dead_predicted"] == 1, channels["fires"] == 0
    assert predicted.sum() == 12
    assert (predicted & dead).sum() == predicted.sum()
    assert (predicted & dead).sum() / dead.sum() > 0.75
    assert (channels.loc[dead, "role"] == "dead").all()
    assert (report.layers["dead_precision"].dropna() == 1).all()


def test_firing_is_predicted_from_the_parameters(report: Any):
    """Within .05 on average over channels; better still with the mean and deviation seen."""
    channels = before_relu(report)
    error = (channels["fires_predicted"] - channels["fires"]).abs()
    assert error.mean() < 0.05
    assert (channels["fires_gaussian"] - channels["fires"]).abs().mean() < 0.5 * error.mean()


def test_mean_predicted_firing_falls_with_depth(report: Any):
    """Of live channels inside blocks, by stage: .46, .33, .27."""
    channels = before_relu(report)
    live = channels[channels["dead_predicted"] == 0]
    means = [live.loc[live["layer"].str.startswith(f"layer{i}"), "fires_predicted"].mean() for i in (1, 2, 3)]
    np.testing.assert_allclose(means, [0.46, 0.33, 0.27], atol=0.006)


def test_branches_against_skips(report: Any):
    """The first block of a stage and the last of all are loud; the null is the same walk from scratch."""
    blocks = report.layers[report.layers["follows"] == "add, relu"].set_index("layer")
    branch = blocks["skip_var"] * blocks["branch_share"] / (1 - blocks["branch_share"])
    expected = [0.16, 0.25, 0.29, 0.42, 0.21, 0.21, 0.85, 0.64, 2.24]
    np.testing.assert_allclose(branch, expected, atol=0.006)
    assert list(blocks["branch_share"].nlargest(2).index) == ["layer3.2.bn2", "layer3.0.bn2"]
    null = blocks["branch_share_initial"].to_numpy()
    np.testing.assert_allclose(null[:3], [1 / 1.341, 1 / 1.695, 1 / 2.055], rtol=0.02)
