"""A sixth round: ports that compute something else between norms, and inputs of graphs, clouds of points and tables."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.rule_benchmark.cases.case import SHIFTED, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import Batch, convnet, fit, images, several, told

CASES = Cases("sixth round")


class UNet(nn.Module):
    """One level down and up again, with what was there before beside what comes up."""

    def __init__(self) -> None:
        super().__init__()
        self.skip_first = True
        self.down = self.layer(1, 12)
        self.deep = self.layer(12, 12)
        self.up = self.layer(24, 12)
        self.out = nn.Conv2d(12, 2, 1)

    @staticmethod
    def layer(n: int, m: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(n, m, 3, padding=1, bias=False), nn.BatchNorm2d(m), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        deep = F.interpolate(self.deep(F.max_pool2d(skip, 2)), scale_factor=2)
        y = torch.cat((skip, deep) if self.skip_first else (deep, skip), 1)
        return self.out(self.up(y))


def cells(n: int = 16) -> Batch:
    """Grey pictures of discs, (n, 1, 24, 24), and where the discs are."""
    at = torch.rand(n, 2, 1, 1) * 16 + 4
    grid = torch.arange(24.0)
    inside = ((grid[:, None] - at[:, :1]) ** 2 + (grid[None] - at[:, 1:]) ** 2).sqrt() < 5
    return inside * 1.0 + 0.4 * torch.randn(n, 1, 24, 24) - 0.2, inside[:, 0].long()


@CASES.add("a port of a U-Net joins what comes up and what was kept the other way round")
def joined() -> Iterator[Look]:
    torch.manual_seed(0)
    model = UNet()
    fit(model, cells, 120)
    model.eval()
    data = several(cells)
    yield right("as in training", told(model, data))
    model.skip_first = False
    yield fault(
        "the other way round", told(model, data), Must("data-shifted", "^up.1$", ("joined in another order",))
    )


class Recurrent(nn.Module):
    """A norm of the inputs, an LSTM, and a norm of what it ends with."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.rnn = nn.BatchNorm1d(6), nn.LSTM(6, 20, batch_first=True)
        self.norm, self.out = nn.BatchNorm1d(20), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.rnn(self.into(x.transpose(1, 2)).transpose(1, 2))[0]
        return self.out(self.norm(h[:, -1]))


def courses(n: int = 32) -> Batch:
    y = torch.randint(0, 4, (n,))
    ramp = torch.linspace(0, 1, 15)[None, :, None] * (y[:, None, None] - 1.5)
    return ramp + torch.randn(n, 15, 6) + 1, y


@CASES.add("a converter leaves the gates of an LSTM in the order of another framework")
def gates() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(Recurrent(), courses, 150).eval()
    data = several(courses)
    yield right("as in training", told(model, data))
    for p in model.rnn.parameters():
        i, f, g, o = p.data.chunk(4)
        p.data = torch.cat((i, g, f, o))
    yield fault(
        "i, g, f, o", told(model, data), Must("data-shifted", "^norm$", ("still match at into", "gates"))
    )


def windows(n: int = 32) -> Batch:
    """Windows of a standardized series, (n, 3, 48), each on a level of its own that belongs to its class."""
    y = torch.randint(0, 4, (n,))
    level = (y.float() - 1.5)[:, None, None] * torch.tensor([0.7, -0.5, 0.3])[:, None]
    return level + torch.randn(n, 3, 48) * (0.3 + 0.4 * torch.rand(n, 1, 1)), y


@CASES.add("windows of a series are standardized each by itself, and not by the whole series")
def by_window() -> Iterator[Look]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(3, 24, 7, padding=3, bias=False), nn.BatchNorm1d(24), nn.ReLU(),
        nn.Conv1d(24, 24, 7, padding=3, bias=False), nn.BatchNorm1d(24), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 4),
    )  # fmt: skip
    fit(model, windows, 150).eval()
    data = several(windows)
    yield right("by the whole series", told(model, data))
    each = [((x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True), y) for x, y in data]
    must = Must("data-shifted", words=("same mean", "standardized by itself", "Check the preprocessing"))
    yield fault("each by itself", told(model, each), must)


class Points(nn.Module):
    """A PointNet of clouds of points with colors, (n, 6, points)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(6, 24, 1), nn.BatchNorm1d(24), nn.ReLU(),
            nn.Conv1d(24, 32, 1), nn.BatchNorm1d(32), nn.ReLU(),
        )  # fmt: skip
        self.out = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x).amax(-1))


def cloud(n: int = 24) -> Batch:
    y = torch.randint(0, 4, (n,))
    size = torch.rand(n, 3, 1) * 0.4 + 0.3
    color = (0.2 + 0.5 * torch.rand(n, 3, 1) + 0.1 * torch.randn(n, 3, 60)).clamp(0, 1)
    at = size * torch.randn(n, 3, 60) * torch.stack((1 + y / 3, 2 - y / 3, torch.ones(n)), 1)[..., None]
    return torch.cat((at / 2, color), 1), y


@CASES.add("colors of a cloud of points as whole numbers, beside coordinates in meters")
def colored() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(Points(), cloud, 150).eval()
    data = several(cloud)
    yield right("as in training", told(model, data))
    scale = torch.tensor([1.0, 1, 1, 255, 255, 255])[:, None]
    yield fault("0 to 255", told(model, [(x * scale, y) for x, y in data]), Must(SHIFTED, "^body.1$"))
    far = torch.tensor([3.0, -2, 1, 0, 0, 0])[:, None]
    yield fault("not centered", told(model, [(x + far, y) for x, y in data]), Must(SHIFTED, "^body.1$"))


class Graph(nn.Module):
    """Three layers, each of which averages over neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.ModuleList(nn.Linear(8 if i == 0 else 24, 24) for i in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm1d(24) for _ in range(3))
        self.out = nn.Linear(24, 4)

    def forward(self, both: Tensor) -> Tensor:
        x, a = both[..., :8], both[..., 8:]
        for linear, norm in zip(self.linear, self.norms, strict=True):
            x = a @ linear(x)
            x = norm(x.transpose(1, 2)).transpose(1, 2).relu()
        return self.out(x.mean(1))


