"""One pass of a copy of the model, followed: which norms it reaches, whether each does what its formula says, the graph."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError, NoNormLayers, class_name
from bnprobe.experiments.run import Batches, Call
from bnprobe.experiments.surgery.passes import run_all
from bnprobe.graph.producer import Known
from bnprobe.graph.record_op import Graph
from bnprobe.graph.trace import Trace, watch_this_call
from bnprobe.norms import ModuleTree, NormLayer, describe
from bnprobe.norms.module_tree import buffers_of, parameters_of
from bnprobe.probe.calls.vectors import gamma_beta, vectors_of
from bnprobe.probe.survey.unwrap import shown, unwrap
from bnprobe.stats.moments import Array

TOLERANCE = 4.0
"""Times the root of the type's rounding: by how much an output may differ, of its largest value, and still be the same."""

OTHER_KINDS = {
    "layer_norm": "a layer norm computes its statistics from each sample, so it is no fixed map",
    "group_norm": "a group norm computes its statistics from each sample, so it is no fixed map",
    "instance_norm": "an instance norm computes its statistics from each sample, so it is no fixed map",
    "rms_norm": "an RMS norm computes its scale from each sample, so it is no fixed map",
}


@dataclass
class Norm:
    """A norm of the copied model: where it is, its plan, and what the pass showed of it.

    `why` is what keeps it from being the affine map of its stored statistics, "" where it is that map.
    """

    path: str
    module: nn.Module
    plan: NormLayer
    n_calls: int = 0
    why: str = ""

    def affine(self) -> tuple[Array, Array]:
        """Scale and shift of its map by stored statistics, float64, shape (C,)."""
        vectors = vectors_of(self.plan)
        assert vectors.running_mean is not None
        assert vectors.running_var is not None
        gamma, beta = gamma_beta(self.plan, vectors)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = gamma / np.sqrt(vectors.running_var + self.plan.eps)
        return scale, beta - vectors.running_mean * scale


@dataclass
class Look:
    """The copy of a model, its norms by path, and the graph of one pass; `sites` are the norms in the order of calls."""

    model: nn.Module
    norms: Mapping[str, Norm]
    graph: Graph | None = None
    known: dict[tuple[str, int], Known] = field(default_factory=dict)

    @property
    def in_order(self) -> list[Norm]:
        """The norms in the order of their first calls, then those that were not called."""
        called = dict.fromkeys(path for path, _ in self.known)
        return [self.norms[path] for path in dict.fromkeys([*called, *self.norms])]


def copied(model: Any, what: str) -> nn.Module:
    """A copy of a model in eval mode, without wrappers around it; the model itself is only read."""
    if not isinstance(model, nn.Module):
        raise BnprobeError(f"{what} needs a torch.nn.Module, got {class_name(model)}. Pass the model itself.")
    model, _ = unwrap(model)
    if model.training:
        raise BnprobeError(
            f"{what} needs a model in eval mode, and this {class_name(model)} is in train mode, where batch norms do not "
            "use their running statistics. Call model.eval() first."
        )
    try:
        twin: nn.Module = copy.deepcopy(model)
    except Exception as error:
        raise BnprobeError(
            f"this {class_name(model)} cannot be copied ({' '.join(str(error).split())[:160]}). Pass a model that "
            "copy.deepcopy accepts."
        ) from error
    return twin


@contextmanager
def looked(model: nn.Module, batches: Batches, call: Call | None) -> Iterator[Look]:
    """Follow the first batch through a model that is already a copy; the graph is dropped at the end of the block."""
    look = Look(model, _norms_of(model))
    traces: list[Trace | None] = []
    handles = [
        *_hooks_of_model(model, traces),
        *(handle for norm in look.norms.values() for handle in _hooks_of_norm(norm, look, traces)),
    ]
    run_all(model, islice(batches, 1), call, handles)
    trace = traces[0] if traces else None
    try:
        look.graph = None if trace is None else trace.graph
        yield look
    finally:
        if trace is not None:
            trace.forget()


def _norms_of(model: nn.Module) -> dict[str, Norm]:
    """Every norm of a model, with what speaks against it before it has run."""
    tree = ModuleTree.of(model)
    held = _holders(tree)
    devices = {t.device for t in (tree.parameters() | tree.buffers()).values()}
    found = {}
    for path, module in tree.modules.items():
        try:
            plans = describe(module)
        except Exception:
            continue  # a lazy one has no channels yet, a stranger may raise anything
        if plans:
            norm = Norm(shown(path), module, plans[0])
            norm.why = _speaks_against(norm, held, len(devices) > 1)
            found[norm.path] = norm
    if not found:
        raise NoNormLayers(
            f"{class_name(model)} has no normalization layer that is a module. Norms that are function calls cannot be "
            "taken out of a model."
        )
    return found


