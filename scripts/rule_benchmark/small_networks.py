"""Small networks of kinds that the libraries of images lack: U-Nets, GANs, diffusion, sound, tables, and recipes with zeros.

Each is built with the initial values of its recipe, and comes with the shape of one sample.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.rule_benchmark.small_transformers import DiffusionTransformer

Norm = Callable[[int], nn.Module]


def four_groups(width: int) -> nn.Module:
    return nn.GroupNorm(4, width)


def twice(a: int, b: int, norm: Norm) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (a, b):
        layers += [nn.Conv2d(width, b, 3, padding=1, bias=False), norm(b), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Two steps down, two up, and skips that are concatenated."""

    def __init__(self, norm: Norm = nn.BatchNorm2d, width: int = 8) -> None:
        super().__init__()
        w = width
        self.down = nn.ModuleList([twice(3, w, norm), twice(w, 2 * w, norm), twice(2 * w, 4 * w, norm)])
        self.grow = nn.ModuleList(
            [nn.ConvTranspose2d(4 * w, 2 * w, 2, 2), nn.ConvTranspose2d(2 * w, w, 2, 2)]
        )
        self.up = nn.ModuleList([twice(4 * w, 2 * w, norm), twice(2 * w, w, norm)])
        self.out = nn.Conv2d(w, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for part in self.down:
            x = part(F.max_pool2d(kept[-1], 2) if kept else x)
            kept.append(x)
        for grow, part, skip in zip(self.grow, self.up, kept[-2::-1], strict=True):
            x = part(torch.cat([grow(x), skip], 1))
        return self.out(x)


def zeroed(module: nn.Module) -> nn.Module:
    """All parameters at 0, as at the end of a branch that is to begin without effect."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class DiffusionBlock(nn.Module):
    """Two convolutions behind group norms; the second one starts at 0. Ho et al. 2020, arXiv:2006.11239."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = four_groups(width), nn.Conv2d(width, width, 3, padding=1)
        self.time = nn.Linear(width, width)
        self.norm2, self.conv2 = four_groups(width), zeroed(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.time(time)[:, :, None, None]
        return x + self.conv2(F.silu(self.norm2(y)))


class Diffusion(nn.Module):
    """Denoises, given a time step per sample; its last convolution starts at 0."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(DiffusionBlock(width) for _ in range(4))
        self.norm, self.out = four_groups(width), zeroed(nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        time = torch.sin(torch.arange(len(x))[:, None] * torch.arange(1, x.shape[1] + 1))
        for block in self.blocks:
            x = block(x, time)
        return self.out(F.silu(self.norm(x)))


class AdaptiveBlock(nn.Module):
    """A perceptron whose norm takes scale, offset and gate from a condition, all 0 at first. arXiv:2212.09748."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = zeroed(nn.Linear(width, 3 * width))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        scale, offset, gate = self.modulation(F.silu(x.mean(1, keepdim=True))).chunk(3, -1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + offset)


class Scaled(nn.Module):
    """Perceptrons behind layer norms, each times a scale that starts at `start`: LayerScale, or ReZero at 0."""

    def __init__(self, start: float, width: int = 32, shape: tuple[int, ...] = (32,)) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(4)
        )
        self.scales = nn.ParameterList(nn.Parameter(torch.full(shape, start)) for _ in range(4))
        self.out = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        for scale, branch in zip(self.scales, self.branches, strict=True):
            x = x + scale * branch(x)
        return self.out(x)


class PreNorm(nn.Module):
    """Perceptrons behind RMS norms on a small residual stream, as language models begin."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(width, width)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.RMSNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(6)
        )
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, 99)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for branch in self.branches:
            x = x + branch(x)
        return self.head(self.norm(x))


class EncoderDecoder(nn.Module):
    """torch's own transformer."""

    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.transformer = nn.Transformer(32, 4, 2, 2, 64, batch_first=True, norm_first=norm_first)

    def forward(self, x: Tensor) -> Tensor:
        return self.transformer(x, x.flip(1))


class Recurrent(nn.Module):
    """An LSTM between layer norms."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.lstm = nn.LayerNorm(32), nn.LSTM(32, 32, 2, batch_first=True)
        self.after, self.out = nn.LayerNorm(32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.after(self.lstm(self.before(x))[0]))


class Separator(nn.Module):
    """Dilated convolutions and norms over time and channels, for sound. Luo & Mesgarani 2019, arXiv:1809.07454."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.encoder, self.norm = nn.Conv1d(1, width, 16, 8, bias=False), nn.GroupNorm(1, width)
        self.blocks = nn.ModuleList(self._block(width, 2**i) for i in range(4))
        self.masks, self.decoder = nn.Conv1d(width, width, 1), nn.ConvTranspose1d(width, 1, 16, 8, bias=False)

    @staticmethod
    def _block(width: int, dilation: int) -> nn.Sequential:
        return nn.Sequential(
            *(nn.Conv1d(width, 2 * width, 1), nn.PReLU(), nn.GroupNorm(1, 2 * width)),
            nn.Conv1d(2 * width, 2 * width, 3, padding=dilation, dilation=dilation, groups=2 * width),
            *(nn.PReLU(), nn.GroupNorm(1, 2 * width), nn.Conv1d(2 * width, width, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        waves = self.encoder(x)
        y = self.norm(waves)
        for block in self.blocks:
            y = y + block(y)
        return self.decoder(waves * self.masks(y).sigmoid())


class Translator(nn.Module):
    """Residual blocks of instance norms without γ and β, from image to image. Zhu et al. 2017, arXiv:1703.10593."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 7, padding=3), nn.InstanceNorm2d(width), nn.ReLU())
        self.blocks = nn.ModuleList(
            twice(width, width, nn.InstanceNorm2d)[:-1]  # no activation before the sum
            for _ in range(3)
        )
        self.out = nn.Sequential(nn.Conv2d(width, 3, 7, padding=3), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


def drawn(model: nn.Module) -> nn.Module:
    """Weights from N(0, 0.02), γ from N(1, 0.02). Radford, Metz & Chintala 2016, arXiv:1511.06434."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, 0.02)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02)
    return model


def generator() -> nn.Module:
    """From 32 numbers to 16 x 16 pixels."""
    layers: list[nn.Module] = []
    for a, b, step in ((32, 64, 1), (64, 32, 2)):
        layers += [nn.ConvTranspose2d(a, b, 4, step, step - 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    return drawn(nn.Sequential(*layers, nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Tanh()))


def discriminator(norm: Norm = nn.BatchNorm2d) -> nn.Module:
    """From 32 x 32 pixels to one number; no norm after the first convolution."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2)]
    for a, b in ((16, 32), (32, 64)):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), norm(b), nn.LeakyReLU(0.2)]
    return drawn(nn.Sequential(*layers, nn.Conv2d(64, 1, 4)))


def perceptron(norm: Norm) -> nn.Module:
    layers: list[nn.Module] = []
    for a in (20, 64, 64):
        layers += [nn.Linear(a, 64), norm(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 3))


def waveform() -> nn.Module:
    """Convolutions in time, as for keywords."""
    layers: list[nn.Module] = []
    for a, b, size in ((1, 16, 80), (16, 16, 3), (16, 32, 3)):
        layers += [nn.Conv1d(a, b, size, 4 if a == 1 else 1), nn.BatchNorm1d(b), nn.ReLU(), nn.MaxPool1d(4)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 10))


def resnet_with_zeros() -> nn.Module:
    """The last γ of each branch starts at 0. Goyal et al. 2017, arXiv:1706.02677."""
    from torchvision.models import resnet18

    return resnet18(zero_init_residual=True, num_classes=10)


IMAGE, SEQUENCE, SOUND, ROW = (3, 32, 32), (12, 32), (1, 2000), (20,)

SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "unet, batch norm": (UNet, IMAGE),
    "unet, group norm": (partial(UNet, four_groups), IMAGE),
    "unet, instance norm": (partial(UNet, partial(nn.InstanceNorm2d, affine=True)), IMAGE),
    "diffusion": (Diffusion, IMAGE),
    "adaptive layer norm": (lambda: nn.Sequential(*map(AdaptiveBlock, [32] * 4), nn.LayerNorm(32)), SEQUENCE),
    "diffusion transformer": (DiffusionTransformer, SEQUENCE),
    "layer scale": (partial(Scaled, 1e-5), SEQUENCE),
    "rezero": (partial(Scaled, 0.0, shape=(1,)), SEQUENCE),
    "rms norm, pre-norm": (PreNorm, SEQUENCE),
    "nn.Transformer, post-norm": (partial(EncoderDecoder, False), SEQUENCE),
    "nn.Transformer, pre-norm": (partial(EncoderDecoder, True), SEQUENCE),
    "lstm, layer norm": (Recurrent, SEQUENCE),
    "separator of sound": (Separator, SOUND),
    "waveform, batch norm": (waveform, SOUND),
    "image to image": (Translator, IMAGE),
    "generator": (generator, (32, 1, 1)),
    "discriminator": (discriminator, IMAGE),
    "discriminator, instance norm": (partial(discriminator, partial(nn.InstanceNorm2d, affine=True)), IMAGE),
    "perceptron, batch norm": (partial(perceptron, nn.BatchNorm1d), ROW),
    "perceptron, layer norm": (partial(perceptron, nn.LayerNorm), ROW),
    "resnet18, zeros": (resnet_with_zeros, (3, 64, 64)),
}
"""By name: how it is built, and the shape of a sample."""
