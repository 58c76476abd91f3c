"""Where in a model a function was called: the enclosing module, by its path, and the line."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary, ref

from torch import nn

from bnprobe.norms import ModuleTree
from bnprobe.norms.classes import bases, home, members
from bnprobe.probe.survey.unwrap import shown

MOST_READ = 1000
"""At most this many functions are searched for a name."""


class Places:
    """The paths of a model's modules, without a reference to the model."""

    def __init__(self, tree: ModuleTree) -> None:
        self._model = ref(tree.model)
        self._paths: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
        self._add(tree)

    def _add(self, tree: ModuleTree) -> None:
        self._paths.update({module: shown(path) for path, module in tree.modules.items()})

    def path(self, module: nn.Module) -> str | None:
        """The path of a module, "" for the model itself; None if it is not part of the model."""
        found = self._paths.get(module)
        model = self._model()
        if found is None and model is not None:  # it may have been added since
            self._add(ModuleTree.of(model))
            found = self._paths.get(module)
        return found

    def caller(self, depth: int) -> tuple[nn.Module, str, int] | None:
        """The innermost running module of the model, its path, and the line number `depth` calls up."""
        frame: FrameType | None = sys._getframe(depth + 1)
        line = frame.f_lineno if frame is not None else 0
        while frame is not None:
            module = _first_argument(frame)
            if isinstance(module, nn.Module):
                path = self.path(module)
                if path is not None:
                    return module, path, line
            frame = frame.f_back
        return None


def _first_argument(frame: FrameType) -> Any:
    """The self of a method. Other frames are left alone: in Python 3.11 and 3.12 reading `f_locals` keeps the values of
    all variables, a user's batch for example, alive until the frame returns."""
    code = frame.f_code
    return frame.f_locals.get("self") if code.co_argcount and code.co_varnames[0] == "self" else None


def mentions(modules: Iterable[nn.Module], names: set[str]) -> bool:
    """Whether the code of these modules names one of these functions: a model without norm modules may still have norms.
    Classes of torch.nn are not searched."""
    met: set[CodeType] = set()
    classes = {type(module) for module in modules}
    functions = (function for cls in classes for function in _functions(cls))
    return any(_mentions(function.__code__, names, function.__globals__, met) for function in functions)


def _functions(cls: type) -> Iterator[FunctionType]:
    for base in bases(cls):
        if base is not object and not home(base).startswith("torch.nn"):
            yield from (value for value in members(base).values() if inspect.isfunction(value))


def _mentions(code: CodeType, names: set[str], around: dict[str, Any], met: set[CodeType]) -> bool:
    """Whether this code, a function inside it, or one that it calls by name, mentions one of `names`."""
    if code in met or len(met) > MOST_READ:
        return False
    met.add(code)
    if names & set(code.co_names):
        return True
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    called = [value for name in code.co_names if inspect.isfunction(value := around.get(name))]
    return any(_mentions(one, names, around, met) for one in inner) or any(
        _mentions(one.__code__, names, one.__globals__, met)
        for one in called
        if not str(one.__module__).startswith("torch.")
    )
