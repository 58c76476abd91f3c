"""The CIFAR ResNet of He et al. 2015 (arXiv:1512.03385), section 4.2: 6n + 2 layers, no shortcut parameters.

bnprobe report scripts.cifar_resnet:resnet20 --checkpoint FILE --data DIR --size 32
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def convolution(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False)


class Shortcut(nn.Module):
    """Option A: every `stride`-th position, and the new channels zero, half of them on each side."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.zeros = (channels_out - channels_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.zeros, self.zeros))


class Block(nn.Module):
    """Two convolutions with their norms; the input is added before the last ReLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(channels_in, channels_out, stride)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = convolution(channels_out, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = nn.Identity() if same else Shortcut(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def stage(channels_in: int, channels_out: int, stride: int, n: int) -> nn.Sequential:
    """`n` blocks; the first one changes size and width."""
    first = Block(channels_in, channels_out, stride)
    return nn.Sequential(first, *(Block(channels_out, channels_out, 1) for _ in range(n - 1)))


class CifarResNet(nn.Module):
    """A stem of 16 channels, three stages of `n` blocks (16, 32, 64 channels), the mean, one linear layer."""

    def __init__(self, n: int, n_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = convolution(3, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = stage(16, 16, 1, n)
        self.layer2 = stage(16, 32, 2, n)
        self.layer3 = stage(32, 64, 2, n)
        self.linear = nn.Linear(64, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


def resnet20() -> nn.Module:
    """20 layers: n = 3."""
    return CifarResNet(n=3)
