"""Which layers of a model are probed, and what to say where there are none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from bnprobe.errors import BnprobeError, NoNormLayers
from bnprobe.norms import folded_away, is_norm, looks_like_norm
from bnprobe.norms.functional import PLANS
from bnprobe.probe.survey.call_site import mentions
from bnprobe.probe.survey.unwrap import named

MOST_NAMED = 3
"""Paths spelt out in a sentence."""


def patterns_of(layers: Any) -> list[str] | None:
    """The shell patterns of `layers`; None for every layer."""
    if layers is None:
        return None
    several = isinstance(layers, Iterable) and not isinstance(layers, str)
    patterns = list(layers) if several else [layers]
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise BnprobeError(
            f"layers={layers!r} is not a path. Give a path or a shell pattern such as "
            '"layer4.*", or a list of them.'
        )
    if not patterns:
        raise BnprobeError("layers is empty, so there is nothing to probe. Leave it out for every layer.")
    return patterns


def choose(model: nn.Module, patterns: Sequence[str] | None) -> dict[str, nn.Module]:
    """The norm layers to hook, by path; none where all norms of the model are function calls."""
    norms = {name or type(model).__name__: module for name, module in named(model) if _can_be_called(module)}
    if not norms:
        if mentions(model, set(PLANS)):
            return {}
        raise NoNormLayers(_no_norms(model))
    chosen = {n: m for n, m in norms.items() if patterns is None or any(fnmatchcase(n, p) for p in patterns)}
    if not chosen and not mentions(model, set(PLANS)):
        some = ", ".join(list(norms)[:3])
        raise NoNormLayers(
            f"no norm layer of {type(model).__name__} matches {', '.join(patterns or [])}. "
            f"Its {len(norms)} norm layers have paths like {some}."
        )
    return chosen


def _can_be_called(module: nn.Module) -> bool:
    """Whether it is a norm whose hooks torch calls: not one in a part made of TorchScript, nor what an exported
    graph keeps of a norm, which is its tensors without code."""
    return (
        type(module) is not nn.Module and not isinstance(module, torch.jit.ScriptModule) and is_norm(module)
    )


def not_understood(model: nn.Module) -> dict[str, str]:
    """Modules that look like norms but cannot be read: their classes by path."""
    found = {name: type(module).__name__ for name, module in named(model) if looks_like_norm(module)}
    for name, module in named(model):
        original = (
            str(getattr(module, "original_name", "")) if isinstance(module, torch.jit.ScriptModule) else ""
        )
        if "norm" in original.lower():
            found[name] = f"{original} in TorchScript"
    return found


def _no_norms(model: nn.Module) -> str:
    name = type(model).__name__
    gone = folded_away(model)
    if gone:
        more = f" and {len(gone) - MOST_NAMED} more" if len(gone) > MOST_NAMED else ""
        return (
            f"{name} has no normalization layer any more: they were absorbed into the layers before them at "
            f"{', '.join(gone[:MOST_NAMED])}{more}, where identities stand now. Attach to the model before it is "
            "fused or quantized."
        )
    like = [type(module).__name__ for module in model.modules() if looks_like_norm(module)]
    if not like:
        return (
            f"{name} has no normalization layer. Check that Conv+BN were not fused, and that this is the right model. "
            "Teach me a class of your own with bnprobe.register_norm(YourClass, describe)."
        )
    closest = max(set(like), key=like.count)
    return (
        f"{name} has no normalization layer I know. Closest: {closest} ({like.count(closest)} modules, by name). "
        f"Teach me with bnprobe.register_norm({closest}, describe), or check that Conv+BN were not fused."
    )
