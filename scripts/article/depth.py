"""Claim 3: without norm, data drift and gradients become uneven layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import bnprobe
from bnprobe.report.figures.specs import Plot
from bnprobe.report.page.blocks import Prose, Section
from scripts.article import words
from scripts.article.networks import Array, Course, Laboratory, build, train
from scripts.article.pictures import COLOURS, curve, picture
from scripts.article.verdicts import CHANCE, Travel, Verdict
from scripts.gradient_balance import WIDTH

TITLE = "Data and gradients through depth"
CLAIM = (
    "A norm can stand before or after any hidden layer. Without it, data drift away from their good "
    "initial properties "
    "layer by layer, and gradients become uneven: the gradient of a layer is the error times outputs and "
    "weights of the "
    "layers, multiplied together."
)
CHINESE = (
    "归一化可看作带参数 γ、β 的特殊线性层，可放在任意隐藏层之前或之后；"
    "若没有它，数据逐层偏离良好的初始性质，梯度（误差与各层输出、权重的连乘）变得不均衡。"
)

CONDITIONS = {
    "no norm": ("none", False),
    "no norm, careful start": ("none", True),
    "batch norm": ("batch", False),
}
ORDERS = ("before the convolution", "after the activation")


@dataclass(frozen=True)
class Measured:
    courses: dict[str, Course]
    places: dict[str, float]
    grid: dict[str, dict[int, float]]
    product: float
    no_slopes: float


def reordered(place: str, depth: int) -> nn.Module:
    """The same layers with the norm somewhere else."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(depth):
        channels = 1 if i == 0 else WIDTH
        convolution = nn.Conv2d(channels, WIDTH, 3, padding=1)
        before = place == "before the convolution"
        norm = nn.BatchNorm2d(channels if before else WIDTH)
        layers += [norm, convolution, nn.ReLU()] if before else [convolution, nn.ReLU(), norm]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 10)).train()


def product_gaps(depth: int = 5, width: int = 16) -> tuple[float, float]:
    """The gradient of each layer's weights as error × outputs × weights (× slopes) by hand, against autograd.

    A fully connected ReLU network, float64. Returns the largest relative difference with the slopes of the
    activation in the product, and without them.
    """
    generator = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(width, width, generator=generator, dtype=torch.float64)
        .mul((2 / width) ** 0.5)
        .requires_grad_()
        for _ in range(depth)
    ]
    outputs, slopes = [torch.randn(32, width, generator=generator, dtype=torch.float64)], []
    for weight in weights:
        sums = outputs[-1] @ weight.T
        slopes.append((sums > 0).double())
        outputs.append(sums.relu())
    target = torch.randn(32, width, generator=generator, dtype=torch.float64)
    (0.5 * (outputs[-1] - target).square().sum()).backward()

    def gap(with_slopes: bool) -> float:
        error, worst = (outputs[-1] - target).detach(), 0.0
        for weight, slope, before in zip(weights[::-1], slopes[::-1], outputs[-2::-1], strict=True):
            error = error * slope if with_slopes else error
            by_hand = error.T @ before.detach()
            worst = max(worst, float((by_hand - weight.grad).norm() / weight.grad.norm()))
            error = error @ weight.detach()
        return worst

    return gap(True), gap(False)


def travel(course: Course) -> Travel:
    """Drift and imbalance at the start, and the loss at the end."""
    deviations = course.start.layers["pre_sd_median"].to_numpy(dtype=float)
    return Travel(float(deviations.max() / deviations.min()), course.start.gradient_imbalance, course.loss)


def measure(laboratory: Laboratory) -> Measured:
    sizes = laboratory.sizes
    courses = {name: laboratory.course(*condition) for name, condition in CONDITIONS.items()}
    places = {place: train(reordered(place, sizes.depth), sizes.steps, f"norm {place}") for place in ORDERS}
    grid = {
        name: {
            depth: train(build(norm, depth, careful), sizes.grid_steps, f"{name}, {depth} layers")
            for depth in sizes.grid_depths
        }
        for name, (norm, careful) in CONDITIONS.items()
    }
    return Measured(courses, places, grid, *product_gaps())


