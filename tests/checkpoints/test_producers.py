"""The weights before a norm are told right or not at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.checkpoints import as_read
from torch import nn
from torchvision import models

from bnprobe.checkpoints.groups import grouped
from bnprobe.checkpoints.producers import filters, folded, producers


def guess(state: dict[str, torch.Tensor]) -> dict[str, str]:
    read = as_read(state)
    return producers(read, grouped(read).norms)


def executed(model: nn.Module, side: int) -> dict[str, str]:
    """The truth, by running the model: a norm's feeder is the layer that returned the very tensor it takes."""
    made: dict[int, str] = {}
    truth: dict[str, str] = {}
    kept = []

    def remember(name: str, y: torch.Tensor) -> None:
        made[id(y)] = name
        kept.append(y)  # or its id would be given to another

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda _m, _a, y, name=name: remember(name, y))
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.register_forward_pre_hook(
                lambda _m, args, name=name: truth.update({name: made.get(id(args[0]), "")})
            )
    with torch.no_grad():
        model(torch.empty(1, 3, side, side, device="meta"))
    return truth


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("resnet18", 20),
        ("resnext50_32x4d", 53),
        ("densenet121", 1),  # norms stand before their convolutions: one pair is certain
        ("mobilenet_v3_small", 34),
        ("shufflenet_v2_x0_5", 56),
        ("vgg11_bn", 8),
        ("convnext_tiny", 1),
        ("swin_t", 0),
        ("vit_b_32", 0),
    ],
)
def test_no_guess_is_wrong(name, found):
    """Fails if a neighbour is claimed that the executed network does not have, in the file's order or without one."""
    with torch.device("meta"):
        model = models.get_model(name, weights=None).eval()
    truth = executed(model, 224)
    state = {key: torch.empty(value.shape, dtype=value.dtype) for key, value in model.state_dict().items()}
    for names in (state, dict(sorted(state.items()))):
        guessed = guess(names)
        assert guessed.items() <= truth.items()
        assert len(guessed) == found


def pair(conv: str, bn: str, shape: tuple[int, ...] = (5, 3, 3, 3)) -> dict[str, torch.Tensor]:
    n = 5
    return {
        f"{conv}.weight": torch.ones(shape),
        **{f"{bn}.{leaf}": torch.ones(n) for leaf in ("weight", "bias", "running_var")},
        f"{bn}.running_mean": torch.linspace(-1, 1, n),
    }


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (pair("conv1", "bn1"), {"bn1": "conv1"}),
        (pair("a.conv", "a.norm"), {"a.norm": "a.conv"}),
        (pair("0", "1"), {"1": "0"}),
        (pair("0", "2"), {}),  # what stands between them is not known
        (pair("conv1", "bn2"), {}),
        (pair("a.conv1", "b.bn1"), {}),
        (pair("conv1", "bn1", (4, 3, 3, 3)), {}),
        (pair("deconv1", "bn1"), {}),
        (pair("0", "1", (5, 5, 4, 4)), {}),  # a transposed convolution has its outputs elsewhere
        ({**pair("conv1", "bn1"), "fc1.weight": torch.ones(5, 5)}, {"bn1": "conv1"}),  # by the order
        ({"fc1.weight": torch.ones(5, 5), **pair("conv1", "bn1")}, {"bn1": "conv1"}),
        (pair("mix", "normalizer"), {"normalizer": "mix"}),
        (pair("block.conv", "block.bn.bn"), {"block.bn.bn": "block.conv"}),
        (pair("block.conv2", "final"), {}),  # a sum may stand between
        ({**pair("mix", "n", (5, 3)), "n.running_mean": -torch.ones(5)}, {"n": "mix"}),
        (pair("mix", "n") | {"n.running_mean": torch.ones(5)}, {}),  # nowhere below 0: a ReLU stands between
        ({"c1.weight": torch.ones(5, 3), **pair("c2", "nx"), **pair("c3", "ny")}, {"nx": "c2", "ny": "c3"}),
        (
            {
                "c2.weight": torch.ones(5, 5),
                **pair("c1", "x"),
                **{f"y{k[1:]}": v for k, v in pair("c1", "x").items() if k[0] == "x"},
            },
            {},
        ),
        ({k: pair("conv1", "bn1")[k] for k in reversed(pair("conv1", "bn1"))}, {}),  # the norm comes first
    ],
)
def test_pairs_are_siblings_of_one_number_and_nothing_else(state, expected):
    """Fails if a pair is claimed where two answers fit, or the order of the file is not asked."""
    assert guess({"z": torch.ones(1), **state}) == expected  # a first name out of order: the file has one


def test_folded_is_what_folding_gives(rng):
    """Fails if gamma's sign, eps or the axis of the outputs is lost: the fold itself, layer by layer, in float64."""
    conv = nn.Conv2d(3, 4, 3, bias=True)
    bn = nn.BatchNorm2d(4, eps=1e-5)
    bn.weight.data = torch.tensor(rng.normal(size=4), dtype=torch.float32)
    bn.running_var.data = torch.tensor(rng.gamma(1.0, size=4), dtype=torch.float32)
    state = {f"conv1.{k}": t for k, t in conv.state_dict().items()} | {
        f"bn1.{k}": t for k, t in bn.state_dict().items()
    }
    read = as_read(state)
    alone = filters(read["conv1.weight"])
    assert alone is not None
    ends = folded(alone, read["conv1.bias"], grouped(read).norms[0], 1e-5)
    fused = torch.nn.utils.fuse_conv_bn_eval(conv.double().eval(), bn.double().eval()).weight.detach().numpy()
    np.testing.assert_allclose(
        ends.norm, np.sqrt((conv.weight.detach().numpy() ** 2).sum((1, 2, 3))), rtol=1e-12
    )
    np.testing.assert_allclose(ends.low, fused.min((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(ends.high, fused.max((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(ends.bias, conv.bias.detach().numpy())


def test_an_expanded_weight_is_not_unfolded():
    """Fails if a tensor of a few bytes that declares terabytes is copied."""
    huge = as_read({"": torch.ones(1).expand(5, 2**40)})[""]
    assert filters(huge) is None


def test_filters_are_gone_through_in_parts(rng, monkeypatch):
    """Fails if a part of a large weight is left out, or its rows change places."""
    weight = rng.normal(size=(7, 3, 2, 2)).astype(np.float32)
    tensor = as_read({"": torch.tensor(weight)})[""]
    for most in (1, 12, 25, 1000):
        monkeypatch.setattr("bnprobe.weights.tensor.BLOCK", most)
        found = filters(tensor)
        np.testing.assert_allclose(found.length, np.linalg.norm(weight.reshape(7, -1), axis=1), rtol=1e-6)
        np.testing.assert_array_equal(found.low, weight.min(axis=(1, 2, 3)))
        np.testing.assert_array_equal(found.high, weight.max(axis=(1, 2, 3)))
        np.testing.assert_allclose(found.summed, weight.astype(np.float64).sum(axis=(2, 3)), rtol=1e-12)
