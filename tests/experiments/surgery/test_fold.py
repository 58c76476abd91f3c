"""Folding: the same outputs by float64 and by torch's own fusion, only where the pass proves it, and the model as it was."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import fusion
from torchvision import models, ops
from torchvision.models.googlenet import Inception

import bnprobe
from bnprobe.errors import BnprobeError, NoNormLayers, NothingRecorded
from bnprobe.experiments.surgery.converted import ANOTHER_WAY
from bnprobe.norms import ModuleTree
from bnprobe.probe.integrity.fingerprint import Fingerprint
from experiments.surgery.models import REFUSED, Net, lived_in, pictures

PAIRS = {
    "conv": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), (5, 4, 7, 5)),
    "without bias": (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), (5, 4, 7, 5)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (5, 4, 7, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8), (5, 4, 7, 5)),
    "reflected": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6), (5, 4, 7, 5)),
    "1d": (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), (5, 4, 7)),
    "3d": (nn.Conv3d(4, 6, 2), nn.BatchNorm3d(6), (5, 4, 3, 5, 7)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), (5, 4, 3, 2)),
    "transposed, grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (5, 4, 3, 2)),
    "linear": (nn.Linear(4, 6), nn.BatchNorm1d(6), (5, 4)),
    "without γ and β": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False), (5, 4, 7, 5)),
    "large eps": (nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6, eps=0.5), (5, 4)),
}


def pair(name: str) -> tuple[nn.Sequential, Tensor]:
    layer, norm, shape = PAIRS[name]
    model = lived_in(nn.Sequential(*copy.deepcopy((layer, norm)))).double()
    return model, torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", PAIRS)
def test_the_folded_layer_computes_what_both_did(name: str) -> None:
    """Fails if scale or shift reaches other channels, or a bias is lost: in float64 the outputs are the same."""
    model, x = pair(name)
    found = bnprobe.fold(model, [x])
    assert found.layers[["layer", "done", "why"]].to_numpy().tolist() == [["1", "folded into 0", ""]]
    assert isinstance(found.model[1], nn.Identity)
    torch.testing.assert_close(found.model(x), model(x), rtol=1e-12, atol=1e-12)
    assert found.effect.largest_change < 1e-12 < found.layers["change"][0] + 1e-11


@pytest.mark.parametrize("name", [n for n in PAIRS if n != "transposed, grouped"])
def test_torchs_own_fusion_gives_the_same_weights(name: str) -> None:
    """A second source: `fuse_conv_bn_eval` and `fuse_linear_bn_eval`."""
    model, x = pair(name)
    layer, norm = model
    fused = (
        fusion.fuse_linear_bn_eval(layer, norm)
        if isinstance(layer, nn.Linear)
        else fusion.fuse_conv_bn_eval(layer, norm, transpose="transposed" in name)
    )
    made = bnprobe.fold(model, [x]).model[0]
    torch.testing.assert_close(made.weight, fused.weight, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(made.bias, fused.bias, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("net", "says"), REFUSED, ids=lambda v: v.__name__ if isinstance(v, type) else "")
def test_what_cannot_be_folded_stays_and_is_told_why(net: type[Net], says: str) -> None:
    """Fails if a norm is folded where outputs elsewhere would change, or weights are not the layer's own."""
    assert re.search(says, reason(lived_in(net())))


def reason(model: nn.Module) -> str:
    """Why `bn` stays: from the table, or from the error where no norm of the model can be folded."""
    try:
        layers = bnprobe.fold(model, [pictures()]).layers.set_index("layer")
    except NoNormLayers as error:
        return str(error)
    return str(layers.loc["bn", "why"]) if not layers.loc["bn", "done"] else "it was folded"


@pytest.mark.parametrize(("net", "says"), REFUSED, ids=lambda v: v.__name__ if isinstance(v, type) else "")
def test_the_outputs_stay_whatever_was_refused(net: type[Net], says: str) -> None:
    """Fails if a part of a fold is left in a model: other norms may have been folded, this one was not."""
    model, x = lived_in(net()), pictures()
    try:
        found = bnprobe.fold(model, [x])
    except NoNormLayers:
        return
    assert found.effect.largest_relative < 1e-5
    assert found.effect.output_change < 1e-5


