"""Which weights produce a norm's input, inferred from names and shapes: a guess, and none where two answers fit.

The pairs that people write are siblings: conv1 and bn1, conv and norm, or 0 and 1 in a Sequential. The
weights must have as many outputs as the norm has channels. A norm may also stand before the weights of
the same number (pre-activation), so a pair counts only where the file's order says that the weights come
first; where the file has no order, because its names are sorted, only where their inputs do not fit the
norm, or where no other pair of the file shows that its norms come first.

Where names do not pair, the order does, for batch norms: the weights directly before, in the same part of the
network, that feed no other norm and are not numbered otherwise. Two norms in a row were written down apart from
their weights, and running means that are nowhere below 0 are those of a ReLU's output, not of the weights'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from bnprobe.checkpoints.groups import Norm
from bnprobe.recording.neighbours import Folded
from bnprobe.stats.moments import Array
from bnprobe.weights import State, Tensor
from bnprobe.weights.tensor import wide

WEIGHTS = re.compile(r"^(conv|convolution|fc|lin|linear|dense|proj|depthwise|dwconv|pwconv|pointwise)$")
TRANSPOSED = re.compile(r"deconv|transpos|up_?conv|up_?sampl", re.IGNORECASE)
NORMS = re.compile(r"^(bn|norm|batchnorm|batch_norm|gn|ln|in)$")


def producers(state: State, norms: tuple[Norm, ...]) -> dict[str, str]:
    """Path of the weights before each norm that has a likely one, by the path of the norm."""
    modules = order_of(state)
    order = None if modules is None else {path: i for i, path in enumerate(modules)}
    weights = _weights(state)
    siblings = _Siblings(weights)
    pairs = {norm.path: path for norm in norms if (path := siblings.before(norm)) is not None}
    if order is not None:
        named = {norm: path for norm, path in pairs.items() if order[path] < order[norm]}
        return named | _by_order(list(order), norms, weights, named)
    sizes = {norm.path: norm.n_channels for norm in norms}
    backwards = any(siblings.inputs_after(norm.path) == norm.n_channels for norm in norms)
    return {
        norm: path for norm, path in pairs.items() if not backwards or weights[path].shape[1] != sizes[norm]
    }


def order_of(state: State) -> list[str] | None:
    """The paths of the modules in the order of the file; None where its names are sorted, which tells nothing."""
    names = list(state)
    return None if names == sorted(names) else list(dict.fromkeys(name.rpartition(".")[0] for name in names))


def _by_order(
    modules: list[str], norms: tuple[Norm, ...], weights: Mapping[str, Tensor], named: Mapping[str, str]
) -> dict[str, str]:
    """The weights directly before norms that have none by their names."""
    at = {path: i for i, path in enumerate(modules)}
    paths, taken = {norm.path for norm in norms}, set(named.values())
    found: dict[str, str] = {}
    for norm in norms:
        i = at[norm.path]
        before, after = modules[i - 1] if i else "", modules[i + 1] if i + 1 < len(modules) else ""
        if norm.path in named or before not in weights or before in taken or after in paths:
            continue
        fits = weights[before].shape[0] == norm.n_channels and norm.kind == "batch_norm"
        if fits and _in_one_part(before, norm.path) and not _clipped(norm):
            found[norm.path] = before
    return found


def _in_one_part(weights: str, norm: str) -> bool:
    """Whether one of the two stands where the other does, or in a part of that, and their numbers do not differ."""
    numbers = [re.findall(r"\d+$", path.rpartition(".")[2]) for path in (weights, norm)]
    if numbers[0] and numbers[1] and numbers[0] != numbers[1]:
        return False
    return together(weights, norm)


def together(one: str, other: str) -> bool:
    """Whether one of two modules stands where the other does, or in a part of that."""
    mine, theirs = (path.rpartition(".")[0] for path in (one, other))
    inside = bool(mine and theirs) and (
        f"{theirs}.".startswith(f"{mine}.") or f"{mine}.".startswith(f"{theirs}.")
    )
    return mine == theirs or inside


def _clipped(norm: Norm) -> bool:
    """Whether the running means are those of values from which all negative ones were taken."""
    return norm.n_channels > 1 and bool((norm.vectors["running_mean"].float64() >= 0).all())


class Filters(NamedTuple):
    """The weights before a norm, a filter per output: what is known of each after one pass over them.

    Length and extremes, shape (outputs,), and the sum of each filter over positions, shape (outputs, inputs).
    """

    length: Array
    low: Array
    high: Array
    summed: Array


def filters(weight: Tensor) -> Filters | None:
    """One pass over the weights; None where the file holds fewer numbers than they declare, and for those of a remote file
    that were not fetched."""
    if not weight.held or weight.far:
        return None
    n_inputs, found = weight.shape[1], []
    for rows in weight.blocks():
        values = wide(rows)
        with np.errstate(over="ignore", invalid="ignore"):
            length = np.sqrt(np.einsum("ij,ij->i", values, values))
            summed = values.reshape(len(values), n_inputs, -1).sum(axis=2)
            found.append((length, values.min(axis=1), values.max(axis=1), summed))
    return Filters(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def folded(alone: Filters, bias: Tensor | None, norm: Norm, eps: float) -> Folded:
    """The filters before a norm, alone and folded into it."""
    slope = _slope(norm, eps)
    with np.errstate(invalid="ignore", over="ignore"):
        ends = np.stack([alone.low * slope, alone.high * slope])
    return Folded(alone.length, ends.min(axis=0), ends.max(axis=0), bias_of(bias, len(slope)))


def bias_of(bias: Tensor | None, n_outputs: int) -> Array | None:
    """What is added after the filters, where it is numbers and one for each."""
    fits = bias is not None and bias.is_number and bias.shape == (n_outputs,)
    return bias.float64() if fits and bias is not None else None


def _slope(norm: Norm, eps: float) -> Array:
    """gamma / sqrt(running_var + eps): what folding multiplies a filter by; NaN without a stored variance."""
    if "running_var" not in norm.vectors:
        return np.full(norm.n_channels, np.nan)
    gamma = norm.vectors["gamma"].float64() if "gamma" in norm.vectors else 1.0
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.asarray(gamma / np.sqrt(norm.vectors["running_var"].float64() + eps))


def _weights(state: State) -> dict[str, Tensor]:
    """Modules with a weight that mixes channels, shape (outputs, inputs, ...)."""
    return {
        name.removesuffix(".weight"): tensor
        for name, tensor in state.items()
        if name.endswith(".weight") and tensor.is_number and tensor.dim >= 2 and tensor.numel
        if not TRANSPOSED.search(name) and not _perhaps_transposed(tensor)
    }


def _perhaps_transposed(weight: Tensor) -> bool:
    """Square and of an even kernel, as transposed convolutions are, whose outputs are the second dimension."""
    side, *kernel = weight.shape[1:]
    return bool(kernel) and weight.shape[0] == side and all(size % 2 == 0 for size in kernel)


class _Siblings:
    """Modules with weights that are named like weights, by the module they are in and their number."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights
        self._named: dict[tuple[str, str], list[str]] = {}
        for path in weights:
            parent, _, name = path.rpartition(".")
            word, number = _parts(name)
            if WEIGHTS.match(word):
                self._named.setdefault((parent, number), []).append(path)

    def before(self, norm: Norm) -> str | None:
        """The module beside a norm that is numbered like the one before it and has as many outputs."""
        parent, _, name = norm.path.rpartition(".")
        if name.isdecimal() and len(name) < 10:
            before = [f"{parent}.{int(name) - 1}".lstrip(".")] if int(name) else []
        else:
            word, number = _parts(name)
            before = self._named.get((parent, number), []) if NORMS.match(word) else []
        if len(before) != 1 or before[0] not in self._weights:
            return None
        return before[0] if self._weights[before[0]].shape[0] == norm.n_channels else None

    def inputs_after(self, path: str) -> int | None:
        """Inputs of the weights with a norm's number, where their outputs are another number: those come after it."""
        parent, _, name = path.rpartition(".")
        paths = [] if name.isdecimal() else self._named.get((parent, _parts(name)[1]), [])
        shape = self._weights[paths[0]].shape if len(paths) == 1 else (0, 0)
        return shape[1] if shape[0] != shape[1] else None


def _parts(name: str) -> tuple[str, str]:
    """The word and the number of a module's name: ("conv", "1")."""
    word = name.rstrip("0123456789")
    return word.rstrip("_").lower(), name[len(word) :]
