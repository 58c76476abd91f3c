"""Where two passes part: the first module whose inputs agree and whose output does not, and the first norm that sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from bnprobe.errors import CannotProbe, NoNormLayers, class_name
from bnprobe.experiments.invariances.alignment import Align, distance, size
from bnprobe.norms import ModuleTree
from bnprobe.probe.survey.compiled import Eager
from bnprobe.probe.survey.survey import survey_of
from bnprobe.probe.survey.unwrap import shown
from bnprobe.probe.tensors import tensors_in

LIMIT_MB = 1024
"""Of the tensors kept of the first pass; what comes after them is not compared."""

Named = dict[str, list[Tensor]]


@dataclass
class Parting:
    """The path of the first norm whose input parts, and of the module that parts them with its class; "" for none.

    `culprit_stores` is whether that module is in train mode and keeps statistics that eval mode would use.
    """

    first_norm: str = ""
    culprit: str = ""
    culprit_class: str = ""
    culprit_stores: bool = False


def parting(
    model: nn.Module, first: Callable[[], Any], second: Callable[[], Any], align: Align, tolerance: float
) -> Parting:
    """Run both passes, and say where they part by more than `tolerance` times the largest number of a tensor."""
    norms: dict[int, str] = {}
    compiled = False
    with suppress(NoNormLayers, CannotProbe):
        survey = survey_of(model)
        norms, compiled = {id(module): name for name, module in survey.layers.items()}, survey.compiled
    watch = _Watch(align, tolerance, norms)
    eager = Eager()
    with ExitStack() as stack:
        if compiled:
            eager.hold()
        stack.callback(eager.release)
        for path, module in ModuleTree.of(model).modules.items():
            name = shown(path)
            stack.callback(module.register_forward_pre_hook(watch.before(name), with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(watch.after(name), with_kwargs=True).remove)
        first()
        watch.compares()
        second()
    return watch.found


def _stores(module: nn.Module) -> bool:
    """Whether it has buffers of real numbers, as running statistics; a count of batches is none."""
    return any(buffer.is_floating_point() for buffer in module.buffers())


@dataclass
class _Watch:
    """The hooks: in the first pass they keep what modules are given and give, in the second they compare."""

    align: Align
    tolerance: float
    norms: Mapping[int, str]
    found: Parting = field(default_factory=Parting)
    _kept: dict[tuple[str, str, int], Named] = field(default_factory=dict)
    _n_bytes: int = 0
    _n_calls: dict[tuple[str, str], int] = field(default_factory=dict)
    _agree: dict[str, list[bool]] = field(default_factory=dict)
    """By module, for each of its calls that are running: whether all that it was given agrees."""
    _comparing: bool = False

    def compares(self) -> None:
        """From now on the second pass runs."""
        self._comparing = True
        self._n_calls.clear()

    def before(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            parted = self._look(path, "given", {**dict(enumerate(args)), **kwargs})
            if self._comparing:
                self._agree.setdefault(path, []).append(all(p is False for p in parted))
                if id(module) in self.norms and True in parted and not self.found.first_norm:
                    self.found.first_norm = self.norms[id(module)]

        return hook

    def after(self, path: str) -> Callable[[nn.Module, Any, Any, Any], None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            parted = self._look(path, "gives", {"": output})
            if self._comparing and self._agree[path].pop() and True in parted and not self.found.culprit:
                self.found.culprit = path or class_name(module)
                self.found.culprit_class = class_name(module)
                self.found.culprit_stores = module.training and _stores(module)

        return hook

    def _look(self, path: str, what: str, values: Mapping[Any, Any]) -> list[bool | None]:
        """Keep the tensors, or say of each whether it parts; None where its layout is not known, or it was not kept."""
        nth = self._n_calls.get((path, what), 0)
        self._n_calls[path, what] = nth + 1
        # nested tensors have no shape to compare
        named = {
            str(name): [t for t in tensors_in(value) if not t.is_nested] for name, value in values.items()
        }
        if not self._comparing:
            self._n_bytes += sum(t.nbytes for tensors in named.values() for t in tensors)
            if self._n_bytes <= LIMIT_MB * 2**20:
                copies = {name: [t.detach().clone() for t in tensors] for name, tensors in named.items()}
                self._kept[path, what, nth] = copies
            return []
        kept = self._kept.get((path, what, nth))
        if kept is None:
            return [None]
        return [
            self._parts(a, b)
            for name in named.keys() & kept
            for a, b in zip(kept[name], named[name], strict=False)
        ]

    def _parts(self, a: Tensor, b: Tensor) -> bool | None:
        if a.shape == b.shape and not distance(a, b):
            return False
        apart = [distance(one, other) - self.tolerance * size(one) for one, other in self.align(a, b)]
        return min(apart) > 0 if apart else None
