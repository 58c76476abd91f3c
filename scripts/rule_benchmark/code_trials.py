"""Small networks for code of advice that no planted fault runs: each with its fault, and healthy.

The code of a fault, and that of the advice, runs on names as those of `faults`: `model`, `loader` with training batches,
`batches` as recorded, `x` and `y` of one batch, `loss`, and `build()`, which makes the healthy network. `train()` takes ten
steps. All of it takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from scripts.rule_benchmark.cases.nets import Batch, convnet, fit, images

Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Trial:
    """A fault, the rule whose advice has the code, and what is to be done after it where the advice says so."""

    name: str
    rule: str
    build: Build
    fault: str = ""
    data: Callable[[], list[Batch]] = lambda: [images(64) for _ in range(5)]
    learns: bool = False
    """Whether steps of training are recorded."""
    after: str = ""
    """What the words around the code ask for besides, as training on."""
    severities: tuple[str, ...] = ("critical", "warning", "info")
    words: str = ""
    """What the words around the code ask for, in place of running it as it stands: `code` is the list of it."""
    precision: torch.dtype | None = None
    """Of steps under autocast."""
    recorded: int | None = None
    """Batches after which the recording ends; None for all."""
    mixes: bool = False
    """Whether `bnprobe.invariances` looks, and not a recording."""


class OnePlus(nn.Module):
    """An RMS norm that multiplies by 1 + w. Gemma team 2024, arXiv:2403.08295."""

    def __init__(self, width: int, add: float = 1.0) -> None:
        super().__init__()
        self.weight, self.add, self.eps = nn.Parameter(torch.full((width,), 1 - add)), add, 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * (self.add + self.weight)


class OnePlusRMSNorm(OnePlus):
    """Named so that it is known."""


class Branch(nn.Module):
    """A residual branch between two norms, of which the last belongs to the sum."""

    def __init__(self, width: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first, self.last = norm(width), norm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.mlp(self.first(x)))


def stream(norm: Callable[[int], nn.Module], depth: int = 2, width: int = 16) -> nn.Module:
    """Branches with norms over features on both sides, trained on 64 steps of patches; γ differ from channel to channel."""
    torch.manual_seed(0)
    patches = nn.Conv2d(3, width, 4, 4)
    rows = nn.Sequential(patches, nn.Flatten(2), Transposed())
    model = nn.Sequential(
        rows, *(Branch(width, norm) for _ in range(depth)), norm(width), Mean(), nn.Linear(width, 4)
    )
    for name, vector in model.named_parameters():
        if vector.dim() == 1 and name.endswith("weight"):
            vector.data += 0.1 * torch.randn_like(vector)
    return fit(model, partial(images, 64), 60).eval()


class Transposed(nn.Module):
    """Features last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class Mean(nn.Module):
    """Over positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def trained(norm: Callable[[int], nn.Module] = nn.BatchNorm2d, **options: Any) -> nn.Module:
    """A small network of convolutions, norms and ReLUs, whose running statistics fit its last weights."""
    torch.manual_seed(0)
    model = fit(convnet(norm=norm, **options), partial(images, 64), 80)
    with torch.no_grad():
        for _ in range(60):
            model(images(64)[0])
    return model.eval()


def biased() -> nn.Module:
    """With a bias before each norm."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for a in (3, 16):
        layers += [nn.Conv2d(a, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    return fit(
        nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)), images, 80
    ).eval()


def frozen() -> nn.Module:
    """Trained, its norms then made of four buffers."""
    model = trained()
    for i, module in enumerate(model):  # type: ignore[arg-type]
        if isinstance(module, nn.BatchNorm2d):
            norm = FrozenBatchNorm2d(module.num_features)
            norm.load_state_dict(module.state_dict(), strict=False)
            model[i] = norm  # type: ignore[index]
    return model


def in_order() -> list[Batch]:
    """Batches of one class each, whose mean shows it."""
    torch.manual_seed(1)
    y = torch.arange(4).repeat_interleave(128)
    x = torch.randn(len(y), 3, 8, 8) + (y - 1.5)[:, None, None, None]
    return list(zip(x.split(64), y.split(64), strict=True))


def of_unlike_samples() -> list[Batch]:
    """Images that are much lighter or darker as a whole."""
    batches = [images(64) for _ in range(5)]
    return [(x + 3 * torch.randn(len(x), 1, 1, 1), y) for x, y in batches]


def with_a_small_last_batch() -> list[Batch]:
    return [*(images(64) for _ in range(4)), images(2)]


