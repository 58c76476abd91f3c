"""The example of calibration: where its inputs come from, and that the picture says what the table does."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import torch
from torch import nn

from scripts import made_images, quantization
from scripts.recalibration_study import MEAN, STD, Images


def test_real_images_are_normalized_and_drawn_by_seed() -> None:
    """Fails if pixels are given where the network takes inputs, or every seed draws the same images."""
    x = torch.rand(100, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    made = torch.zeros(2, 3, 4, 4)
    of = quantization.sources(Images(x, torch.zeros(100)), made)
    first, second = of["real images"](0), of["real images"](1)
    assert first.shape == (quantization.N, 3, 4, 4)
    assert not torch.equal(first, second)
    pixels = first * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    gaps = (pixels[:, None] - x).abs().amax((2, 3, 4)).min(1).values
    assert gaps.max() < 1e-5
    assert of["made images"](0) is made
    assert not torch.equal(of["noise"](0), of["noise"](1))


def test_every_source_is_tried_and_shown(monkeypatch) -> None:
    """Fails if a seed is left out, or a bar has no name. The network is not really quantized here."""
    monkeypatch.setattr(quantization, "HOW", {8: lambda network, _: network, 4: lambda network, _: network})
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 10))
    some = Images(torch.rand(70, 3, 4, 4), torch.arange(70) % 10)
    table = quantization.measure(network, some, torch.zeros(2, 3, 4, 4), some)
    assert table["calibrated on"].value_counts().to_dict() == {
        "real images": 6,
        "noise": 6,
        "not quantized": 1,
        "made images": 2,
    }
    assert (table["difference"] == 0).all()
    assert isinstance(table, pd.DataFrame)
    (axes,) = quantization.drawn(table, 70).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"{bits} bits, {name}" for bits in (8, 4) for name in ("real images", "made images", "noise")
    ]


def test_the_judge_learns_its_linear_layer_alone(monkeypatch) -> None:
    """Fails if ImageNet's weights are changed, or the layer is not fitted: two classes that differ in brightness."""
    torch.manual_seed(0)
    monkeypatch.setattr(made_images, "put_weights", lambda _: None)
    monkeypatch.setattr(
        made_images, "mobilenet_v2", lambda **_: SimpleNamespace(features=nn.Conv2d(3, 1280, 8, 8))
    )
    labels = torch.arange(24) % 2
    x = 0.2 * torch.rand(24, 3, 8, 8) + labels[:, None, None, None] / 2
    judge = made_images.trained_judge(Images(x, labels))
    assert not judge.training
    inputs = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    assert judge(inputs).argmax(1).equal(labels)
    assert all(parameter.grad is None for parameter in judge.features.parameters())
