"""Claim 6: layer, instance and group norm only pool over other dimensions."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.report.figures.specs import Plot
from bnprobe.report.page.blocks import Prose, Section
from scripts.article import words
from scripts.article.nested_statistics import batch_statistics, group_statistics
from scripts.article.networks import (
    BATCH,
    RATE,
    Array,
    Laboratory,
    accuracy,
    build,
    digits,
    look_held_out,
    train,
)
from scripts.article.pictures import COLOURS, curve, picture
from scripts.article.verdicts import Verdict

TITLE = "Other dimensions, same principle"
CLAIM = "Layer, instance and group normalization only choose other dimensions to pool over; the principle is the same."
CHINESE = "Layer、Instance、Group Normalization 只是选择了不同的统计维度，原理是相同的。"

KINDS = ("batch", "layer", "group", "instance", "none")
N, C, G, SIDE = 6, 8, 4, 5
"""Sizes of the tensor on which the relations are checked."""


@dataclass(frozen=True)
class Measured:
    relations: dict[str, float]
    mates: dict[str, float]
    accuracies: dict[int, dict[str, float]]
    losses: dict[int, dict[str, float]]
    reports: dict[str, bnprobe.Report]
    batch_depth: int
    batch_images: int


def title(kind: str) -> str:
    return "no norm" if kind == "none" else f"{kind} norm"


def tensor() -> Tensor:
    """Values whose images and channels differ in place and width, float64, (N, C, SIDE, SIDE)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, C, SIDE, SIDE, generator=generator, dtype=torch.float64)
    width, place = (torch.rand(N, C, 1, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    return x * (0.5 + width) + 3 * place


def real_norms() -> dict[str, nn.Module]:
    """The norms as torch computes them, without γ and β, in train mode."""
    return {
        "batch norm": nn.BatchNorm2d(C, affine=False, dtype=torch.float64),
        "group norm": nn.GroupNorm(G, C, affine=False, dtype=torch.float64),
        "layer norm": nn.LayerNorm((C, SIDE, SIDE), elementwise_affine=False, dtype=torch.float64),
        "instance norm": nn.InstanceNorm2d(C, dtype=torch.float64),
    }


def relations(norms: dict[str, nn.Module], x: Tensor) -> dict[str, float]:
    """Largest difference of each norm's real output and the one that follows from instance norm's statistics alone.

    The means and variances over the positions of each image and channel, (N, C), give those of all others: the mean of
    means, and the mean of variances plus the variance of means.
    """
    mean, var = (v.numpy() for v in (x.mean(dim=(2, 3)), x.var(dim=(2, 3), correction=0)))
    follows = {
        "batch norm": tuple(v[None, :] for v in batch_statistics(mean, var)),
        "group norm": tuple(np.repeat(v, C // G, axis=1) for v in group_statistics(mean, var, G)),
        "layer norm": group_statistics(mean, var, 1),
        "instance norm": (mean, var),
    }
    gaps = {}
    for name, (m, v) in follows.items():
        expected = (x.numpy() - m[..., None, None]) / np.sqrt(v[..., None, None] + 1e-5)
        real = norms[name](x).numpy()
        gaps[name] = float(np.abs(real - expected).max() / np.abs(real).max())
    return gaps


@torch.no_grad()
def felt_mates(model: nn.Module) -> float:
    """How much the outputs for eight images change in train mode with the other images of the batch, relative."""
    x = digits()[0].x
    one, other = (
        copy.deepcopy(model).train()(torch.cat([x[:8], mates]))[:8] for mates in (x[8:16], x[16:24])
    )
    return float((one - other).abs().max() / one.abs().max())


def measure(laboratory: Laboratory) -> Measured:
    sizes = laboratory.sizes
    accuracies: dict[int, dict[str, float]] = {}
    losses: dict[int, dict[str, float]] = {}
    models = {title(kind): laboratory.course(kind).model for kind in KINDS}
    for size in sizes.batch_sizes:
        accuracies[size], losses[size] = {}, {}
        for kind in KINDS:
            model, name = build(kind, sizes.batch_depth), title(kind)
            steps, rate = sizes.batch_images // size, RATE * size / BATCH
            losses[size][name] = train(model, steps, f"{name}, batches of {size}", size=size, rate=rate)
            accuracies[size][name] = accuracy(model)
    normed = {name: model for name, model in models.items() if name != "no norm"}
    return Measured(
        relations(real_norms(), tensor()),
        {name: felt_mates(model) for name, model in normed.items()},
        accuracies,
        losses,
        {name: look_held_out(model) for name, model in models.items()},
        sizes.batch_depth,
        sizes.batch_images,
    )


def numbers(m: Measured) -> dict[str, object]:
    largest = {name: value for name, value in m.accuracies[max(m.accuracies)].items() if name != "no norm"}
    return {"relation": max(m.relations.values()), "mates": m.mates, "accuracy": largest}


def section(m: Measured, verdict: Verdict) -> Section:
    n = words.number
    sizes = list(m.accuracies)
    blocks = (
        Prose(
            (
                "The outputs of a layer for a batch of images form a block of numbers with four "
                "directions: N images, C channels (one per filter of the "
                "layer), and the H × W positions in the picture. A norm pools, that is takes mean and "
                "deviation, over some of them: batch norm over images and "
                "positions, for each channel; instance norm over positions only, for each image and "
                "channel; layer norm over channels and positions, for "
                "each image; group norm the same within groups of channels.",
                f"On one block of {N} images, {C} channels and {SIDE} × {SIDE} positions all four were "
                "computed by torch, and then from instance norm's means "
                "and variances alone: pooling over more values, the mean is the mean of the means, and "
                "the variance the mean of the variances plus the "
                "variance of the means. The largest differences of the outputs, relative to the largest "
                "output: "
                + ", ".join(f"{name} {n(gap, 2)}" for name, gap in m.relations.items())
                + ". So far the claim is exact.",
                "What follows from the choice is another matter. Only batch norm pools over images, so "
                "only there does the output for an image depend on "
                "which others happen to be in its batch; it needs a memory for use on single images, and "
                "small batches make its statistics uncertain. "
                "Eight images were run in two batches with different mates, in train mode; largest change "
                "of the network's outputs, relative to the largest: "
                + ", ".join(f"{name} {n(gap, 2)}" for name, gap in m.mates.items())
                + ".",
                "What did each learn? The network of claim 3 with 12 layers, from the same weights, "
                "trained in the same "
                "way, with each norm:",
            )
        ),
        _learned(m),
        Prose(
            (
                "The scale γ and the shift β that were learned are in the upper row; below, what reached "
                "the norms, and "
                "the share of their outputs that the ReLU lets pass. And the size of the batch: networks "
                "with "
                f"{m.batch_depth} layers, from the same weights, in batches of "
                f"{', '.join(map(str, sizes))} images. All see "
                f"{m.batch_images:,} images, drawn from the 1,437; the learning rate grows in proportion "
                "to the batch, so that "
                "many small steps and few large ones go equally far.",
            )
        ),
        _batch_sizes(m),
        words.table(
            (
                ("norm", "what stands between convolution and activation"),
                *(
                    (
                        f"accuracy, {size}",
                        f"share of held-out digits read correctly, trained in batches of {size}",
                    )
                    for size in sizes
                ),
                *((f"loss, {size}", f"training loss at the end, batches of {size}") for size in sizes),
            ),
            (
                (name, *(m.accuracies[s][name] for s in sizes), *(m.losses[s][name] for s in sizes))
                for name in m.accuracies[sizes[0]]
            ),
            "Accuracy from 0 to 1 (0.1 is guessing), in eval mode: batch norm then uses its memory. Loss: "
            "cross-entropy on training batches.",
        ),
        Prose(
            (
                "One run per point, so differences of a few hundredths may be chance. Where batch norm's "
                "training loss "
                "is low and its accuracy too, the memory is to blame: the network is good while it "
                "normalizes by "
                "the batch, and what it remembers of small batches is something else.",
            )
        ),
    )
    return words.section(6, TITLE, CLAIM, CHINESE, verdict, blocks)


def _batch_sizes(m: Measured) -> object:
    sizes = list(m.accuracies)

    def panel(
        title: str, unit: str, values: dict[int, dict[str, float]], limits: tuple[float, float]
    ) -> Plot:
        lines = tuple(
            curve(sizes, [values[s][name] for s in sizes], name, COLOURS[name]) for name in values[sizes[0]]
        )
        return Plot(
            title, "images per batch (number)", unit, lines, log_x=True, ticks=tuple(sizes), limits=limits
        )

    return picture(
        "batch-sizes",
        "Accuracy and training loss by batch size for four norms and none.",
        (
            panel("held-out digits read correctly", "share (0 to 1)", m.accuracies, (0, 1.05)),
            panel("training loss at the end", "cross-entropy", m.losses, (0, 2.6)),
        ),
        "Every point is a network trained from the same weights.",
    )


def _learned(m: Measured) -> object:
    def median(report: bnprobe.Report, column: str) -> Array:
        return report.channels[column].abs().groupby(report.channels["layer"], sort=False).median().to_numpy()

    def panel(title: str, unit: str, take: object) -> Plot:
        lines = tuple(
            curve(np.arange(1, len(r.layers) + 1), take(r), name, COLOURS[name])
            for name, r in m.reports.items()
            if name != "no norm"
        )
        return Plot(title, "norm, counted from the input", unit, lines)

    return picture(
        "learned",
        "What the norms learned and received, by depth.",
        (
            panel(
                "learned scale, |γ| of a typical channel",
                "|γ| (output per deviation)",
                lambda r: median(r, "gamma"),
            ),
            panel(
                "learned shift, |β| of a typical channel",
                "|β| (units of the output)",
                lambda r: median(r, "beta"),
            ),
            panel(
                "deviation before the norm, typical channel",
                "units of the layer",
                lambda r: r.layers["pre_sd_median"],
            ),
            panel(
                "share of positive outputs, typical channel",
                "share (0 to 1)",
                lambda r: r.layers["fires_median"],
            ),
        ),
        "Networks trained in the largest batches, recorded on the held-out digits with bnprobe: columns "
        "gamma, beta, pre_sd_median and fires_median.",
    )
