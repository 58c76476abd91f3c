"""One look at a model, taken when a probe is attached: everything that is asked of its modules, asked once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError, CannotProbe, class_name
from bnprobe.norms import ModuleTree, folded_away, is_norm
from bnprobe.norms.module_tree import buffers_of, joined, parameters_of
from bnprobe.probe.survey.compiled import runs_compiled
from bnprobe.probe.survey.detect_by_output import candidates
from bnprobe.probe.survey.select import choose, not_understood
from bnprobe.probe.survey.unwrap import shown, unwrap


@dataclass(frozen=True)
class ModelSurvey:
    """What the look found. It holds the model, so it is dropped once the hooks are in.

    Attributes:
        tree: Every module by the path that torch gives it, after wrappers around the whole model are taken off.
        layers: The norm layers to hook by their path in a recording, which leaves out the names of wrappers inside;
            none where all norms of the model are function calls.
        not_understood: The class names of modules that look like norms but cannot be read, by path.
        folded: Paths where a norm was folded into the convolution before it.
        candidates: Modules that might turn out to be norms by what they do, one of each class, by path.
        compiled: Whether one of `layers` is in a part that was compiled.
        parts: The largest parts of the model with norms inside that can be called by themselves.
    """

    tree: ModuleTree
    layers: Mapping[str, nn.Module]
    not_understood: Mapping[str, str]
    folded: tuple[str, ...]
    candidates: Mapping[str, nn.Module]
    compiled: bool
    parts: tuple[nn.Module, ...] = ()

    @property
    def model(self) -> nn.Module:
        """The model without wrappers around it."""
        return self.tree.model

    def named(self) -> Iterator[tuple[str, nn.Module]]:
        """Every module by its path in a recording."""
        return ((shown(path), module) for path, module in self.tree.modules.items())

    def parameters(self) -> dict[str, Tensor]:
        """Every parameter by its path in a recording."""
        return {shown(path): tensor for path, tensor in self.tree.parameters().items()}

    def layer_names(self) -> dict[str, str]:
        """The paths of `layers` in a recording by the path that torch gives their module."""
        names = {id(module): name for name, module in self.layers.items()}
        return {path: names[id(m)] for path, m in self.tree.modules.items() if id(m) in names}


def survey_of(model: nn.Module, patterns: Collection[str] | None = None) -> ModelSurvey:
    """Look at a model; `patterns` narrow the norm layers to paths that match one of them.

    Raises NoNormLayers where there is none, and CannotProbe for TorchScript and exported graphs.
    """
    model, wrappers = unwrap(model)
    tree = ModuleTree.of(model)
    _demand_tensors(tree)
    norms = frozenset(id(module) for path, module in tree.modules.items() if _is_norm(path, module))
    layers = choose(tree, norms, patterns)
    return ModelSurvey(
        tree=tree,
        layers=layers,
        not_understood=not_understood(tree),
        folded=folded_away(tree),
        candidates=candidates(tree, norms) if patterns is None else {},
        compiled=runs_compiled(tree, wrappers, layers.values()),
        parts=tuple(_parts_and_towers(tree, model, frozenset(map(id, layers.values())))),
    )


def _demand_tensors(tree: ModuleTree) -> None:
    """Raises CannotProbe where a module holds something else among its parameters and buffers."""
    for path, module in tree.modules.items():
        for name, value in (*parameters_of(module), *buffers_of(module)):
            if not isinstance(value, Tensor):
                raise CannotProbe(
                    f"{shown(joined(path, name))} is a {class_name(value)} among the parameters and buffers of a "
                    f"{class_name(module)}, where torch keeps tensors. Attach to a part of the model without it."
                )


def _is_norm(path: str, module: nn.Module) -> bool:
    """Raises CannotProbe, with the path, where a module that should be a norm cannot be described."""
    try:
        return is_norm(module)
    except BnprobeError as error:
        raise CannotProbe(f"{shown(path) or 'the model itself'}: {error}") from error


def _parts_and_towers(tree: ModuleTree, model: nn.Module, norms: frozenset[int]) -> Iterator[nn.Module]:
    """The parts of a model; of one that is all in a single part, as a head around a base model, also what that consists of,
    such as an encoder and a decoder: generation calls the encoder by itself."""
    parts = list(_parts(tree, model, norms))
    yield from parts
    if len(parts) == 1:
        children = {id(child) for _, child in tree.children(parts[0])}
        towers = [part for part in _parts(tree, parts[0], norms) if id(part) in children]
        yield from towers if len(towers) > 1 else ()


def _parts(tree: ModuleTree, module: nn.Module, norms: frozenset[int]) -> Iterator[nn.Module]:
    """The parts of `module` that hold a norm, looking through those that cannot be called, such as lists of modules."""
    for _, child in tree.children(module):
        if id(child) in norms or not any(id(inner) in norms for inner in tree.inside(child)):
            continue
        if type(child).forward is nn.Module.forward:
            yield from _parts(tree, child, norms)
        elif not isinstance(child, torch.jit.ScriptModule):
            yield child
