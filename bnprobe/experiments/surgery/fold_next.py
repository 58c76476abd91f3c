"""γ and β of layer and RMS norms folded into the linear layers that read them, with a certificate in float64."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError, NoNormLayers, class_name
from bnprobe.experiments.feature_scales import is_feature_norm
from bnprobe.experiments.held_vectors import held_norms, storage
from bnprobe.experiments.outputs import Metric, deciding
from bnprobe.experiments.put_back import RandomStates, write
from bnprobe.experiments.run import Batches, Call, run
from bnprobe.experiments.surgery.converted import NOT_CHOSEN, Converted
from bnprobe.experiments.surgery.either import compare
from bnprobe.experiments.surgery.look import copied
from bnprobe.norms import ModuleTree, NormLayer, describe
from bnprobe.probe import attach
from bnprobe.probe.survey.survey import survey_of
from bnprobe.probe.survey.unwrap import shown, unwrap
from bnprobe.reductions import float64_copy

CERTIFIED = 1e-5
"""Relative change of the outputs in float64 up to which a fold is one: norms that compute in float32 whatever they are given
leave its rounding."""


@dataclass
class _Norm:
    """A layer or RMS norm, and what the pass has shown of who reads its output; `why` it stays as it is."""

    path: str
    module: nn.Module
    plan: NormLayer
    why: str = ""
    readers: dict[str, nn.Module] = field(default_factory=dict)
    n_read: int = 0
    """Calls of linear layers on its output."""
    leaves: list[Any] = field(default_factory=list)
    """Autograd's nodes for its outputs, whose uses are counted."""
    done: str = ""


def fold_into_next(
    model: nn.Module,
    batches: Iterable[Any],
    layers: str | Sequence[str] | None,
    metric: Metric | None,
    call: Call | None,
) -> Converted:
    """See `bnprobe.fold`."""
    new = copied(model, "fold")
    seen = Batches(new, batches, "folding", 3)
    first = next(iter(seen))
    norms = _norms(new, layers, _plans(new, first, call))
    _follow(new, norms, first, call)
    folded = [norm for norm in norms if not norm.why]
    if not folded:
        raise NoNormLayers(
            f"no norm of {class_name(new)} can be folded into what follows: {norms[0].path}: {norms[0].why}. Leave this "
            "model as it is."
        )
    for norm in folded:
        _fold(new, norm)
    error = _certified(unwrap(model)[0], new, first, call)
    effect = compare(unwrap(model)[0], new, batches, metric, call)
    words = f"In float64 the outputs of the first batch change by at most {error:.2g} of the largest one."
    table = pd.DataFrame(
        [
            {
                "layer": norm.path,
                "kind": norm.plan.kind,
                "n_channels": norm.plan.n_channels,
                "done": norm.done,
                "why": norm.why,
            }
            for norm in norms
        ]
    )
    return Converted(new, table, replace(effect, notes=(*effect.notes, words)))


def _plans(model: nn.Module, batch: Any, call: Call | None) -> dict[str, NormLayer]:
    """How each norm computes, as its own output shows: w and 1 + w are told apart by nothing else."""
    with attach(model, histograms=False, gradients=False) as probe, torch.no_grad():
        run(model, batch, call)
    return {path: norm.layer for path, norm in held_norms(model, probe.recording).items()}


def _norms(
    model: nn.Module, layers: str | Sequence[str] | None, plans: Mapping[str, NormLayer]
) -> list[_Norm]:
    patterns = [layers] if isinstance(layers, str) else layers
    found = []
    for path, module in survey_of(model).layers.items():
        plan = plans.get(path) or describe(module)[0]
        own = {id(p) for p in module.parameters(recurse=False)}
        vectors = [v for v in (plan.weight, plan.bias) if v is not None]
        why = ""
        if patterns is not None and not any(fnmatchcase(path, pattern) for pattern in patterns):
            why = NOT_CHOSEN
        elif not is_feature_norm(plan):
            why = f"it is a {plan.kind.replace('_', ' ')}, no layer or RMS norm"
        elif not vectors or any(id(v) not in own for v in vectors):
            why = "it holds no γ of its own; one that is computed at each call, as in adaLN, cannot be folded"
        found.append(_Norm(path, module, plan, why))
    if all(norm.why == NOT_CHOSEN for norm in found):
        names = ", ".join(norm.path for norm in found[:3])
        raise NoNormLayers(
            f"no norm of {class_name(model)} matches {', '.join(patterns or [])}. It has {names}. Pass a path or a "
            "pattern of these."
        )
    return found


