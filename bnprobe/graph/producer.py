"""Where a norm's input comes from: the layer whose weights made it, and what went into that layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bnprobe.graph.geometry import Geometry, Producer, Source
from bnprobe.graph.graph import INPUT, LEAF, SITE, Node, Site
from bnprobe.graph.operations import ACTIVATION, ADD, MARK, PASS, SCALE, WEIGHTS
from bnprobe.graph.record_op import made_of_parameters
from bnprobe.norms import LAST, NormLayer
from bnprobe.stats.moments import Array

UNKNOWN = Source("unknown")

DEEPEST = 64
"""Sums and concatenations inside one another that are followed."""


@dataclass(frozen=True)
class Known:
    """What is known of a norm at the end of the pass: its plan, and its vectors as float64 of shape (C,), or None."""

    plan: NormLayer
    gamma: Array | None
    beta: Array | None
    running_mean: Array | None
    running_var: Array | None

    def channel_dim(self, n_dims: int) -> int | None:
        """Where the channels stand in an output of so many dimensions; None where they fill several."""
        if self.plan.channels == LAST:
            return n_dims - 1 if self.plan.n_channel_dims == 1 else None
        return 0 if n_dims == self.plan.unbatched_dims else 1


def producer_of(site: Node, norms: Mapping[Site, Known]) -> tuple[str, Producer | None]:
    """Name of the layer that feeds the norm, and the layer; None where its rows are not the norm's channels."""
    known = norms.get(site.facts["site"])
    node, dim = site.inputs[0], known.channel_dim(len(site.shape)) if known else None
    bias: Tensor | None = None
    while node.part == PASS or (bias is None and _is_bias(node)):
        if node.part == ADD:
            bias = next(term.facts["tensor"] for term in map(_leaf, node.inputs) if term is not None)
            node = next(term for term in node.inputs if _leaf(term) is None)
            continue
        if not node.inputs:
            return "", None
        dim = dim_before(node, dim)
        node = node.inputs[0]
    if node.part != WEIGHTS:
        return "", None
    name = node.facts["layer"]
    if known is None or dim is None or not made_of_parameters(node.facts["weight_node"]):
        return name, None
    return name, _copied(node, name, bias, dim, norms)


def _is_bias(node: Node) -> bool:
    """Whether a bias is added by itself, as torch does for a linear layer on a tensor that is not contiguous."""
    if node.part != ADD or len(node.inputs) != 2:
        return False
    leaves = [term for term in map(_leaf, node.inputs) if term is not None]
    return len(leaves) == 1 and leaves[0].shape == node.shape[-1:]


def _leaf(node: Node) -> Node | None:
    """The parameter behind casts."""
    while node.part == PASS and node.inputs:
        node = node.inputs[0]
    return node if node.part == LEAF and "tensor" in node.facts else None


def _copied(
    node: Node, name: str, bias: Tensor | None, dim: int, norms: Mapping[Site, Known]
) -> Producer | None:
    """The producer with its numbers, and what its input is made of."""
    geometry: Geometry = node.facts["geometry"]
    n = len(geometry.stride)
    if dim != len(node.shape) - 1 - n:
        return None
    weight = _weight(node)
    bias = node.facts["bias"] if bias is None else bias
    geometry, inner = _with_padding(geometry, node.inputs[0], n)
    source = source_of(inner, len(inner.shape) - 1 - n, norms)
    vector = None if bias is None else numbers(bias).ravel().astype(np.float64)
    return Producer(name, weight, vector, geometry, source)


def _weight(node: Node) -> Array:
    """The weight in torch's layout: the parameter itself where only casts stand before it."""
    weight, turned = node.facts["weight"], node.facts["turned"]
    behind, also_turned = node.facts["weight_node"], turned
    while behind.part == PASS and behind.inputs:
        if behind.name in ("t", "transpose", "numpy_T", "mT"):
            also_turned = not also_turned
        elif behind.name not in ("_to_copy", "detach", "alias", "to", "clone", "contiguous"):
            break
        behind = behind.inputs[0]
    if behind.part == LEAF and "tensor" in behind.facts:
        weight, turned = behind.facts["tensor"], also_turned
    values = numbers(weight)
    return np.ascontiguousarray(values.T) if turned else values


