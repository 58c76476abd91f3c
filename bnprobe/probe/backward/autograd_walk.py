"""Steps back through the autograd graph that only rename places, and where one dimension stands after each.

Which nodes a tensor comes through between two operations depends on the release of torch, on strides and on
autocast; views, transpositions and casts mean the same whichever of them stand there.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

FARTHEST = 32
"""Nodes that are followed from a norm to the weights, or from the weights to their parameter."""

Node = Any  # torch.autograd.graph.Node, whose C++ subclasses carry attributes of their own

# all of it: to some releases `y[:, None]` is a slice first
COPIES = ("ToCopyBackward", "CloneBackward", "AliasBackward", "SliceBackward", "ExpandBackward")
RESHAPES = (
    *("ViewBackward", "UnsafeViewBackward", "ReshapeAliasBackward", "ReshapeCopyBackward"),
    *("SqueezeBackward", "UnsqueezeBackward"),
)


def parameter_behind(node: Node | None, dim: int | None) -> tuple[Tensor | None, int | None]:
    """The parameter behind casts and transpositions, and where dimension `dim` stands in it; else (None, None).

    One that was reshaped may have two dimensions: of more, the order might be another than its gradient's.
    """
    reshaped = False
    for _ in range(FARTHEST):
        if node is None or dim is None:
            break
        variable = getattr(node, "variable", None)
        if variable is not None:
            lost = reshaped and sum(size > 1 for size in variable.shape) > 2
            return (None, None) if lost else (variable, dim)
        reshaped |= kind_of(node) not in COPIES
        node, dim = before(node, dim)
    return None, None


def before(node: Node, dim: int) -> tuple[Node | None, int | None]:
    """What lies behind a node that only renames places, and where dimension `dim` stands there; else nothing."""
    kind = kind_of(node)
    if kind not in (*COPIES, *RESHAPES, "TBackward", "TransposeBackward", "PermuteBackward"):
        return None, None
    source, index = node.next_functions[0]
    shape, below = shape_of(node, 0), shape_of(source, index)
    if shape is None or below is None:
        return None, None
    if kind in RESHAPES:
        return source, _same_place(below, shape, dim)
    if kind in COPIES and below != shape:
        return None, None
    return source, _turned(node, kind, dim, len(shape))


def _turned(node: Node, kind: str, dim: int, n_dims: int) -> int:
    """Where dimension `dim` of the output stands in the input."""
    if kind == "PermuteBackward":
        return _signed(node._saved_dims[dim]) % n_dims
    if kind == "TransposeBackward":
        a, b = _signed(node._saved_dim0) % n_dims, _signed(node._saved_dim1) % n_dims
        return {a: b, b: a}.get(dim, dim)
    return n_dims - 1 - dim if kind == "TBackward" else dim


def _same_place(below: Sequence[int], shape: Sequence[int], dim: int) -> int | None:
    """The dimension of the same size with as many values behind each entry; None where it was taken apart or joined."""
    wanted = (shape[dim], prod(shape[dim + 1 :]))
    return next((i for i, size in enumerate(below) if (size, prod(below[i + 1 :])) == wanted), None)


def _signed(saved: int) -> int:
    """A dimension as it was given: nodes show -1 as 2^64 - 1."""
    return saved - 2**64 if saved >= 2**63 else saved


def shape_of(node: Node | None, index: int) -> tuple[int, ...] | None:
    """The shape of output `index` of a node, or of the leaf that it stands for; None where it has none."""
    if node is None:
        return None
    variable = getattr(node, "variable", None)
    if variable is not None:
        return tuple(variable.shape)
    try:
        return tuple(node._input_metadata[index].shape)
    except (AttributeError, IndexError, RuntimeError, ValueError):  # nested tensors have no shape
        return None


def kind_of(node: Node) -> str:
    """The operation whose node it is, as "ViewBackward"; empty for a user's function, which has no number."""
    name = str(node.name())
    bare = name.rstrip("0123456789")
    return bare if bare != name else ""
