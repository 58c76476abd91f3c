"""The norms of a model whose stored statistics an experiment may renew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError, NoNormLayers, class_name
from bnprobe.experiments.mixing import Statistics
from bnprobe.norms import ModuleTree, NormLayer, describe
from bnprobe.probe.survey.unwrap import shown, unwrap
from bnprobe.probe.tensors import is_lazy
from bnprobe.reductions import float64_copy
from bnprobe.stats.moments import Array

Pair = tuple[Tensor, Tensor]
"""Mean and variance as a norm holds them."""


@dataclass(frozen=True)
class StoredNorm:
    """A norm that holds statistics, by its path; `layer` is how it reads its input in train mode.

    `before` is a copy of what it held when it was found: a pass in train mode moves its own.
    """

    path: str
    module: nn.Module
    layer: NormLayer
    mean: Tensor
    var: Tensor
    before: Pair

    @property
    def statistics(self) -> Statistics:
        """What it held, float64."""
        return statistics_of(self.before)

    @property
    def sigma(self) -> Array:
        """The standard deviation that it divided by, shape (C,)."""
        return np.sqrt(self.statistics.var + self.layer.eps)

    def rounded(self, statistics: Statistics) -> Pair:
        """Statistics as tensors like its own: shape, type and device."""
        mean, var = (torch.from_numpy(np.ascontiguousarray(v)) for v in statistics)
        return (
            mean.reshape(self.mean.shape).to(self.mean.device, self.mean.dtype),
            var.reshape(self.var.shape).to(self.var.device, self.var.dtype),
        )


def stored_norms(model: nn.Module, layers: str | Sequence[str] | None) -> dict[str, StoredNorm]:
    """The norms whose statistics may be renewed, by path, in the order of modules.

    Left alone are frozen ones: classes that normalize by stored statistics in train mode too, and norms that were put into
    eval mode in a model that is in train mode.

    Raises:
        NoNormLayers: No norm stores statistics, all are frozen, or none matches `layers`; names the nearest paths.
    """
    tree = ModuleTree.of(unwrap(model)[0])
    kind = class_name(tree.model)
    found: dict[str, StoredNorm] = {}
    frozen: list[str] = []
    for path, module in tree.modules.items():
        layer = _while_training(module)
        if (
            layer is None
            or layer.running_mean is None
            or layer.running_var is None
            or is_lazy(layer.running_mean)
        ):
            continue
        name = shown(path) or kind
        if layer.uses_running or (tree.model.training and not module.training):
            frozen.append(name)
        else:
            mean, var = layer.running_mean, layer.running_var
            found[name] = StoredNorm(
                name, module, layer, mean, var, (mean.detach().clone(), var.detach().clone())
            )
    if not found:
        raise NoNormLayers(
            f"every norm of {kind} that stores statistics is frozen ({', '.join(frozen[:3])}), so there is nothing to "
            "renew. Replace them by nn.BatchNorm2d first, or put them into train mode."
            if frozen
            else f"no norm of {kind} stores running statistics, so there is nothing to renew. Layer, group and RMS norms "
            "compute theirs from each sample; a batch norm needs track_running_stats=True."
        )
    patterns = [layers] if isinstance(layers, str) else layers
    chosen = {
        n: norm for n, norm in found.items() if patterns is None or any(fnmatchcase(n, p) for p in patterns)
    }
    if not chosen:
        wanted = list(patterns or [])
        near = get_close_matches(wanted[0] if wanted else "", list(found), n=3, cutoff=0.0)
        raise NoNormLayers(
            f"no norm of {kind} with running statistics matches {', '.join(wanted)}. Nearest: {', '.join(near)}. Pass "
            "a path or a pattern of these."
        )
    return chosen


def _while_training(module: nn.Module) -> NormLayer | None:
    """How a module would normalize in train mode; None if it is no norm."""
    training = module.training
    try:
        module.training = True
        plans = describe(module)
    except BnprobeError:
        raise
    except Exception:  # a module that is no norm may raise anything when asked
        return None
    finally:
        module.training = training
    return plans[0] if plans else None


def statistics_of(pair: Pair) -> Statistics:
    """What a norm holds, in float64."""
    return Statistics(*map(float64_copy, pair))
