"""The hooks themselves: registered together, removed together, and harmless in a copy of the model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from bnprobe.probe.forward import Forward
from bnprobe.probe.survey.compiled import Eager, compiler_came
from bnprobe.probe.tensors import first_tensor

MODEL_BEGINS, MODEL_ENDS, BEFORE, AFTER = "model begins", "model ends", "before", "after"


def register(
    model: nn.Module, layers: Mapping[str, nn.Module], forward: Forward, eager: Eager, undo: ExitStack
) -> None:
    """Register every hook; `undo` removes them."""
    number = eager.number
    begins, ends = Hook(forward, MODEL_BEGINS, "", number), Hook(forward, MODEL_ENDS, "", number)
    undo.callback(model.register_forward_pre_hook(begins, with_kwargs=True).remove)
    for name, module in layers.items():
        before, after = Hook(forward, BEFORE, name, number), Hook(forward, AFTER, name, number)
        undo.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        undo.callback(module.register_forward_hook(after, with_kwargs=True).remove)
    # always called: a pass that ends in an exception must give up what it saw
    undo.callback(model.register_forward_hook(ends, with_kwargs=True, always_call=True).remove)


class Hook:
    """One registered hook. It copies and pickles to one that does nothing, so that neither a deepcopy
    nor a saved model records, or drags the probe along."""

    def __init__(self, forward: Forward | None, act: str, name: str = "", number: int = 0) -> None:
        self.forward, self.act, self.name, self.number = forward, act, name, number

    def __call__(self, module: nn.Module, args: Any, kwargs: Any = None, output: Any = None) -> None:
        """As torch calls it; it never returns anything, so that nothing of the call changes."""
        forward = self.forward
        # while a compiler traces the model there are no values to read
        if torch.compiler.is_compiling():
            compiler_came(self.number)
            return
        if forward is None or torch._C._get_tracing_state() is not None:
            return
        if self.act == MODEL_BEGINS:
            forward.model_begins(module, args, kwargs)
        elif self.act == MODEL_ENDS:
            forward.model_ends(output)
        else:
            with forward.aside():
                if self.act == BEFORE:
                    forward.before(self.name, module, bool(module.training), first_tensor(args, kwargs))
                else:
                    forward.after(self.name, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return Hook, (None, self.act, self.name)
