"""Residual branches with a layer scale, x + scale * branch(x): how much of the sum is the branch, measured in the pass.

The norm of such a branch does not end it, so its own output says nothing of the sum. Both sides are read once, where they
are added in the pass that is watched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bnprobe.graph.graph import LEAF, SITE, Node, above, tensors
from bnprobe.graph.operations import MUL, PASS


def scale_of(term: Node) -> tuple[Node, Node, str] | None:
    """The product that a term of a sum is, the factor that is its scale, and the name of that parameter; None where it is
    no such product.
    """
    while term.part == PASS and term.inputs:
        term = term.inputs[0]
    if term.part != MUL or len(term.inputs) != 2:
        return None
    factors = [(factor, one) for factor in term.inputs if (one := _parameter(factor)) is not None]
    if len(factors) != 1:
        return None
    factor, parameter = factors[0]
    return term, factor, parameter.facts["name"]


def measured(args: Sequence[Any], sources: Sequence[Node], out: Any, in_place: bool) -> dict[str, Any]:
    """Of an addition that has run, the name of the scale and the variances of the branch and of the other side.

    Variances have divisor n and are means over channels, as tensors where they were computed; empty for other sums.
    """
    values = list(tensors(args))
    scaled = [(i, found) for i, source in enumerate(sources) if (found := scale_of(source)) is not None]
    if len(values) != 2 or len(scaled) != 1:
        return {}
    i, (product, factor, name) = scaled[0]
    if _parameter(sources[1 - i]) is not None:
        return {}  # scale and offset of one layer
    if not isinstance(out, Tensor) or values[i].shape != out.shape or (in_place and i == 0):
        return {}
    dims = _pooled(factor, product)
    with torch.no_grad():
        branch = values[i].detach()
        skip = out.detach() - branch if in_place else values[1 - i].detach()
        both = [torch.var(one.float(), dim=dims, correction=0).mean() for one in (branch, skip)]
    return {"scale": name, "branch": product, "variances": both, "skip": sources[1 - i]}


def branch_of(site: Node, sums: Sequence[Node]) -> tuple[str, float, float] | None:
    """The scale, and the variances of branch and skip, of the sum whose branch this norm is the last one of."""
    for total in sums:
        found = total.facts["scaled"]
        if site in _last_norms(found["branch"]) and site not in above([found["skip"]]):
            branch, skip = found["variances"]
            return found["scale"], float(branch), float(skip)
    return None


def _last_norms(node: Node) -> set[Node]:
    """The norms above a node that no other norm stands between."""
    waiting, met, norms = [node], {node}, set()
    while waiting:
        for source in waiting.pop().inputs:
            if source.part == SITE:
                norms.add(source)
            elif source not in met:
                met.add(source)
                waiting.append(source)
    return norms


def _parameter(node: Node) -> Node | None:
    """The parameter behind views and casts."""
    while node.part == PASS and node.inputs:
        node = node.inputs[0]
    return node if node.part == LEAF and "tensor" in node.facts else None


def _pooled(factor: Node, product: Node) -> tuple[int, ...]:
    """The dimensions along which the scale is the same, so that what is left are the channels."""
    missing = len(product.shape) - len(factor.shape)
    return tuple(d for d in range(len(product.shape)) if d < missing or factor.shape[d - missing] == 1)