def numbers(tensor: Tensor) -> Array:
    """Its values, copied, as float64 if they are that, else as float32."""
    with torch.no_grad():
        # a copy first: a tensor that was ever seen as an array can no longer be resized
        dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        return np.asarray(tensor.detach().to("cpu", dtype, copy=True).numpy())


def _with_padding(geometry: Geometry, node: Node, n: int) -> tuple[Geometry, Node]:
    """A padding with zeros right before a convolution counts as its own."""
    while n and not geometry.transposed and node.part == PASS and node.name == "constant_pad_nd":
        _, pad, *value = node.facts["args"]
        if (value and value[0]) or any(p < 0 for p in pad) or len(pad) > 2 * n or not node.inputs:
            break
        more = [(pad[2 * i], pad[2 * i + 1]) for i in range(len(pad) // 2)][::-1]
        more = [(0, 0)] * (n - len(more)) + more
        pairs = zip(geometry.padding, more, strict=True)
        node = node.inputs[0]
        geometry = replace(
            geometry,
            padding=tuple((low + a, high + b) for (low, high), (a, b) in pairs),
            input_size=node.shape[-n:],
        )
    return geometry, node


def source_of(node: Node, dim: int | None, norms: Mapping[Site, Known], depth: int = 0) -> Source:
    """What values are made of, with their channels along dimension `dim`."""
    if dim is None or depth > DEEPEST:
        return UNKNOWN
    activation, pool, n_channels = "none", "", node.shape[dim]
    while True:
        if node.part == PASS and node.inputs:
            before = dim_before(node, dim)
            if before is None:
                return UNKNOWN
            if node.inputs[0].shape[before] != n_channels:
                break
            dim, node = before, node.inputs[0]
        elif node.part == ACTIVATION and activation == "none":
            activation, node = node.name, node.inputs[0]
        elif node.name in ("avg_pool", "max_pool") and activation == "none" and not pool:
            pool, below = node.name.removesuffix("_pool"), node.inputs[0]
            if len(below.shape) != len(node.shape):
                return UNKNOWN  # dimensions were averaged away
            node = below
        else:
            break
    made = _made(node, dim, n_channels, norms, depth)
    return UNKNOWN if made.what == "unknown" else replace(made, activation=activation, pool=pool)


def _made(node: Node, dim: int, n_channels: int, norms: Mapping[Site, Known], depth: int) -> Source:
    """What stands behind views, activations and pooling."""
    if node.part == SITE:
        known = norms.get(node.facts["site"])
        if known is None or known.channel_dim(len(node.shape)) != dim:
            return UNKNOWN
        return Source(
            "norm",
            n_channels=n_channels,
            site=label(node.facts["site"]),
            gamma=known.gamma,
            beta=known.beta,
        )
    if node.part == INPUT:
        return Source("input", n_channels=n_channels)
    if (below := _before_constants(node, n_channels)) is not None:
        made = source_of(below, dim, norms, depth + 1)
        plain = made.what == "input" and made.activation == "none" and not made.pool
        return replace(made, adjusted=True) if plain else UNKNOWN
    if node.part == PASS and node.inputs:
        return _padded(node, dim, n_channels, norms, depth)
    if node.part == ADD and len(node.inputs) == 2:
        terms = [source_of(term, dim, norms, depth + 1) for term in node.inputs if term.shape == node.shape]
        return _together("sum", terms, n_channels) if len(terms) == 2 else UNKNOWN
    if node.part == MARK and node.name == "cat" and len(node.inputs[0].shape) == len(node.shape):
        terms = [source_of(term, dim, norms, depth + 1) for term in node.inputs]
        if node.facts["dim"] % len(node.shape) != dim:
            # more images or more positions: an answer where all are made of the same
            return terms[0] if all(_is_same(term, terms[0]) for term in terms) else UNKNOWN
        if sum(term.shape[dim] for term in node.inputs) == n_channels:
            return _together("concat", _flat(terms), n_channels)
    return UNKNOWN


def _before_constants(node: Node, n_channels: int) -> Node | None:
    """What a number, or one for each channel, was added to, subtracted from, or multiplied with; None for all else."""
    if node.part == SCALE and node.inputs:
        return node.inputs[0]
    if node.name not in ("add", "sub", "mul", "div") or len(node.inputs) != 2:
        return None
    data, constant = node.inputs
    while constant.part == PASS and constant.inputs:
        constant = constant.inputs[0]
    fixed = constant.part == LEAF and math.prod(constant.shape) in (1, n_channels)
    return data if fixed and data.shape == node.shape else None


def _together(what: str, parts: Sequence[Source], n_channels: int) -> Source:
    """A sum or concatenation of which at least one part is known."""
    if all(part.what == "unknown" for part in parts):
        return UNKNOWN
    return Source(what, n_channels=n_channels, parts=tuple(parts))


def _padded(node: Node, dim: int, n_channels: int, norms: Mapping[Site, Known], depth: int) -> Source:
    """Channels of zeros put around those of a source, as shortcuts without weights do; they are a norm's of gamma 0."""
    if node.name != "constant_pad_nd":
        return UNKNOWN
    _, pad, *value = node.facts["args"]
    at = 2 * (len(node.shape) - 1 - dim)
    if len(pad) < at + 2 or (value and value[0]) or any(pad[:at]) or any(pad[at + 2 :]):
        return UNKNOWN
    inner = source_of(node.inputs[0], dim, norms, depth + 1)
    if inner.what == "unknown":
        return UNKNOWN
    parts = [_zeros(pad[at]), *_flat([inner]), _zeros(pad[at + 1])]
    return Source("concat", n_channels=n_channels, parts=tuple(part for part in parts if part.n_channels))


def _zeros(n: int) -> Source:
    return Source("norm", n_channels=n, gamma=np.zeros(n), beta=np.zeros(n))


def _is_same(a: Source, b: Source) -> bool:
    """Whether two sources without parts are one."""
    return not a.parts and replace(a, gamma=None, beta=None) == replace(b, gamma=None, beta=None)


def _flat(parts: Sequence[Source]) -> list[Source]:
    """Concatenations of concatenations laid out in one row."""
    flat: list[Source] = []
    for part in parts:
        plain = part.what == "concat" and part.activation == "none" and not part.pool
        flat.extend(part.parts if plain else [part])
    return flat


def dim_before(node: Node, dim: int | None) -> int | None:
    """Where a dimension of a view's output stood in its input; None where it was taken apart or joined."""
    if dim is None or not node.inputs:
        return None
    args, below, shape = node.facts.get("args", ()), node.inputs[0].shape, node.shape
    n = len(shape)
    if node.name in ("transpose", "swapaxes", "swapdims", "t", "numpy_T", "mT") and len(below) == n:
        a, b = (args[1] % n, args[2] % n) if len(args) > 2 else (n - 2, n - 1)
        return {a: b, b: a}.get(dim, dim)
    if node.name == "permute":
        return int(args[1][dim]) % n
    if node.name in ("movedim", "moveaxis", "channel_shuffle", "native_channel_shuffle", "unfold", "im2col"):
        return None
    if node.name in ("pixel_shuffle", "pixel_unshuffle", "as_strided", "alias") and below != shape:
        return None
    if node.name == "select":
        return dim + 1 if dim >= args[1] % len(below) else dim
    if node.name == "unbind":
        gone = args[1] % len(below) if len(args) > 1 else 0
        return dim + 1 if dim >= gone else dim
    if node.name in ("roll", "flip"):
        moved = args[-1] if isinstance(args[-1], tuple) else (args[-1],)
        return None if dim in [int(d) % n for d in moved] else dim
    if below == shape:
        return dim
    if len(below) == n and node.name not in ("view", "_unsafe_view", "reshape", "_reshape_alias"):
        return dim  # a slice, a padding: whoever asks compares the number of channels
    return _same_place(below, shape, dim)


def _same_place(below: tuple[int, ...], shape: tuple[int, ...], dim: int) -> int | None:
    """The dimension of `below` with the same size, and as many values behind each of its entries."""
    behind = int(np.prod(shape[dim + 1 :]))
    for i, size in enumerate(below):
        if size == shape[dim] and int(np.prod(below[i + 1 :])) == behind:
            return i
    return None


def label(site: Site) -> str:
    """A site in words: the path, and the call where it is not the first; as `LayerRecord.site`."""
    name, call = site
    return name if call == 0 else f"{name} (call {call + 1})"
