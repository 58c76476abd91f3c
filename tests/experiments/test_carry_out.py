"""Each edit does what the code of its advice does: both are run, on two copies of a model, and compared bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnprobe.experiments.carry_out import KINDS, Subject, carry_out
from bnprobe.experiments.feeding import fed
from bnprobe.rules import edits
from bnprobe.rules.edits import (
    CleanInputs,
    DivideStatistics,
    DropStatistics,
    Freeze,
    InFloat32,
    MoveBias,
    OfInputs,
    OfModel,
    PlainBatchNorm,
    Recalibrate,
    RecalibrateOne,
    Reinitialize,
    Remove,
    Rescale,
    ResizeInputs,
    ScaleDown,
    SetAttribute,
    SetGamma,
    SetMode,
    SmoothInputs,
    Swap,
    TakeOutInitial,
    TrackStatistics,
    UndoMap,
    UpdateOnce,
)
from bnprobe.rules.remedies import OF_BATCH, OF_SAMPLES, _by_hook, reinitialized, rescaled

BATCHES = list(2 + 3 * torch.randn(3, 5, 2, 7, 6, generator=torch.Generator().manual_seed(1)))


def network() -> Any:
    torch.manual_seed(0)
    layers = {
        "conv": nn.Conv2d(2, 4, 3),
        "norm": nn.BatchNorm2d(4),
        "drop": nn.Dropout(0.3),
        "own": nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        "sync": nn.SyncBatchNorm(4),
        "part": nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(2, 4)),
    }
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 2)
    model.part[0].track_running_stats = False
    return model.eval()


def state(model: nn.Module) -> dict[str, Any]:
    """Tensors by their bits, plain attributes and classes of every module."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        found[path] = type(module).__name__
        found |= {
            f"{path}.{k}": v
            for k, v in vars(module).items()
            if isinstance(v, float | int | bool | str | None) or v is None
        }
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            found[f"{path}.{name}"] = (
                None if tensor is None else (tensor.tolist(), str(tensor.dtype), tensor.requires_grad)
            )
    return found


N = 'n = model.get_submodule("norm"); '
BY_CODE: list[tuple[OfModel, str]] = [
    (Recalibrate(), "torch.optim.swa_utils.update_bn(loader, model)"),
    (
        Recalibrate(dropout=False),
        "[m.train() for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]\n"
        "for n in (model.norm, model.sync, model.part[0]): n.reset_running_stats(); n.momentum = None\n"
        "with torch.no_grad(): [model(x) for x in loader]\n"
        "for n in (model.norm, model.sync, model.part[0]): n.momentum = 0.1\n"
        "model.eval()",
    ),
    (SetAttribute("norm", "eps", 1e-3), 'model.get_submodule("norm").eps = 1e-3'),
    (SetAttribute("norm", "momentum", None), 'model.get_submodule("norm").momentum = None'),
    (SetMode("", training=True), "model.train()"),
    (SetMode("part", training=True), 'model.get_submodule("part").train()'),
    (Freeze(("norm",)), 'model.get_submodule("norm").requires_grad_(False)'),
    (
        Freeze(("norm", "part"), eval_mode=True),
        "[m.requires_grad_(False).eval() for m in (model.norm, model.part)]",
    ),
    (Swap(("norm",), "weight", "bias"), f"{N}n.weight.data, n.bias.data = n.bias.data, n.weight.data"),
    (
        Swap(("norm", "sync"), "running_mean", "running_var"),
        "for n in (model.norm, model.sync): n.running_mean, n.running_var = n.running_var, n.running_mean",
    ),
    (DivideStatistics("norm", 999.9), f"{N}n.running_mean /= 999.9; n.running_var /= 999.9"),
    (
        TakeOutInitial("norm", 0.25),
        f"{N}n.running_mean /= 0.75; n.running_var = ((n.running_var - 0.25) / 0.75).clamp(min=0)",
    ),
    (
        DropStatistics("norm"),
        f"{N}n.running_mean = n.running_var = None; n.track_running_stats = False",
    ),
    (
        TrackStatistics(),
        "[setattr(m, 'track_running_stats', True) for m in model.modules() if isinstance(m, "
        "torch.nn.modules.batchnorm._BatchNorm)]",
    ),
    (Remove("part.1"), 'model.set_submodule("part.1", torch.nn.Identity())'),
    (SetGamma("norm"), 'torch.nn.init.ones_(model.get_submodule("norm").weight)'),
    (
        ScaleDown("conv", (0, 3), (2.5, 40.0)),
        "k = torch.tensor([2.5, 40.0])\n"
        "for p in model.conv.parameters(): p.data[[0, 3]] /= k.view(-1, *[1] * (p.dim() - 1))",
    ),
    (
        MoveBias((("conv", "norm"),)),
        "model.norm.running_mean -= model.conv.bias.data; model.conv.bias = None",
    ),
    (PlainBatchNorm("sync"), 'model.get_submodule("sync").__class__ = torch.nn.BatchNorm2d'),
]
BY_TEXT: list[tuple[OfModel, str]] = [
    *((rescale, rescaled(rescale).strip("`")) for rescale in (
        Rescale("conv", "norm", 1 / 3),
        Rescale("conv", "norm", 17.77, with_eps=True),
        Rescale("conv", "norm", 0.01, with_gamma=True),
    )),
    (Reinitialize("norm", (1, 2)), reinitialized("norm", (1, 2), 4).strip("`")),
    (Reinitialize("norm", (0, 1, 2, 3)), reinitialized("norm", (0, 1, 2, 3), 4).strip("`")),
    (
        Reinitialize("norm", (1, 3), producer="conv", statistics=True),
        reinitialized(
            "norm",
            (1, 3),
            4,
            'w = model.get_submodule("conv").weight.data; w[at] = torch.randn_like(w[at]) * w.std(); ',
            "; n.running_mean[at] = 0; n.running_var[at] = 1",
        ).strip("`"),
    ),
]  # fmt: skip


