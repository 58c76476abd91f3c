"""Everything of a model that a remedy may change, and how it is put back: attributes, modes, hooks, modules and tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from bnprobe.experiments.put_back import RandomStates, put_back, write
from bnprobe.norms import ModuleTree
from bnprobe.probe.tensors import is_lazy


class Snapshot:
    """A model as it is: of modules and attributes the references, of tensors the values.

    With `before` only tensors that differ from those of that snapshot are copied, and written by `restore`.
    """

    def __init__(self, model: nn.Module, before: Snapshot | None = None) -> None:
        self._modules = [_Module(module) for module in ModuleTree.of(model).modules.values()]
        kept = {id(tensor): _Values(tensor) for tensor in _tensors(model)}
        if before is not None:
            kept = {key: now for key, now in kept.items() if not now.same_as(before.tensors.get(key))}
        self.tensors: dict[int, _Values] = {key: now.copied() for key, now in kept.items()}

    def restore(self, only: Snapshot | None = None) -> None:
        """Have the model as it was; with `only` just the tensors that this one holds are written.

        Ctrl-C that comes meanwhile is raised when all is back.
        """
        _whole(lambda: self._restore(only))

    def _restore(self, only: Snapshot | None) -> None:
        for module in self._modules:
            module.restore()
        for key, values in self.tensors.items():
            if only is None or key in only.tensors:
                values.restore()


class _Module:
    """Class and attributes of one module, and what its dicts hold: parameters, buffers, modules, hooks."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.kind, self.attributes = module, type(module), dict(vars(module))
        self.inside = [(d, dict(d)) for d in self.attributes.values() if isinstance(d, dict)]

    def restore(self) -> None:
        if type(self.module) is not self.kind:
            self.module.__class__ = self.kind
        for now, was in ((vars(self.module), self.attributes), *self.inside):
            if not _same(now, was):
                now.clear()
                now.update(was)


class _Values:
    """One tensor: where its values lie, which they are, and whether it has a gradient."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.place, self.values = tensor, tensor.data, tensor.data
        self.needs_gradient, self.gradient = tensor.requires_grad, tensor.grad if tensor.is_leaf else None

    def copied(self) -> _Values:
        """With values of its own."""
        self.values = self.place.clone()
        return self

    def same_as(self, other: _Values | None) -> bool:
        """Whether the place and, bit for bit, the values are those of another time."""
        return (
            other is not None
            and self.needs_gradient == other.needs_gradient
            and _same_place(self.place, other.place)
            and bool(((self.values == other.values) | (self.values.isnan() & other.values.isnan())).all())
        )

    def restore(self) -> None:
        if not _same_place(self.tensor.data, self.place):
            self.tensor.data = self.place
        write(self.tensor, self.values)
        if self.tensor.is_leaf:
            self.tensor.requires_grad_(self.needs_gradient)
            if self.tensor.grad is not self.gradient:
                self.tensor.grad = self.gradient


@contextmanager
def all_put_back(model: nn.Module) -> Iterator[Snapshot]:
    """Inside, anything of the model may be changed; at the end it and all random states are as before, bit for bit.

    Also after an exception and after Ctrl-C. Gives the snapshot, to go back to it in between.
    """
    with put_back(model):  # one experiment at a time
        before, random_states = Snapshot(model), RandomStates()
        try:
            yield before
        finally:
            before.restore()
            random_states.restore()


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    tree = ModuleTree.of(model)
    for tensor in (*tree.parameters().values(), *tree.buffers().values()):
        if not is_lazy(tensor) and tensor.device.type != "meta":
            yield tensor


def _same_place(one: Tensor, other: Tensor) -> bool:
    return bool(
        one.dtype == other.dtype
        and one.shape == other.shape
        and one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
        and one.storage_offset() == other.storage_offset()
        and one.stride() == other.stride()
    )


def _same(now: dict[Any, Any], was: dict[Any, Any]) -> bool:
    return list(now) == list(was) and all(now[key] is was[key] for key in was)


def _whole(act: Callable[[], None]) -> None:
    """Do something that may be done twice to its end, whenever Ctrl-C comes."""
    try:
        act()
    except KeyboardInterrupt:
        act()
        raise
