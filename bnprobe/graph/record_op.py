"""From one call of an operation to a node of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from bnprobe.graph.attention import last_row, lengths, sharpness
from bnprobe.graph.geometry import Geometry
from bnprobe.graph.graph import INPUT, LEAF, SITE, Node, Site, Storages, tensors
from bnprobe.graph.input_channels import extremes
from bnprobe.graph.layer_scale import measured
from bnprobe.graph.made import Made, made_by
from bnprobe.graph.made import after as made_after
from bnprobe.graph.moves import Sizes, order_after
from bnprobe.graph.operations import (
    ACTIVATION,
    ADD,
    IGNORED,
    MARK,
    MUL,
    OTHER,
    PASS,
    PRODUCT,
    SCALE,
    WEIGHTS,
    WHOLE_ATTENTION,
    clamped,
    plain,
    what_is,
)


class NotTraceable(Exception):
    """A tensor without storage of its own, whose origin cannot be known."""


@dataclass
class Graph:
    """The nodes of a pass while it runs; see `trace` for who calls it.

    `names` gives the path of a parameter or buffer by its identity, `shared` the identities that several modules
    hold. `sites` are the norms that were reached, `inputs` what the model was called with, `outputs` what it returned,
    `weighted` every call of weights, `scaled` the sums that a branch with a layer scale enters. What layers make that has
    so many `rows` is followed, see `made`; `moved` are operations that put `tokens` (N, T) elsewhere, see `moves`.
    """

    names: dict[int, str]
    shared: frozenset[int] = frozenset()
    storages: Storages = field(default_factory=Storages)
    open: list[tuple[Site, Node]] = field(default_factory=list)
    sites: dict[Site, Node] = field(default_factory=dict)
    inputs: list[Node] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)
    weighted: list[Node] = field(default_factory=list)
    rows: frozenset[int] = frozenset()
    tokens: Sizes | None = None
    moved: list[Node] = field(default_factory=list)
    scaled: list[Node] = field(default_factory=list)

    def node_of(self, tensor: Tensor) -> Node:
        """The node of a tensor; a new leaf where nothing has made it in this pass."""
        if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__ and not isinstance(
            tensor, nn.Parameter
        ):
            raise NotTraceable(type(tensor).__name__)
        found = self.storages.find(tensor)
        if found is None:
            name = self.names.get(id(tensor))
            # parameters and buffers live with the model; other tensors are not held
            facts = {} if name is None else {"name": name, "tensor": tensor}
            found = Node(LEAF, "", tuple(tensor.shape), facts=facts)
            self.storages.put(tensor, found)
        return found

    def model_begins(self, inputs: Any) -> None:
        """What the model was called with, tensors in any container."""
        for tensor in tensors(inputs):
            node = Node(INPUT, "", tuple(tensor.shape), facts=extremes(tensor))
            self.inputs.append(node)
            self.storages.put(tensor, node)

    def model_ends(self, outputs: Any) -> None:
        """What the model returned, alike."""
        self.outputs = [self.node_of(tensor) for tensor in tensors(outputs)]

    def norm_begins(self, site: Site, x: Tensor) -> None:
        """The norm was called with x."""
        self.open.append((site, self.node_of(x)))

    def norm_ends(self, site: Site, y: Tensor) -> None:
        """The norm returned y."""
        while self.open and self.open[-1][0] != site:
            self.open.pop()  # calls that an exception cut short
        if self.open:
            _, x = self.open.pop()
            self.node_of(y)  # so that other views of its storage are known
            node = self.sites[site] = Node(SITE, "norm", tuple(y.shape), (x,), self._inside, {"site": site})
            self.storages.put(y, node, written=True)

    @property
    def _inside(self) -> tuple[Site, ...]:
        return tuple(site for site, _ in self.open)

    def before(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Node]:
        """The nodes of all tensors that go into an operation; asked before it runs, as it may overwrite them."""
        return [self.node_of(tensor) for tensor in tensors((args, kwargs))]

    def after(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], sources: list[Node], out: Any
    ) -> None:
        """An operation has run: a node for each tensor that it made or wrote."""
        name, writes = _signature(func)
        written = [t for i, key in writes for t in tensors(_argument(args, kwargs, i, key))]
        made = [t for t in tensors(out) if not any(t is w for w in written)]
        part, called = what_is(name)
        if part == IGNORED:
            return
        follows: list[Made | None] = []
        if self.rows:
            with suppress(Exception), torch.no_grad():  # what modulates a norm is not worth the graph
                follows = made_after(func, name, args, kwargs, sources)
        facts, part, called, sources = self._facts(part, called, name, args, kwargs, sources, out)
        if self.tokens is not None:
            with suppress(Exception), torch.no_grad():
                order = order_after(func, name, args, kwargs, out, self.tokens)
                if order is not None:
                    facts["order"] = order
        first = next(iter(made or written), None)
        for tensor in [*written, *made]:
            # statistics and indices that an operation returns beside its result are not its values
            aside = part not in (PASS, OTHER) and tensor is not first
            kind = (OTHER, "aside") if aside else (part, called)
            node = Node(*kind, tuple(tensor.shape), tuple(dict.fromkeys(sources)), self._inside, facts)
            self.storages.put(tensor, node, written=any(tensor is w for w in written))
            node.made = follows.pop(0) if follows else None
            self.moved += [node] * ("order" in facts)
            if node.part == WEIGHTS:
                self.weighted.append(node)
                self._begin(node, tensor)
                if called == "linear":
                    with suppress(Exception), torch.no_grad():
                        node.facts["row"] = last_row(tensor)
            if called == "attention" or node.name == "softmax":
                with suppress(Exception), torch.no_grad():  # what it says of attention is not worth the graph
                    node.facts["sharpness"] = seen = sharpness(func, name, args, kwargs)
                    if called == "attention" and seen is not None:
                        node.facts["lengths"] = lengths(args[0], args[1], seen[2])
            if node.part == ADD and not kwargs and not self._inside:
                node.facts["scaled"] = measured(args, sources, out, in_place=bool(written))
                self.scaled += [node] * bool(node.facts["scaled"])

    def _begin(self, node: Node, out: Tensor) -> None:
        """What a layer made is followed from here, where it may modulate a norm."""
        n_channels = out.shape[-1] if node.name == "linear" else out.shape[1]
        node.made = made_by(node, out, n_channels, self.rows)
        if node.made is not None:
            node.facts["made"] = out.detach().reshape(-1, n_channels).clone()

    def _facts(
        self,
        part: str,
        called: str,
        name: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        sources: list[Node],
        out: Any,
    ) -> tuple[dict[str, Any], str, str, list[Node]]:
        """What must be kept of the call to understand it, and its part where the arguments decide on it."""
        facts: dict[str, Any] = {"operation": name, "args": _inert(args), "kwargs": _inert(kwargs)}
        if name == "copy":
            return facts, PASS, name, sources[1:]
        if name == "pad" and _argument(args, kwargs, 2, "mode", "constant") == "constant":
            facts["args"] = (None, tuple(args[1]), _argument(args, kwargs, 3, "value") or 0)
            called = "constant_pad_nd"
        if part == PASS:
            return facts, part, called, sources[:1]
        if part == ACTIVATION:
            called = _with_numbers(name, args, kwargs, called)
        elif called == "dropout" and not _trains(name, args, kwargs):
            part = PASS
        elif called in (ADD, MUL, "sub", "div") and _is_number(args, sources):
            part = called = SCALE
        elif part == WEIGHTS:
            facts["weight"], facts["bias"] = args[1], _argument(args, kwargs, 2, "bias")
            facts["weight_node"], facts["turned"] = sources[1], False
            facts["geometry"] = _geometry(name, args, kwargs, out)
            sources = sources[:1]
        elif called == "attention" or name == WHOLE_ATTENTION:
            facts["operands"] = sources
        elif part == PRODUCT:
            facts["operands"] = sources
            found = _product(name, args, sources)
            if found is not None:
                part, called = WEIGHTS, "linear"
                values, facts["weight_node"], facts["weight"], facts["bias"], facts["turned"] = found
                facts["geometry"] = Geometry()
                sources = [values]
        if part == WEIGHTS:
            facts["layer"] = layer_of(facts["weight_node"])
            facts["bias_node"] = None if facts["bias"] is None else self.node_of(facts["bias"])
        if called == "cumsum":  # of whole numbers it counts, such as the tokens of each expert
            facts["of_numbers"] = next(tensors(out)).is_floating_point()
        if part == MARK:
            facts["dim"] = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        return facts, part, called, sources


@cache
def _signature(func: Any) -> tuple[str, tuple[tuple[int, str], ...]]:
    """The plain name of an operation, and which of its arguments it writes to (position and name)."""
    schema = getattr(func, "_schema", None)
    if schema is None:
        return str(getattr(func, "__name__", func)), ()
    writes = [
        (i, argument.name)
        for i, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return plain(schema.name.rpartition("::")[2]), tuple(writes)


def _inert(value: Any) -> Any:
    """The arguments without their tensors, so that none is kept alive."""
    if isinstance(value, Tensor):
        return None
    if isinstance(value, dict):
        return {name: _inert(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return tuple(_inert(item) for item in value)
    return value if isinstance(value, int | float | bool | str | None) else None


def _argument(args: Sequence[Any], kwargs: dict[str, Any], i: int, name: str, default: Any = None) -> Any:
    return args[i] if len(args) > i else kwargs.get(name, default)


def _with_numbers(name: str, args: Sequence[Any], kwargs: dict[str, Any], called: str) -> str:
    """An activation's name with its numbers in brackets, where they are not torch's defaults."""
    if called in ("clamp", "hardtanh", "threshold"):
        return _clip(name, args, kwargs, called)
    if name == "elu":
        alpha, scale, inner = (_argument(args, kwargs, i, k, 1) for i, k in enumerate(_ELU, 1))
        if scale != 1:
            return "selu"
        if inner != 1:
            return "celu" if alpha == 1 else f"celu({alpha:g})"
        return "elu" if alpha == 1 else f"elu({alpha:g})"
    if name == "celu":
        alpha = _argument(args, kwargs, 1, "alpha", 1)
        return called if alpha == 1 else f"celu({alpha:g})"
    if name == "leaky_relu":
        slope = _argument(args, kwargs, 1, "negative_slope", 0.01)
        return called if slope == 0.01 else f"leaky_relu({slope:g})"
    if name == "softplus":
        beta = _argument(args, kwargs, 1, "beta", 1)
        return called if beta == 1 else f"softplus({beta:g})"
    return called


_ELU = ("alpha", "scale", "input_scale")


def _clip(name: str, args: Sequence[Any], kwargs: dict[str, Any], called: str) -> str:
    if name == "threshold":
        return "relu" if list(args[1:3]) == [0, 0] else called
    low = _argument(args, kwargs, 1, "min_val" if name == "hardtanh" else "min")
    high = _argument(args, kwargs, 2, "max_val" if name == "hardtanh" else "max")
    if name == "hardtanh":
        low, high = (-1 if low is None else low), (1 if high is None else high)
    if name == "clamp_max":
        low, high = None, low
    return clamped(low, high)


def _trains(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    return bool(_argument(args, kwargs, 2, "train", True)) and _argument(args, kwargs, 1, "p", 0.5) != 0


def _is_number(args: Sequence[Any], sources: list[Node]) -> bool:
    """Whether one side of the arithmetic is a number, or a constant of one entry."""
    return len(sources) < 2 or any(node.part == LEAF and node.shape == () for node in sources)


def _product(
    name: str, args: Sequence[Any], sources: list[Node]
) -> tuple[Node, Node, Tensor, Tensor | None, bool] | None:
    """Values, weight's node, weight, bias, and whether the weight stands as (in, out).

    None unless the right side of the product, and no other, is made of parameters.
    """
    if name == "linear" and len(sources) > 1:
        found = (sources[0], sources[1], args[1], args[2] if len(args) > 2 else None, False)
    elif name == "addmm":
        found = (sources[1], sources[2], args[2], args[0], True)
    elif name in ("mm", "matmul") and len(sources) > 1:
        found = (sources[0], sources[1], args[1], None, True)
    else:
        return None
    values, weights, weight, *_ = found
    if weight.dim() != 2 or not made_of_parameters(weights) or made_of_parameters(values):
        return None
    return found


def made_of_parameters(node: Node) -> bool:
    """Whether nothing but parameters and buffers went into these values."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if not node.inputs and (node.part != LEAF or "name" not in node.facts):
            return False
        waiting.extend(node.inputs)
    return True


