"""The graph of one forward pass: which operation made which values, and who took them.

Values are identified by where they are stored (storage, offset, sizes, strides), so that views, detached copies and
in-place operations are distinguished without keeping a tensor: a weak reference keeps the identity of a storage,
which is freed as usual.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from bnprobe.graph.operations import PASS

LEAF, INPUT, SITE, PARTS = "leaf", "input", "site", "parts"
"""Parts that no operation plays: a tensor that was there before; the model's input; the output of a
norm; a storage of which a piece was overwritten."""

Site = tuple[str, int]
"""Path of a norm, and number of its call in the forward pass."""


@dataclass(eq=False)
class Node:
    """Values, and the operation that made them.

    `part` and `name` are those of `operations.what_is`. `inside` names the norms that were at work:
    what a norm computes for itself is its own affair. `facts` holds what a weight layer or a
    rearrangement needs to be understood; tensors there are parameters, or go when the pass ends. `made` says of small
    values which layer made them (see `made`), where that is looked for.
    """

    part: str
    name: str
    shape: tuple[int, ...]
    inputs: tuple[Node, ...] = ()
    inside: tuple[Site, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    consumers: list[Node] = field(default_factory=list)
    made: Any = None

    def __post_init__(self) -> None:
        for node in self.inputs:
            node.consumers.append(self)


@dataclass(frozen=True)
class _Region:
    """Where a tensor lies in its storage."""

    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, int]:
        """First element, and the one after the last."""
        reach = sum((n - 1) * step for n, step in zip(self.sizes, self.strides, strict=True))
        return self.offset, self.offset + reach + 1

    @property
    def numel(self) -> int:
        """Number of values."""
        return torch.Size(self.sizes).numel()

    def apart_from(self, other: _Region) -> bool:
        """Whether the two certainly share no element: they do not overlap, or are slices of one tensor."""
        (low, high), (other_low, other_high) = self.extent, other.extent
        if high <= other_low or other_high <= low:
            return True
        if self.strides != other.strides:
            return False
        first, second = sorted((self, other), key=lambda region: region.offset)
        return any(_side_by_side(first, second, d) for d in range(len(self.strides)))


def _side_by_side(first: _Region, second: _Region, d: int) -> bool:
    """Whether `second` begins where `first` has ended along dimension d, within one step of the next larger."""
    step, gap = first.strides[d], second.offset - first.offset
    larger = [s for s in first.strides if s > step]
    if step <= 0 or gap % step or gap // step < first.sizes[d]:
        return False
    return not larger or gap + step * second.sizes[d] <= min(larger)


class Storages:
    """Which node stands behind which tensor, at this moment of the pass."""

    def __init__(self) -> None:
        self._storages: dict[int, tuple[StorageWeakRef, dict[_Region, Node]]] = {}

    def find(self, tensor: Tensor) -> Node | None:
        """The node whose values the tensor holds; None if nothing is known about its storage."""
        region, nodes = self._place(tensor)
        if region in nodes:
            return nodes[region]
        behind = [(place, node) for place, node in nodes.items() if not place.apart_from(region)]
        if not behind:
            return None
        whole = [node for place, node in behind if place.numel >= region.numel]
        found = dict.fromkeys(whole[-1:] or [node for _, node in behind])
        nodes[region] = Node(PASS if len(found) == 1 else PARTS, "alias", region.sizes, tuple(found))
        return nodes[region]

    def put(self, tensor: Tensor, node: Node, written: bool = False) -> None:
        """From here on the tensor holds the values of `node`; `written` if its storage was overwritten."""
        region, nodes = self._place(tensor)
        if written:
            self._overwrite(nodes, region, node)
        nodes.pop(region, None)
        nodes[region] = node  # the last put stands last

    def forget(self) -> None:
        """Break the references between nodes, so that they are freed at once and not by the next garbage collection."""
        held = [node for _, nodes in self._storages.values() for node in nodes.values()]
        self._storages.clear()
        for node in above(held):
            node.consumers.clear()
            node.facts.clear()
            node.made = None

    def _overwrite(self, nodes: dict[_Region, Node], region: _Region, node: Node) -> None:
        """Other tensors on the same storage hold other values now."""
        for place, old in list(nodes.items()):
            if place == region or place.apart_from(region):
                continue
            (low, high), (place_low, place_high) = region.extent, place.extent
            if low <= place_low and place_high <= high and region.numel >= place.numel:
                del nodes[place]  # found again, through `node`, when it is next used
            else:
                nodes[place] = Node(PARTS, "parts", place.sizes, (old, node), node.inside)

    def _place(self, tensor: Tensor) -> tuple[_Region, dict[_Region, Node]]:
        storage = tensor.untyped_storage()
        held = self._storages.get(storage._cdata)
        if held is None:
            weak = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
            held = self._storages[storage._cdata] = (weak, {})
        return _Region(int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride()), held[1]


def tensors(value: Any, depth: int = 6) -> Iterator[Tensor]:
    """Tensors in nested containers and dataclasses, in order."""
    if isinstance(value, Tensor):
        yield value
    elif depth and value is not None and not isinstance(value, str | bytes | int | float):
        inner: Iterable[Any]
        if isinstance(value, Mapping):
            inner = value.values()
        elif isinstance(value, tuple | list | set | frozenset):
            inner = value
        else:
            inner = vars(value).values() if is_dataclass(value) else ()
        for item in inner:
            yield from tensors(item, depth - 1)


def above(nodes: Iterable[Node]) -> set[Node]:
    """The nodes and all that went into them."""
    waiting, met = list(nodes), set[Node]()
    while waiting:
        node = waiting.pop()
        if node not in met:
            met.add(node)
            waiting.extend(node.inputs)
    return met