def numbers(m: Measured) -> dict[str, object]:
    without, careful, normed = (travel(m.courses[name]) for name in CONDITIONS)
    return {
        "without": without,
        "with_norm": normed,
        "careful": careful,
        "places": m.places,
        "no_slopes": m.no_slopes if m.product < 1e-9 else float("inf"),
    }


def section(m: Measured, verdict: Verdict) -> Section:
    n = words.number
    blocks = (
        Prose(
            (
                "Training compares the network's answers with the right ones and gets one number, the "
                "loss: here the cross-entropy, "
                f"{n(CHANCE)} for a network that guesses among ten digits, 0 for one that is always right "
                "and sure. The gradient tells for "
                "every number inside the network how the loss would change with it; it is computed from "
                "the output back to the input.",
                "One plain network on digits of 8 × 8 pixels: 12 convolutions with 32 channels, each "
                "followed by the place of a norm and by "
                "a ReLU, which replaces negative values by 0. Three versions: no norm, with the initial "
                "weights that torch draws by default; "
                "no norm, with weights drawn so that a ReLU layer keeps the size of its input (He et al. "
                "2015, variance 2 / number of "
                "inputs): a careful start; and batch norm. All see the same batches of 64 images, with "
                "the same learning rate.",
            )
        ),
        _by_depth(m),
        Prose((_drift_words(m),)),
        _through_training(m),
        _grid(m),
        words.table(
            (
                ("network", "which of the three"),
                ("drift, start", "largest over smallest typical deviation through depth"),
                ("drift, end", "the same after training"),
                (
                    "imbalance, start",
                    "deviation through depth of log₁₀ of the gradient's length; 0 is equally long everywhere",
                ),
                ("imbalance, end", "the same after training"),
                ("loss, end", "mean over the last tenth of the steps; 2.30 is guessing"),
            ),
            (_row(name, course) for name, course in m.courses.items()),
            "Drift: a factor. Imbalance: 1 means that lengths typically differ tenfold from their mean. "
            "Loss: cross-entropy, natural "
            "logarithm.",
        ),
        Prose(
            (
                "Does it matter where the norm stands? The same network with the norm "
                + " and ".join(f"{place} ends at a loss of {n(loss, 2)}" for place, loss in m.places.items())
                + f"; between convolution and activation, where it usually stands, at {n(m.courses['batch norm'].loss, 2)}.",
                "And the product: in a fully connected network of five layers the gradient of each "
                "layer's weights was multiplied together by "
                "hand, from the error at the output back through weights and slopes of the activation (1 "
                "where the ReLU lets pass, 0 where it "
                "does not), times the layer's input. It differs from what torch computes by "
                f"{n(m.product, 2)} of its length. Without the slopes, "
                f"which the claim does not name, it is off by {n(m.no_slopes, 2)} of its length.",
            )
        ),
    )
    return words.section(3, TITLE, CLAIM, CHINESE, verdict, blocks)


def _drift_words(m: Measured) -> str:
    n, (without, careful, normed) = words.number, (travel(m.courses[name]) for name in CONDITIONS)
    return (
        f"Without norm and care the signal shrinks from layer to layer, {n(without.drift, 2)}-fold between "
        "the largest and the smallest "
        "layer, and the gradient with it. With batch norm the deviation before the norms stays within a "
        f"factor of {n(normed.drift, 2)}, "
        "because each norm gives the next layer inputs of the same size again. The careful start does "
        "without: a factor of "
        f"{n(careful.drift, 2)}. So the drift in size is one of the initial weights, which a norm makes "
        "harmless "
        "and a careful draw avoids. The mean drifts too: at the start the values of a typical channel of "
        "the last layer "
        f"lie {n(offset(m.courses['no norm']), 2)} deviations from 0 without norm, "
        f"{n(offset(m.courses['no norm, careful start']), 2)} with the careful start, and "
        f"{n(offset(m.courses['batch norm']), 2)} with batch norm. Far from 0, a channel says nearly the "
        "same of every image, "
        "and a ReLU lets all of it pass or nothing."
    )


