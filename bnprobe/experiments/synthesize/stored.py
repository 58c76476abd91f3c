"""What images are matched to: the running mean and variance of every batch norm of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError, NoNormLayers, class_name
from bnprobe.experiments.synthesize.moments import moments
from bnprobe.norms import ModuleTree, NormLayer, describe
from bnprobe.probe.survey.unwrap import shown, unwrap
from bnprobe.recording import BATCH
from bnprobe.report.numbers import count

DEAD = 1e-3
"""A running variance below this part of eps is that of an input that never varied: it says nothing about the data."""


@dataclass(frozen=True)
class Stored:
    """The running statistics of one norm, of the channels that are `kept`; `sigma` is what it divides by.

    All of shape (kept channels,), float32, on the model's device; `kept` are the numbers of the channels.
    """

    path: str
    module: nn.Module
    layer: NormLayer
    kept: Tensor
    mean: Tensor
    sigma: Tensor

    def permuted(self, generator: torch.Generator) -> Self:
        """The same pairs of mean and standard deviation, each at another channel's place."""
        order = torch.randperm(len(self.kept), generator=generator).to(self.kept.device)
        return replace(self, mean=self.mean[order], sigma=self.sigma[order])

    def distance(self, x: Tensor) -> Tensor:
        """How far an input of the norm is from them: (difference of means)² + (difference of standard deviations)², mean
        over channels, in running standard deviations. A differentiable scalar."""
        mean, var = moments(self.layer.rows(x).float())
        mean, var = mean[self.kept], var[self.kept]
        sigma = (var + self.layer.eps).sqrt()
        return (((mean - self.mean) / self.sigma).square() + (sigma / self.sigma - 1).square()).mean()


def stored_statistics(model: nn.Module) -> list[Stored]:
    """The batch norms of a model in eval mode that hold statistics of data, in the order of modules.

    Channels of a dead input, whose running variance is about 0, are left out, and norms whose statistics are still those of
    initialization.

    Raises:
        NoNormLayers: No batch norm stores running statistics.
        BnprobeError: They were never updated.
    """
    tree = ModuleTree.of(unwrap(model)[0])
    others: Counter[str] = Counter()
    found: list[tuple[str, nn.Module, NormLayer]] = []
    for path, module in tree.modules.items():
        plans = describe(module)
        layer = next((plan for plan in plans if _holds_statistics(plan)), None)
        if layer is not None:
            found.append((shown(path) or class_name(module), module, layer))
        elif plans:
            others[class_name(module)] += 1
    if not found:
        raise NoNormLayers(_no_statistics(class_name(tree.model), others))
    updated = [(path, module, layer) for path, module, layer in found if not _initial(layer)]
    if not updated:
        raise BnprobeError(
            f"the running statistics of {class_name(tree.model)} were never updated: every mean is 0 and every variance 1 "
            f"in {count(len(found), 'batch norm')}, so there are no data to draw from. Train it, or load a "
            "checkpoint."
        )
    every = [_stored(path, module, layer) for path, module, layer in updated]
    usable = [one for one in every if len(one.kept)]
    if not usable:
        raise BnprobeError(
            f"every running variance of {class_name(tree.model)} is about 0 or not finite: its norms have seen no "
            "data that "
            "vary. Load a checkpoint of a trained network."
        )
    return usable


def _holds_statistics(layer: NormLayer) -> bool:
    return (
        layer.running_mean is not None
        and layer.running_var is not None
        and layer.centred
        and layer.pool.recorded_as == BATCH
        and layer.n_channels > 0
    )


def _initial(layer: NormLayer) -> bool:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return not layer.running_mean.any() and bool((layer.running_var == 1).all())


def _stored(path: str, module: nn.Module, layer: NormLayer) -> Stored:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean = layer.running_mean.detach().float().flatten()
    var = layer.running_var.detach().float().flatten()
    alive = mean.isfinite() & var.isfinite() & (var > DEAD * layer.eps)
    kept = alive.nonzero().flatten()
    return Stored(path, module, layer, kept, mean[kept], (var[kept] + layer.eps).sqrt())


def _no_statistics(kind: str, others: Counter[str]) -> str:
    there = ", ".join(f"{n:,} {name}" for name, n in others.most_common(3)) or "no norm at all"
    return (
        f"no batch norm of {kind} stores running statistics (it has {there}), so nothing in it says what its data "
        "were like. "
        "Layer, group and RMS norms compute theirs from each sample; a batch norm needs track_running_stats=True."
    )


def n_never_updated(model: nn.Module) -> int:
    """Batch norms whose running statistics are still those of initialization."""
    plans = (plan for module in ModuleTree.of(model).modules.values() for plan in describe(module))
    return sum(_holds_statistics(plan) and _initial(plan) for plan in plans)


def n_dead(norms: Sequence[Stored]) -> int:
    """Channels of these norms that have a dead input."""
    return sum(norm.layer.n_channels - len(norm.kept) for norm in norms)
