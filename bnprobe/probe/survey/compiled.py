"""Compiled models: their code passes no hook, so while a probe needs them they run as they were written.

torch holds one stance towards compiled code for the whole process. It is "force_eager" while at least one
probe asks for it, and afterwards what it was.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import count
from weakref import WeakValueDictionary

import torch
from torch import nn

from bnprobe.norms import ModuleTree

_lock = threading.Lock()
_stance = ExitStack()
_asking: set[int] = set()
_numbers = count(1)
_known: WeakValueDictionary[int, Eager] = WeakValueDictionary()


class Eager:
    """One probe's wish that compiled code run eagerly; `late` says that it had to be compiled to be noticed."""

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.held = self.late = False
        _known[self.number] = self

    def hold(self) -> None:
        """From here on nothing compiled runs as such, in the whole process."""
        with _lock:
            if not _asking:
                _stance.enter_context(torch.compiler.set_stance("force_eager"))
            _asking.add(self.number)
            self.held = True

    def release(self) -> None:
        """Not on our account any longer."""
        _known.pop(self.number, None)
        with _lock:
            if self.number in _asking:
                _asking.remove(self.number)
                if not _asking:
                    _stance.close()


def compiler_came(number: int) -> None:
    """Called by torch's compiler, and not compiled, when it meets a hook of the probe with this number."""
    eager = _known.get(number)
    if eager is not None and not eager.late:
        eager.late = True
        try:
            eager.hold()
        except RuntimeError:
            return  # a stance cannot be taken there: only the note is left


compiler_came._dynamo_marked_constant = True  # type: ignore[attr-defined]


def runs_compiled(tree: ModuleTree, wrappers: Iterable[nn.Module], layers: Iterable[nn.Module]) -> bool:
    """Whether one of these layers of a model, which has such wrappers around it, is in a part that was compiled."""
    chosen = {id(layer) for layer in layers}
    if chosen and any(map(_is_compiled, wrappers)):
        return True
    parts = filter(_is_compiled, tree.modules.values())
    return any(id(inner) in chosen for part in parts for inner in tree.inside(part))


def _is_compiled(module: nn.Module) -> bool:
    forward = vars(module).get("forward") or getattr(type(module), "forward", None)
    compiled = getattr(module, "_compiled_call_impl", None) is not None or is_wrapper(module)
    return compiled or hasattr(forward, "_torchdynamo_orig_callable")


def is_wrapper(module: nn.Module) -> bool:
    """Whether it is what `torch.compile` makes of a model."""
    children = vars(module).get("_modules", {})
    # a scripted module keeps its children in a mapping of its own, which has no `get`
    return "_orig_mod" in children and isinstance(children["_orig_mod"], nn.Module)