def offset(course: Course) -> float:
    """|mean| of a typical channel before the last norm, in its deviations, at the start."""
    channels = course.start.channels
    last = channels[channels["layer"] == channels["layer"].iloc[-1]]
    return float((last["pre_mean"].abs() / last["pre_var"] ** 0.5).median())


def _depths(report: bnprobe.Report) -> Array:
    return np.arange(1, len(report.layers) + 1)


def _mean_size(report: bnprobe.Report) -> Array:
    """Root mean square over channels of the channels' means, per layer."""
    squares = report.channels["pre_mean"] ** 2
    return np.sqrt(squares.groupby(report.channels["layer"], sort=False).mean().to_numpy())


def _by_depth(m: Measured) -> object:
    x = "convolution, counted from the input"
    kinds = (
        (
            "deviation of a typical channel, at the start",
            "deviation (units of the layer)",
            lambda r: r.layers["pre_sd_median"],
        ),
        ("size of the channels' means, at the start", "root mean square (units of the layer)", _mean_size),
        (
            "length of the gradient, at the start",
            "|dL/dx| (loss per unit of the layer)",
            lambda r: r.layers["grad_in"],
        ),
        ("length of the gradient, after training", "|dL/dx| (loss per unit of the layer)", None),
    )

    def panel(title: str, y_label: str, take: object) -> Plot:
        reports = {name: (c.end if take is None else c.start) for name, c in m.courses.items()}
        get = take or (lambda r: r.layers["grad_in"])
        lines = tuple(curve(_depths(r), get(r), name, COLOURS[name]) for name, r in reports.items())
        return Plot(title, x, y_label, lines, log_y=True)

    return picture(
        "depth",
        "Deviation, mean and gradient by depth for three networks, at the start and after training.",
        tuple(panel(*kind) for kind in kinds),
        "Measured at the output of each convolution, before the norm where there is one, on the same "
        "batches. Logarithmic axes. "
        "The gradient travels from right to left.",
    )


def _through_training(m: Measured) -> object:
    def course(take: object, title: str, unit: str) -> Plot:
        lines = tuple(
            curve(np.array(list(c.reports)) + 1, [take(r) for r in c.reports.values()], name, COLOURS[name])
            for name, c in m.courses.items()
        )
        return Plot(
            title, "training steps done, plus 1 (batches of 64 images)", unit, lines, log_x=True, log_y=True
        )

    def drift(report: bnprobe.Report) -> float:
        deviations = report.layers["pre_sd_median"].to_numpy(dtype=float)
        return float(deviations.max() / deviations.min())

    return picture(
        "training",
        "Drift through depth and imbalance of the gradient during training.",
        (
            course(drift, "drift of the deviation through depth", "largest / smallest layer (factor)"),
            course(
                lambda r: r.gradient_imbalance,
                "imbalance of the gradient through depth",
                "deviation of log₁₀ length (no unit)",
            ),
        ),
        "The same numbers as in the table below, at several moments of training.",
    )


def _grid(m: Measured) -> object:
    lines = tuple(
        curve(list(losses), list(losses.values()), name, COLOURS[name]) for name, losses in m.grid.items()
    )
    steps = "loss after a shorter training (cross-entropy)"
    panel = Plot("how deep can it be?", "convolutions in the network (number)", steps, lines, limits=(0, 2.6))
    return picture(
        "how-deep",
        "Loss after a short training against the depth of the network.",
        (panel,),
        "Every point is a network of its own. At 2.30 it has learned nothing. A point that is missing has "
        "diverged.",
    )


def _row(name: str, course: Course) -> tuple[str | float, ...]:
    ends = [r.layers["pre_sd_median"].to_numpy(dtype=float) for r in (course.start, course.end)]
    drifts = [float(d.max() / d.min()) for d in ends]
    return name, *drifts, course.start.gradient_imbalance, course.end.gradient_imbalance, course.loss
