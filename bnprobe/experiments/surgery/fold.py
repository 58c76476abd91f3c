"""Batch norms folded into the convolution or linear layer before them, as an inference engine does it, and measured."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from bnprobe.errors import BnprobeError, class_name
from bnprobe.experiments.outputs import Metric
from bnprobe.experiments.run import Batches, Call
from bnprobe.experiments.surgery.converted import Converted, Row, converted, put_in_place, rows_of
from bnprobe.experiments.surgery.fold_next import fold_into_next
from bnprobe.experiments.surgery.look import Look, copied, difference, has_hooks, looked, tolerance
from bnprobe.experiments.surgery.passes import run_all
from bnprobe.graph.foldable import feeder_of
from bnprobe.norms import ModuleTree
from bnprobe.probe.survey.unwrap import shown, unwrap
from bnprobe.stats.moments import Array

Weighted = _ConvNd | nn.Linear
"""What a norm can be folded into."""


def fold(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    layers: str | Sequence[str] | None = None,
    into: str = "previous",
    metric: Metric | None = None,
    call: Call | None = None,
) -> Converted:
    """Fold batch norms into the convolutions and linear layers before them, in a copy, and measure what that changes.

    Known as conv-bn fusion, fusing, absorbing or merging batch norm. In eval mode a batch norm multiplies each channel by
    γ / √(running_var + eps) and adds a constant, which the weights and the bias before it can do as well. A norm is folded
    only where the executed pass proves that it reads exactly the output of one layer, that nothing else reads that output,
    and that the layer's weights are its own; a norm before its convolution (pre-activation) cannot be. Then both are
    run beside each other on the batches, and a fold that changes the norm's output by more than rounding is taken back.

    With `into="next"` γ and β of layer and RMS norms go into the linear layers that read them, and become 1 and 0: a step
    before rotating or quantizing a transformer. Only where linear layers alone read the norm's output, as the pass shows:
    not after post-norm, with adaLN, or before rotary positions. A head that shares its weights with the embedding gets its
    own. The outputs of the first batch are compared in float64, and the effect's notes tell the largest relative change.

    Args:
        model: Any `torch.nn.Module` in eval mode. It is left as it was.
        batches: A list or loader of batches, as for `bnprobe.record`, with targets where the metric needs them. It is read
            three times.
        layers: Shell-style pattern or patterns of the paths of norms to fold. None folds all that can be.
        into: "previous" for batch norms, "next" for layer and RMS norms.
        metric: Function of (output, target) that returns one number per sample, shape (N,); see `Plan.preview`.
        call: Function of (model, batch) that runs one batch and returns the output, where `model(x)` does not. It must
            call the model itself, not its parts.

    Returns:
        The new model, where an `nn.Identity` stands in place of each folded batch norm, a row per norm (what was done or why
        not, and the largest change of its output), and the effect on the model's outputs. What the first batch shows
        decides: a model that takes another way for other inputs may not be what the pass has shown.

    Raises:
        NoNormLayers: No norm can be folded, or none matches `layers`; names the reason.
        NothingRecorded: There were no samples.
        BnprobeError: The model is in train mode, cannot be copied, or is not called by `call`.

    Example:
        >>> import torch, bnprobe
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()).eval()
        >>> found = bnprobe.fold(model, [torch.randn(4, 3, 9, 9)])
        >>> found.layers[["layer", "done"]].values.tolist()
        [['1', 'folded into 0']]
        >>> found.model[1], found.effect.largest_relative < 1e-5
        (Identity(), True)
    """
    if into not in ("previous", "next"):
        raise BnprobeError(
            f'into={into!r} must be "previous" or "next". Pass "next" for layer and RMS norms.'
        )
    if into == "next":
        return fold_into_next(model, batches, layers, metric, call)
    new = copied(model, "fold")
    seen = Batches(new, batches, "folding", 3)
    with looked(new, seen, call) as look:
        rows = rows_of(look, layers, "folded")
        folds = _folds(look, rows)
    _measure(new, folds, seen, call)
    for one in folds:
        if one.row.relative > one.limit:
            one.row.keeps(
                f"measured: folding it into {one.layer} would change its output by {one.row.relative:.2g} of its largest "
                "value"
            )
            continue
        one.put(new)
    return converted(unwrap(model)[0], new, rows.values(), batches, metric, call)


@dataclass
class Fold:
    """One norm and the layer before it: `twin` is that layer with the norm in its weights and bias."""

    row: Row
    layer: str
    before: Weighted
    twin: Weighted
    limit: float = 0.0

    def put(self, model: nn.Module) -> None:
        """Write it into the model."""
        put_in_place(model, self.before, self.twin)
        put_in_place(model, self.row.norm.module, nn.Identity())
        self.row.done = f"folded into {self.layer}"


def _folds(look: Look, rows: dict[str, Row]) -> list[Fold]:
    """Every norm with the layer that feeds it alone; the others get their reason."""
    modules = {shown(path): module for path, module in ModuleTree.of(look.model).modules.items()}
    found = []
    for path, row in rows.items():
        if row.why:
            continue
        if look.graph is None:
            row.keeps(
                "the pass could not be followed: parts are compiled or scripted, or call= does not call the model"
            )
            continue
        feeder = feeder_of(path, look.graph, look.known)
        layer = shown(feeder.layer)
        before = modules.get(layer)
        row.why = feeder.why or _unfit(layer, before, row)
        if not row.why and isinstance(before, Weighted):
            found.append(Fold(row, layer, before, folded_layer(before, *row.norm.affine())))
    return found


def _unfit(layer: str, before: nn.Module | None, row: Row) -> str:
    """Why this module cannot take the norm in; "" where it can."""
    if not isinstance(before, Weighted):
        return f"{layer} is a {class_name(before)}, neither a convolution nor a linear layer of torch"
    if has_hooks(before):
        return f"{layer} has hooks of yours, which would see other outputs"
    if len(out_channels(before)) != row.norm.plan.n_channels:
        return f"{layer} has other channels than the norm"
    return ""


def out_channels(layer: Weighted) -> range:
    """Of a convolution or linear layer."""
    weight = layer.weight
    if isinstance(layer, _ConvTransposeNd):
        return range(weight.shape[1] * layer.groups)
    return range(weight.shape[0])


def folded_layer(layer: Weighted, scale: Array, shift: Array) -> Weighted:
    """A copy of a convolution or linear layer whose outputs are scale · y + shift, per channel, of the layer's own y.

    Computed in float64 and rounded once. Jacob et al. 2018, arXiv:1712.05877, section 3.2.
    """
    twin = copy.deepcopy(layer)
    weight = layer.weight
    wide = torch.from_numpy(np.ascontiguousarray(scale)).to(weight.device)
    values = weight.detach().double()
    if isinstance(layer, _ConvTransposeNd):
        # (in, out / groups, ...): the output channels of a group side by side
        by_group = values.view(layer.groups, -1, *values.shape[1:])
        shape = (layer.groups, 1, -1, *(1,) * (values.dim() - 2))
        values = (by_group * wide.view(shape)).view(values.shape)
    else:
        values = values * wide.view(-1, *(1,) * (values.dim() - 1))
    bias = torch.from_numpy(np.ascontiguousarray(shift)).to(weight.device)
    if layer.bias is not None:
        bias = bias + wide * layer.bias.detach().double()
    twin.weight = _like(weight, values)
    twin.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=weight.requires_grad)
    return twin


def _like(weight: Tensor, values: Tensor) -> nn.Parameter:
    """The values with a weight's type and memory format."""
    return nn.Parameter(torch.empty_like(weight).copy_(values), requires_grad=weight.requires_grad)


def _measure(model: nn.Module, folds: list[Fold], batches: Batches, call: Call | None) -> None:
    """Run every twin beside its pair, on what the pair is given, and keep the largest difference."""
    if folds:
        run_all(model, batches, call, (handle for one in folds for handle in _hooks(one)))


def _hooks(one: Fold) -> list[Any]:
    waiting: list[Tensor] = []

    def after_layer(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        waiting.append(one.twin(*args, **kwargs))

    def after_norm(module: nn.Module, args: Any, output: Any) -> None:
        new = waiting.pop(0) if waiting else None
        one.limit = max(one.limit, tolerance(output))
        if new is not None and new.numel() == output.numel():
            # views between the two may have moved dimensions: then only the sizes can be compared
            same = new.shape == output.shape
            one.row.saw(*difference(new, output)) if same else one.row.saw(*_of_sorted(new, output))

    return [
        one.before.register_forward_hook(after_layer, with_kwargs=True),
        one.row.norm.module.register_forward_hook(after_norm),
    ]


def _of_sorted(new: Tensor, old: Tensor) -> tuple[float, float]:
    """The difference of the values in rising order, which the order of dimensions leaves alone."""
    return difference(new.flatten().sort().values, old.flatten().sort().values)
