"""Fold a norm into the layer before it, as an inference engine does, and see what that changes on real inputs."""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from bnprobe.errors import NotDefined
from bnprobe.norms import NormLayer, describe

_Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
_Foldable = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | _Transposed


def folded_layer(layer: nn.Module, norm: nn.Module) -> nn.Module:
    """A new layer that computes norm(layer(x)) as the norm does in eval mode; neither of the two is changed.

    weight' = weight gamma / sqrt(running_var + eps) and bias' = beta + (bias - running_mean) gamma / sqrt(...),
    computed in float64 and rounded once. Jacob et al. 2018, arXiv:1712.05877, section 3.2.

    Hooks stay with the old layer. Raises NotDefined where the layer is not linear or its weight is computed
    from others (weight_norm), and where the norm stores no statistics.
    """
    slope, offset = _map(norm)
    if not isinstance(layer, _Foldable) or is_parametrized(layer):
        raise NotDefined(
            f"{type(layer).__name__} is no plain convolution or linear layer. Fold into one of these."
        )
    weight = layer.weight.detach().double() * _over_outputs(layer, slope)
    bias = offset if layer.bias is None else offset + layer.bias.detach().double() * slope
    values = {"weight": weight, "bias": bias}
    # not a deep copy: the layer's hooks may hold anything, and are not the new layer's
    new = copy.copy(layer)
    new._parameters = {name: nn.Parameter(value.to(layer.weight.dtype)) for name, value in values.items()}
    new._forward_hooks, new._forward_pre_hooks = OrderedDict(), OrderedDict()
    new._backward_hooks, new._backward_pre_hooks = OrderedDict(), OrderedDict()
    return new.eval()


def _plan(norm: nn.Module) -> NormLayer:
    """The description of a norm with running statistics."""
    plans = [
        plan for plan in describe(norm) if plan.running_mean is not None and plan.running_var is not None
    ]
    if not plans:
        raise NotDefined(
            f"{type(norm).__name__} stores no running statistics, so its map changes with the input. "
            "Fold norms that do."
        )
    return plans[0]


def _map(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Slope and offset of a norm's map with its stored statistics, float64, shape (C,) each."""
    plan = _plan(norm)
    assert plan.running_mean is not None
    assert plan.running_var is not None
    slope = (plan.running_var.detach().double() + plan.eps).rsqrt()
    if plan.weight is not None:
        slope = slope * (plan.weight.detach().double().reshape(-1) + plan.weight_offset)
    offset = -plan.running_mean.detach().double() * slope
    return slope, offset if plan.bias is None else offset + plan.bias.detach().double().reshape(-1)


def _over_outputs(layer: _Foldable, slope: Tensor) -> Tensor:
    """One number per output channel, shaped to multiply the weight."""
    weight = layer.weight
    if not isinstance(layer, _Transposed):
        return slope.reshape(-1, *[1] * (weight.dim() - 1))
    # (in, out / groups, *kernel): the inputs of a group make the outputs of that group
    per_input = slope.reshape(layer.groups, -1).repeat_interleave(weight.shape[0] // layer.groups, dim=0)
    return per_input.reshape(*per_input.shape, *[1] * (weight.dim() - 2))


def fold_check(layer: nn.Module, norm: nn.Module, x: Tensor) -> float:
    """Largest |difference| that folding makes on the input `x` of `layer`, over the largest |output|.

    Some 1e-6 in float32, from rounding alone; more tells that the layer does something else than its
    weights say. Nothing of either module changes, running statistics included; hooks of `layer` are called.

    Raises NotDefined as `folded_layer` does, and where an output is not finite.
    """
    new, plan = folded_layer(layer, norm), _plan(norm)
    gamma = None if plan.weight is None else plan.weight.reshape(-1) + plan.weight_offset
    beta = None if plan.bias is None else plan.bias.reshape(-1)
    with torch.no_grad():
        # the norm in eval mode, without switching its mode
        expected = nn.functional.batch_norm(
            layer(x), plan.running_mean, plan.running_var, gamma, beta, eps=plan.eps
        )
        gap, largest = float((new(x) - expected).abs().max()), float(expected.abs().max())
    if not (gap < float("inf") and largest < float("inf")):
        raise NotDefined(
            "the outputs are not all finite, so no difference can be measured. Give another input."
        )
    return gap / largest if largest > 0 else gap
