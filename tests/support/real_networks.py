"""Networks of other people, written down after their authors' code as far as their norms need it, with trained weights.

A face detector (Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB, its backbone), a keyword spotter (castorini/honk, res8)
and a segmenter (sacmehta/ESPNet). The files lie in the folder of real inputs.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from support.paths import DATA

FACES, WORDS, STREETS = "version-slim-320.pth", "honk_res8.pt", "espnet_p_2_q_3.pth"


def state_of(net: str) -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = torch.load(DATA / "nets" / net, map_location="cpu", weights_only=True)
    return loaded


def photographs(side: tuple[int, int]) -> Tensor:
    """The 32 photographs in RGB, 0 to 255, as (32, 3, height, width), squeezed to that size."""
    paths = sorted((DATA / "imagenet_samples").glob("*/*.JPEG"))
    assert len(paths) == 32
    height, width = side
    resized = [
        np.array(Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
        for path in paths
    ]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float()


# The face detector

_STRIDES = {0: 2, 2: 2, 4: 2, 8: 2, 11: 2}
"""Of the 3 x 3 convolution that a block begins with; 1 elsewhere."""


class FaceBackbone(nn.Module):
    """The 13 blocks that all norms are in: 320 x 240 RGB as (x - 127) / 128 in."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        blocks = []
        for block in range(13):
            weight = state[f"base_net.{block}.0.weight"]
            c, groups = weight.shape[0], 1 if block == 0 else weight.shape[0]
            parts: list[nn.Module] = [
                nn.Conv2d(
                    weight.shape[1] * groups, c, 3, _STRIDES.get(block, 1), 1, groups=groups, bias=False
                ),
                nn.BatchNorm2d(c),
                nn.ReLU(inplace=True),
            ]
            if block:
                out = state[f"base_net.{block}.3.weight"].shape[0]
                parts += [nn.Conv2d(c, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            blocks.append(nn.Sequential(*parts))
        self.base_net = nn.Sequential(*blocks)
        self.load_state_dict({key: value for key, value in state.items() if key.startswith("base_net.")})

    def forward(self, x: Tensor) -> Tensor:
        return self.base_net(x)


def faces_input() -> Tensor:
    return (photographs((240, 320)) - 127) / 128


def streets_input(side: tuple[int, int] = (128, 192)) -> Tensor:
    """As its authors prepare images: BGR, standardized, and then divided by 255."""
    mean = torch.tensor([72.3923111, 82.90893555, 73.15840149])[:, None, None]
    std = torch.tensor([45.3192215, 46.15289307, 44.91483307])[:, None, None]
    return (photographs(side).flip(1) - mean) / std / 255


# The keyword spotter


class KeywordSpotter(nn.Module):
    """101 x 40 MFCC in; every norm comes after a ReLU, and has no gamma and beta."""

    def __init__(self, n_maps: int = 45, n_labels: int = 12) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(1, n_maps, 3, padding=1, bias=False)
        for i in range(1, 7):
            setattr(self, f"conv{i}", nn.Conv2d(n_maps, n_maps, 3, padding=1, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(n_maps, affine=False))
        self.pool, self.output = nn.AvgPool2d((4, 3)), nn.Linear(n_maps, n_labels)

    def forward(self, x: Tensor) -> Tensor:
        x = old = self.pool(F.relu(self.conv0(x[:, None])))
        for i in range(1, 7):
            y = F.relu(getattr(self, f"conv{i}")(x))
            x = y
            if i % 2 == 0:
                x = old = y + old
            x = getattr(self, f"bn{i}")(x)
        return self.output(x.flatten(2).mean(2))


# The segmenter


class _Normalized(nn.Module):
    """Norm and PReLU."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.bn, self.act = nn.BatchNorm2d(c, eps=1e-3), nn.PReLU(c)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(x))


class _ConvNorm(_Normalized):
    """Convolution, norm and PReLU."""

    def __init__(self, c_in: int, c: int, kernel: int, stride: int = 1) -> None:
        super().__init__(c)
        self.conv = nn.Conv2d(c_in, c, kernel, stride, (kernel - 1) // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.conv(x))


class _Conv(nn.Module):
    """A convolution whose padding keeps the size, under the name `conv`."""

    def __init__(self, c_in: int, c: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = (kernel - 1) // 2 * dilation
        self.conv = nn.Conv2d(c_in, c, kernel, stride, padding, dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _Pyramid(nn.Module):
    """Five dilated convolutions of one reduction, whose sums are concatenated."""

    def __init__(self, c_in: int, c: int, stride: int) -> None:
        super().__init__()
        n = c // 5
        self.c1 = _Conv(c_in, n, 3, 2) if stride == 2 else _Conv(c_in, n, 1)
        for dilation in (1, 2, 4, 8, 16):
            setattr(self, f"d{dilation}", _Conv(n, c - 4 * n if dilation == 1 else n, 3, 1, dilation))

    def branches(self, x: Tensor) -> Tensor:
        reduced = self.c1(x)
        first, *more = (getattr(self, f"d{dilation}")(reduced) for dilation in (1, 2, 4, 8, 16))
        sums = [more[0]]
        for one in more[1:]:
            sums.append(sums[-1] + one)
        return torch.cat([first, *sums], 1)


class _Down(_Pyramid):
    def __init__(self, c_in: int, c: int) -> None:
        super().__init__(c_in, c, 2)
        self.bn, self.act = nn.BatchNorm2d(c, eps=1e-3), nn.PReLU(c)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.branches(x)))


class _Residual(_Pyramid):
    def __init__(self, c_in: int, c: int, add: bool = True) -> None:
        super().__init__(c_in, c, 1)
        self.bn, self.add = _Normalized(c), add

    def forward(self, x: Tensor) -> Tensor:
        y = self.branches(x)
        return self.bn(x + y if self.add else y)


class _Encoder(nn.Module):
    def __init__(self, n_classes: int, p: int, q: int) -> None:
        super().__init__()
        self.level1, self.b1 = _ConvNorm(3, 16, 3, 2), _Normalized(19)
        self.level2_0, self.b2 = _Down(19, 64), _Normalized(131)
        self.level2 = nn.ModuleList(_Residual(64, 64) for _ in range(p))
        self.level3_0, self.b3 = _Down(131, 128), _Normalized(256)
        self.level3 = nn.ModuleList(_Residual(128, 128) for _ in range(q))
        self.classifier = _Conv(256, n_classes, 1)


class Segmenter(nn.Module):
    """Standardized BGR, divided by 255 afterwards, of a size that 8 divides, in; 20 classes out."""

    def __init__(self, n_classes: int = 20) -> None:
        super().__init__()
        self.encoder = _Encoder(n_classes, 2, 3)
        self.level3_C, self.br = _Conv(131, n_classes, 1), nn.BatchNorm2d(n_classes, eps=1e-3)
        self.conv = _ConvNorm(n_classes + 16, n_classes, 3)
        up = lambda: nn.ConvTranspose2d(n_classes, n_classes, 2, 2, bias=False)  # noqa: E731
        self.up_l3 = nn.Sequential(up())
        self.combine_l2_l3 = nn.Sequential(
            _Normalized(2 * n_classes), _Residual(2 * n_classes, n_classes, add=False)
        )
        self.up_l2 = nn.Sequential(up(), _Normalized(n_classes))
        self.classifier = up()

    def forward(self, x: Tensor) -> Tensor:
        encoder = self.encoder
        half = F.avg_pool2d(x, 3, 2, 1)
        quarter = F.avg_pool2d(half, 3, 2, 1)
        level1 = encoder.level1(x)
        first = y = encoder.level2_0(encoder.b1(torch.cat([level1, half], 1)))
        for block in encoder.level2:
            y = block(y)
        level2 = encoder.b2(torch.cat([y, first, quarter], 1))
        first = y = encoder.level3_0(level2)
        for block in encoder.level3:
            y = block(y)
        level3 = encoder.classifier(encoder.b3(torch.cat([first, y], 1)))
        both = torch.cat([self.level3_C(level2), self.up_l3(self.br(level3))], 1)
        return self.classifier(self.conv(torch.cat([self.up_l2(self.combine_l2_l3(both)), level1], 1)))


def network(net: str) -> nn.Module:
    """The network with its trained weights, in eval mode."""
    state = state_of(net)
    if net == FACES:
        return FaceBackbone(state).eval()
    model = KeywordSpotter() if net == WORDS else Segmenter()
    # the keyword spotter's file has three numbers, scale1 to scale5, that its code does not use
    model.load_state_dict({key: value for key, value in state.items() if not key.startswith("scale")})
    return model.eval()
