"""Activations with weights that the file shows after a norm: a PReLU has one per channel, or one for all."""

from __future__ import annotations

import re
from itertools import pairwise

from bnprobe.checkpoints.groups import SAYS_NORM, Norm
from bnprobe.checkpoints.producers import order_of
from bnprobe.weights import State, Tensor

ACTIVATES = re.compile(r"act|relu|nonlin", re.IGNORECASE)


def activations(state: State, norms: tuple[Norm, ...]) -> dict[str, str]:
    """What follows a norm, by its path: "prelu" where a lone vector beside it says so."""
    lone = _lone_vectors(state)
    beside: dict[str, list[str]] = {}
    for path in lone:
        beside.setdefault(path.rpartition(".")[0], []).append(path)
    modules = order_of(state) or []
    after = dict(pairwise(modules))
    found = {}
    for norm in norms:
        parent = norm.path.rpartition(".")[0]
        inside = f"{parent}." if parent else ""
        following = after.get(norm.path, "")
        if any(
            lone[path].numel in (1, norm.n_channels) and (path == following or _is_of(path, norm, inside))
            for path in beside.get(parent, ())
        ):
            found[norm.path] = "prelu"
    return found


def _is_of(path: str, norm: Norm, inside: str) -> bool:
    """Whether a module beside a norm is called an activation and has its number: act1 of bn1, act of bn."""
    name, own = path.removeprefix(inside), norm.path.removeprefix(inside)
    numbers = [re.findall(r"\d+$", one) for one in (name, own)]
    return bool(ACTIVATES.search(name)) and numbers[0] == numbers[1]


def _lone_vectors(state: State) -> dict[str, Tensor]:
    """Modules that hold one vector called weight, and nothing else, and are not named like a norm."""
    held: dict[str, list[str]] = {}
    for name in state:
        path, _, leaf = name.rpartition(".")
        held.setdefault(path, []).append(leaf)
    vectors = {
        path: state[f"{path}.weight"] for path, leaves in held.items() if leaves == ["weight"] and path
    }
    return {
        path: vector
        for path, vector in vectors.items()
        if vector.is_number and vector.dim == 1 and not SAYS_NORM.search(path.rpartition(".")[2])
    }
