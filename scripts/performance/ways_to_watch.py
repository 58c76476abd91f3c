"""Passes of a model, and ways to watch its norms in them: with a probe, by hand, and with other tools."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torchvision
from torch import Tensor, nn

import bnprobe

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
TRAIN = "train step"

Watching = Callable[[nn.Module], AbstractContextManager[object]]


@dataclass(frozen=True)
class Case:
    """One model on one device in one number format."""

    model: str
    batch: int
    device: str
    form: str = "float32"
    clock: str = "wall"

    def net(self) -> nn.Module:
        """The model in evaluation mode, with running statistics of real activations."""
        torch.manual_seed(0)
        net = torchvision.models.get_model(self.model, weights=None).to(self.device)
        norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = None
            norm.train()
        net.eval()
        for norm in norms:
            norm.train()
        with torch.no_grad():
            net(self.images(4))
        net.train(self.form == TRAIN)
        return net.to(memory_format=torch.channels_last) if self.form == "channels_last" else net

    def images(self, n: int | None = None) -> Tensor:
        """Noise in the shape of a batch."""
        x = torch.randn(n or self.batch, 3, 224, 224, device=self.device)
        return x.to(memory_format=torch.channels_last) if self.form == "channels_last" else x

    def run(self, net: nn.Module, x: Tensor) -> None:
        """One forward pass, as inference runs it; forward and backward in a training step."""
        if self.form == TRAIN:
            net.zero_grad()
            labels = torch.arange(len(x), device=x.device)
            nn.functional.cross_entropy(net(x), labels).backward()
            return
        cast = torch.autocast(self.device) if self.form == "autocast" else nullcontext()
        with torch.inference_mode(), cast:
            net(x)

    def seconds(self, net: nn.Module, x: Tensor) -> float:
        """Time of one pass, until the device has finished."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        started = self.now()
        self.run(net, x)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return self.now() - started

    def now(self) -> float:
        """Seconds on the clock that is asked for: the wall's, or the processor time of this process."""
        return time.process_time() if self.clock == "cpu" else time.perf_counter()


# Ways to watch: each is called with the model and gives a context manager that undoes it.


def moments(net: nn.Module) -> AbstractContextManager[object]:
    return bnprobe.attach(net, histograms=False, gradients=False)


def default(net: nn.Module) -> AbstractContextManager[object]:
    return bnprobe.attach(net)


@contextmanager
def plain_torch(net: nn.Module) -> Iterator[None]:
    """What one writes by hand: torch's reductions per channel, of input and output, kept as tensors."""
    seen: list[Tensor] = []

    def look(norm: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> None:
        seen[:] = [reductions(by_channel(norm, x)) for x in (args[0], y)]

    with hooked(net, lambda _: look):
        yield


def by_channel(norm: nn.Module, x: Tensor) -> Tensor:
    """Shape (C, values)."""
    last = isinstance(norm, nn.LayerNorm) and x.shape[-1] == norm.normalized_shape[-1]
    return x.movedim(-1 if last else 1, 0).flatten(1)


def reductions(x: Tensor) -> Tensor:
    var, mean = torch.var_mean(x, dim=1)
    z = (x - mean[:, None]) / (var[:, None] + 1e-12).sqrt()
    return torch.stack([mean, var, (z**3).mean(1), (z**4).mean(1), x.amin(1), x.amax(1)])


@contextmanager
def one_sum(net: nn.Module) -> Iterator[None]:
    """The least that reads every value before a norm, where a probe reads it: one sum, of which nothing is kept."""

    def look(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        torch.sum(args[0])

    with ExitStack() as stack:
        for module in net.modules():
            if isinstance(module, NORMS):
                stack.callback(module.register_forward_pre_hook(look).remove)
        yield


@contextmanager
def observers(make: Callable[[nn.Module], nn.Module], net: nn.Module) -> Iterator[None]:
    """Observers of torch.ao, made for quantization, on the input and the output of every norm."""

    def watch(norm: nn.Module) -> Callable[..., None]:
        before, behind = make(norm), make(norm)

        def look(_: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> None:
            before(args[0])
            behind(y)

        return look

    with hooked(net, watch):
        yield


def per_channel_extremes(norm: nn.Module) -> nn.Module:
    from torch.ao.quantization.observer import PerChannelMinMaxObserver

    device = next(norm.parameters()).device
    return PerChannelMinMaxObserver(ch_axis=-1 if type(norm) is nn.LayerNorm else 1).to(device)


def whole_histogram(norm: nn.Module) -> nn.Module:
    from torch.ao.quantization.observer import HistogramObserver

    return HistogramObserver().to(next(norm.parameters()).device)


@contextmanager
def hooked(net: nn.Module, watch: Callable[[nn.Module], Callable[..., None]]) -> Iterator[None]:
    with ExitStack() as stack:
        for module in net.modules():
            if isinstance(module, NORMS):
                stack.callback(module.register_forward_hook(watch(module)).remove)
        yield


def no_histograms(net: nn.Module) -> AbstractContextManager[object]:
    return bnprobe.attach(net, histograms=False)


TRAIN_PROBES: dict[str, Watching] = {
    "bnprobe, histograms=False": no_histograms,
    "bnprobe, as it comes": default,
}
PROBES: dict[str, Watching] = {"bnprobe, histograms=False": moments, "bnprobe, as it comes": default}
FLOOR: dict[str, Watching] = {"torch.sum of every input, alone": one_sum}
"""What reading costs by itself, whatever is made of what was read."""
RIVALS: dict[str, Watching] = {
    "torch reductions in hooks": plain_torch,
    "torch.ao min and max per channel": partial(observers, per_channel_extremes),
    "torch.ao histogram per tensor": partial(observers, whole_histogram),
}


def traced(tool: str, case: Case, net: nn.Module, x: Tensor) -> Callable[[], None]:
    """One pass under a tool that wraps the model and runs it itself, keeping the norms' inputs."""
    names = [name for name, module in net.named_modules() if isinstance(module, NORMS)]
    if tool == "torchlens":
        import torchlens

        kept = torchlens.options.CaptureOptions(layers_to_save=names)
        return lambda: torchlens.trace(net, x, capture=kept) and None
    from nnsight import NNsight

    wrapped = NNsight(net)

    def run() -> None:
        with torch.inference_mode(), wrapped.trace(x):
            [wrapped.get(name).input.save() for name in names]

    return run
