"""What lies before the change is not computed again: blocks that run before the changed one give the outputs they gave.

The outputs of one batch are kept while its variants run, within a limit. A block is a module that holds few of the norms:
modules that hold more are looked into. That the outputs are the same to the last bit is checked, not assumed: at every
batch and for every place to start from, the unchanged model must give its output again. Where it does not, where a model
draws random numbers, has hooks, is compiled, or writes into the outputs of its blocks, everything is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from bnprobe.experiments.held_vectors import storage, tensors_of
from bnprobe.experiments.replacements import Variant
from bnprobe.norms import ModuleTree
from bnprobe.probe.tensors import tensors_in

LIMIT_MB = 512
"""Of the outputs kept of one batch; blocks whose outputs are beyond it are computed each time."""

SHARE = 8
"""Modules that hold more than one in so many of the norms are looked into."""

_NOTHING = object()


class Prefix:
    """The blocks of a model, and what they gave for the batch at hand."""

    def __init__(self, model: nn.Module, norms: Sequence[nn.Module], limit_mb: float = LIMIT_MB) -> None:
        tree = ModuleTree.of(model)
        self._limit = limit_mb * 2**20
        self._blocks = _blocks(tree, {id(norm) for norm in norms}) if _can_replay(tree) else []
        self._holders = _holders(tree, self._blocks)
        self._around: dict[int, set[int]] = {}
        for block in self._blocks:
            for module in tree.inside(block):
                self._around.setdefault(id(module), set()).add(id(block))
        self._calls: list[tuple[nn.Module, Any]] = []
        self._times: list[float] = []
        self._n_kept = 0
        self._versions: list[tuple[Tensor, int]] = []
        self._output: list[Tensor] = []
        self._exact: dict[int, bool] = {}

    def record(self, go: Callable[[], Any]) -> Any:
        """The output of the unchanged model for a batch; what its blocks gave is kept."""
        self._calls, self._times, self._n_kept, n_bytes = [], [perf_counter()], 0, 0
        handles = []
        met: set[int] = set()

        def keep(module: nn.Module, _: Any, output: Any) -> None:
            nonlocal n_bytes
            new = {storage(t): t.untyped_storage().nbytes() for t in tensors_in(output)}
            n_bytes += sum(size for place, size in new.items() if place not in met)
            met.update(new)
            within = n_bytes <= self._limit and self._n_kept == len(self._calls)
            self._calls.append((module, output if within else None))
            self._times.append(perf_counter())
            self._n_kept += within

        try:
            for block in self._blocks:
                handles.append(block.register_forward_hook(keep))
            output = go()
        finally:
            for handle in handles:
                handle.remove()
        self._times.append(perf_counter())
        kept = [t for _, made in self._calls[: self._n_kept] for t in tensors_in(made)]
        self._exact = {0: False}
        if any(
            tensor.is_inference() for tensor in kept
        ):  # such tensors do not say whether they were written to
            self._n_kept, kept = 0, []
        self._versions = [(tensor, tensor._version) for tensor in kept]
        self._output = [tensor.clone() for tensor in tensors_in(output)]
        return output

    def forget(self) -> None:
        """Let go of what is kept."""
        self._calls, self._versions, self._output, self._n_kept = [], [], [], 0

    def start(self, variant: Variant) -> int:
        """How many calls of blocks come before all that a variant changes; 0 where all must be computed."""
        changed = [self._holders.get(storage(tensor)) for tensor, _, _ in variant.changes]
        changed += [self._around.get(id(norm.module)) for norm in variant.members if variant.outputs]
        if not all(changed):
            return 0
        blocks = set().union(*(holders or () for holders in changed))
        first = next((i for i, (module, _) in enumerate(self._calls) if id(module) in blocks), 0)
        return first if first <= self._n_kept else 0

    def share(self, variant: Variant) -> float:
        """The part of the pass, 0 to 1, that such a variant takes."""
        whole = self._times[-1] - self._times[0]
        return 1 - (self._times[self.start(variant)] - self._times[0]) / whole if whole > 0 else 1.0

    def run(self, variant: Variant, go: Callable[[], Any]) -> Any:
        """The output with the variant; `go` runs the batch, each time from the same random state."""
        start = self.start(variant)
        if start not in self._exact:
            self._exact[start] = self._gives_the_same(start, go)
        with variant.written():
            if not self._exact[start]:
                return go()
            with self._replaying(start):
                output = go()
            if self._untouched:
                return output
            self._exact = dict.fromkeys(self._exact, False)
            self._n_kept = 0
            return go()

    def _gives_the_same(self, start: int, go: Callable[[], Any]) -> bool:
        """Whether the unchanged model gives its output, bit for bit, where the calls before `start` are not computed."""
        try:
            with self._replaying(start):
                again = list(tensors_in(go()))
        except Exception:  # a model that counts its calls, or the like
            return False
        pairs = zip(again, self._output, strict=False)
        same = len(again) == len(self._output) > 0 and all(torch.equal(a, b) for a, b in pairs)
        return same and self._untouched

    @property
    def _untouched(self) -> bool:
        """Whether nobody has written into what is kept."""
        return all(tensor._version == version for tensor, version in self._versions)

    @contextmanager
    def _replaying(self, start: int) -> Iterator[None]:
        """Inside, the first `start` calls of blocks give what they gave."""
        given: dict[nn.Module, list[Any]] = {}
        for module, output in self._calls[:start]:
            given.setdefault(module, []).append(output)
        before = {module: vars(module).get("forward", _NOTHING) for module in given}
        try:
            for module, outputs in given.items():
                vars(module)["forward"] = _replay(module.forward, outputs)
            yield
        finally:
            for module, forward in before.items():
                if forward is _NOTHING:
                    vars(module).pop("forward", None)
                else:
                    vars(module)["forward"] = forward


def _replay(forward: Callable[..., Any], outputs: list[Any]) -> Callable[..., Any]:
    rest = iter(outputs)

    def replayed(*args: Any, **kwargs: Any) -> Any:
        output = next(rest, _NOTHING)
        return forward(*args, **kwargs) if output is _NOTHING else output

    return replayed


def _can_replay(tree: ModuleTree) -> bool:
    """Whether every module is called in Python, and nothing but its forward is called then."""
    everywhere = nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        return False
    return not any(
        module._forward_hooks
        or module._forward_pre_hooks
        or isinstance(module, torch.jit.ScriptModule)
        or getattr(module, "_compiled_call_impl", None) is not None
        or "_orig_mod" in module._modules
        for module in tree.modules.values()
    )


def _blocks(tree: ModuleTree, norms: set[int]) -> list[nn.Module]:
    """Modules that together hold all norms, none inside another."""
    most = max(1, len(norms) // SHARE)
    found: dict[int, nn.Module] = {}
    waiting, met = [tree.model], {id(tree.model)}
    while waiting:
        module = waiting.pop()
        children = tree.children(module)
        n = sum(id(inner) in norms for inner in tree.inside(module))
        if children and (n > most or module is tree.model):
            new = [child for _, child in reversed(children) if id(child) not in met]
            met.update(map(id, new))
            waiting.extend(new)
        else:
            found[id(module)] = module
    inner = {id(m) for block in found.values() for m in tree.inside(block) if m is not block}
    return [block for block in found.values() if id(block) not in inner]


def _holders(tree: ModuleTree, blocks: list[nn.Module]) -> dict[int, set[int]]:
    """By the storage of each tensor the blocks that hold it; without those that are held outside of blocks, too."""
    found: dict[int, set[int]] = {}
    outside = {id(module): module for module in tree.modules.values()}
    for block in blocks:
        for module in tree.inside(block):
            outside.pop(id(module), None)
            for _, tensor in tensors_of(module):
                found.setdefault(storage(tensor), set()).add(id(block))
    for module in outside.values():
        for _, tensor in tensors_of(module):
            found.pop(storage(tensor), None)
    return found
