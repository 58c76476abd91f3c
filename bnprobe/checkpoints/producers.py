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

import numpy as np
import torch
from torch import Tensor

from bnprobe.checkpoints.groups import Norm
from bnprobe.models.checkpoint_file import State
from bnprobe.models.stored import storage_of
from bnprobe.models.tensor_kinds import is_number
from bnprobe.recording.neighbours import Folded
from bnprobe.stats.moments import Array

WEIGHTS = re.compile(r"^(conv|convolution|fc|lin|linear|dense|proj|depthwise|dwconv|pwconv|pointwise)$")
TRANSPOSED = re.compile(r"deconv|transpos|up_?conv|up_?sampl", re.IGNORECASE)
NORMS = re.compile(r"^(bn|norm|batchnorm|batch_norm|gn|ln|in)$")


def producers(state: State, norms: tuple[Norm, ...]) -> dict[str, str]:
    """Path of the weights before each norm that has a likely one, by the path of the norm."""
    modules = order_of(state)
    order = None if modules is None else {path: i for i, path in enumerate(modules)}
    weights = _weights(state)
    pairs = {norm.path: path for norm in norms if (path := _sibling(norm, weights)) is not None}
    if order is not None:
        named = {norm: path for norm, path in pairs.items() if order[path] < order[norm]}
        return named | _by_order(list(order), norms, weights, named)
    sizes = {norm.path: norm.n_channels for norm in norms}
    backwards = any(_norm_first(norm.path, weights) == norm.n_channels for norm in norms)
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
    mine, theirs = norm.rpartition(".")[0], weights.rpartition(".")[0]
    numbers = [re.findall(r"\d+$", path.rpartition(".")[2]) for path in (weights, norm)]
    if numbers[0] and numbers[1] and numbers[0] != numbers[1]:
        return False
    inside = bool(mine and theirs) and (
        f"{theirs}.".startswith(f"{mine}.") or f"{mine}.".startswith(f"{theirs}.")
    )
    return mine == theirs or inside


def _clipped(norm: Norm) -> bool:
    """Whether the running means are those of values from which all negative ones were taken."""
    return norm.n_channels > 1 and bool((as_float64(norm.vectors["running_mean"]) >= 0).all())


def folded(weight: Tensor, bias: Tensor | None, norm: Norm, eps: float) -> Folded | None:
    """The filters before a norm, alone and folded into it; None where the file holds fewer numbers than it declares."""
    if not _held(weight):
        return None
    rows = (weight.dequantize() if weight.is_quantized else weight).detach().flatten(1)
    if rows.dtype not in (torch.float32, torch.float64):
        rows = rows.float()
    length = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).numpy()
    low, high = (end.double().numpy() for end in rows.aminmax(dim=1))
    slope = _slope(norm, eps)
    with np.errstate(invalid="ignore", over="ignore"):
        ends = np.stack([low * slope, high * slope])
    fits = bias is not None and is_number(bias) and bias.shape == (len(length),)
    added = as_float64(bias) if fits and bias is not None else None
    return Folded(length, ends.min(axis=0), ends.max(axis=0), added)


def _slope(norm: Norm, eps: float) -> Array:
    """gamma / sqrt(running_var + eps): what folding multiplies a filter by; NaN without a stored variance."""
    if "running_var" not in norm.vectors:
        return np.full(norm.n_channels, np.nan)
    gamma = as_float64(norm.vectors["gamma"]) if "gamma" in norm.vectors else 1.0
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.asarray(gamma / np.sqrt(as_float64(norm.vectors["running_var"]) + eps))


def as_float64(tensor: Tensor) -> Array:
    """The numbers of a vector of any shape and type, shape (C,)."""
    numbers = tensor.dequantize() if tensor.is_quantized else tensor
    return np.array(numbers.detach().flatten().to(torch.float64).cpu().numpy())


def _held(tensor: Tensor) -> bool:
    """Whether a tensor has storage for every number that it declares: an expanded one has not."""
    return tensor.numel() * tensor.element_size() <= storage_of(tensor)[1]


def _weights(state: State) -> dict[str, Tensor]:
    """Modules with a weight that mixes channels, shape (outputs, inputs, ...)."""
    return {
        name.removesuffix(".weight"): tensor
        for name, tensor in state.items()
        if name.endswith(".weight") and is_number(tensor) and tensor.dim() >= 2 and tensor.numel()
        if not TRANSPOSED.search(name) and not _perhaps_transposed(tensor)
    }


def _perhaps_transposed(weight: Tensor) -> bool:
    """Square and of an even kernel, as transposed convolutions are, whose outputs are the second dimension."""
    side, *kernel = weight.shape[1:]
    return bool(kernel) and weight.shape[0] == side and all(size % 2 == 0 for size in kernel)


def _sibling(norm: Norm, weights: Mapping[str, Tensor]) -> str | None:
    """The module beside a norm that is numbered like the one before it and has as many outputs."""
    parent, _, name = norm.path.rpartition(".")
    inside = f"{parent}." if parent else ""
    if name.isdecimal() and len(name) < 10:
        before = [f"{inside}{int(name) - 1}"] if int(name) else []
    else:
        word, number = _parts(name)
        if not NORMS.match(word):
            return None
        before = [path for path in weights if _same_number(path, inside, number)]
    fitting = [path for path in before if path in weights and weights[path].shape[0] == norm.n_channels]
    return fitting[0] if len(fitting) == len(before) == 1 else None


def _same_number(path: str, inside: str, number: str) -> bool:
    head, _, name = path.rpartition(".")
    word, own = _parts(name)
    return (f"{head}." if head else "") == inside and own == number and bool(WEIGHTS.match(word))


def _norm_first(path: str, weights: Mapping[str, Tensor]) -> int | None:
    """Inputs of the weights with a norm's number, where their outputs are another number: those come after it."""
    parent, _, name = path.rpartition(".")
    inside, (_, number) = f"{parent}." if parent else "", _parts(name)
    shapes = [weights[p].shape for p in weights if not name.isdecimal() and _same_number(p, inside, number)]
    return int(shapes[0][1]) if len(shapes) == 1 and shapes[0][0] != shapes[0][1] else None


def _parts(name: str) -> tuple[str, str]:
    """The word and the number of a module's name: ("conv", "1")."""
    word = name.rstrip("0123456789")
    return word.rstrip("_").lower(), name[len(word) :]
