"""Distances from running statistics, read by hooks while a batch passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError, class_name
from bnprobe.experiments.synthesize.inputs import Inputs
from bnprobe.experiments.synthesize.stored import Stored
from bnprobe.norms.module_tree import method
from bnprobe.probe.tensors import first_tensor


class Distances:
    """While `watching`, every call of a norm adds its distance; `begin` forgets those of the pass before."""

    def __init__(self, norms: Sequence[Stored], first: float = 1.0) -> None:
        self.norms = norms
        last = max(len(norms) - 1, 1)
        self._weights = {norm.path: first ** (1 - i / last) for i, norm in enumerate(norms)}
        self._found: dict[str, list[Tensor]] = {}

    def begin(self) -> None:
        """Before each pass."""
        self._found = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks are registered inside, and removed at the end, also after an exception."""
        with ExitStack() as undo:
            for norm in self.norms:
                hook = method(norm.module, "register_forward_pre_hook")(self._reader(norm), with_kwargs=True)
                undo.callback(hook.remove)
            yield
        self.begin()

    def _reader(self, norm: Stored) -> Any:
        def read(module: Any, args: Any, kwargs: Any) -> None:
            x = first_tensor(args, kwargs)
            if x is not None:
                self._found.setdefault(norm.path, []).append(norm.distance(x))

        return read

    @property
    def by_norm(self) -> dict[str, Tensor]:
        """The mean over its calls of every norm that was reached."""
        return {path: torch.stack(calls).mean() for path, calls in self._found.items()}

    @property
    def total(self) -> Tensor:
        """Their sum, by their weights."""
        return torch.stack([self._weights[path] * one for path, one in self.by_norm.items()]).sum()


def reached(model: nn.Module, inputs: Inputs, norms: Sequence[Stored]) -> list[Stored]:
    """The norms that a pass calls. Raises BnprobeError where it calls none."""
    distances = Distances(norms)
    with distances.watching(), torch.no_grad():
        model(inputs.of(torch.full((2, *inputs.shape), 0.5, device=inputs.device)))
        called = set(distances.by_norm)
    if not called:
        raise BnprobeError(
            f"a pass of {class_name(model)} calls none of its {len(norms):,} batch norms with running statistics, so "
            "they cannot be matched. Pass the model that uses them."
        )
    return [norm for norm in norms if norm.path in called]
