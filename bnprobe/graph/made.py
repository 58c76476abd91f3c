"""Small values of a pass by what made them: which entries of a layer's output they are, times a number, plus a constant.

Scale, shift and gate of adaLN are parts of what one linear layer makes of the timestep. Followed through views, casts and
arithmetic with numbers and parameters while a pass is watched, they can be read from the output of that layer alone in every
later pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bnprobe.graph.graph import LEAF, Node

LARGEST = 1 << 24
"""Entries of an output that is followed, at most."""

SAME = (
    "_to_copy",
    "clone",
    "contiguous",
    "detach",
    "alias",
    "to",
    "type_as",
    "float",
    "half",
    "double",
    "bfloat16",
)
"""Views and copies of all entries in their order."""

MOVED = (
    *(
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "permute",
        "transpose",
        "squeeze",
        "unsqueeze",
        "expand",
        "slice",
    ),
    *(
        "select",
        "narrow",
        "split",
        "split_with_sizes",
        "chunk",
        "tensor_split",
        "unbind",
        "flatten",
        "unflatten",
        "movedim",
    ),
)
"""Views and copies whose entries stand elsewhere, or are some of all."""


@dataclass(frozen=True)
class Made:
    """Values, by the node of the layer that made them: `factor` times the entries `index` of its output, counted in order,
    plus `constant`, both in the shape of the values. `parameters` are those in the constant.
    """

    source: Node
    index: Tensor
    factor: float
    constant: Tensor
    parameters: tuple[Tensor, ...] = ()


def made_by(node: Node, out: Tensor, n_channels: int, rows: frozenset[int]) -> Made | None:
    """What a layer made, where it has a row for each sample or one for all; None else."""
    if not n_channels or out.numel() > LARGEST or out.numel() // n_channels not in rows:
        return None
    index = torch.arange(out.numel()).reshape(out.shape)
    return Made(node, index, 1.0, torch.zeros(out.shape, dtype=torch.float64))


def after(
    func: Any, name: str, args: Sequence[Any], kwargs: Any, sources: Sequence[Node]
) -> list[Made | None]:
    """What each result of an operation is made of; empty where it is not followed. `sources` are nodes of its tensors."""
    known = sources[0].made if sources else None
    if name in ("add", "sub", "mul", "div"):
        return [_computed(name, args, sources)] if len(args) == 2 and not kwargs else []
    if known is None:
        return []
    if name in SAME:  # a copy lies in order, so that further views of it are possible
        return [replace(known, index=known.index.contiguous(), constant=known.constant.contiguous())]
    if name in MOVED:
        both = (_listed(func(part, *args[1:], **kwargs)) for part in (known.index, known.constant))
        return [replace(known, index=index, constant=constant) for index, constant in zip(*both, strict=True)]
    return []


def _listed(made: Any) -> Sequence[Tensor]:
    return [made] if isinstance(made, Tensor) else made


def _computed(name: str, args: Sequence[Any], sources: Sequence[Node]) -> Made | None:
    """Of arithmetic of such values with a number, or with parameters."""
    nodes = iter(sources)
    operands = [(one, next(nodes) if isinstance(one, Tensor) else None) for one in args]
    found = [i for i, (_, node) in enumerate(operands) if node is not None and node.made is not None]
    if len(found) != 1:
        return None
    (at,) = found
    other, node = operands[1 - at]
    known: Made = operands[at][1].made  # type: ignore[union-attr]
    parameters: list[Tensor] | None = []
    if node is not None:
        parameters, other = _parameters(node), other.detach().to("cpu", torch.float64)
    if parameters is None:
        return None
    if name in ("add", "sub"):
        mine, theirs = (-1.0 if name == "sub" and at == i else 1.0 for i in (1, 0))
        constant = mine * known.constant + theirs * other
        held = known.parameters + tuple(parameters)
        return Made(known.source, known.index.expand(constant.shape), mine * known.factor, constant, held)
    if parameters or (name == "div" and at == 1):
        return None
    by = float(other) if name == "mul" else 1 / float(other)
    return replace(known, factor=known.factor * by, constant=known.constant * by)


def _parameters(node: Node) -> list[Tensor] | None:
    """The parameters and buffers that values are made of; None where anything else is."""
    waiting, found = [node], []
    while waiting:
        node = waiting.pop()
        if not node.inputs:
            if node.part != LEAF or "tensor" not in node.facts:
                return None
            found.append(node.facts["tensor"])
        waiting.extend(node.inputs)
    return found
