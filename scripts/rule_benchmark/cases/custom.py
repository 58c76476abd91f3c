"""Norms of one's own, norms that have nothing to normalize, and digits that are lost."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.rule_benchmark.cases.case import Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import Batch, checked, classes, fit, images, several, told

CASES = Cases("norms of one's own, precision")


class OwnRMSNorm(nn.Module):
    def __init__(self, width: int, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.weight, self.dims, self.eps = nn.Parameter(torch.ones(width)), dims, 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(self.dims, keepdim=True) + self.eps) * self.weight


class Sequences(nn.Module):
    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(32, 32), nn.GRU(32, 32, batch_first=True)
        self.norm1, self.norm2, self.out = OwnRMSNorm(32, dims), OwnRMSNorm(32, dims), nn.Linear(32, 32)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.norm2(self.rnn(self.norm1(self.embed(tokens)))[0]))


@CASES.add("an RMSNorm over time and channels")
def over_time() -> Iterator[Look]:
    def loss(out: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(out.flatten(0, 1), t.flatten())

    for dims in ((1, 2), (2,)):
        torch.manual_seed(0)
        model = Sequences(dims)
        x = (torch.arange(17)[None] * torch.randint(1, 7, (64, 1)) + torch.randint(0, 32, (64, 1))) % 32
        fit(model, lambda x=x: (x[:, :-1], x[:, 1:]), 60, loss, lr=1e-2).eval()
        report = told(model, [x[i::4, :16] for i in range(4)])
        if len(dims) == 1:
            yield right("over channels", report)
        else:
            says = Must(
                ".*",
                "norm",
                ("dimensions? 1|time|whole sample|all (the )?values of (a|one) sample|positions",),
            )
            yield fault("over time", report, says)


@CASES.add("a layer norm on a large common mean")
def large_mean() -> Iterator[Look]:
    for offset in (40000.0, 0.0):

        def batch(offset: float = offset) -> Batch:
            z = torch.randn(64, 16) * 0.02
            return offset + z, z[:, :1] * 50

        torch.manual_seed(0)
        model = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
        fit(model, batch, 100, F.mse_loss).eval()
        report = told(model, several(batch))
        if offset:
            yield fault("offset 40,000", report, Must(".*", words=("rounding|digits|cancel", "mean")))
        else:
            yield right("no offset", report)


@CASES.add("a layer norm of one feature")
def one_feature() -> Iterator[Look]:
    for width in (1, 8):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(4, width), nn.LayerNorm(width), nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 1)
        )
        data = [(x, x[:, :1] * 2 + 1) for x in (torch.randn(64, 4) for _ in range(8))]
        stream = iter(data * 40)
        fit(model, lambda stream=stream: next(stream), 320, F.mse_loss, lr=1e-2)
        report, file = told(model, data, loss=F.mse_loss), checked(model.state_dict())
        if width == 1:
            yield fault("training", report, Must("few-values"))
            yield fault("file", file, Must("few-values"))
        else:
            yield right("8 features, training", report)
            yield right("8 features, file", file)


@CASES.add("a norm per channel on one pixel")
def one_pixel() -> Iterator[Look]:
    for size in (1, 4):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.InstanceNorm2d(16, affine=True), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(), nn.AdaptiveAvgPool2d(size), nn.GroupNorm(32, 32), nn.ReLU(), nn.Flatten(),
            nn.Linear(32 * size * size, 4),
        )  # fmt: skip
        fit(model, lambda: images(32, classes(2.0)), 80).eval()
        report = told(model, several(lambda: images(32, classes(2.0))))
        if size == 1:
            yield fault("1 x 1", report, Must("few-values"))
        else:
            yield right("4 x 4", report)
