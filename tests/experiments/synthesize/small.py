"""A small network that really is trained: three classes of colored 8 x 8 images, in a few milliseconds."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHAPE, CLASSES = (3, 8, 8), 3
NORMALIZE = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


class Net(nn.Module):
    """Two convolutions, each with a batch norm; `width` makes another architecture of it."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, CLASSES)
        self.fails_in = [-1]  # a list, as attributes are put back

    def forward(self, x: Tensor) -> Tensor:
        self.fails_in[0] -= 1
        if self.fails_in[0] == 0:
            raise KeyboardInterrupt if self.fails_in[-1] == 1 else ZeroDivisionError("as asked")
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)))
        return self.head(x.mean((2, 3)))


def batch(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs and classes: each class is bright in one channel, in one half of the image."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % CLASSES
    pixels = 0.4 + 0.1 * torch.randn(n, *SHAPE, generator=g)
    for i, label in enumerate(y.tolist()):
        pixels[i, label, : 4 + label] += 0.3
    mean, std = (torch.tensor(v)[:, None, None] for v in NORMALIZE)
    return (pixels.clamp(0, 1) - mean) / std, y


@cache
def _trained(width: int, seed: int) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Net(width)
    for step in range(60):
        x, y = batch(24, 100 * seed + step)
        gradients = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
        with torch.no_grad():  # torch.optim takes seconds to import
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter -= 0.5 * gradient
    return net.eval()


def trained(width: int = 6, seed: int = 1) -> Net:
    """A copy of the trained network, which the test may change."""
    return deepcopy(_trained(width, seed))
