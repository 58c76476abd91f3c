"""The core of every experiment: whatever is done to a model inside is undone afterwards, bit for bit."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from bnprobe.norms import ModuleTree
from bnprobe.probe.integrity.fingerprint import Fingerprint
from bnprobe.probe.tensors import is_lazy

Table = dict[str, Tensor | None]
"""The buffers or parameters that a module holds, by name."""

_ONE_AT_A_TIME = threading.RLock()
"""Two threads that change the same model would each measure the other's change."""


@dataclass
class Afterwards:
    """Filled when the block has ended: what the model's own code left changed, in words. Empty as a rule."""

    changes: list[str] = field(default_factory=list)


@contextmanager
def put_back(model: nn.Module, parameters: bool = False) -> Iterator[Afterwards]:
    """Inside, buffers and modes may be changed; at the end they and all random states are as before.

    Also after an exception and after Ctrl-C. Values are written into the tensors that were there, so whoever shares one
    sees it return, and a tensor that was replaced is put in its place again. A copy of every buffer is held
    meanwhile, with `parameters` of every parameter too, which are otherwise left alone. Experiments of several
    threads wait for one another; blocks may be nested.
    """
    afterwards = Afterwards()
    with _ONE_AT_A_TIME:
        tree = ModuleTree.of(model)
        before = Fingerprint.of(tree)
        modes = [(module, module.training) for module in tree.modules.values()]
        held: list[tuple[Table, dict[str, Tensor | None]]] = [
            (cast(Table, table), dict(table))
            for module in tree.modules.values()
            for table in ((module._buffers, module._parameters) if parameters else (module._buffers,))
        ]
        tensors = (t for _, table in held for t in table.values() if t is not None and _has_values(t))
        kept = {id(t): (t, t.detach().clone()) for t in tensors}
        random_states = RandomStates()
        try:
            yield afterwards
        finally:
            for table, before_it in held:
                if not _same(table, before_it):
                    table.clear()
                    table.update(before_it)
            for tensor, values in kept.values():
                write(tensor, values)
            for module, training in modes:
                module.training = training
            random_states.restore()
            report = before.compare(
                Fingerprint.of(ModuleTree.of(model)), lambda what, name: "changed by the model itself"
            )
            afterwards.changes.extend(change.says for change in report.changes)


def in_eval_mode(model: nn.Module) -> None:
    """Every module in eval mode, whatever its class makes of `eval()`."""
    for module in ModuleTree.of(model).modules.values():
        module.training = False


def write(tensor: Tensor, values: Tensor) -> None:
    """Write values where the tensor's own are, unseen by autograd: a backward pass that is still to come stays valid."""
    tensor.data.copy_(values)


def _has_values(tensor: Tensor) -> bool:
    return not is_lazy(tensor) and tensor.device.type != "meta"


def _same(table: Table, tensors: dict[str, Tensor | None]) -> bool:
    return list(table) == list(tensors) and all(table[name] is tensors[name] for name in tensors)


class RandomStates:
    """Of every generator that models and loaders draw from."""

    def __init__(self) -> None:
        self._torch = torch.get_rng_state()
        self._python = random.getstate()
        self._numpy = sys.modules["numpy"].random.get_state() if "numpy" in sys.modules else None
        self._cards = torch.cuda.get_rng_state_all() if torch.cuda._initialized else []

    def restore(self) -> None:
        """Have every generator go on from where it was."""
        torch.set_rng_state(self._torch)
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)
        if self._cards:
            torch.cuda.set_rng_state_all(self._cards)