def _follow(model: nn.Module, norms: Sequence[_Norm], batch: Any, call: Call | None) -> None:
    """Run a batch, and see who reads what each norm gives: linear layers alone, and those nothing else."""
    given: dict[int, _Norm] = {}
    kept: list[Tensor] = []
    ends: list[Tensor | None] = []
    n_calls: Counter[int] = Counter()
    modules = {shown(path): module for path, module in ModuleTree.of(model).modules.items()}
    linear = {path: module for path, module in modules.items() if _is_linear(module)}

    def after_norm(norm: _Norm) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                return None
            ends.append(output)  # the graph is cut here, and goes on before it
            leaf = output.detach().requires_grad_()
            norm.leaves.append(leaf.view_as(leaf).grad_fn.next_functions[0][0])  # type: ignore[union-attr]
            given[storage(leaf)] = norm
            kept.append(leaf)  # or another tensor may lie there
            return leaf

        return hook

    def before_linear(path: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            n_calls[id(module)] += 1
            x = args[0] if args and isinstance(args[0], Tensor) else None
            norm = None if x is None else given.get(storage(x))  # also of a view, as of the last positions
            if (
                norm is not None
                and x is not None
                and x.shape[-1] == norm.plan.n_channels
                and x.stride(-1) == 1
            ):
                norm.readers[path] = module
                norm.n_read += 1

        return hook

    states = RandomStates()
    with ExitStack() as stack, torch.enable_grad():
        stack.callback(states.restore)
        for norm in norms:
            stack.callback(norm.module.register_forward_hook(after_norm(norm)).remove)
        for path, module in linear.items():
            stack.callback(module.register_forward_pre_hook(before_linear(path)).remove)
        output = deciding(run(model, batch, call))
    uses = Counter(_used([output, *ends]))
    for norm in norms:
        norm.why = norm.why or _unfit(norm, sum(uses[leaf] for leaf in norm.leaves), n_calls)


def _unfit(norm: _Norm, n_uses: int, n_calls: Mapping[int, int]) -> str:
    if not norm.leaves:
        return "these batches do not reach it"
    if not norm.readers:
        return "no linear layer reads its output, as of QK-norms before rotary positions, or where adaLN modulates it"
    if n_uses > norm.n_read:
        return "something beside linear layers reads its output, as a residual connection after a post-norm"
    if sum(n_calls[id(module)] for module in norm.readers.values()) != norm.n_read:
        return f"{', '.join(norm.readers)} also reads something else"
    return ""


def _used(outputs: Iterable[Tensor | None]) -> Iterator[Any]:
    """Of every edge of a gradient's graph the node that it leads to."""
    waiting = [output.grad_fn for output in outputs if output is not None and output.grad_fn is not None]
    met = set(waiting)
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is None:
                continue
            yield node
            if node not in met:
                met.add(node)
                waiting.append(node)


def _is_linear(module: nn.Module) -> bool:
    """Whether a module is W x + b, also in the layout of GPT-2, whose class is called Conv1D."""
    return isinstance(module, nn.Linear) or class_name(module) == "Conv1D"


def _fold(model: nn.Module, norm: _Norm) -> None:
    """Write γ and β into the readers' weights, computed in float64 and rounded once; weights that are shared become own."""
    plan = norm.plan
    holders = Counter(id(p) for m in ModuleTree.of(model).modules.values() for p in m._parameters.values())
    own = []
    for path, module in norm.readers.items():
        weight, bias = module._parameters["weight"], module._parameters.get("bias")
        assert weight is not None
        if holders[id(weight)] > 1:
            own.append(path)
        rows = weight.detach().double() if isinstance(module, nn.Linear) else weight.detach().double().t()
        shift = None if bias is None else bias.detach().double()
        if plan.bias is not None:
            added = rows @ plan.bias.detach().double().reshape(-1)
            shift = added if shift is None else shift + added
        if plan.weight is not None:
            rows = rows * (plan.weight.detach().double().reshape(-1) + plan.weight_offset)
        rows = rows if isinstance(module, nn.Linear) else rows.t()
        module._parameters["weight"] = nn.Parameter(rows.to(weight.dtype), weight.requires_grad)
        if shift is not None:
            module._parameters["bias"] = nn.Parameter(shift.to(weight.dtype), weight.requires_grad)
    for vector, neutral in ((plan.weight, 1.0 - plan.weight_offset), (plan.bias, 0.0)):
        if vector is not None:
            write(vector, torch.full_like(vector.detach(), neutral))
    norm.done = f"folded into {', '.join(norm.readers)}"
    if own:
        norm.done += f"; {', '.join(own)} has weights of its own now"


def _certified(old: nn.Module, new: nn.Module, batch: Any, call: Call | None) -> float:
    """The largest relative change of the outputs in float64. Raises BnprobeError where that is no rounding."""
    outputs = []
    for model in (old, new):
        states = RandomStates()
        with torch.no_grad():
            found = deciding(run(copy.deepcopy(model).double(), _doubled(batch), call))
        states.restore()
        outputs.append(None if found is None else float64_copy(found))
    before, after = outputs
    if before is None or after is None:
        raise BnprobeError("the model's output holds no tensor to compare. Pass call=, which returns one.")
    error = float(abs(after - before).max() / max(abs(before).max(), 1e-300))
    if not error <= CERTIFIED:
        raise BnprobeError(
            f"folded, the outputs would change by {error:.2g} of the largest one: part of this model's pass cannot be "
            "followed. Fold some norms only, with layers=."
        )
    return error


def _doubled(value: Any) -> Any:
    """The same containers, with floating-point tensors in float64."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {name: _doubled(item) for name, item in value.items()}
    return type(value)(map(_doubled, value)) if isinstance(value, tuple | list) else value