def small_densenet() -> nn.Module:
    return models.DenseNet(8, (2, 2), 16, num_classes=5)


@pytest.mark.parametrize(
    ("build", "folded", "of"),
    [
        (lambda: models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5), 12, 12),
        (lambda: models.mobilenet_v3_small(num_classes=5), 34, 34),
        (lambda: models.shufflenet_v2_x0_5(num_classes=5), 56, 56),
        (lambda: models.vgg.make_layers([4, "M", 6, "M"], batch_norm=True), 2, 2),
        (lambda: Inception(3, 3, 4, 5, 2, 3, 2), 6, 6),
        (small_densenet, 5, 11),
    ],
    ids=["resnet", "mobilenet_v3", "shufflenet", "vgg", "inception", "densenet"],
)
def test_architectures_of_torchvision(build: object, folded: int, of: int) -> None:
    """A densenet normalizes before its convolutions: there only those between two convolutions can be folded."""
    torch.manual_seed(0)
    model = lived_in(build())  # type: ignore[operator]
    x = torch.randn(2, 3, 32, 32)
    found = bnprobe.fold(model, [x])
    done = found.layers["done"] != ""
    assert (done.sum(), len(done)) == (folded, of)
    assert found.effect.largest_relative < 1e-4
    assert found.layers["change_relative"].max() < 1e-4
    assert sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in found.model.modules()) == of - folded
    if of > folded:
        reasons = set(found.layers.loc[~done, "why"])
        assert reasons <= {
            f"it reads {what}, not the output of a convolution or linear layer"
            for what in ("a concatenation", "max_pool", "avg_pool")
        }


def test_layer_norms_are_refused_with_the_reason() -> None:
    with pytest.raises(NoNormLayers, match="a layer norm computes its statistics from each sample"):
        bnprobe.fold(models.convnext_tiny().eval(), [torch.randn(1, 3, 32, 32)])


def test_a_frozen_norm_of_torchvision_is_folded() -> None:
    """Its four vectors are buffers, and it is no batch norm by class."""
    model = nn.Sequential(nn.Conv2d(4, 6, 3), ops.FrozenBatchNorm2d(6)).eval()
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    found = bnprobe.fold(model, [pictures()])
    assert found.layers["done"].tolist() == ["folded into 0"]
    torch.testing.assert_close(found.model(pictures()), model(pictures()))


def test_a_block_that_runs_twice_is_folded_once() -> None:
    """Both calls of the norm read a call of the one convolution."""

    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.bn(self.conv(self.bn(self.conv(x)).relu()))

    model = lived_in(Twice())
    found = bnprobe.fold(model, [pictures()])
    assert found.layers["done"].tolist() == ["folded into conv"]
    torch.testing.assert_close(found.model(pictures()), model(pictures()), rtol=1e-4, atol=1e-4)


