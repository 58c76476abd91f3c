"""Each edit of a model carried out on the live model: a function for each kind of edit, which does what its advice says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, cast

import torch
from torch import Tensor, nn

from bnprobe.experiments.put_back import in_eval_mode
from bnprobe.experiments.run import Call, run
from bnprobe.norms import ModuleTree
from bnprobe.probe.batches import each_batch, moved
from bnprobe.probe.survey.unwrap import shown, unwrap
from bnprobe.probe.tensors import is_recomputation
from bnprobe.rules.edits import (
    DivideStatistics,
    DropStatistics,
    Freeze,
    InFloat32,
    MoveBias,
    OfModel,
    PlainBatchNorm,
    Recalibrate,
    RecalibrateOne,
    Reinitialize,
    Remove,
    Rescale,
    ScaleDown,
    SetAttribute,
    SetGamma,
    SetMode,
    Swap,
    TakeOutInitial,
    TrackStatistics,
    UpdateOnce,
)

Norm = Any
"""A norm with its vectors: what attributes it has is known by its kind only."""


@dataclass(frozen=True)
class Subject:
    """A model, and the batches that some edits are made from."""

    model: nn.Module
    batches: Iterable[Any]
    call: Call | None = None

    def __getitem__(self, path: str) -> Norm:
        """The module with this path, as recordings name it; "" is the model."""
        inner, _ = unwrap(self.model)
        modules = ModuleTree.of(inner).modules if path else {"": self.model}
        found = next((module for name, module in modules.items() if shown(name) == path), None)
        if found is None:
            raise LookupError(f"the model has no module {path!r}")
        return found

    def modules(self) -> list[nn.Module]:
        """Every module, once."""
        return list(ModuleTree.of(self.model).modules.values())

    def run(self) -> None:
        """All batches, as the model's modes are."""
        parameters = ModuleTree.of(self.model).parameters().values()
        device = next((p.device for p in parameters), torch.device("cpu"))
        for batch in each_batch(self.batches):
            run(self.model, moved(batch, device), self.call)


def carry_out(edits: Iterable[OfModel], on: Subject) -> None:
    """Change the model, for good; a caller puts it back. Raises LookupError where it has no module of a path."""
    with torch.no_grad():
        for edit in edits:
            _do(edit, on)


@singledispatch
def _do(edit: Any, on: Subject) -> None:
    raise NotImplementedError(type(edit).__name__)


