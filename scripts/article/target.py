"""Claim 5: after training the outputs are spread with standard deviation γ ("variance γ") and mean β."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

import bnprobe
from bnprobe import models
from bnprobe.measures.output_moments import OFF_MEAN, OFF_SCALE
from bnprobe.models import image_folder
from bnprobe.report.colours import EXPECTED, GREEN, MEASURED, VIOLET
from bnprobe.report.figures.specs import Plot
from bnprobe.report.page.blocks import Prose, Section
from scripts.article import hands, words
from scripts.article.networks import Laboratory, digits, look_held_out
from scripts.article.pictures import curve, picture
from scripts.article.verdicts import Verdict

TITLE = "What γ and β set"
CLAIM = (
    "BatchNorm has two phases: Z-score, then a learned shift and scale; together one shift and one scale. "
    "At the end of "
    "training the data tend towards a distribution with variance γ and mean β."
)
CHINESE = (
    "BatchNorm 分两步：先 Z-score，再做可学习的缩放与平移，合起来仍是一次缩放和一次平移；"
    "训练结束时，数据趋于方差为 γ、均值为 β 的分布。"
)


@dataclass(frozen=True)
class Misses:
    """Medians over channels, in |γ| or standard deviations: of the mean, the standard deviation, the shape, and all "
    "together."""

    mean: float
    deviation: float
    shape: float
    whole: float


@dataclass(frozen=True)
class Measured:
    training: dict[int, Misses]
    held_out: dict[int, Misses]
    demo: pd.DataFrame
    as_deviation: float
    as_variance: float
    demo_misses: Misses
    why: dict[str, int]


def alive(channels: pd.DataFrame) -> pd.DataFrame:
    """Channels whose γ is not near 0: where it is next to nothing, nothing can be measured in units of it."""
    return channels[(channels["gamma"].abs() > 1e-2) & (channels["post_var"] > 0)]


def misses(report: bnprobe.Report, whole: float) -> Misses:
    """The parts from bnprobe's columns; `whole` is measured on the real outputs."""
    channels = alive(report.channels)
    return Misses(
        float(channels["beta_error"].abs().median()),
        float((channels["gamma_ratio"] - 1).abs().median()),
        float(channels["gauss_w1"].median()),
        whole,
    )


def whole_distance(model: torch.nn.Module, report: bnprobe.Report, x: torch.Tensor) -> float:
    """Median over channels of the distance of the real outputs from N(β, γ²), in |γ|; `model` in the mode it is in."""
    seen = hands.values(copy.deepcopy(model), report.layers["layer"], [x])
    found = []
    for layer, channels in alive(report.channels).groupby("layer", sort=False):
        some = channels["channel"].to_numpy()
        gamma, beta = channels["gamma"].abs().to_numpy(), channels["beta"].to_numpy()
        found.append(hands.distance(seen[layer][1][:, some], beta, gamma))
    return float(np.median(np.concatenate(found)))


def readings(channels: pd.DataFrame) -> tuple[float, float]:
    """How far |γ| is from the outputs' standard deviation and from their variance: medians of |ln ratio|."""
    channels = alive(channels)
    gamma, var = channels["gamma"].abs(), channels["post_var"]
    return float(np.log(np.sqrt(var) / gamma).abs().median()), float(np.log(var / gamma).abs().median())


def measure(laboratory: Laboratory) -> Measured:
    course = laboratory.course("batch")
    train_x, held_out_x = digits()[0].x[:256], digits()[1].x
    training, held_out = {}, {}
    for step, model in course.models.items():
        report = course.reports[step]
        training[step] = misses(report, whole_distance(copy.deepcopy(model).train(), report, train_x))
        if step:  # before the first step the running statistics were never updated
            report = look_held_out(model)
            held_out[step] = misses(report, whole_distance(copy.deepcopy(model).eval(), report, held_out_x))
    subject = models.demo()
    source = image_folder.demo_images().batches(subject.preprocess, 90)
    inputs = [subject.to_inputs(batch.images)[0] for batch in source]
    demo = bnprobe.report(bnprobe.record(subject.model, [(x, None) for x in inputs]))
    demo_misses = misses(demo, whole_distance(subject.model, demo, inputs[0]))
    why = report.layers["why_not"].value_counts().to_dict()
    return Measured(training, held_out, alive(demo.channels), *readings(demo.channels), demo_misses, why)


def for_scale() -> tuple[float, float]:
    """The distance to a Gaussian of evenly spread values, and of Gaussian ones cut at 0, in standard deviations."""
    even = (np.arange(20_000) + 0.5) / 20_000
    bell = np.sort(np.random.default_rng(0).normal(size=20_000))
    shapes = np.stack([even, np.maximum(bell, 0)], axis=1)
    first, second = hands.distance(shapes, shapes.mean(axis=0), shapes.std(axis=0))
    return float(first), float(second)


def numbers(m: Measured) -> dict[str, object]:
    start = m.training[min(m.training)]
    return {
        "mean_error": m.demo_misses.mean,
        "as_deviation": m.as_deviation,
        "as_variance": m.as_variance,
        "shape": m.demo_misses.shape,
        "at_start": max(start.mean, start.deviation),
    }


