"""Every family of torchvision, random weights, smallest inputs: what follows each norm, and what feeds it.

The expected answers are read off the papers and torchvision's module definitions, not off the probe.
Each run also holds the outputs of the watched pass against those of the bare model, bit for bit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

import bnprobe
from bnprobe.graph.graph import tensors
from bnprobe.recording.neighbours import Neighbours

Expected = dict[str, str]
"""What follows, by a regular expression for the whole path; every norm must match one, the first that does counts."""


@dataclass(frozen=True)
class Family:
    """A model, its input, and the truth. `producers` gives (producer, source, sources, activation) of some norms."""

    build: Callable[..., nn.Module]
    follows: Expected
    producers: dict[str, tuple[str, str, tuple[str, ...], str]] = field(default_factory=dict)
    skips: dict[str, tuple[str, str]] = field(default_factory=dict)
    shape: tuple[int, ...] = (1, 3, 64, 64)
    pair: bool = False
    detection: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def model(self) -> nn.Module:
        torch.manual_seed(11)
        return self.build(weights=None, **self.options).eval()

    def inputs(self) -> tuple[Any, ...]:
        x = torch.rand(self.shape, generator=torch.Generator().manual_seed(5))
        if self.detection:
            return (list(x),)
        return (x, x.flip(3)) if self.pair else (x,)


RESNET = {r".*(downsample|bn3|layer\d\.\d\.bn2).*": "add, relu", ".*": "relu"}
BOTTLENECK = {r".*(downsample\.1|bn3)": "add, relu", ".*": "relu"}
INVERTED = "conv|add|conv \\| add"
NO_BACKBONE = {"weights_backbone": None}

FAMILIES: dict[str, Family] = {
    "resnet18": Family(
        models.resnet18,
        RESNET,
        {
            "bn1": ("conv1", "input", ("input",), "none"),
            "layer1.0.bn1": ("layer1.0.conv1", "norm", ("bn1",), "relu"),
            "layer1.0.bn2": ("layer1.0.conv2", "norm", ("layer1.0.bn1",), "relu"),
            "layer1.1.bn1": ("layer1.1.conv1", "sum", ("layer1.0.bn2", "bn1"), "relu"),
            "layer2.0.downsample.1": (
                "layer2.0.downsample.0",
                "sum",
                ("layer1.1.bn2", "sum at layer1.0.bn2"),
                "relu",
            ),
        },
        {
            "layer1.0.bn2": ("bn1", "relu, max_pool"),
            "layer1.1.bn2": ("sum at layer1.0.bn2", "relu"),
            "layer2.0.bn2": ("layer2.0.downsample.1", "none"),
            "layer2.0.downsample.1": ("layer2.0.bn2", "none"),
            "layer2.1.bn2": ("sum at layer2.0.bn2", "relu"),
        },
    ),
    "resnext50": Family(
        models.resnext50_32x4d,
        BOTTLENECK,
        {"layer2.1.bn2": ("layer2.1.conv2", "norm", ("layer2.1.bn1",), "relu")},
        {"layer3.0.bn3": ("layer3.0.downsample.1", "none")},
    ),
    "mobilenet_v2": Family(
        models.mobilenet_v2,
        {r"features\.(17\.conv\.3|1\.conv\.2)": "conv", r"features\.\d+\.conv\.3": INVERTED, ".*": "relu6"},
        {
            "features.2.conv.1.1": ("features.2.conv.1.0", "norm", ("features.2.conv.0.1",), "relu6"),
            "features.2.conv.0.1": ("features.2.conv.0.0", "norm", ("features.1.conv.2",), "none"),
            "features.4.conv.0.1": (
                "features.4.conv.0.0",
                "sum",
                ("features.2.conv.3", "features.3.conv.3"),
                "none",
            ),
        },
        {"features.3.conv.3": ("features.2.conv.3", "none")},
    ),
    "mobilenet_v3": Family(
        models.mobilenet_v3_small,
        {
            r"features\.1\.block\.2\.1": "conv",
            r"features\.[23]\.block\.2\.1": INVERTED,
            r"features\.(\d+)\.block\.3\.1": INVERTED,
            r"features\.[123]\.block\..*": "relu",
            ".*": "hardswish",
        },
        {
            # depthwise, then squeeze and excitation: the gate is a product, so nothing is claimed behind it
            "features.5.block.1.1": ("features.5.block.1.0", "norm", ("features.5.block.0.1",), "hardswish"),
            "features.5.block.3.1": ("features.5.block.3.0", "unknown", (), "none"),
        },
    ),
    "efficientnet": Family(
        models.efficientnet_b0,
        {r"features\.\d\.\d\.block\.3\.1|features\.1\.0\.block\.2\.1": INVERTED, ".*": "silu"},
        {
            "features.2.1.block.0.1": (
                "features.2.1.block.0.0",
                "norm",
                ("features.2.0.block.3.1",),
                "none",
            )
        },
        {"features.2.1.block.3.1": ("features.2.0.block.3.1", "none")},
    ),
    "convnext": Family(
        models.convnext_tiny,
        {
            r"features\.0\.1": "conv \\| add",
            r"features\.[246]\.0": "conv",
            ".*": "linear",
        },
        {
            "features.0.1": ("features.0.0", "input", ("input",), "none"),
            "features.1.0.block.2": ("features.1.0.block.0", "norm", ("features.0.1",), "none"),
        },
        {"features.0.1": ("features.1.0.block.5", "mul")},
    ),
    "swin": Family(
        models.swin_t,
        {r"features\.0\.2": "norm \\| add", "norm": "avg_pool", ".*": "linear"},
        {"features.0.2": ("features.0.0", "input", ("input",), "none")},
    ),
    "swin_v2": Family(
        models.swin_v2_t,
        {r"features\.(0\.2|[246]\.norm)": "add \\| linear", "norm": "avg_pool", ".*": "add"},
        {"features.1.0.norm2": ("features.1.0.mlp.3", "unknown", (), "none")},
    ),
    "vit": Family(models.vit_b_32, {".*": "linear"}, shape=(1, 3, 224, 224)),
    "maxvit": Family(
        models.maxvit_t,
        {
            r".*pre_norm": "conv",
            r".*conv_[ab]\.1|stem\.0\.1": "gelu",
            ".*": "linear",
        },
        {
            "blocks.0.layers.0.layers.MBconv.layers.conv_b.1": (
                "blocks.0.layers.0.layers.MBconv.layers.conv_b.0",
                "norm",
                ("blocks.0.layers.0.layers.MBconv.layers.conv_a.1",),
                "gelu",
            )
        },
        shape=(1, 3, 224, 224),
    ),
    "googlenet": Family(
        models.googlenet,
        {".*": "relu"},
        {
            "conv3.bn": ("conv3.conv", "norm", ("conv2.bn",), "relu"),
            "inception3b.branch1.bn": (
                "inception3b.branch1.conv",
                "concat",
                tuple(f"inception3a.branch{i}.bn" for i in ("1", "2.1", "3.1", "4.1")),
                "relu",
            ),
        },
        options={"init_weights": False},
    ),
    "inception": Family(
        models.inception_v3,
        {".*": "relu"},
        {"Conv2d_2a_3x3.bn": ("Conv2d_2a_3x3.conv", "norm", ("Conv2d_1a_3x3.bn",), "relu")},
        shape=(1, 3, 96, 96),
        options={"init_weights": False},
    ),
    "regnet": Family(
        models.regnet_y_400mf,
        {r".*(proj\.1|f\.c\.1)": "add, relu", ".*": "relu"},
        {
            "trunk_output.block1.block1-0.f.b.1": (
                "trunk_output.block1.block1-0.f.b.0",
                "norm",
                ("trunk_output.block1.block1-0.f.a.1",),
                "relu",
            )
        },
        {"trunk_output.block1.block1-0.f.c.1": ("trunk_output.block1.block1-0.proj.1", "none")},
    ),
    "shufflenet": Family(
        models.shufflenet_v2_x0_5,
        {r".*branch1\.1|.*branch2\.4": "conv", ".*": "relu"},
        {
            "stage2.0.branch1.3": ("stage2.0.branch1.2", "norm", ("stage2.0.branch1.1",), "none"),
            # half of the shuffled channels: whose they are is not followed
            "stage2.1.branch2.1": ("stage2.1.branch2.0", "unknown", (), "none"),
        },
    ),
    "densenet": Family(
        models.densenet121,
        {".*": "relu"},
        {
            "features.denseblock1.denselayer3.norm2": (
                "features.denseblock1.denselayer3.conv1",
                "norm",
                ("features.denseblock1.denselayer3.norm1",),
                "relu",
            ),
            # a norm over a concatenation has no one layer before it
            "features.denseblock1.denselayer3.norm1": ("", "unknown", (), "none"),
        },
    ),
    "mnasnet": Family(models.mnasnet0_5, {r"layers\.(7|\d+\.\d\.layers\.7)": INVERTED, ".*": "relu"}),
    "vgg": Family(
        models.vgg11_bn,
        {".*": "relu"},
        # a maximum over positions stands between
        {"features.5": ("features.4", "norm", ("features.1",), "relu")},
    ),
    "fcn": Family(
        models.segmentation.fcn_resnet50,
        BOTTLENECK,
        {"classifier.1": ("classifier.0", "sum", ("backbone.layer4.2.bn3", "sum at backbone.layer4.1.bn3"), "relu")},
        options=NO_BACKBONE,
    ),
    "deeplab": Family(
        models.segmentation.deeplabv3_resnet50,
        BOTTLENECK,
        options=NO_BACKBONE,
    ),
    "faster r-cnn": Family(
        models.detection.fasterrcnn_resnet50_fpn,
        BOTTLENECK,
        {
            # the image was normalized, resized and put into a batch before
            "backbone.body.bn1": ("backbone.body.conv1", "unknown", (), "none"),
            "backbone.body.layer1.0.bn2": (
                "backbone.body.layer1.0.conv2",
                "norm",
                ("backbone.body.layer1.0.bn1",),
                "relu",
            ),
        },
        shape=(1, 3, 96, 96),
        detection=True,
        options={**NO_BACKBONE, "min_size": 96},
    ),
    "retinanet": Family(
        models.detection.retinanet_resnet50_fpn_v2,
        BOTTLENECK,
        shape=(1, 3, 96, 96),
        detection=True,
        options={**NO_BACKBONE, "min_size": 96},
    ),
    "fcos": Family(
        models.detection.fcos_resnet50_fpn,
        BOTTLENECK,
        shape=(1, 3, 96, 96),
        detection=True,
        options={**NO_BACKBONE, "min_size": 96},
    ),
    "ssdlite": Family(
        models.detection.ssdlite320_mobilenet_v3_large,
        {
            r".*features\.0\.(1\.block\.1|([237-9]|10)\.block\.2|\d+\.block\.3)\.1": INVERTED,
            r".*features\.1\.(0|\d\.block)\.3\.1": INVERTED,
            r"backbone\.features\.0\.[1-6]\..*": "relu",
            r"backbone\.features.*": "hardswish",
            ".*": "relu6",
        },
        shape=(1, 3, 96, 96),
        detection=True,
        options=NO_BACKBONE,
    ),
    "r2plus1d": Family(
        models.video.r2plus1d_18,
        {r"layer\d\.\d\.(conv2\.1|downsample\.1)": "add, relu", ".*": "relu"},
        {"stem.4": ("stem.3", "norm", ("stem.1",), "relu")},
        {"layer1.0.conv2.1": ("stem.4", "relu")},
        shape=(1, 3, 4, 32, 32),
    ),
    "s3d": Family(
        models.video.s3d,
        {".*": "relu"},
        {"features.0.1.1": ("features.0.1.0", "norm", ("features.0.0.1",), "relu")},
        shape=(1, 3, 16, 224, 224),
    ),
    "mvit": Family(
        models.video.mvit_v2_s,
        {r".*pool_q.*": "scale \\| add \\| matmul", r".*pool_[kv].*": "matmul", ".*": "linear"},
        shape=(1, 3, 16, 224, 224),
    ),
    "swin3d": Family(
        models.video.swin3d_t,
        {r"patch_embed\.norm": "norm \\| add", "norm": "avg_pool", ".*": "linear"},
        shape=(1, 3, 4, 64, 64),
    ),
    "raft": Family(
        models.optical_flow.raft_large,
        {r".*downsample\.1": "add, relu", ".*": "relu"},
        {
            "context_encoder.convnormrelu.1": ("context_encoder.convnormrelu.0", "input", ("input",), "none"),
            "feature_encoder.convnormrelu.1": ("feature_encoder.convnormrelu.0", "input", ("input",), "none"),
        },
        shape=(1, 3, 128, 128),
        pair=True,
    ),
}  # fmt: skip

SLOW = {"mvit", "s3d", "maxvit", "fcos", "retinanet", "ssdlite"}
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in FAMILIES]


@pytest.mark.parametrize("name", NAMES)
def test_a_family(name: str):
    """Fails if a norm of the family is followed or fed by anything else, or the watched pass moves one bit."""
    family = FAMILIES[name]
    model, inputs = family.model(), family.inputs()
    with torch.no_grad():
        bare = list(tensors(model(*inputs)))
        with bnprobe.attach(model, histograms=False) as probe:
            watched = list(tensors(model(*inputs)))
    assert len(bare) == len(watched)
    assert all(torch.equal(one, other) for one, other in zip(bare, watched, strict=True))
    found = {record.site: record.neighbours for record in probe.recording.layers}
    assert_follows(found, family.follows)
    for site, expected in family.producers.items():
        neighbours = found[site]
        assert (
            neighbours.producer,
            neighbours.source,
            neighbours.sources,
            neighbours.activation,
        ) == expected, site
    for site, expected_skip in family.skips.items():
        assert (found[site].skip, found[site].skip_activation) == expected_skip, site


def assert_follows(found: dict[str, Neighbours], expected: Expected) -> None:
    """Every norm by the first pattern that fits its path, and every pattern is of use."""
    wrong, used = [], Counter[str]()
    for site, neighbours in found.items():
        pattern = next(p for p in expected if re.fullmatch(p, site.partition(" (")[0]))
        used[pattern] += 1
        if not re.fullmatch(expected[pattern], neighbours.follows):
            wrong.append((site, neighbours.follows, expected[pattern]))
    assert not wrong
    assert set(used) == set(expected)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3", "densenet", "swin", "vit", "shufflenet"])
def test_training_is_untouched(name: str):
    """Fails if the first step of training moves by one bit, random numbers and buffers included."""
    family = FAMILIES[name]
    assert one_step(family, watched=True) == one_step(family, watched=False)


def one_step(family: Family, watched: bool) -> dict[str, bytes]:
    """Everything that a step leaves behind."""
    model = family.model().train()
    x = torch.rand((2, *family.shape[1:]), generator=torch.Generator().manual_seed(5), requires_grad=True)
    torch.manual_seed(23)
    if watched:
        with bnprobe.attach(model):
            y = model(x)
            y.square().sum().backward()
    else:
        y = model(x)
        y.square().sum().backward()
    left = {"output": y, "input": x.grad, "random": torch.get_rng_state()}
    left |= {f"gradient of {n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    left |= dict(model.named_buffers())
    return {n: _bytes(t) for n, t in left.items() if t is not None}


def _bytes(t: Tensor) -> bytes:
    return bytes(t.detach().contiguous().numpy().tobytes())