def perceptron(dropout: float = 0.0) -> nn.Module:
    """Batch norms whose batches have a value per sample, the second right after dropout."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.ReLU()]
    layers += [nn.Dropout(dropout), nn.BatchNorm1d(16), nn.Linear(16, 4)] if dropout else [nn.Linear(16, 4)]
    return fit(nn.Sequential(*layers), images, 120).eval()


NORMS = "norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]\n"

TRIALS = (
    Trial("used in train mode", "batch-normalized", trained, "model.train()"),
    Trial(
        "instance norms that track",
        "instance-norm-stored",
        partial(trained, partial(nn.InstanceNorm2d, affine=True, track_running_stats=True)),
        data=of_unlike_samples,
    ),
    Trial(
        "a norm in half precision whose squares overflow",
        "rows-zero",
        partial(stream, partial(OnePlusRMSNorm, add=0.0)),
        "model[3].half()\nmodel[2].register_forward_hook(lambda m, i, o: (300 * o).half())\n"
        "model[4].register_forward_pre_hook(lambda m, a: (a[0].float(),))",
    ),
    Trial(
        "track_running_stats switched off to freeze",
        "statistics-not-updated",
        trained,
        NORMS + "for m in norms: m.track_running_stats = False",
        learns=True,
    ),
    Trial(
        "γ and β exchanged by a converter",
        "vectors-swapped",
        partial(trained, depth=4),
        NORMS + "for m in norms: m.weight.data, m.bias.data = m.bias.data, m.weight.data",
    ),
    Trial(
        "running mean and variance exchanged",
        "vectors-swapped",
        partial(trained, depth=4),
        NORMS + "for m in norms: m.running_mean, m.running_var = m.running_var, m.running_mean",
    ),
    Trial("biases before norms", "bias-redundant", biased),
    Trial("a sorted loader, in training", "batches-of-one-class", trained, data=in_order, learns=True),
    Trial(
        "one norm reset by an init",
        "affine-untrained",
        trained,
        "nn.init.ones_(model[1].weight); nn.init.zeros_(model[1].bias)",
    ),
    Trial("trained in eval mode", "learning-in-eval", trained, "model.eval()", learns=True),
    Trial(
        "fused for speed",
        "norm-folded",
        trained,
        "from torch.nn.utils.fusion import fuse_conv_bn_eval\n"
        "model[0] = fuse_conv_bn_eval(model[0], model[1]); model[1] = nn.Identity()",
    ),
    Trial(
        "stored without their 1",
        "gain-convention",
        partial(stream, nn.RMSNorm),
        "for m in model.modules():\n    if isinstance(m, nn.RMSNorm): m.weight.data -= 1",
    ),
    Trial(
        "stored statistics of instance norms lost",
        "statistics-never-updated",
        partial(trained, partial(nn.InstanceNorm2d, affine=True, track_running_stats=True)),
        "for m in model.modules():\n    if isinstance(m, nn.InstanceNorm2d): m.reset_running_stats()",
    ),
    Trial(
        "frozen norms with the statistics of another network",
        "statistics-poisoned",
        frozen,
        "model[1].running_var.neg_()",
    ),
    Trial(
        "dropout before a norm",
        "data-shifted",
        partial(perceptron, dropout=0.5),
    ),
    Trial(
        "filters pruned to 0",
        "filters-decayed",
        trained,
        "model[3].weight.data[:5] = 0",
    ),
    Trial("a last batch of two", "few-values", perceptron, data=with_a_small_last_batch, learns=True),
    Trial(
        "a step with an infinite gradient reached w of 1 + w",
        "values-not-finite",
        partial(stream, OnePlusRMSNorm),
        "model[3].weight.data[3] = float('nan')",
    ),
    Trial(
        "the same at the end of a branch",
        "values-not-finite",
        partial(stream, nn.LayerNorm),
        "model[1].last.weight.data[3] = float('nan')",
    ),
    Trial(
        "w of 1 + w initialized as if it were the scale",
        "branch-off",
        partial(stream, OnePlusRMSNorm),
        "model[1].last.weight.data.fill_(-1)",
    ),
    Trial(
        "a scale of 1 + w of a ten-thousandth",
        "gradient-breaks",
        partial(stream, OnePlusRMSNorm),
        "model[3].weight.data.fill_(-0.9999)",
        learns=True,
    ),
    Trial(
        "a norm without β cut off from the loss",
        "gradient-no-signal",
        partial(stream, nn.RMSNorm),
        "model[3].weight.data.fill_(0)\nmodel[5].weight.data.zero_()",
        learns=True,
    ),
)