def section(m: Measured, verdict: Verdict) -> Section:
    n = words.number
    last = m.held_out[max(m.held_out)]
    even, cut = for_scale()
    why = ", ".join(f"{reason} at {count}" for reason, count in m.why.items())
    blocks = (
        Prose(
            (
                "A batch norm first takes Z-scores, which have mean 0 and standard deviation 1 over the batch, and "
                "then multiplies by γ and adds β. So the "
                "outputs should have mean β and standard deviation |γ| (a standard deviation cannot be negative, γ can), "
                "that is variance γ². The article says "
                "variance γ; which of the two holds can be measured. N(β, γ²) is the Gaussian with that "
                "mean and "
                "standard deviation; to be spread like it, "
                "values need its shape as well.",
                "Three ways to miss it are distinguished in every channel: the distance of the mean from β, "
                "in units of |γ|; the difference of standard deviation / |γ| "
                "from 1; and the shape, that is how far values would have to be carried on average to "
                "make them Gaussian with the mean and standard deviation "
                "they have, in standard deviations. And all three together, measured by hand on the real outputs: "
                "how far values must be carried to be spread as N(β, γ²), "
                "in |γ| (the 1-Wasserstein distance).",
                "The network with batch norm of claim 3 was stopped at several moments of its training "
                "and looked at twice: on training images in train "
                "mode, where every batch is normalized by itself; and on the 360 held-out digits in eval "
                "mode, where it is normalized by "
                "the running statistics (a running mean and variance, of which each batch replaces a "
                "tenth).",
            )
        ),
        _course(m),
        Prose(
            (
                "In train mode mean and standard deviation are right from the first step, by construction; nothing "
                "tends anywhere. What misses N(β, γ²) is the "
                "shape, which no training of γ and β can change (claim 1). On held-out digits the running statistics "
                "come in: early in training they lag "
                f"weights that still move; at the end means are off by {n(last.mean, 2)} |γ| and "
                f"standard deviations by {n(100 * last.deviation, 2)}% in a "
                "typical channel, because other images were seen and because weights moved since.",
                "Standard deviation or variance? Where γ is near 1 both readings agree. The demo network, trained "
                "to the end, has |γ| from "
                f"{n(float(m.demo['gamma'].abs().min()), 2)} to {n(float(m.demo['gamma'].abs().max()), 2)} "
                "and shows which one holds:",
            )
        ),
        _readings(m),
        words.table(
            (
                ("network and data", "what was run, in which mode"),
                ("mean", "median over channels of |mean − β| / |γ|"),
                ("standard deviation", "median over channels of |standard deviation / |γ| − 1|"),
                (
                    "shape",
                    "median distance to a Gaussian of the same mean and standard deviation, in standard deviations",
                ),
                ("all together", "median distance of the real outputs to N(β, γ²), in |γ|"),
            ),
            (
                ("12 layers, train mode, before training", *_parts(m.training[min(m.training)])),
                ("12 layers, train mode, after training", *_parts(m.training[max(m.training)])),
                ("12 layers, held out, after training", *_parts(last)),
                ("demo, held out, after training", *_parts(m.demo_misses)),
            ),
            f"For scale: values that are spread evenly over an interval lie {n(even, 2)} standard deviations from a "
            f"Gaussian; Gaussian values of which a ReLU has cut the negative ones, {n(cut, 2)}. Channels "
            "with |γ| < 0.01 are left out.",
        ),
        Prose(
            (
                f"Read as a standard deviation, |γ| is off by {n(100 * m.as_deviation, 2)}% in a typical channel "
                "of the demo; read as a variance, by "
                f"{n(100 * m.as_variance, 2)}% (the size of the natural logarithm of the ratio, which for "
                "small differences "
                "is the relative difference).",
                "The rest has reasons, and bnprobe names them per norm in its column why_not. For the "
                "network of 12 layers "
                f"after training, on held-out digits: {why}. Holds means that the typical channel is "
                f"within {OFF_MEAN} |γ| and {100 * OFF_SCALE:.0f}%; "
                "shift, that the data do not match the running statistics; small sample, that there are "
                "too few images to "
                "tell. A last reason is always there: eps is added to the variance, which makes outputs "
                "narrower than |γ| "
                "by the share eps / (2 · variance), and matters only in channels that hardly vary.",
            )
        ),
    )
    return words.section(5, TITLE, CLAIM, CHINESE, verdict, blocks)


def _parts(m: Misses) -> tuple[float, ...]:
    return m.mean, m.deviation, m.shape, m.whole


def _course(m: Measured) -> object:
    names = (("mean", MEASURED), ("deviation", EXPECTED), ("shape", GREEN), ("whole", VIOLET))

    def panel(title: str, moments: dict[int, Misses]) -> Plot:
        lines = tuple(
            curve(
                np.array(list(moments)) + 1,
                [getattr(v, name) for v in moments.values()],
                {"whole": "all together", "deviation": "standard deviation"}.get(name, name),
                colour,
            )
            for name, colour in names
        )
        return Plot(
            title,
            "training steps done, plus 1",
            "distance (|γ|, or standard deviations for the shape)",
            lines,
            log_x=True,
            limits=(0, None),
        )

    return picture(
        "target-course",
        "Distance of outputs from the mean and standard deviation that β and γ set, during training.",
        (panel("training batches, train mode", m.training), panel("held-out digits, eval mode", m.held_out)),
        "Medians over all channels of the 12 norms.",
    )


def _readings(m: Measured) -> object:
    gamma, var = m.demo["gamma"].abs().to_numpy(), m.demo["post_var"].to_numpy()

    def panel(title: str, values: np.ndarray, unit: str) -> Plot:
        return Plot(
            title, "|γ|", unit, (curve(gamma, values, dots=True),), log_x=True, log_y=True, diagonal=True
        )

    return picture(
        "readings",
        "Standard deviation of the outputs lies on the diagonal against gamma, variance does not.",
        (
            panel("γ as a standard deviation", np.sqrt(var), "standard deviation of the outputs"),
            panel("γ as a variance", var, "variance of the outputs"),
        ),
        "Every point is a channel of the demo network on held-out digits; logarithmic axes. On the "
        "diagonal the reading is right.",
    )