def graphs(n: int = 16, summed: bool = False) -> Batch:
    """Graphs of 20 nodes: features, and a matrix of neighbours."""
    y = torch.randint(0, 4, (n,))
    x = torch.randn(n, 20, 8) + 0.6 * F.one_hot(y, 8)[:, None] + 0.5
    edges = (torch.rand(n, 20, 20) < 0.15).float()
    edges = ((edges + edges.transpose(1, 2)) > 0).float() * (1 - torch.eye(20)) + torch.eye(20)
    return torch.cat((x, edges if summed else edges / edges.sum(-1, keepdim=True)), -1), y


@CASES.add("a graph's neighbours are summed, and not averaged")
def neighbours() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(Graph(), graphs, 150).eval()
    yield right("averaged", told(model, several(graphs)))
    yield fault(
        "summed",
        told(model, several(lambda: graphs(summed=True))),
        Must("data-shifted", "^norms.0$", ("sum over neighbors",)),
    )


def table(n: int = 64) -> Batch:
    """Twelve columns, (n, 12), of which a tenth of each is missing, and standardised to 0."""
    y = torch.randint(0, 4, (n,))
    center = torch.randn(4, 12, generator=torch.Generator().manual_seed(6)) * 0.7
    x = center[y] + torch.randn(n, 12)
    return x * (torch.rand(n, 12) > 0.1), y


def of_table() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(12, 40), nn.BatchNorm1d(40), nn.ReLU(),
        nn.Linear(40, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 4),
    )  # fmt: skip


@CASES.add("missing values of a table are filled with -999")
def missing() -> Iterator[Look]:
    torch.manual_seed(0)
    model = fit(of_table(), table, 200).eval()
    data = several(table)
    yield right("with the mean", told(model, data))
    for title, column in (("-999", torch.ones(12)), ("-999 in one column", F.one_hot(torch.tensor(3), 12))):
        filled = [(torch.where((x == 0) & (column > 0), -999.0, x), y) for x, y in data]
        must = Must("data-shifted", "^1$", ("of the samples account", "stands for what is missing"))
        yield fault(title, told(model, filled), must)


YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])


def photographs(n: int = 16) -> Batch:
    y = torch.randint(0, 4, (n,))
    light = F.interpolate(torch.rand(n, 1, 3, 3), size=(16, 16), mode="bilinear")
    tint = torch.tensor([0.05, 0.0, -0.06])[:, None, None] + 0.1 * torch.randn(n, 3, 1, 1)
    x = 0.1 + 0.55 * light + tint + 0.05 * y.view(-1, 1, 1, 1) + 0.05 * torch.randn(n, 3, 16, 16)
    return x.clamp(0, 1), y


@CASES.add("pictures as brightness and two colors, as JPEG stores them, or in linear light")
def of_jpeg() -> Iterator[Look]:
    mean = torch.tensor([0.45, 0.42, 0.38])[:, None, None]
    std = torch.tensor([0.24, 0.23, 0.22])[:, None, None]

    def batch() -> Batch:
        x, y = photographs()
        return (x - mean) / std, y

    torch.manual_seed(0)
    model = fit(convnet(width=24), batch, 120).eval()
    raw = several(photographs)
    yield right("as in training", told(model, [((x - mean) / std, y) for x, y in raw]))
    offset = torch.tensor([0, 0.5, 0.5])[:, None, None]
    jpeg = [((torch.einsum("oc,nchw->nohw", YCC, x) + offset - mean) / std, y) for x, y in raw]
    yield fault("YCbCr", told(model, jpeg), Must(SHIFTED, "^1$"))
    linear = [((x**2.2 - mean) / std, y) for x, y in raw]
    yield fault("linear light", told(model, linear), Must(SHIFTED, "^1$"))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.first = True

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.norm(x).relu()) if self.first else x + self.norm(self.conv(x)).relu()


@CASES.add("weights of blocks that normalize first, in blocks that normalize last")
def first_or_last() -> Iterator[Look]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        *(Block(16) for _ in range(4)),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 4),
    )
    fit(model, images, 120).eval()
    data = several(images)
    yield right("first", told(model, data))
    for m in model.modules():
        if isinstance(m, Block):
            m.first = False
    must = Must("data-shifted", words=("stand after weights", "the first ones match"))
    yield fault("last", told(model, data), must)
