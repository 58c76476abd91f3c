"""Everything of a model that a probe could change, taken before it is attached and after it is detached."""

from __future__ import annotations

import random
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bnprobe.norms import ModuleTree
from bnprobe.norms.classes import qualified_name
from bnprobe.probe.integrity.checksums import Digest, digests
from bnprobe.probe.tensors import held_here, is_lazy
from bnprobe.recording.integrity import Change, IntegrityReport

STATE_DICT_HOOKS = "hooks of state dicts"

GATHERED = "FSDP gathered their shards for a pass, so their values were not compared"

TENSORS = ("parameters", "buffers", "gradients")

ReasonFor = Callable[[str, str], str]
"""From a kind of state and a name to the reason why the model itself may have changed it; "" for none."""


class TensorState(NamedTuple):
    """What is compared of a tensor: its bytes, whether it is trained, and whether it was spread over processes."""

    digest: Digest
    requires_grad: bool
    is_sharded: bool


@dataclass(frozen=True)
class Fingerprint:
    """The state of every parameter, buffer, mode and so on, by kind and name; `seconds` is how long it took."""

    states: Mapping[str, Mapping[str, object]]
    n_bytes: int
    seconds: float

    @classmethod
    def of(cls, tree: ModuleTree) -> Fingerprint:
        """As the model is now; takes as long as reading every tensor once."""
        started = time.perf_counter()
        parameters, buffers, modules = tree.parameters(), tree.buffers(), tree.modules
        gradients = {name: p.grad for name, p in parameters.items() if not is_lazy(p) and p.grad is not None}
        states: dict[str, Mapping[str, object]] = {
            "parameters": _tensors(parameters),
            "buffers": _tensors(buffers),
            "gradients": _tensors(gradients),
            "modes": {path: bool(module.training) for path, module in modules.items()},
            "hooks": {path: _hooks(module, False) for path, module in modules.items()},
            STATE_DICT_HOOKS: {path: _hooks(module, True) for path, module in modules.items()},
            "attributes": {path: tuple(vars(module)) for path, module in modules.items()},
            "modules": {path: qualified_name(type(module)) for path, module in modules.items()},
            "random state": random_states(),
        }
        n_bytes = sum(map(_size, (*parameters.values(), *buffers.values())))
        return cls(states, n_bytes, time.perf_counter() - started)

    def of_parameters(self) -> list[Digest]:
        """The digests of the parameters, in their order."""
        return [s.digest for s in self.states["parameters"].values() if isinstance(s, TensorState)]

    def compare(self, after: Fingerprint, reason_for: ReasonFor) -> IntegrityReport:
        """The differences to `after`."""
        changes: dict[tuple[str, str], list[str]] = {}
        for what, states in self.states.items():
            now = after.states[what]
            for name in {**states, **now}:
                if states.get(name) != now.get(name):
                    gathered = _is_sharded(states.get(name)) != _is_sharded(now.get(name))
                    why = GATHERED if gathered else reason_for(what, name)
                    changes.setdefault((what, why), []).append(name or "the model itself")
        sizes = [len(self.states[what]) for what in ("parameters", "buffers", "modules")]
        return IntegrityReport(
            n_parameters=sizes[0],
            n_buffers=sizes[1],
            n_bytes=self.n_bytes,
            n_modules=sizes[2],
            seconds=self.seconds + after.seconds,
            changes=tuple(Change(what, tuple(names), why) for (what, why), names in changes.items()),
        )


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor; 0 if it has no storage of its own."""
    return tensor.nbytes if tensor.layout == torch.strided and not is_lazy(tensor) else 0


def _tensors(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    return {
        name: TensorState(digest, tensor.requires_grad, held_here(tensor) is not tensor)
        for (name, tensor), digest in zip(tensors.items(), digests(tensors.values()), strict=True)
    }


def _is_sharded(state: object) -> bool:
    """Whether a tensor was spread over processes; FSDP gathers its shards for a pass, and may leave them so."""
    return isinstance(state, TensorState) and state.is_sharded


def _hooks(module: nn.Module, of_state_dicts: bool) -> tuple[Any, ...]:
    """The registered hooks, by the ids that torch gives them: those of state dicts, or all others."""
    return tuple(
        (name, tuple(hooks))
        for name, hooks in vars(module).items()
        if "hook" in name and isinstance(hooks, dict) and ("state_dict" in name) == of_state_dicts
    )


def random_states() -> dict[str, object]:
    """The states of the generators that models and loaders draw from."""
    states: dict[str, object] = {
        "torch": digests([torch.get_rng_state()])[0],
        "Python": hash(random.getstate()),
    }
    if "numpy" in sys.modules:
        _, keys, *rest = sys.modules["numpy"].random.get_state()
        states["numpy"] = (zlib.crc32(keys), *rest)
    if torch.cuda._initialized:  # asking would initialize a GPU that nobody uses
        cards = range(torch.cuda.device_count())
        states |= {f"cuda:{i}": digests([torch.cuda.get_rng_state(i)])[0] for i in cards}
    return states
