"""From names to norms: which tensors of a state dict belong to one normalization layer.

What is claimed: a module with running_mean and running_var is a batch norm (or an instance norm that keeps
statistics); one with a weight and a bias of equal shape and nothing else that mixes channels is a norm of
unknown kind (a linear layer and a convolution have weights of another shape than their bias); one with a
lone vector `weight` is one only if its name says so, because a PReLU has the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from bnprobe.weights import State, Tensor

ALIASES = {
    "gamma": ("weight", "gamma"),
    "beta": ("bias", "beta"),
    "running_mean": ("running_mean", "moving_mean"),
    "running_var": ("running_var", "moving_variance", "moving_var"),
}
STATISTICS = ("running_mean", "running_var")
COUNTER = "num_batches_tracked"
SAYS_NORM = re.compile(r"norm|(^|[._])(ln|rms|bn|gn)[^.]*$", re.IGNORECASE)

MOST_CHANNELS = 2**20
"""Entries from which a vector is no norm's: a tensor may declare any size and hold one number."""


MOST_CHANNELS_IN_ALL = 2**22
"""Channels of all norms of a file: those of the largest language models, at a kilobyte of RAM each."""


MOST_NORMS = 20_000
"""Norms of a file: twenty times what the deepest networks have. Each takes 5 ms and 80 kB (reports/growth.csv)."""


class Norm(NamedTuple):
    """The tensors of one norm, each with one entry per channel, and in words what they are taken for."""

    path: str
    kind: str
    says: str
    vectors: Mapping[str, Tensor]
    counter: Tensor | None

    @property
    def n_channels(self) -> int:
        """Number of channels, C."""
        return next(iter(self.vectors.values())).numel


@dataclass(frozen=True)
class Grouped:
    """The norms of a state dict in its order, and names that look like one but do not fit together.

    `unreadable` says which of their tensors are no plain numbers, and what those are.
    """

    norms: tuple[Norm, ...]
    odd: tuple[str, ...]
    unreadable: tuple[str, ...]


def grouped(state: State) -> Grouped:
    """Every norm that the names and shapes of `state` show."""
    norms: list[Norm] = []
    odd: list[str] = []
    unreadable: list[str] = []
    for path, tensors in _modules(state):
        if strange := _unreadable(path, tensors):
            unreadable.append(f"{path}.{strange}".lstrip("."))
            odd.append(f"{path} (entries: {_entries(_vectors(tensors))}; {strange})")
            continue
        norm = _with_statistics(path, tensors, odd) or _without_statistics(path, tensors)
        if norm is not None and norm.n_channels:
            norms.append(norm)
    return Grouped(tuple(norms), tuple(odd), tuple(unreadable))


def _modules(state: State) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Module paths with their own tensors, in the order of the file, or of natural names where that says nothing."""
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        modules.setdefault(path, {})[leaf] = tensor
    names = list(state)
    if names == sorted(names):
        yield from sorted(modules.items(), key=lambda item: natural(item[0]))
    else:
        yield from modules.items()


def natural(name: str) -> list[tuple[int, str]]:
    """A key by which layer10 comes after layer2."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", name)]


def _unreadable(path: str, tensors: Mapping[str, Tensor]) -> str:
    """The first tensor of a norm that holds no numbers, and what it is; empty for other modules and readable norms."""
    known = any(_named(tensors, field) is not None for field in STATISTICS)
    if not known and not SAYS_NORM.search(path.rpartition(".")[2]):
        return ""
    for leaf in (name for names in ALIASES.values() for name in names if name in tensors):
        tensor = tensors[leaf]
        if strange := tensor.kind if known and not tensor.is_number else tensor.foreign:
            return f"{leaf} is {strange}"
    return ""


def _with_statistics(path: str, tensors: Mapping[str, Tensor], odd: list[str]) -> Norm | None:
    vectors = _vectors(tensors)
    if not any(_named(tensors, field) is not None for field in STATISTICS):
        return None
    sizes = {field: tensor.numel for field, tensor in vectors.items()}
    missing = [field for field in STATISTICS if field not in vectors]
    if missing or len(set(sizes.values())) != 1:
        odd.append(f"{path} (entries: {_entries(vectors)})")
        return None
    return Norm(path, "batch_norm", "batch norm by its buffers", vectors, tensors.get(COUNTER))


def _without_statistics(path: str, tensors: Mapping[str, Tensor]) -> Norm | None:
    if any(_named(tensors, field) is not None for field in STATISTICS):
        return None
    gamma, beta = _named(tensors, "gamma"), _named(tensors, "beta")
    if gamma is None or not gamma.is_number or not 0 < gamma.numel <= MOST_CHANNELS or not gamma.dim:
        return None
    if beta is not None:
        if not beta.is_number or beta.shape != gamma.shape:
            return None
        return Norm(path, "unknown_norm", "norm by its weight and bias", {"gamma": gamma, "beta": beta}, None)
    if gamma.dim == 1 and SAYS_NORM.search(path) and len(tensors) == 1:
        return Norm(path, "unknown_norm", "norm by its name and weight", {"gamma": gamma}, None)
    return None


def _entries(vectors: Mapping[str, Tensor]) -> str:
    """How many numbers each vector has, in words."""
    return ", ".join(f"{field} {t.numel}" for field, t in vectors.items()) or "none that are numbers"


def _vectors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a norm that have one number per channel, by their fields."""
    return {field: tensor for field in ALIASES if (tensor := _vector(tensors, field)) is not None}


def _named(tensors: Mapping[str, Tensor], field: str) -> Tensor | None:
    return next((tensors[name] for name in ALIASES[field] if name in tensors), None)


def _vector(tensors: Mapping[str, Tensor], field: str) -> Tensor | None:
    """The tensor of this field if it has one entry per channel in any shape, (C,) or (1, C, 1, 1)."""
    tensor = _named(tensors, field)
    if tensor is None or not tensor.is_number or tensor.numel > MOST_CHANNELS:
        return None
    return tensor if tensor.dim and tensor.numel == max(tensor.shape) else None
