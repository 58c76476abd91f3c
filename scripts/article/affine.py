"""Claim 2: Z-scoring is an affine map, x·w + b, so a norm folds into the layer before it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe import models
from bnprobe.report.colours import EXPECTED, MEASURED
from bnprobe.report.figures.specs import Plot
from bnprobe.report.page.blocks import Prose, Section
from scripts.article import words
from scripts.article.fold import fold_check, folded_layer
from scripts.article.networks import Array, Laboratory
from scripts.article.pictures import curve, picture
from scripts.article.shape import Clusters, clusters, demo_inputs
from scripts.article.verdicts import Verdict

TITLE = "It is a line"
CLAIM = "Z-scoring is an affine map: x·w + b with w = 1 / std(x) and b = −mean(x) / std(x)."
CHINESE = "Z-score 标准化是仿射变换：x·w + b，其中 w = 1/std(x)，b = −mean(x)/std(x)。"


@dataclass(frozen=True)
class Folded:
    """Difference made by folding each norm alone, (L,), and all of them at once, relative to the largest output."""

    each: Array
    all: float


@dataclass(frozen=True)
class Measured:
    clusters: Clusters
    formula: float
    networks: dict[str, Folded]
    midpoint_eval: float
    midpoint_train: float


def line_of(x: Array) -> tuple[Array, Array]:
    """Slope and intercept of the claim per column, divisor n."""
    return 1 / x.std(axis=0), -x.mean(axis=0) / x.std(axis=0)


def formula_gap(points: Clusters) -> float:
    """Largest difference between a batch norm's real output and the claim's line, over the largest output."""
    w, b = line_of(points.before)
    return float(np.abs(points.before * w + b - points.after).max() / np.abs(points.after).max())


def folds(model: nn.Module, x: Tensor, fold: object = folded_layer) -> Folded:
    """Fold every norm into the layer that bnprobe found to feed it; `fold` makes the layer that replaces both."""
    model = copy.deepcopy(model).eval()
    report = bnprobe.report(bnprobe.record(copy.deepcopy(model), [(x, None)], histograms=False))
    pairs = list(zip(report.layers["feeder"], report.layers["layer"], strict=True))
    with torch.no_grad():
        expected = model(x)
        each = _each(model, pairs, x, fold)
        for producer, norm in pairs:
            new = fold(model.get_submodule(producer), model.get_submodule(norm))
            _replace(model, producer, new)
            _replace(model, norm, nn.Identity())
        gap = float((model(x) - expected).abs().max() / expected.abs().max())
    return Folded(each, gap)


def _each(model: nn.Module, pairs: Sequence[tuple[str, str]], x: Tensor, fold: object) -> Array:
    """bnprobe's own check of each pair on the layer's real inputs; a different fold is compared the same way."""
    inputs: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(producer).register_forward_pre_hook(
            lambda _, args, producer=producer: inputs.__setitem__(producer, args[0].clone())
        )
        for producer, _ in pairs
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    gaps = []
    for producer, norm in pairs:
        layer, after = model.get_submodule(producer), model.get_submodule(norm)
        if fold is folded_layer:
            gaps.append(fold_check(layer, after, inputs[producer]))
        else:
            real = after(layer(inputs[producer]))
            gaps.append(float((fold(layer, after)(inputs[producer]) - real).abs().max() / real.abs().max()))
    return np.array(gaps)


def _replace(model: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)


def midpoint(training: bool) -> float:
    """How far norm((a + b) / 2) is from (norm(a) + norm(b)) / 2, over the largest output: 0 for any affine map."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(64, 8, generator=generator, dtype=torch.float64)
    b = 3 * torch.randn(64, 8, generator=generator, dtype=torch.float64) + 2
    norm = nn.BatchNorm1d(8, dtype=torch.float64)
    norm(a)  # something to remember
    norm.train(training)
    with torch.no_grad():
        both = (norm(a) + norm(b)) / 2
        return float((norm((a + b) / 2) - both).abs().max() / both.abs().max())


def resnet50(pixels: int) -> tuple[nn.Module, Tensor]:
    """A ResNet-50 with random weights, γ and β, and statistics that noise images left, and some such images."""
    model = models.subject("resnet50").model
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
                module.momentum = None  # the plain average over batches
        model.train()
        for _ in range(2):
            model(torch.randn(8, 3, pixels, pixels, generator=generator))
    return model.eval(), torch.randn(4, 3, pixels, pixels, generator=generator)


