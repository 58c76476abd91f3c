"""Six healthy models for the rule benchmark: the demo, a CIFAR ResNet-20, and four that learn digits in a minute.

Each comes with batches it was not trained on, batches it was, and its preprocessing. What is trained here is kept in a
folder, so that the next run begins at once.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from bnprobe import models
from bnprobe.models import DEMO_PREPROCESS, demo_network
from bnprobe.models.image_folder import find_images
from scripts.cifar_resnet import resnet20
from scripts.train_demo import prepared, split

SEED = 0
N_HELD_OUT = 240
N_TRAINING = 512
BATCH_SIZE = 64
MEAN, STD = 0.3, 0.35
"""Of the digits, about: as the demo is normalized."""


@dataclass(frozen=True)
class Subject:
    """A healthy model in eval mode, and its data. Pixels are in 0 to 1, inputs are (pixels - mean) / std."""

    name: str
    new: Callable[[], nn.Module]
    model: nn.Module
    pixels: Tensor
    training: TensorDataset
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def build(self) -> nn.Module:
        """The trained model, a copy."""
        return deepcopy(self.model)

    @property
    def constants(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation, (F, 1, 1) each."""
        return tuple(torch.tensor(v).view(-1, 1, 1) for v in (self.mean, self.std))  # type: ignore[return-value]

    def loader(self) -> DataLoader:
        """Training batches, in one order."""
        return DataLoader(self.training, batch_size=BATCH_SIZE, drop_last=True)


def convolution(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)


class Plain(nn.Module):
    """Convolutions, batch norms and ReLUs in a row, on 16 x 16 pixels."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate([(1, 16), (16, 24), (24, 32), (32, 48)]):
            layers += [convolution(a, b), nn.BatchNorm2d(b), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if i < 3 else []
        self.features, self.head = nn.Sequential(*layers), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Block(nn.Module):
    """The branch ends in a batch norm and is added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(width, width), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = convolution(width, width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Residual(nn.Module):
    """A stem and three residual blocks, on 16 x 16 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = convolution(1, 24), nn.BatchNorm2d(24)
        self.blocks, self.head = nn.Sequential(Block(24), Block(24), Block(24)), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn(self.stem(x))), 2)
        return self.head(self.blocks(x).mean((2, 3)))


class Layer(nn.Module):
    """Attention and a perceptron, each behind a layer norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Sixteen patches of 4 x 4 pixels, embedded and normalized, two layers, and a last norm."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embed, self.embed_norm = nn.Linear(16, width), nn.LayerNorm(width)
        self.position = nn.Parameter(0.5 * torch.randn(16, width))
        self.layers, self.norm = nn.Sequential(Layer(width), Layer(width)), nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, 4, stride=4).transpose(1, 2)
        x = self.embed_norm(self.embed(patches)) + self.position
        return self.head(self.norm(self.layers(x)).mean(1))


class Grouped(nn.Module):
    """Convolutions, group norms and ReLUs, down to one position."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(1, 16), (16, 24), (24, 32), (32, 32), (32, 32)]
        self.convs = nn.ModuleList(convolution(a, b) for a, b in widths)
        self.norms = nn.ModuleList(nn.GroupNorm(4, b) for _, b in widths)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
            x = F.max_pool2d(x, 2) if x.shape[-1] > 1 else x
        return self.head(x.mean((2, 3)))


TRAINED: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "residual": Residual,
    "transformer": Transformer,
    "grouped": Grouped,
}


@cache
def digits() -> tuple[Tensor, Tensor, Tensor]:
    """Gray pixels (N, 1, 16, 16) in 0 to 1 of the training digits, their labels, and held-out pixels."""
    training, held_out = split()
    both = []
    for part in (training, held_out):
        pixels = torch.tensor(part.images, dtype=torch.float32)[:, None] / 255
        both.append(F.interpolate(pixels, 16, mode="bilinear"))
    return both[0], torch.tensor(training.labels).long(), both[1]


def train(new: Callable[[], nn.Module], epochs: int = 12) -> nn.Module:
    """A model that has learned the digits; the same every time on one machine."""
    pixels, labels, _ = digits()
    inputs = (pixels - MEAN) / STD
    torch.manual_seed(SEED)
    model = new().train()
    steps = epochs * (len(inputs) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(BATCH_SIZE)[: len(inputs) // BATCH_SIZE]:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def trained(name: str, folder: Path) -> nn.Module:
    """From the folder, or trained now and kept there."""
    path = folder / f"{name}.pt"
    if path.exists():
        model = TRAINED[name]()
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    model = train(TRAINED[name])
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model


def of_digits(name: str, folder: Path) -> Subject:
    """One of those that are trained here."""
    pixels, labels, held_out = digits()
    training = TensorDataset(((pixels - MEAN) / STD)[:N_TRAINING], labels[:N_TRAINING])
    return Subject(
        name, TRAINED[name], trained(name, folder), held_out[:N_HELD_OUT], training, (MEAN,), (STD,)
    )


def of_demo() -> Subject:
    """The network that comes with bnprobe."""
    training, held_out = split()
    inputs, labels = prepared(training)
    mean, std = DEMO_PREPROCESS.mean, DEMO_PREPROCESS.std
    back = (torch.tensor(v).view(-1, 1, 1) for v in (std, mean))
    scale, offset = back
    pixels = prepared(held_out)[0] * scale + offset
    dataset = TensorDataset(inputs[:N_TRAINING], labels[:N_TRAINING])
    return Subject("demo", demo_network, models.demo().model, pixels[:N_HELD_OUT], dataset, mean, std)


def of_cifar(data: Path) -> Subject:
    """The ResNet-20 on the JPEG images beside it, in a fixed random order; its training images come from their folder."""
    model = resnet20()
    model.load_state_dict(models.load_checkpoint(data / "cifar_resnet20.th"), strict=False)
    preprocess = models.CropAndScale(size=32, resize=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    shuffle = torch.Generator().manual_seed(SEED)
    parts = {}
    for part, n in (("test", N_HELD_OUT), ("train", N_TRAINING)):
        source = find_images(data / "cifar10_jpeg" / part)
        images = torch.cat([torch.stack(batch.images) for batch in source.batches(preprocess, 250)])
        parts[part] = images[torch.randperm(len(images), generator=shuffle)[:n]]
    mean, std = models.CropAndScale(size=32, resize=32).constants
    m, s = (torch.tensor(v).view(-1, 1, 1) for v in (mean, std))
    with torch.no_grad():
        inputs = (parts["train"] - m) / s
        dataset = TensorDataset(inputs, model.eval()(inputs).argmax(1))
    return Subject("resnet20", resnet20, model.eval(), parts["test"], dataset, mean, std)


def subjects(folder: Path, data: Path, names: set[str]) -> dict[str, Subject]:
    """Those of `names` that can be had; the ResNet-20 is left out where its files are absent."""
    found: dict[str, Subject] = {}
    for name in tqdm(sorted(names), desc="models", unit="model", disable=None):
        if name == "demo":
            found[name] = of_demo()
        elif name != "resnet20":
            found[name] = of_digits(name, folder)
        elif data.is_dir():
            found[name] = of_cifar(data)
        else:
            print(f"resnet20 is left out: no folder {data}. Give it with --data.")
    return found
