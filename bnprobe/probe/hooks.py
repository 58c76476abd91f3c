"""The hooks: registered together, removed together, and without effect in a copy of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from bnprobe.norms import ModuleTree, gate_in
from bnprobe.norms.module_tree import method
from bnprobe.probe.forward import Forward
from bnprobe.probe.passes import SKIPPED
from bnprobe.probe.survey.compiled import Eager, compiler_came
from bnprobe.probe.survey.survey import ModelSurvey
from bnprobe.probe.tensors import first_tensor

MODEL_BEGINS, PART_BEGINS, ENDS, BEFORE, AFTER = "model begins", "part begins", "ends", "before", "after"
MODULATES = "modulates"


def register(survey: ModelSurvey, forward: Forward, eager: Eager, undo: ExitStack) -> None:
    """Register every hook; `undo` removes them."""
    number = eager.number
    for other in _others(survey.model):
        other.shares = forward.shares = True
    entries = [(survey.model, MODEL_BEGINS), *((part, PART_BEGINS) for part in survey.parts)]
    for entry, act in entries:
        begins = Hook(forward, act, "", number)
        undo.callback(method(entry, "register_forward_pre_hook")(begins, with_kwargs=True).remove)
    for name, module in survey.layers.items():
        before, after = Hook(forward, BEFORE, name, number), Hook(forward, AFTER, name, number)
        undo.callback(method(module, "register_forward_pre_hook")(before, with_kwargs=True).remove)
        undo.callback(method(module, "register_forward_hook")(after, with_kwargs=True).remove)
    forward.follow_layers = LayerHooks(forward, number, undo).follow
    # always_call: what was read in a pass that raises must be dropped
    for entry, _ in entries:
        ends = Hook(forward, ENDS, "", number)
        hook = method(entry, "register_forward_hook")(ends, with_kwargs=True, always_call=True)
        undo.callback(hook.remove)


class LayerHooks:
    """Hooks on layers whose outputs modulate norms, registered once a pass has shown them; `undo` removes them."""

    def __init__(self, forward: Forward, number: int, undo: ExitStack) -> None:
        self._forward, self._number, self._hooked = forward, number, set[str]()
        self._removing: list[RemovableHandle] | None = []
        undo.callback(self._remove)

    def follow(self, model: nn.Module, paths: set[str]) -> None:
        """Hook the layers at these paths, those that are not yet."""
        if self._removing is None or paths <= self._hooked:
            return
        modules = ModuleTree.of(model).modules
        for path in paths - self._hooked:
            hook = Hook(self._forward, MODULATES, path, self._number)
            self._removing.append(method(modules[path], "register_forward_hook")(hook, with_kwargs=True))
        self._hooked |= paths

    def _remove(self) -> None:
        removing, self._removing = self._removing or [], None
        for handle in removing:
            handle.remove()


def _others(model: nn.Module) -> Iterator[Forward]:
    """What other probes that are attached to this model follow it by."""
    for hook in vars(model)["_forward_pre_hooks"].values():
        if isinstance(hook, Hook) and hook.forward is not None:
            yield hook.forward


class Hook:
    """One registered hook. Its copies and pickles do nothing, so that neither a deepcopy of the model nor a saved model
    records, or holds a reference to the probe."""

    def __init__(self, forward: Forward | None, act: str, name: str = "", number: int = 0) -> None:
        self.forward, self.act, self.name, self.number = forward, act, name, number

    def __call__(self, module: nn.Module, args: Any, kwargs: Any = None, output: Any = None) -> None:
        """Called by torch. Returns nothing, so that arguments and outputs stay as they are."""
        forward = self.forward
        # under a tracing compiler tensors have no values
        if torch.compiler.is_compiling():
            compiler_came(self.number)
            return
        if forward is None or torch._C._get_tracing_state() is not None:
            return
        if self.act == MODEL_BEGINS:
            forward.model_begins(module, args, kwargs)
        elif self.act == PART_BEGINS:
            forward.part_begins(module, args, kwargs)
        elif self.act == ENDS:
            forward.model_ends(module, output)
        elif forward.run.state is not SKIPPED:
            with forward.aside():
                if self.act == MODULATES:
                    forward.modulates(self.name, output)
                elif self.act == BEFORE:
                    x, gate = first_tensor(args, kwargs), gate_in(module, args, kwargs)
                    forward.before(self.name, module, bool(module.training), x, gate)
                else:
                    forward.after(self.name, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return Hook, (None, self.act, self.name)