def carried_out(edit: OfModel, model: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    carry_out([edit], Subject(model, BATCHES))
    return model


@pytest.mark.parametrize(("edit", "code"), [*BY_CODE, *BY_TEXT], ids=lambda value: type(value).__name__)
def test_an_edit_does_what_the_code_of_its_advice_does(edit: OfModel, code: str) -> None:
    """Fails if what is tried is not what the reader is told to do."""
    by_code, by_edit = network(), network()
    torch.manual_seed(5)
    exec(code, {"model": by_code, "torch": torch, "loader": BATCHES})
    assert state(carried_out(edit, by_edit)) == state(by_code)
    assert state(by_edit) != state(network())


@pytest.mark.parametrize("of_samples", [False, True])
def test_one_norm_renewed_by_a_hook(of_samples: bool) -> None:
    """Fails if norms that update_bn passes over get other statistics than the advice gives them, or a hook stays."""
    layer = "own" if of_samples else "norm"
    advice = _by_hook(layer, "loader", *(OF_SAMPLES if of_samples else OF_BATCH))
    by_code, by_edit = network(), network()
    names = {"model": by_code, "torch": torch, "loader": BATCHES}
    with torch.no_grad():
        for code in advice.split("`")[1::2]:
            exec(code, names)
    assert state(carried_out(RecalibrateOne(layer, of_samples), by_edit)) == state(by_code)
    assert not by_edit.get_submodule(layer)._forward_pre_hooks


def test_modes_are_as_before_when_statistics_are_renewed() -> None:
    """Fails if a norm that was put into another mode by hand gets the mode of the model, as update_bn has it."""
    model = network()
    model.part.train()
    modes = [module.training for module in model.modules()]
    carried_out(Recalibrate(), model)
    carried_out(RecalibrateOne("own"), model)
    assert [module.training for module in model.modules()] == modes


def test_a_part_in_float32_takes_and_gives_what_it_did() -> None:
    """Fails if the input is not cast, or the following layer gets another type than before."""
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).half()
    x = torch.randn(5, 3).half()
    carry_out([InFloat32("1")], Subject(model, [x]))
    assert model[1].weight.dtype == torch.float32
    assert model[1](1000 * torch.ones(1, 4).half()).dtype == torch.float16
    whole = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).half()
    carry_out([InFloat32("")], Subject(whole, [x]))
    assert whole(x).dtype == torch.float32