@_do.register
def _(edit: Recalibrate, on: Subject) -> None:
    modes = [(module, module.training) for module in on.modules()]
    norms: list[Norm] = [m for m in on.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for module, _ in modes:
        module.training = edit.dropout
    for norm in norms:
        norm.reset_running_stats()
        norm.training = True
        norm.momentum = None  # a plain average
    on.run()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, training in modes:
        module.training = training


@_do.register
def _(edit: RecalibrateOne, on: Subject) -> None:
    norm, seen = on[edit.layer], []

    def look(module: nn.Module, inputs: Any) -> None:
        x = inputs[0]
        if edit.of_samples:
            rows = x.flatten(2)
            seen.append(torch.stack([rows.mean(2).mean(0), rows.var(2).mean(0)]))
        else:
            rows = x.transpose(0, 1).flatten(1)
            seen.append(torch.stack([rows.mean(1), rows.var(1)]))

    modes = [(module, module.training) for module in on.modules()]
    hook = norm.register_forward_pre_hook(look)
    in_eval_mode(on.model)
    on.run()
    hook.remove()
    for module, training in modes:
        module.training = training
    mean, var = torch.stack(seen).mean(0)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(var)


@_do.register
def _(edit: SetAttribute, on: Subject) -> None:
    setattr(on[edit.layer], edit.name, edit.value)


@_do.register
def _(edit: Rescale, on: Subject) -> None:
    norm, k = on[edit.layer], float(f"{edit.factor:.3g}")  # as the advice prints it
    for parameter in on[edit.producer].parameters():
        parameter.data.mul_(k)
    if edit.with_gamma:
        var, eps = norm.running_var, norm.eps
        norm.weight.data *= ((k**2 * var + eps) / (k**2 * (var + eps))).sqrt()
    norm.running_mean *= k
    norm.running_var *= k**2
    if edit.with_eps:
        norm.eps *= k**2


@_do.register
def _(edit: Reinitialize, on: Subject) -> None:
    norm, at = on[edit.layer], list(edit.channels)
    if edit.producer:
        weight = on[edit.producer].weight.data
        weight[at] = torch.randn_like(weight[at]) * weight.std()
    norm.weight.data[at] = edit.weight
    if getattr(norm, "bias", None) is not None:
        norm.bias.data[at] = 0
    if edit.statistics:
        norm.running_mean[at] = 0
        norm.running_var[at] = 1


@_do.register
def _(edit: SetMode, on: Subject) -> None:
    for module in ModuleTree.of(on[edit.part]).modules.values():
        module.training = edit.training


@_do.register
def _(edit: Freeze, on: Subject) -> None:
    for part in edit.parts:
        on[part].requires_grad_(False)
        if edit.eval_mode:
            _do(SetMode(part, training=False), on)


@_do.register
def _(edit: Swap, on: Subject) -> None:
    for layer in edit.layers:
        one, other = (getattr(on[layer], name).data for name in (edit.one, edit.other))
        held = one.clone()
        one.copy_(other)
        other.copy_(held)


@_do.register
def _(edit: DivideStatistics, on: Subject) -> None:
    norm = on[edit.layer]
    norm.running_mean /= edit.by
    norm.running_var /= edit.by


@_do.register
def _(edit: TakeOutInitial, on: Subject) -> None:
    norm = on[edit.layer]
    norm.running_mean /= 1 - edit.left
    # rounding may leave a variance below the rest of its initial 1
    norm.running_var.sub_(edit.left).div_(1 - edit.left).clamp_(min=0)


@_do.register
def _(edit: DropStatistics, on: Subject) -> None:
    norm = on[edit.layer]
    norm.running_mean = norm.running_var = None
    norm.track_running_stats = False


@_do.register
def _(edit: TrackStatistics, on: Subject) -> None:
    for module in on.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = True


@_do.register
def _(edit: UpdateOnce, on: Subject) -> None:
    norm = on[edit.layer]
    momentum = norm.momentum

    def freeze_rerun(module: Norm, inputs: Any) -> None:
        again = is_recomputation()
        module.momentum = 0.0 if again else momentum
        if again:
            module.num_batches_tracked.sub_(1)

    norm.register_forward_pre_hook(freeze_rerun)


@_do.register
def _(edit: Remove, on: Subject) -> None:
    path, _, name = edit.layer.rpartition(".")
    on[path]._modules[name] = nn.Identity()


@_do.register
def _(edit: SetGamma, on: Subject) -> None:
    on[edit.layer].weight.data.fill_(edit.value)


@_do.register
def _(edit: ScaleDown, on: Subject) -> None:
    by = torch.tensor(edit.by)
    for parameter in on[edit.producer].parameters():
        values = parameter.data
        values[list(edit.channels)] /= by.to(values).view(-1, *[1] * (values.dim() - 1))


@_do.register
def _(edit: MoveBias, on: Subject) -> None:
    for producer, layer in edit.pairs:
        on[layer].running_mean -= on[producer].bias.data
        on[producer].bias = None


@_do.register
def _(edit: InFloat32, on: Subject) -> None:
    part, given = on[edit.layer].float(), [torch.float32]

    def cast_up(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        given[0] = inputs[0].dtype
        return tuple(_as(value, torch.float32) for value in inputs)

    def cast_back(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        return _as(output, given[0])

    part.register_forward_pre_hook(cast_up)
    if edit.layer:
        part.register_forward_hook(cast_back)


def _as(value: Any, dtype: torch.dtype) -> Any:
    """A floating-point tensor in another type; anything else as it is."""
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


@_do.register
def _(edit: PlainBatchNorm, on: Subject) -> None:
    on[edit.layer].__class__ = nn.BatchNorm2d


KINDS = cast("Callable[..., Any]", _do).registry.keys() - {object}  # type: ignore[attr-defined]
"""The kinds of edits that can be carried out."""