def _holders(tree: ModuleTree) -> dict[int, int]:
    """How many modules hold each parameter and buffer."""
    held: dict[int, int] = {}
    for module in tree.modules.values():
        for _, tensor in (*parameters_of(module), *buffers_of(module)):
            held[id(tensor)] = held.get(id(tensor), 0) + 1
    return held


def _speaks_against(norm: Norm, held: Mapping[int, int], several_devices: bool) -> str:
    plan, module = norm.plan, norm.module
    if plan.kind in OTHER_KINDS:
        return OTHER_KINDS[plan.kind]
    if plan.running_mean is None or plan.running_var is None:
        return "it stores no running statistics, so its map depends on the batch"
    if not plan.pool.samples or not plan.pool.within_channel:
        return f"a {plan.kind} is no batch norm"
    if not plan.uses_running:
        return "it is in train mode, where its map depends on the batch"
    if several_devices:
        return "the model is on several devices"
    if any(held[id(t)] > 1 for _, t in (*parameters_of(module), *buffers_of(module))):
        return "it shares vectors with another module"
    if has_hooks(module):
        return "it has hooks of yours, which would go with it"
    scale, shift = norm.affine()
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return "its vectors do not give a finite scale and shift"
    return ""


def has_hooks(module: nn.Module) -> bool:
    """Whether anybody has registered a hook on it."""
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name, None) for name in names)


def _hooks_of_model(model: nn.Module, traces: list[Trace | None]) -> list[Any]:
    def begins(module: nn.Module, args: Any, kwargs: Any) -> None:
        traces.append(watch_this_call(module, args, kwargs))

    def ends(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if traces and traces[-1] is not None:
            traces[-1].model_ends(output)

    return [
        model.register_forward_pre_hook(begins, with_kwargs=True),
        model.register_forward_hook(ends, with_kwargs=True),
    ]


def _hooks_of_norm(norm: Norm, look: Look, traces: list[Trace | None]) -> list[Any]:
    kept: list[Tensor | None] = []

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        plain = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
        x = args[0] if plain else None
        if not plain:
            norm.why = norm.why or "it is called with more than one tensor"
        kept.append(x)
        site = (norm.path, norm.n_calls)
        vectors = vectors_of(norm.plan)
        look.known[site] = Known(
            norm.plan, vectors.gamma, vectors.beta, vectors.running_mean, vectors.running_var
        )
        if traces and traces[-1] is not None:
            traces[-1].norm_begins(site, x)

    def after(module: nn.Module, args: Any, output: Any) -> None:
        site, x = (norm.path, norm.n_calls), kept.pop()
        norm.n_calls += 1
        trace = traces[-1] if traces else None
        y = output if isinstance(output, Tensor) else None
        if trace is not None:
            trace.norm_ends(site, y)
            with trace.aside():
                norm.why = norm.why or _differs(norm, x, y)
        else:
            norm.why = norm.why or _differs(norm, x, y)

    return [
        norm.module.register_forward_pre_hook(before, with_kwargs=True),
        norm.module.register_forward_hook(after),
    ]


def _differs(norm: Norm, x: Tensor | None, y: Tensor | None) -> str:
    """What a norm's output has that scale and shift do not give; "" where they give it."""
    if x is None or y is None or x.shape != y.shape or x.dim() < 2:
        return "its output is not a tensor like its input"
    scale, shift = (torch.from_numpy(v).to(x.device, torch.float32) for v in norm.affine())
    shape = (1, -1, *(1,) * (x.dim() - 2))
    expected = x.float() * scale.view(shape) + shift.view(shape)
    change, size = difference(expected, y)
    if change > tolerance(y) * max(size, 1e-30):
        return f"its output is not scale · x + shift of its vectors (off by {change / max(size, 1e-30):.1%})"
    return ""


def difference(new: Tensor, old: Tensor) -> tuple[float, float]:
    """The largest difference, and the largest size of the old one; an empty tensor has neither."""
    if not old.numel():
        return 0.0, 0.0
    return float((new.double() - old.double()).abs().max()), float(old.double().abs().max())


def tolerance(y: Tensor) -> float:
    """Up to this share of the largest value, two ways to compute the same in this type may differ."""
    kind = torch.float32 if y.dtype == torch.float64 else y.dtype
    return float(TOLERANCE * torch.finfo(kind).eps ** 0.5)