def test_a_norm_that_checkpointing_runs_again_is_updated_once() -> None:
    """Fails if the second run still moves the running statistics or the counter."""
    from torch.utils.checkpoint import checkpoint

    def after_training(edits: list[OfModel]) -> Any:
        norm = nn.BatchNorm2d(2)
        model = nn.Sequential(norm).train()
        carry_out(edits, Subject(model, BATCHES))
        x = BATCHES[0].clone().requires_grad_(True)
        checkpoint(model, x, use_reentrant=False).sum().backward()
        return norm

    once = nn.BatchNorm2d(2).train()
    once(BATCHES[0])
    assert torch.equal(after_training([UpdateOnce("0")]).running_mean, once.running_mean)
    assert after_training([UpdateOnce("0")]).num_batches_tracked == 1
    assert after_training([]).num_batches_tracked == 2


@pytest.mark.parametrize("path", ["nothing", "part.7"])
def test_a_module_that_is_not_there_is_named(path: str) -> None:
    with pytest.raises(LookupError, match=f"no module '{path}'"):
        carry_out([SetAttribute(path, "eps", 1.0)], Subject(network(), BATCHES))


def test_every_kind_of_edit_can_be_carried_out() -> None:
    """Fails if a kind is added to the rules that no experiment knows, or that no test here compares with its code."""
    kinds = {
        kind for kind in vars(edits).values() if isinstance(kind, type) and kind.__module__ == edits.__name__
    }
    of_model = kinds - set(OfInputs.__args__) - {edits.Remedy}
    assert of_model == KINDS
    compared = {type(edit) for edit, _ in (*BY_CODE, *BY_TEXT)}
    assert of_model - compared == {RecalibrateOne, InFloat32, UpdateOnce}, "those have tests of their own"


def pixels(seed: int = 0) -> Tensor:
    return torch.rand(4, 3, 6, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_map_of_the_inputs_is_undone(reverse: bool) -> None:
    """Fails if offset, gain and order of channels are undone in another order than they were made in."""
    gain, offset = (2.0, 0.5, -3.0), (1.0, -1.0, 0.25)
    x = pixels()
    seen = x.flip(1) if reverse else x
    seen = torch.stack([g * seen[:, i] + o for i, (g, o) in enumerate(zip(gain, offset, strict=True))], 1)
    torch.testing.assert_close(fed([UndoMap(gain, offset, reverse)], seen), x)


def test_only_the_first_floating_point_input_is_changed() -> None:
    """Fails if targets, masks or second inputs are changed, or the form of a batch is not kept."""
    x, y, ids = pixels(), torch.arange(4), torch.ones(4, 2, dtype=torch.long)
    bad = x.clone()
    bad[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    good = torch.where(bad.isfinite(), bad, 0.0)
    clean = [CleanInputs()]
    assert torch.equal(fed(clean, bad), good)
    image, target = fed(clean, (bad, y))
    assert torch.equal(image, good)
    assert target is y
    inputs, target = fed(clean, [{"ids": ids, "image": bad, "more": bad}, y])
    assert torch.equal(inputs["image"], good)
    assert inputs["ids"] is ids
    assert inputs["more"] is bad
    (pair,) = fed(clean, ((bad, bad),))
    assert torch.equal(pair[0], good)
    assert pair[1] is bad
    assert fed(clean, ids) is ids


def test_images_are_resized_and_smoothed() -> None:
    x = pixels()
    assert fed([ResizeInputs(0.5)], x).shape == (4, 3, 3, 4)
    smooth = fed([SmoothInputs()], x)
    torch.testing.assert_close(smooth[:, :, 2, 3], x[:, :, 1:4, 2:5].mean((2, 3)))
    both = fed([SmoothInputs(), ResizeInputs(0.5)], x)
    torch.testing.assert_close(both, fed([ResizeInputs(0.5)], smooth))