def test_a_norm_between_transposes_is_folded() -> None:
    """Features last in the linear layer, second in the norm."""

    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.bn = nn.Linear(4, 6), nn.BatchNorm1d(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.bn(self.linear(x).transpose(1, 2)).transpose(1, 2)

    model, x = lived_in(Sequence()), torch.randn(3, 7, 4)
    found = bnprobe.fold(model, [x])
    assert found.layers["done"].tolist() == ["folded into linear"]
    torch.testing.assert_close(found.model(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_model_that_was_given_is_as_it_was() -> None:
    """Bit for bit: tensors, modes, hooks, flags, and the random states."""
    model = lived_in(nn.Sequential(Net(), nn.Dropout(), Net()))
    model[2].bn.requires_grad_(False)
    model[1].training = True
    calls: list[int] = []
    model[1].register_forward_hook(lambda module, args, output: calls.append(1))
    before, places = dict(Fingerprint.of(ModuleTree.of(model)).states), [id(t) for t in model.parameters()]
    state = torch.get_rng_state()
    found = bnprobe.fold(model, [pictures(), pictures(seed=1)])
    assert dict(Fingerprint.of(ModuleTree.of(model)).states) == before
    assert [id(t) for t in model.parameters()] == places
    assert torch.equal(torch.get_rng_state(), state)
    assert len(found.layers) == 2
    assert not {id(t) for t in found.model.parameters()} & set(places)
    assert not found.model[0].conv._forward_hooks


def test_channels_last_and_flags_are_kept() -> None:
    model = lived_in(Net()).to(memory_format=torch.channels_last).requires_grad_(False)
    conv = bnprobe.fold(model, [pictures()]).model.conv
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not conv.weight.requires_grad
    assert not conv.bias.requires_grad


def test_half_precision_is_folded_within_its_rounding() -> None:
    model = lived_in(Net()).to(torch.bfloat16)
    found = bnprobe.fold(model, [pictures().to(torch.bfloat16)])
    assert found.layers["done"].tolist() == ["folded into conv"]
    assert found.model.conv.bias.dtype == torch.bfloat16
    assert found.effect.largest_relative > 1e-3  # more than float32 rounds
    assert found.effect.notes == ()


def test_another_way_for_other_inputs_shows_in_the_effect() -> None:
    """The first batch decides; what the others change is measured on the outputs."""

    class Fork(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.bn(self.conv(x) if x.mean() < 10 else x)

    found = bnprobe.fold(lived_in(Fork()), [pictures(), pictures() + 100])
    assert found.layers["done"].tolist() == ["folded into conv"]
    assert found.effect.largest_relative > 0.1
    assert found.effect.notes == (ANOTHER_WAY,)
    assert bnprobe.fold(lived_in(Fork()), [pictures()]).effect.notes == ()


def test_only_those_that_match_are_folded() -> None:
    model = lived_in(nn.Sequential(Net(), Net()))
    layers = bnprobe.fold(model, [pictures()], layers="1.*").layers
    assert layers["done"].tolist() == ["", "folded into 1.conv"]
    assert layers["why"].tolist() == ["no pattern of layers= matches it", ""]
    with pytest.raises(NoNormLayers, match=r"matches nothing\. It has 0\.bn, 1\.bn"):
        bnprobe.fold(model, [pictures()], layers="nothing")


def test_a_model_that_is_called_in_another_way() -> None:
    class Parts(Net):
        def step(self, batch: Tensor) -> Tensor:
            return self.conv(batch)

    model = lived_in(Parts())
    found = bnprobe.fold(model, [pictures()], call=lambda m, batch: m(batch) * 2)
    assert found.layers["done"].tolist() == ["folded into conv"]
    found = bnprobe.fold(model, [pictures()], call=lambda m, batch: m.bn(m.step(batch)))
    assert "could not be followed" in found.layers["why"][0]


def test_the_accuracy_comes_with_its_interval() -> None:
    model = lived_in(nn.Sequential(Net(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    found = bnprobe.fold(model, [(pictures(30), torch.arange(30) % 4)])
    assert (found.effect.metric, found.effect.difference, found.effect.n) == ("accuracy", 0, 30)
    assert repr(found).startswith("Converted(1 of 1 norm changed; outputs change by at most ")
    assert "folded into 0.conv" in found._repr_html_()


class Uncopyable(Net):
    def __deepcopy__(self, memo: object) -> None:
        raise RuntimeError("no copies")


@pytest.mark.parametrize(
    ("model", "batches", "error", "says"),
    [
        (
            lived_in(Net()).train(),
            [pictures()],
            BnprobeError,
            r"is in train mode.*Call model\.eval\(\) first",
        ),
        (lived_in(Uncopyable()), [pictures()], BnprobeError, "cannot be copied"),
        ("net", [pictures()], BnprobeError, r"needs a torch\.nn\.Module, got str"),
        (nn.Linear(2, 3).eval(), [torch.ones(1, 2)], NoNormLayers, "has no normalization layer"),
        (lived_in(Net()), iter([pictures()]), BnprobeError, "runs out after one use"),
        (lived_in(Net()), [], NothingRecorded, "no samples"),
    ],
    ids=["train mode", "copy", "no model", "no norm", "iterator", "no batch"],
)
def test_wrong_uses_are_one_line(model: object, batches: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        bnprobe.fold(model, batches)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
