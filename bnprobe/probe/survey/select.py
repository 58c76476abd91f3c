"""Which layers of a model are recorded, and the error if there are none."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from bnprobe.errors import CannotProbe, NoNormLayers, class_name
from bnprobe.norms import POOLS, ModuleTree, identities_for_norms, looks_like_norm
from bnprobe.norms.functional import PLANS
from bnprobe.norms.module_tree import parameters_of
from bnprobe.probe.survey.call_site import mentions
from bnprobe.probe.survey.detect_by_output import Proposal, candidates, registration
from bnprobe.probe.survey.unwrap import shown
from bnprobe.recording import CHANNELS
from bnprobe.recording.names import GATHER

MOST_NAMED = 3
"""Paths listed in a message."""


def choose(
    tree: ModuleTree, norms: Collection[int], patterns: Collection[str] | None
) -> dict[str, nn.Module]:
    """The norm layers to hook, by path; empty if all norms of the model are function calls.

    `norms` are the identities of the modules that are norms.
    """
    model = class_name(tree.model)
    found = {
        shown(path) or model: module
        for path, module in tree.modules.items()
        if id(module) in norms and _can_be_called(module)
    }
    for path, module in found.items():
        _demand_whole(path, module, tree)
    chosen = {n: m for n, m in found.items() if patterns is None or any(fnmatchcase(n, p) for p in patterns)}
    if chosen or mentions(tree.modules.values(), set(PLANS)):
        return chosen
    if not found:
        raise NoNormLayers(_no_norms(tree))
    some = ", ".join(list(found)[:3])
    raise NoNormLayers(
        f"no norm layer of {model} matches {', '.join(patterns or [])}. "
        f"{_paths_are(len(found), some)}. Pass a path or a pattern of these."
    )


def _demand_whole(path: str, module: nn.Module, tree: ModuleTree) -> None:
    """Raises CannotProbe for a norm whose γ or β is empty, unless a wrapper fills it for each pass."""
    for name, tensor in parameters_of(module):
        empty = not is_lazy(tensor) and not tensor.numel()
        if empty and not hasattr(tensor, "ds_id") and not any(map(_gathers, tree.modules.values())):
            raise CannotProbe(
                f"{path}.{name} is empty, shape {tuple(tensor.shape)}: the model was filled with shards that were not "
                f"gathered. {GATHER}; then load that file and attach."
            )


def _gathers(module: nn.Module) -> bool:
    """Whether a wrapper collects the shards of its parameters before every pass."""
    return class_name(module) == "FullyShardedDataParallel"


def _paths_are(n: int, some: str) -> str:
    return f"Its {n} norm layers have paths like {some}" if n > 1 else f"Its only norm layer is {some!r}"


def _can_be_called(module: nn.Module) -> bool:
    """Whether torch calls the hooks of a norm: not inside TorchScript, and not those of an exported graph, which keeps
    the tensors of a norm in modules without code."""
    return type(module) is not nn.Module and not isinstance(module, torch.jit.ScriptModule)


def not_understood(tree: ModuleTree) -> dict[str, str]:
    """Modules that look like norms but are not recognized: their class names by path."""
    named = [(shown(path), module) for path, module in tree.modules.items()]
    found = {name: class_name(module) for name, module in named if looks_like_norm(module, tree)}
    for name, module in named:
        original = (
            str(getattr(module, "original_name", "")) if isinstance(module, torch.jit.ScriptModule) else ""
        )
        if "norm" in original.lower():
            found[name] = f"{original} in TorchScript"
    return found


ROOTS = {"rsqrt", "sqrt", "std", "var", "var_mean", "std_mean"}
"""Functions of which a norm calls one."""


def _by_its_code(tree: ModuleTree) -> tuple[str, nn.Module] | None:
    """The path of a module that may be a norm, as its code takes a root and it has a vector; None without any."""
    for path, module in candidates(tree, ()).items():
        vectors = [p for _, p in parameters_of(module) if not is_lazy(p) and p.dim() == 1]
        if vectors and not tree.children(module) and mentions([module], ROOTS):
            return path, module
    return None


def _no_norms(tree: ModuleTree) -> str:
    name = class_name(tree.model)
    gone = identities_for_norms(tree)
    if gone:
        more = f" and {len(gone) - MOST_NAMED} more" if len(gone) > MOST_NAMED else ""
        return (
            f"{name} has no normalization layers left: they were probably folded into the preceding layers at "
            f"{', '.join(gone[:MOST_NAMED])}{more}. If so, attach to the model before it is fused or quantized."
        )
    like = [class_name(module) for module in tree.modules.values() if looks_like_norm(module, tree)]
    if not like and (found := _by_its_code(tree)):
        path, module = found
        guess = Proposal(path, class_name(module), (-1,), POOLS[CHANNELS], 1, False, "last")
        return (
            f"{name} has no normalization layer that bnprobe recognizes. {path} ({guess.class_name}) has a vector and takes "
            f"a root: if it is an RMS norm over the last dimension, add it with {registration(module, guess)}. The formula "
            "is checked at its first call."
        )
    if not like:
        return (
            f"{name} has no normalization layer. Check that Conv+BN were not fused and that this is the right model. "
            "To add a norm class of your own, call bnprobe.register_norm(YourClass, describe)."
        )
    closest = max(set(like), key=like.count)
    count = "1 module" if like.count(closest) == 1 else f"{like.count(closest)} modules"
    return (
        f"{name} has no normalization layer that bnprobe recognizes. Closest by name: {closest} ({count}). "
        f"Add it with bnprobe.register_norm({closest}, describe), or check that Conv+BN were not fused."
    )
