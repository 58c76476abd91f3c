"""Models run once under a probe, and what it says stands around their norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import bnprobe
from bnprobe.experiments.surgery.look import Look, looked
from bnprobe.recording.neighbours import Neighbours


def neighbours_of(model: nn.Module, *args: Any, grad: bool = False, **kwargs: Any) -> dict[str, Neighbours]:
    """By site, after one pass of the whole model."""
    with bnprobe.attach(model, histograms=False, gradients=grad) as probe, torch.set_grad_enabled(grad):
        model(*args, **kwargs)
    return {record.site: record.neighbours for record in probe.recording.layers}


def follows(model: nn.Module, *args: Any, grad: bool = False, **kwargs: Any) -> dict[str, str]:
    """What follows each norm, alike."""
    return {
        site: neighbours.follows
        for site, neighbours in neighbours_of(model, *args, grad=grad, **kwargs).items()
    }


def random_vectors(model: nn.Module) -> nn.Module:
    """Evaluation mode, seeded, with learned-looking vectors in every norm."""
    torch.manual_seed(7)
    for module in model.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if "Norm" in type(module).__name__ and tensor.is_floating_point():
                with torch.no_grad():
                    tensor.copy_(
                        torch.rand(tensor.shape) + 0.5 if "var" in name else torch.randn(tensor.shape)
                    )
    return model.eval()


class Wired(nn.Module):
    """Layers under their names, put together by `way`."""

    def __init__(self, way: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.way = way
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.way(self, x)


@contextmanager
def graph_of(model: nn.Module, x: Tensor) -> Iterator[Look]:
    """The graph of one pass in eval mode, and what is known of the norms that it reached."""
    with looked(model.eval(), [x], None) as look:
        yield look


class Counting(TorchDispatchMode):
    """A mode of the user's, with the names of what is executed."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))
