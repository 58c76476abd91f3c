"""Inputs of photographs: exchanged colors beside a second mistake, samples that are not finite or blank."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from scripts.rule_benchmark.cases.case import Cases, Look, Must, fault, right
from scripts.rule_benchmark.cases.nets import N_CLASSES, Batch, convnet, fit, told

CASES = Cases("inputs of photographs")

CONSTANTS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in CONSTANTS)
COLOR = torch.tensor([0.52, 0.46, 0.37]).view(1, 3, 1, 1)
"""Mean color of photographs: more red than blue."""


def photographs(n: int = 32, side: int = 16) -> Batch:
    """Pixels of 0 to 1, light and dark in large patches by class, with little color; (n, 3, side, side) and labels."""
    y = torch.randint(0, N_CLASSES, (n,))
    centre = torch.randn(N_CLASSES, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    light = F.interpolate(torch.randn(n, 1, 4, 4) + 1.5 * centre[y], size=side, mode="bilinear")
    tint = F.interpolate(torch.randn(n, 3, 2, 2), size=side, mode="bilinear")
    pixels = COLOR + 0.17 * light + 0.06 * tint + 0.03 * torch.randn(n, 3, side, side)
    return pixels.clamp(0, 1), y


def normalized(pixels: Tensor) -> Tensor:
    return (pixels - MEAN) / STD


def batch() -> Batch:
    pixels, y = photographs()
    return normalized(pixels), y


@CASES.add("images of cv2.imread, and constants of another network", slow=True)
def two_mistakes() -> Iterator[Look]:
    torch.manual_seed(2)
    model = fit(convnet(depth=4), batch, 150).eval()
    data = [photographs()[0] for _ in range(6)]
    yield right("as in training", told(model, [normalized(x) for x in data], normalize=CONSTANTS))
    swapped = Must("input-not-as-trained", "1", ("red and blue are swapped", "BGR"))
    yield fault("BGR", told(model, [normalized(x.flip(1)) for x in data], normalize=CONSTANTS), swapped)
    for title, words, wrong in (
        ("BGR, without the std", "not divided by the std", [x.flip(1) - MEAN for x in data]),
        ("BGR, -1 to 1", "-1 to 1 instead", [2 * x.flip(1) - 1 for x in data]),
        ("BGR, 0 to 1", "without subtracting the mean", [x.flip(1) for x in data]),
    ):
        both = Must("input-not-as-trained", "1", (*swapped.words, words))
        yield fault(title, told(model, wrong, normalize=CONSTANTS), both)


@CASES.add("one pixel of one batch is NaN")
def one_batch() -> Iterator[Look]:
    torch.manual_seed(7)
    model = fit(convnet(depth=4), batch, 100).eval()
    data = [batch()[0] for _ in range(10)]
    yield right("clean", told(model, data))
    data[6][3, 0, 2, 2] = float("nan")
    begins = Must("values-not-finite", "^1$", ("first in call 7 of 10", "3 following norms"))
    yield fault("in the seventh", told(model, data), begins)


@CASES.add("files that cannot be read become black images", slow=True)
def unread_files() -> Iterator[Look]:
    torch.manual_seed(14)
    model = fit(convnet(depth=4), batch, 100).eval()
    data = [batch()[0] for _ in range(6)]
    yield right("all were read", told(model, data))
    for title, value in (("zeros", torch.zeros(1, 3, 1, 1)), ("black", -MEAN / STD)):
        spoilt = [x.clone() for x in data]
        for x in spoilt:
            x[torch.randperm(len(x))[:10]] = value[0]
        yield fault(
            title, told(model, spoilt), Must("samples-alike", "^1$", ("31%", "one and the same", "std of 0"))
        )