def layer_of(weight: Node) -> str:
    """Path of the module that holds a weight, or what the weight was computed from; "" where it is no module's."""
    waiting = [weight]
    while waiting:
        node = waiting.pop(0)
        if "name" in node.facts:
            path = str(node.facts["name"]).partition(".parametrizations.")[0]
            return path.rpartition(".")[0] if path == node.facts["name"] else path
        waiting.extend(node.inputs)
    return ""


def _geometry(name: str, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> Geometry | None:
    """The geometry of a convolution, from the arguments of any of its spellings."""
    x, weight = args[0], args[1]
    n = weight.dim() - 2
    more = [*args[3:], None, None, None, None, None, None]
    if name.startswith("conv_transpose"):
        stride, padding, output_padding, groups, dilation = more[:5]
        transposed = True
    elif name in ("convolution", "_convolution", "convolution_overrideable"):
        stride, padding, dilation, transposed, output_padding, groups = more[:6]
    else:
        stride, padding, dilation, groups = more[:4]
        transposed, output_padding = False, None
    stride = _each(kwargs.get("stride", stride), n, 1)
    dilation = _each(kwargs.get("dilation", dilation), n, 1)
    padding = kwargs.get("padding", padding)
    if isinstance(padding, str):
        pairs = _same(weight.shape[2:], dilation) if padding == "same" else ((0, 0),) * n
    else:
        pairs = tuple((p, p) for p in _each(padding, n, 0))
    result = next(tensors(out))
    return Geometry(
        stride=stride,
        padding=pairs,
        dilation=dilation,
        groups=int(kwargs.get("groups", groups) or 1),
        input_size=tuple(x.shape[x.dim() - n :]),
        output_size=tuple(result.shape[result.dim() - n :]),
        transposed=bool(transposed),
        output_padding=_each(output_padding, n, 0) if transposed else (),
    )


def _each(value: Any, n: int, default: int) -> tuple[int, ...]:
    """One entry per dimension."""
    if value is None:
        return (default,) * n
    if isinstance(value, int):
        return (value,) * n
    return tuple(int(v) for v in value) if len(value) == n else (int(value[0]),) * n


def _same(kernel: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The padding of padding="same": the odd zero goes behind."""
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((t // 2, t - t // 2) for t in total)
