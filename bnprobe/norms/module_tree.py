"""The modules, parameters and buffers of a model, read in one walk that no name of a user's class can hide.

`modules()`, `named_parameters()` and the like are attributes, and a class may hide them: ESPNet's networks keep lists
in `self.modules`. Called unbound, torch's own still call `named_modules` of every inner module. So the walk reads
`_modules`, `_parameters` and `_buffers`, without which torch itself does not work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

Children = tuple[tuple[str, nn.Module], ...]


@dataclass(frozen=True)
class ModuleTree:
    """Every module of a model, once, by its path; "" is the model itself. The order is that of `named_modules`."""

    modules: Mapping[str, nn.Module]
    _children: Mapping[int, Children] = field(repr=False)

    @classmethod
    def of(cls, model: nn.Module) -> ModuleTree:
        """The one walk: everything else here is read from what it found."""
        modules: dict[str, nn.Module] = {}
        children: dict[int, Children] = {}
        waiting = [("", model)]
        while waiting:
            path, module = waiting.pop()
            if id(module) in children:
                continue
            modules[path] = module
            children[id(module)] = children_of(module)
            inner = [(joined(path, name), child) for name, child in children[id(module)]]
            waiting.extend(reversed(inner))
        return cls(modules, children)

    @property
    def model(self) -> nn.Module:
        """The whole."""
        return self.modules[""]

    def children(self, module: nn.Module) -> Children:
        """The modules that `module`, one of this tree, holds itself, by name; each once."""
        return self._children[id(module)]

    def inside(self, module: nn.Module) -> Iterator[nn.Module]:
        """A module of this tree and all that it holds, however deep, each once."""
        met: set[int] = set()
        waiting = [module]
        while waiting:
            one = waiting.pop()
            if id(one) not in met:
                met.add(id(one))
                yield one
                waiting.extend(child for _, child in self._children[id(one)])

    def parameters(self) -> dict[str, Tensor]:
        """Every parameter, once, by the path of its first holder."""
        return _once(
            (joined(path, name), p) for path, m in self.modules.items() for name, p in parameters_of(m)
        )

    def buffers(self) -> dict[str, Tensor]:
        """Every buffer, once, by the path of its first holder."""
        return _once((joined(path, name), b) for path, m in self.modules.items() for name, b in buffers_of(m))


def children_of(module: nn.Module) -> Children:
    """The modules that one module holds itself, by name; each once, as in `named_children`."""
    met: dict[int, tuple[str, nn.Module]] = {}
    for name, child in module._modules.items():
        if child is not None:
            met.setdefault(id(child), (name, child))
    return tuple(met.values())


def parameters_of(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters that one module holds itself, by name."""
    return ((name, tensor) for name, tensor in module._parameters.items() if tensor is not None)


def buffers_of(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The buffers that one module holds itself, by name."""
    return ((name, tensor) for name, tensor in module._buffers.items() if tensor is not None)


def joined(path: str, name: str) -> str:
    """The path of what a module holds under a name."""
    return f"{path}.{name}" if path else name


def _once(named: Iterator[tuple[str, Tensor]]) -> dict[str, Tensor]:
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in named:
        found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


def method(module: nn.Module, name: str) -> Callable[..., Any]:
    """A method of torch's, also where an attribute of the object, `self.eval = []`, hides it."""
    own = getattr(module, name)
    return cast(Callable[..., Any], own if callable(own) else partial(getattr(nn.Module, name), module))


def set_mode(model: nn.Module, training: bool) -> nn.Module:
    """`model.train(training)`, also where a class hides what that calls."""
    try:
        method(model, "train")(training)
    except TypeError:
        for module in ModuleTree.of(model).modules.values():
            module.training = training
    return model
