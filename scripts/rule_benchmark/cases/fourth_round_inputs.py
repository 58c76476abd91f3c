"""A fourth round, at the input: sound, volumes, text, tables and pictures that are not prepared as in training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.rule_benchmark.cases.case import ANY, SHIFTED, Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import Batch, convnet, fit, several, told
from scripts.rule_benchmark.cases.third_round_live import normalized_scenes, of_bands

CASES = Cases("fourth round, inputs")

NOT_GROUPS = "^(?!.*one group of such samples)"
"""No such cause, in what is said of inputs that were changed."""

OFF = Must(SHIFTED, words=(NOT_GROUPS,))


def tones(n: int = 32, steps: int = 400) -> Batch:
    """Tones of four pitches with their overtones, and noise, (n, 1, steps)."""
    y = torch.randint(0, 4, (n,))
    pitch = (0.025 + 0.058 * y) * (1 + 0.02 * torch.randn(n))
    time, x = torch.arange(float(steps)), torch.zeros(n, steps)
    for k in (1, 2, 3):
        x += torch.sin(2 * math.pi * (k * pitch[:, None] * time + torch.rand(n, 1))) / k
    return (x + 0.05 * torch.randn(n, steps))[:, None], y


def listener() -> nn.Sequential:
    """Three layers over time, each with its norm."""
    layers: list[nn.Module] = []
    for n_in, kernel in ((1, 31), (16, 5), (16, 5)):
        layers += [nn.Conv1d(n_in, 16, kernel, 2, kernel // 2, bias=False), nn.BatchNorm1d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 4))


def heard(
    change: Callable[[Tensor], Tensor], must: Must, batch: Callable[[], Batch] = tones
) -> Iterator[Look]:
    """A network for sound, on recordings as in training and on changed ones."""
    torch.manual_seed(0)
    model = fit(listener(), batch, 80).eval()
    data = several(batch)
    yield right("as in training", told(model, data))
    yield fault("changed", told(model, [(change(x), y) for x, y in data]), must)


@CASES.add("recordings at another sampling rate")
def other_rate() -> Iterator[Look]:
    yield from heard(lambda x: x[..., ::4], OFF)


@CASES.add("both channels of a stereo recording are added, and not halved")
def stereo() -> Iterator[Look]:
    yield from heard(
        lambda x: 2 * x, Must(SHIFTED, "^1$", ("multiplied by 2|typical variance 4", NOT_GROUPS))
    )


@CASES.add("high frequencies are not raised as in training")
def pre_emphasis() -> Iterator[Look]:
    def emphasized() -> Batch:
        x, y = tones()
        return x - 0.97 * F.pad(x, (1, 0))[..., :-1], y

    def lowered(x: Tensor) -> Tensor:
        """The filter undone, as if it had not been applied."""
        out = x.clone()
        for t in range(1, x.shape[-1]):
            out[..., t] += 0.97 * out[..., t - 1]
        return out

    must = Must(SHIFTED, "^1$", ("prepared as in training: .*filters",), ANY)
    yield from heard(lowered, must, emphasized)


@CASES.add("recordings are padded with silence to four times their length")
def silence() -> Iterator[Look]:
    yield from heard(lambda x: F.pad(x, (0, 3 * x.shape[-1])), OFF)


MEAN, STD = 0.45, 0.25


def pictures(n: int = 32) -> Batch:
    """Pixels from 0 to 1 in blocks, (n, 3, 16, 16), of four brightnesses in the middle."""
    y = torch.randint(0, 4, (n,))
    x = F.interpolate(torch.rand(n, 3, 4, 4), size=16, mode="bilinear") * 0.6 + 0.05
    x[:, :, 4:12, 4:12] += 0.08 * y[:, None, None, None]
    return (x + 0.03 * torch.randn_like(x)).clamp(0, 1), y


def seen(change: Callable[[Tensor], Tensor], must: Must) -> Iterator[Look]:
    """A network for pictures, on pixels as in training and on changed ones."""

    def batch() -> Batch:
        x, y = pictures()
        return (x - MEAN) / STD, y

    torch.manual_seed(0)
    model = fit(convnet(depth=3), batch, 100).eval()
    data = several(pictures)
    yield right("as in training", told(model, [((x - MEAN) / STD, y) for x, y in data]))
    yield fault("changed", told(model, [((change(x) - MEAN) / STD, y) for x, y in data]), must)


@CASES.add("brightness is added to whole numbers of eight bits, which wrap around")
def wraps() -> Iterator[Look]:
    yield from seen(lambda x: ((255 * x).byte() + 120).float() / 255, OFF)


@CASES.add("a buffer of rows, columns and colors is viewed as colors, rows and columns")
def viewed() -> Iterator[Look]:
    yield from seen(
        lambda x: x.permute(0, 2, 3, 1).reshape(x.shape), Must(f"{SHIFTED}|input-size", words=(NOT_GROUPS,))
    )


@CASES.add("a band is zeroed after it was normalized")
def zeroed() -> Iterator[Look]:
    model, data = of_bands(), several(normalized_scenes)
    yield right("as in training", told(model, data))
    without = [(x * (torch.arange(8) != 7).view(8, 1, 1), y) for x, y in data]
    yield fault(
        "zeroed",
        told(model, without),
        Must("input-not-as-trained", "^1$", (r"channel 7 \(0\) holds one value",)),
    )


def volumes(n: int = 16, clipped: bool = True) -> Batch:
    """Densities of tissue in (n, 1, 8, 8, 8) with air around it and bone in it, in thousands of their unit."""
    y = torch.randint(0, 4, (n,))
    x = 0.04 * torch.randn(n, 1, 8, 8, 8) + 0.05 * y.view(n, 1, 1, 1, 1)
    x[:, :, :2], x[:, :, 4:6, 4:6, 4:6] = -1.0, 1.2
    return (x.clamp(-0.16, 0.24) if clipped else x) * 5, y


@CASES.add("densities of a scan are not clipped to the range of the tissue")
def window() -> Iterator[Look]:
    torch.manual_seed(0)
    layers = [nn.Conv3d(1, 8, 3, padding=1, bias=False), nn.BatchNorm3d(8), nn.ReLU()]
    layers += [nn.Conv3d(8, 8, 3, padding=1, bias=False), nn.BatchNorm3d(8), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 4))
    fit(model, volumes, 100).eval()
    yield right("clipped", told(model, several(volumes)))
    yield fault("as they are", told(model, several(partial(volumes, clipped=False))), OFF)


CENTRES = torch.tensor([0.5, -1.0, 2.0, 0.1, -0.4, 1.4, -2.2, 3.0])


@CASES.add("columns of a table come in another order")
def columns() -> Iterator[Look]:
    def batch() -> Batch:
        x = CENTRES + torch.randn(64, 8)
        return x, (x[:, 0] > 0.5).long() + 2 * (x[:, 3] > 0.1).long()

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 24, bias=False), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 24, bias=False),
        nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 4),
    )  # fmt: skip
    fit(model, batch, 200).eval()
    data = several(batch)
    yield right("as in training", told(model, data))
    must = Must("input-not-as-trained", "^1$", ("7, 0, 1, 2, 3, 4, 5, 6",))
    yield fault("the last is the first", told(model, [(x.roll(1, 1), y) for x, y in data]), must)


class Words(nn.Module):
    """Words, a layer over three of them, and the largest over the sentence; word 0 is padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.conv = nn.Embedding(50, 16), nn.Conv1d(16, 24, 3, padding=1, bias=False)
        self.norm, self.out = nn.BatchNorm1d(24), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm(self.conv(self.words(x).transpose(1, 2))))
        found: Tensor = self.out(h.amax(2))
        return found


@CASES.add("sentences are padded to the longest of another collection")
def sentences() -> Iterator[Look]:
    def batch(length: int = 20) -> Batch:
        y = torch.randint(0, 4, (32,))
        x = torch.randint(1, 50, (32, 20))
        x[:, :4] = 1 + 4 * torch.randint(0, 10, (32, 4)) + y[:, None]
        x[torch.arange(20) >= torch.randint(12, 21, (32, 1))] = 0
        return F.pad(x, (0, length - 20)), y

    torch.manual_seed(0)
    model = fit(Words(), batch, 150).eval()
    yield right("as in training", told(model, several(batch)))
    yield fault(
        "four times as long",
        told(model, several(partial(batch, 80))),
        Must("data-shifted", "norm", (NOT_GROUPS,)),
    )
