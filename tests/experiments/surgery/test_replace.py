"""Replacing: the affine map and frozen statistics give the same outputs, group norm the same means and spreads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

import bnprobe
from bnprobe.errors import BnprobeError, NoNormLayers
from bnprobe.norms import ModuleTree
from bnprobe.probe.integrity.fingerprint import Fingerprint
from experiments.surgery.models import (
    FusedActivation,
    HookOnTheNorm,
    Net,
    NormOfASum,
    PreActivation,
    SharedVectors,
    lived_in,
    pictures,
)


def two() -> nn.Sequential:
    torch.manual_seed(0)
    return lived_in(
        nn.Sequential(
            nn.Conv2d(4, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3),
            nn.BatchNorm2d(12),
            nn.ReLU(),
        )
    )


def outputs(model: nn.Module, at: int, x: Tensor) -> np.ndarray:
    """What the module with this number returns, by channel: (C, values), float64."""
    y = model[: at + 1](x).detach().double().numpy()
    return np.moveaxis(y, 1, 0).reshape(y.shape[1], -1)


@pytest.mark.parametrize("net", [PreActivation, NormOfASum, Net])
@pytest.mark.parametrize("by", ["affine", "frozen"])
def test_the_same_map_gives_the_same_outputs(net: type[Net], by: str) -> None:
    """Also where nothing can be folded; in float64, so that rounding is no excuse."""
    model, x = lived_in(net()).double(), pictures().double()
    found = bnprobe.replace_norms(model, [x], by=by)
    torch.testing.assert_close(found.model(x), model(x), rtol=1e-12, atol=1e-12)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in found.model.modules())


def test_the_affine_map_is_that_of_the_statistics() -> None:
    """Scale and shift by numpy in float64."""
    model = lived_in(Net())
    bn = model.bn
    v = {name: t.detach().double().numpy() for name, t in bn.state_dict().items()}
    scale = v["weight"] / np.sqrt(v["running_var"] + bn.eps)
    made = bnprobe.replace_norms(model, [pictures()], by="affine").model.bn
    np.testing.assert_allclose(made.weight.detach(), scale, rtol=1e-6)
    np.testing.assert_allclose(
        made.bias.detach(), v["bias"] - scale * v["running_mean"], rtol=1e-5, atol=1e-6
    )
    assert sorted(made.state_dict()) == ["bias", "weight"]


def test_frozen_statistics_give_the_same_bits_and_never_move() -> None:
    """Fails if train mode normalizes by the batch or updates anything; γ and β still learn."""
    model = models.resnet18(num_classes=3)
    lived_in(model)
    x = torch.randn(2, 3, 32, 32)
    found = bnprobe.replace_norms(model, [x], by="frozen")
    assert (found.effect.largest_change, found.layers["change"].max(), found.effect.output_change) == (
        0,
        0,
        0,
    )
    assert torch.equal(found.model(x), model(x))
    found.model.train()
    before = found.model.bn1.running_mean.clone()
    found.model(x).sum().backward()
    assert torch.equal(found.model.bn1.running_mean, before)
    assert torch.equal(found.model(x), model(x))
    assert found.model.bn1.weight.grad is not None


def test_frozen_norms_of_dense_inputs_and_without_affine() -> None:
    model = lived_in(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, affine=False)))
    x = torch.randn(5, 4)
    for by in ("affine", "frozen"):
        torch.testing.assert_close(bnprobe.replace_norms(model, [x], by=by).model(x), model(x))


def test_group_norms_give_the_means_and_spreads_that_were_there() -> None:
    """Per channel, over all batches together, by numpy; the second norm is given what the first group norm gives."""
    model, batches = two(), [pictures(8), pictures(5, seed=1) * 2 + 1]
    x = torch.cat(batches)
    found = bnprobe.replace_norms(model, batches, by="group")
    assert [type(m).__name__ for m in found.model] == ["Conv2d", "GroupNorm", "ReLU"] * 2
    assert (found.model[1].num_groups, found.model[4].num_groups) == (2, 3)
    assert found.effect.largest_relative > 0.01
    assert found.effect.notes == ()
    for at in (1, 4):
        old, new = outputs(model, at, x), outputs(found.model, at, x)
        np.testing.assert_allclose(new.mean(1), old.mean(1), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(new.std(1), old.std(1), rtol=1e-3)
        for c in range(len(old)):
            assert np.corrcoef(old[c], new[c])[0, 1] > 0.3, "the sign of γ"


def test_matching_beats_copying_the_vectors() -> None:
    """Against group norm with the old γ and β, which many people write."""
    model, x = two(), pictures(16)
    naive = two()
    for at, groups in ((1, 2), (4, 3)):
        plain = nn.GroupNorm(groups, model[at].num_features)
        plain.load_state_dict({k: v for k, v in model[at].state_dict().items() if k in ("weight", "bias")})
        naive[at] = plain
    lost = (naive(x) - model(x)).norm() / model(x).norm()
    found = bnprobe.replace_norms(model, [x], by="group")
    assert found.effect.output_change < 0.7 * lost.item()


def test_the_number_of_groups_is_taken() -> None:
    model = bnprobe.replace_norms(two(), [pictures()], by="group", groups=4).model
    assert (model[1].num_groups, model[4].num_groups) == (4, 4)
    with pytest.raises(BnprobeError, match="groups=5 does not divide the 8 channels of 1"):
        bnprobe.replace_norms(two(), [pictures()], by="group", groups=5)


def test_norms_that_cannot_be_replaced_stay() -> None:
    both = nn.Sequential(Net(), HookOnTheNorm(), FusedActivation(), SharedVectors())
    layers = bnprobe.replace_norms(lived_in(both), [pictures()], by="affine").layers.set_index("layer")
    assert layers["done"].tolist() == ["replaced by ChannelAffine", "", "", "", ""]
    assert "hooks of yours" in layers.loc["1.bn", "why"]
    assert "is not scale" in layers.loc["2.bn", "why"]
    assert "shares vectors" in layers.loc["3.bn", "why"]


def test_a_norm_in_two_places_is_replaced_in_both() -> None:
    norm = nn.BatchNorm2d(4)
    model = lived_in(nn.Sequential(norm, nn.ReLU(), norm))
    found = bnprobe.replace_norms(model, [pictures()], by="frozen")
    assert found.model[0] is found.model[2]
    assert type(found.model[0]).__name__ == "FrozenNorm"
    assert found.effect.largest_change == 0


@pytest.mark.parametrize("by", ["affine", "frozen", "group"])
def test_the_model_that_was_given_is_as_it_was(by: str) -> None:
    model = two()
    before, places = dict(Fingerprint.of(ModuleTree.of(model)).states), [id(t) for t in model.parameters()]
    state = torch.get_rng_state()
    bnprobe.replace_norms(model, [pictures()], by=by)
    assert dict(Fingerprint.of(ModuleTree.of(model)).states) == before
    assert [id(t) for t in model.parameters()] == places
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("model", "arguments", "error", "says"),
    [
        (two(), {"by": "layer"}, BnprobeError, "by='layer' is not one of affine, frozen, group"),
        (two(), {"by": "affine", "groups": 2}, BnprobeError, "is for by='group'"),
        (two(), {"by": "group", "groups": 0}, BnprobeError, "from 1 on"),
        (lived_in(nn.BatchNorm2d(4)), {"by": "affine"}, BnprobeError, "Wrap it"),
        (
            nn.Sequential(nn.GroupNorm(2, 4)).eval(),
            {"by": "affine"},
            NoNormLayers,
            "can be replaced: 0: a group norm",
        ),
    ],
)
def test_wrong_uses_are_one_line(
    model: nn.Module, arguments: dict, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        bnprobe.replace_norms(model, [pictures()], **arguments)
