"""Test models: small ones, each with one habit that has broken tools of this kind.

A `Case` says what a probe must find out by itself: where the norms are, what they pool over, where
the channels stand. Sizes are pairwise distinct (N=2, C=3, H=5, W=7), so that a swapped axis shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import FrozenBatchNorm2d

N, C, H, W, L = 2, 3, 5, 7, 11
BATCHES = (2, 3, 4)
"""Images of three batches: uneven, and never one (BatchNorm1d refuses a single value per channel)."""


@dataclass(frozen=True)
class Norm:
    """What is true of one norm; its channels are dimension 1, or the `last` trailing dimensions."""

    kind: str
    pools: str
    last: int = 0
    n_groups: int = 1
    centred: bool = True
    weight_offset: float = 0.0
    unbatched: bool = False
    running: bool = False
    """Whether evaluation uses stored statistics; training too, where `frozen`."""
    frozen: bool = False
    calls: int = 1
    output: str = "derived"
    """How the output's statistics must be found: derived from the input's, or read."""
    function: bool = False
    """A functional norm: each of its calls in a pass has vectors and running statistics of its own."""

    def rows(self, x: np.ndarray) -> np.ndarray:
        """x as (N, C, P), by numpy alone."""
        if self.unbatched:
            x = x[None]
        if not self.last:
            return x.reshape(x.shape[0], x.shape[1], -1)
        n_channels = int(np.prod(x.shape[x.ndim - self.last :]))
        return np.moveaxis(x.reshape(x.shape[0], -1, n_channels), 2, 1)


@dataclass(frozen=True)
class Case:
    """A model, how to make a batch of n images for it, and the truth about its norms."""

    name: str
    build: Callable[[], nn.Module]
    norms: dict[str, Norm]
    shape: tuple[int, ...] = (C, H, W)
    call: Callable[[nn.Module, Tensor], Any] = lambda model, x: model(x)
    never_called: tuple[str, ...] = ()
    not_understood: tuple[str, ...] = ()

    def model(self, training: bool = False, dtype: torch.dtype = torch.float64) -> nn.Module:
        """A seeded model with learned-looking vectors: no gamma is 1, some are negative, one is 0."""
        torch.manual_seed(3)
        model = self.build().to(dtype)
        learn(model)
        return model.train(training)

    def batches(
        self, sizes: Sequence[int] = BATCHES, dtype: torch.dtype = torch.float64, seed: int = 5
    ) -> list[Tensor]:
        """Skewed values; channels at different places and scales; every image at a place of its own."""
        rng = np.random.default_rng(seed)
        many = rng.gamma(0.7, size=(sum(sizes), *self.shape))
        many *= 1 + rng.gamma(2.0, size=(sum(sizes), *[1] * len(self.shape)))
        many += rng.normal(size=(sum(sizes), *[1] * len(self.shape)))
        channel = np.arange(self.shape[0]).reshape(-1, *[1] * (len(self.shape) - 1))
        x = torch.tensor(many * 10.0 ** (channel % 3 - 1) + 5 * channel, dtype=dtype)
        return list(x.split(list(sizes)))


def learn(model: nn.Module) -> None:
    """Vectors as after some training, drawn from the global generator."""
    for module in model.modules():
        tensors = {
            **dict(module.named_parameters(recurse=False)),
            **dict(module.named_buffers(recurse=False)),
        }
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
                continue
            with torch.no_grad():
                if name == "running_mean":
                    tensor.copy_(torch.randn(tensor.shape) * 2 + 1)
                elif name == "running_var":
                    tensor.copy_(torch.rand(tensor.shape) * 3 + 0.2)
                elif name in ("weight", "gamma", "g") and "norm" in type(module).__name__.lower():
                    tensor.copy_(torch.randn(tensor.shape) + 0.3)
                elif name in ("bias", "beta") and "norm" in type(module).__name__.lower():
                    tensor.copy_(torch.randn(tensor.shape) * 0.5)


# Layers that users bring


class OwnBatchNorm(nn.BatchNorm2d):
    """A subclass that changes nothing."""


class BatchNormAct2d(nn.BatchNorm2d):
    """As in timm: the activation runs inside the norm, so the hook's output is not the norm's."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class AlwaysStoredBatchNorm(nn.BatchNorm2d):
    """Frozen in a way of its own: stored statistics whatever the mode."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


class FirstLayerNorm(nn.Module):
    """A layer norm over dimension 1, known by name and attributes only (ConvNeXt's own code)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n))
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        var = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(var + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class FaceRMSNorm(nn.Module):
    """As in transformers' Llama: no subclass of anything, eps under another name."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
        self.variance_epsilon = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


class PlusOneRMSNorm(nn.Module):
    """As in Gemma: the weight holds gamma - 1."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n))
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return (1 + self.weight) * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class StrangeNorm(nn.Module):
    """A norm by name, of a formula nobody knows (no eps, divides by the largest value)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(C))

    def forward(self, x: Tensor) -> Tensor:
        return x / x.abs().amax() * self.scale[:, None, None]


# Models


class Twice(nn.Module):
    """One norm, reached twice in a forward pass, with different inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(F.relu(self.bn(x)) * 2 - 1)


class Shared(nn.Module):
    """One norm under two paths."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(C)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).abs())


class NeverReached(nn.Module):
    """A norm that no forward pass calls."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.spare = nn.BatchNorm2d(C), nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x)


class Keyword(nn.Module):
    """The norm is called by keyword, and so is the model's own input."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(C)

    def forward(self, *, image: Tensor) -> Tensor:
        return self.bn(input=image)


class Dicts(nn.Module):
    """Takes a dictionary and returns one, as detection and language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(C)

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"features": self.bn(batch["image"]), "note": batch["note"]}


class Failing(nn.Module):
    """Two norms; raises between them while `fails` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(C), nn.BatchNorm2d(C)
        self.fails: BaseException | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.fails is not None:
            raise self.fails
        return self.second(x)


class Checkpointed(nn.Module):
    """The forward pass of the middle is run a second time during backward."""

    def __init__(self, use_reentrant: bool = False) -> None:
        super().__init__()
        self.use_reentrant = use_reentrant
        self.before = nn.BatchNorm2d(C)
        self.middle = nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C), nn.ReLU())
        self.after = nn.GroupNorm(1, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(checkpoint(self.middle, self.before(x), use_reentrant=self.use_reentrant))


class Mixed(nn.Module):
    """Several kinds in one net, in the usual places; what most tests of the probe itself use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(C, 6, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.3)
        self.gn = nn.GroupNorm(2, 6)
        self.ln = nn.LayerNorm(6)
        self.rms = nn.RMSNorm(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gn(self.drop(self.act(self.bn(self.conv(x)))))
        tokens = self.ln(x.flatten(2).transpose(1, 2))
        return self.head(self.rms(tokens).mean(1))


BN = Norm("batch_norm", "batch", running=True)
MIXED_NORMS = {
    "bn": BN,
    "gn": Norm("group_norm", "group", n_groups=2),
    "ln": Norm("layer_norm", "channels", last=1, output="read"),
    "rms": Norm("rms_norm", "channels", last=1, centred=False, output="read"),
}


def one(module: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A model around a single norm, at path "0"."""
    return lambda: nn.Sequential(module())


CASES = (
    Case("mixed", Mixed, MIXED_NORMS),
    Case("batch norm", one(lambda: nn.BatchNorm2d(C)), {"0": BN}),
    Case("the model is the norm", lambda: nn.BatchNorm2d(C), {"BatchNorm2d": BN}),
    Case("batch norm of vectors", one(lambda: nn.BatchNorm1d(C)), {"0": BN}, shape=(C,)),
    Case("batch norm of sequences", one(lambda: nn.BatchNorm1d(C)), {"0": BN}, shape=(C, L)),
    Case("batch norm of volumes", one(lambda: nn.BatchNorm3d(C)), {"0": BN}, shape=(C, 4, H, W)),
    Case("no affine", one(lambda: nn.BatchNorm2d(C, affine=False)), {"0": BN}),
    Case("momentum None", one(lambda: nn.BatchNorm2d(C, momentum=None)), {"0": BN}),
    Case(
        "no running statistics",
        one(lambda: nn.BatchNorm2d(C, track_running_stats=False)),
        {"0": Norm("batch_norm", "batch")},
    ),
    Case("subclass", one(lambda: OwnBatchNorm(C)), {"0": BN}),
    Case("lazy", one(lambda: nn.LazyBatchNorm2d()), {"0": BN}),
    Case(
        "frozen",
        one(lambda: FrozenBatchNorm2d(C)),
        {"0": Norm("batch_norm", "batch", running=True, frozen=True)},
    ),
    Case(
        "frozen its own way",
        one(lambda: AlwaysStoredBatchNorm(C)),
        {"0": Norm("batch_norm", "batch", running=True, frozen=True)},
    ),
    Case(
        "fused activation",
        one(lambda: BatchNormAct2d(C)),
        {"0": Norm("batch_norm", "batch", running=True, output="read")},
    ),
    Case("in-place ReLU", lambda: nn.Sequential(nn.BatchNorm2d(C), nn.ReLU(inplace=True)), {"0": BN}),
    Case("twice", Twice, {"bn": Norm("batch_norm", "batch", running=True, calls=2)}),
    Case("two paths", Shared, {"first": Norm("batch_norm", "batch", running=True, calls=2)}),
    Case("never reached", NeverReached, {"bn": BN}, never_called=("spare",)),
    Case("keyword", Keyword, {"bn": BN}, call=lambda model, x: model(image=x)),
    Case("dictionaries", Dicts, {"bn": BN}, call=lambda model, x: model({"note": "hello", "image": x})),
    Case("checkpointed", Checkpointed, {"before": BN, "middle.1": BN, "after": Norm("group_norm", "group")}),
    Case("instance norm", one(lambda: nn.InstanceNorm2d(C)), {"0": Norm("instance_norm", "instance")}),
    Case(
        "instance norm with vectors",
        one(lambda: nn.InstanceNorm2d(C, affine=True)),
        {"0": Norm("instance_norm", "instance")},
    ),
    Case(
        "instance norm with statistics",
        one(lambda: nn.InstanceNorm2d(C, affine=True, track_running_stats=True)),
        {"0": Norm("instance_norm", "instance", running=True)},
    ),
    Case(
        "instance norm without a batch",
        one(lambda: nn.InstanceNorm1d(C, affine=True)),
        {"0": Norm("instance_norm", "instance", unbatched=True)},
        shape=(L,),  # the "images" of a batch are the channels
        call=lambda model, x: model(x[:1].expand(C, L) * torch.arange(1.0, C + 1)[:, None].to(x) + x[:1]),
    ),
    Case(
        "group norm",
        one(lambda: nn.GroupNorm(2, 6)),
        {"0": Norm("group_norm", "group", n_groups=2)},
        shape=(6, H, W),
    ),
    Case(
        "group norm of vectors",
        one(lambda: nn.GroupNorm(2, 6)),
        {"0": Norm("group_norm", "group", n_groups=2)},
        shape=(6,),
    ),
    Case(
        "layer norm",
        one(lambda: nn.LayerNorm(C)),
        {"0": Norm("layer_norm", "channels", last=1, output="read")},
        shape=(L, C),
    ),
    Case(
        "layer norm over an image",
        one(lambda: nn.LayerNorm((C, H, W))),
        {"0": Norm("layer_norm", "channels", last=3, output="read")},
    ),
    Case(
        "torchvision's LayerNorm2d",
        one(lambda: LayerNorm2d(C)),
        {"0": Norm("layer_norm", "channels", output="read")},
    ),
    Case(
        "layer norm by its looks",
        one(lambda: FirstLayerNorm(C)),
        {"0": Norm("layer_norm", "channels", output="read")},
    ),
    Case(
        "RMS norm",
        one(lambda: nn.RMSNorm(C, eps=1e-6)),
        {"0": Norm("rms_norm", "channels", last=1, centred=False, output="read")},
        shape=(L, C),
    ),
    Case(
        "RMS norm by its looks",
        one(lambda: FaceRMSNorm(C)),
        {"0": Norm("rms_norm", "channels", last=1, centred=False, output="read")},
        shape=(L, C),
    ),
    Case(
        "RMS norm of 1 + w",
        one(lambda: PlusOneRMSNorm(C)),
        {"0": Norm("rms_norm", "channels", last=1, centred=False, weight_offset=1.0, output="read")},
        shape=(L, C),
    ),
    Case(
        "an unknown norm beside a known one",
        lambda: nn.Sequential(StrangeNorm(), nn.BatchNorm2d(C)),
        {"1": BN},
        not_understood=("0 (StrangeNorm) (no norm)",),
    ),
)
EVAL_ONLY = (
    # in training it asks for a GPU
    Case("synchronized", one(lambda: nn.SyncBatchNorm(C)), {"0": BN}),
)
BY_NAME = {case.name: case for case in CASES + EVAL_ONLY}