def measure(laboratory: Laboratory) -> Measured:
    points, sizes = clusters(), laboratory.sizes
    demo = folds(models.demo().model, demo_inputs(min(sizes.n_demo, 64))[0])
    networks = {"demo": demo, "ResNet-50": folds(*resnet50(sizes.resnet50_pixels))}
    return Measured(points, formula_gap(points), networks, midpoint(False), midpoint(True))


def numbers(m: Measured) -> dict[str, object]:
    return {
        "formula": m.formula,
        "folded": max(float(f.each.max()) for f in m.networks.values()),
        "network": max(f.all for f in m.networks.values()),
        "midpoint_train": m.midpoint_train,
    }


def section(m: Measured, verdict: Verdict) -> Section:
    blocks = (
        Prose(
            (
                "An affine map multiplies by a number and adds another: a straight line. Where mean and "
                "deviation are fixed, "
                "(x − mean) / std is one; batch norm adds a small constant eps to the variance, so that a "
                "channel that never varies "
                "does not divide by 0, and then scales by γ and moves by β: slope γ / √(variance + eps), "
                "intercept β − mean · slope.",
                "If that is all, the norm can be computed away. A convolution or linear layer is itself a "
                "product and a sum, so its "
                "weights times the slope, and its bias moved, give the output of both: this is called "
                "folding, and inference engines "
                "do it to save time. Each norm of two networks was folded, alone and all together, and "
                "the outputs compared on real "
                "inputs, in the 32-bit numbers that networks usually run in.",
            )
        ),
        _lines(m),
        words.table(
            (
                ("network", "what was folded"),
                ("norms", "number of batch norms"),
                ("typical norm", "median difference made by folding one norm"),
                ("worst norm", "largest difference made by folding one norm"),
                ("all at once", "difference at the network's output with every norm folded"),
            ),
            (
                (name, len(f.each), float(np.median(f.each)), float(f.each.max()), f.all)
                for name, f in m.networks.items()
            ),
            "Largest |difference| over the largest |output|; no unit. Rounding of 32-bit numbers is 6e−8 "
            "per operation. The "
            "ResNet-50 has random weights, γ and β, and remembers 16 images of noise: a fold does not ask "
            "what was learned.",
        ),
        Prose(
            (
                "The limit is in the word fixed. A map is affine if the midpoint of two inputs goes to "
                "the midpoint of "
                "their outputs. "
                f"With remembered statistics a batch norm misses it by {words.number(m.midpoint_eval, 2)}; "
                "in training, where std(x) is that of "
                f"the batch at hand, by {words.number(m.midpoint_train, 2)} of the largest output: w and b "
                "then depend on x. That is why the "
                "gradient through a batch norm in training has two terms that no fixed line has, and why "
                "it cannot be folded before training ends.",
            )
        ),
    )
    return words.section(2, TITLE, CLAIM, CHINESE, verdict, blocks)


def _lines(m: Measured) -> object:
    before, after = m.clusters.before[:, 0], m.clusters.after[:, 0]
    w, b = line_of(m.clusters.before)
    ends = np.array([before.min(), before.max()])
    line = (
        curve(before, after, "output of the norm", MEASURED, dots=True),
        curve(ends, ends * w[0] + b[0], "x·w + b", EXPECTED, dashed=True),
    )
    folds = tuple(
        curve(np.arange(1, len(f.each) + 1), np.maximum(f.each, 1e-9), name, colour)
        for (name, f), colour in zip(m.networks.items(), (MEASURED, EXPECTED), strict=False)
    )
    return picture(
        "folds",
        "Outputs of a norm lie on a line; what folding changes at every norm is rounding.",
        (
            Plot(
                "one column of the clusters of claim 1",
                "input (units of the data)",
                "output (deviations from the mean)",
                line,
            ),
            Plot(
                "what folding a norm changes",
                "norm, counted from the input",
                "difference / largest output (no unit)",
                folds,
                log_y=True,
            ),
        ),
        "Left: every point is an example; the dashed line has the slope and intercept of the claim. "
        "Right: one point per batch "
        "norm, logarithmic axis.",
    )
