"""Activations with weights that the file shows after a norm: a PReLU has one per channel, or one for all."""

from __future__ import annotations

import re
from itertools import pairwise

from torch import Tensor

from bnprobe.checkpoints.groups import SAYS_NORM, Norm
from bnprobe.checkpoints.producers import order_of
from bnprobe.models.checkpoint_file import State
from bnprobe.models.tensor_kinds import is_number

ACTIVATES = re.compile(r"act|relu|nonlin", re.IGNORECASE)


def activations(state: State, norms: tuple[Norm, ...]) -> dict[str, str]:
    """What follows a norm, by its path: "prelu" where a lone vector beside it says so."""
    lone = _lone_vectors(state)
    modules = order_of(state) or []
    after = dict(pairwise(modules))
    found = {}
    for norm in norms:
        parent = norm.path.rpartition(".")[0]
        inside = f"{parent}." if parent else ""
        beside = [path for path in lone if path.rpartition(".")[0] == parent and _is_of(path, norm, inside)]
        following = after.get(norm.path, "")
        candidates = [path for path in (*beside, following) if path in lone]
        if any(
            path.rpartition(".")[0] == parent and lone[path].numel() in (1, norm.n_channels)
            for path in candidates
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
        if is_number(vector) and vector.dim() == 1 and not SAYS_NORM.search(path.rpartition(".")[2])
    }
