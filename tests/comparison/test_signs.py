"""A γ of the other sign is another layer, however alike the distributions of its outputs are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bnprobe


def trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
    )
    for norm in (model[1], model[4]):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return model.state_dict()


@pytest.mark.parametrize("n", [1, 8])
def test_flipped_gammas_are_a_difference(n):
    """Fails if only the size of gamma is compared: the outputs of these channels are mirrored about beta."""
    one, two = trained(), trained()
    two["4.weight"] = two["4.weight"].clone()
    two["4.weight"][:n] *= -1
    comparison = bnprobe.compare(one, two)
    channels = comparison.channels[comparison.channels["layer"] == "4"]
    scale = float(one["4.weight"].square().mean().sqrt())
    expected = 2 * one["4.weight"][:n].abs() / scale
    assert channels["affine_gap"][:n].tolist() == pytest.approx(expected.tolist())
    assert (channels["affine_gap"][n:] == 0).all()
    assert channels["affine_ratio"][:n].tolist() == pytest.approx([-1] * n)
    assert "rounding" not in " ".join(comparison.answer)
    assert comparison.opens.layer == "4"
    assert "4" in set(comparison.findings["layer"])
