"""Claim 1: normalization moves and scales, and never changes the shape of a distribution."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe import models
from bnprobe.models import image_folder
from bnprobe.report.colours import EXPECTED, MEASURED
from bnprobe.report.figures.specs import Curve, Plot
from bnprobe.report.page.blocks import Prose, Section
from scripts.article import hands, words
from scripts.article.networks import Array, Laboratory, digits
from scripts.article.pictures import COLOURS, curve, picture
from scripts.article.verdicts import Verdict


@dataclass(frozen=True)
class Clusters:
    """400 points in two columns before and after, (400, 2) each, and the class of each point."""

    before: Array
    after: Array
    classes: Array


@dataclass(frozen=True)
class Shapes:
    """Typical and largest change of shape over the channels of every norm, (L,) each."""

    typical: Array
    largest: Array


@dataclass(frozen=True)
class Measured:
    clusters: Clusters
    clusters_change: float
    demo_fixed: Shapes
    demo_by_batch: Shapes
    plain: dict[str, Shapes]
    n_constant: int
    gap_bnprobe: float


def clusters() -> Clusters:
    """Two classes of 200 points, means 2 and 8, standard deviation 2, through a norm without γ and β in train mode."""
    rng = np.random.default_rng(0)
    before = np.concatenate([rng.normal(mean, 2.0, size=(200, 2)) for mean in (2.0, 8.0)])
    norm = nn.BatchNorm1d(2, eps=1e-300, affine=False, dtype=torch.float64)
    return Clusters(before, norm(torch.tensor(before)).numpy(), np.repeat([0, 1], 200))


def separation(points: Array, classes: Array) -> float:
    """Distance of the two classes' means in the first column, in standard deviations of a class."""
    a, b = points[classes == 0, 0], points[classes == 1, 0]
    return float(abs(b.mean() - a.mean()) / np.sqrt((a.var() + b.var()) / 2))


def shapes(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[Shapes, int, float]:
    """Changes of shape at every norm; how many channels are constant; and how far bnprobe's own columns are off.

    In float64, so that rounding can be distinguished from a change. The outputs are the real ones, read by hand.
    """
    model = copy.deepcopy(model).double()
    inputs = [x.double() for x in inputs]
    report = bnprobe.report(
        bnprobe.record(copy.deepcopy(model), [(x, None) for x in inputs], histograms=False)
    )
    seen = hands.values(model, report.layers["layer"], inputs)
    changes, gap = [], 0.0
    for layer, channels in report.channels.groupby("layer", sort=False):
        before, after = seen[layer]
        gamma = channels["gamma"].fillna(1.0).to_numpy()
        changes.append(hands.change_of_shape(before, after, np.sign(gamma)))
        there = np.isfinite(changes[-1])
        if report.layers.set_index("layer").loc[layer, "normalized_by"] == "running":
            said, read = channels["post_skew"].to_numpy(), hands.skewness(after)
            gap = max(gap, float(np.max(np.abs(said - read)[there] / (1 + np.abs(read[there])), initial=0)))
    found = Shapes(
        np.array([np.nanmedian(c) if np.isfinite(c).any() else np.nan for c in changes]),
        np.array([np.nanmax(c) if np.isfinite(c).any() else np.nan for c in changes]),
    )
    return found, int(sum(np.isnan(c).sum() for c in changes)), gap


def demo_inputs(n: int) -> list[Tensor]:
    """The first held-out digits, as the demo network takes them, in one batch."""
    subject = models.demo()
    batch = next(iter(image_folder.demo_images().batches(subject.preprocess, n)))
    return [subject.to_inputs(batch.images)[0]]


def measure(laboratory: Laboratory) -> Measured:
    points = clusters()
    change = hands.change_of_shape(points.before, points.after, np.ones(2))
    demo, inputs = models.demo().model, demo_inputs(laboratory.sizes.n_demo)
    fixed, constant, gap = shapes(demo, inputs)
    # each part is normalized by its own statistics
    by_batch, _, _ = shapes(copy.deepcopy(demo).train(), inputs[0].split(16))
    held_out = [digits()[1].x[:64]]
    plain = {
        f"{name} norm": shapes(copy.deepcopy(laboratory.course(name).model).eval(), held_out)[0]
        for name in ("batch", "layer", "group", "instance")
    }
    return Measured(points, float(change.max()), fixed, by_batch, plain, constant, gap)


def numbers(m: Measured) -> dict[str, object]:
    """What the verdict is made of."""
    fixed = max(m.clusters_change, np.nanmax(m.demo_fixed.largest), np.nanmax(m.plain["batch norm"].largest))
    others = {name: float(np.nanmedian(s.typical)) for name, s in m.plain.items() if name != "batch norm"}
    return {"fixed": float(fixed), "by_batch": float(np.nanmedian(m.demo_by_batch.typical)), "others": others}


def section(m: Measured, verdict: Verdict) -> Section:
    blocks = (
        Prose(
            (
                "Place and width belong to a distribution too, and those a norm does change; what the "
                "claim means is that "
                "nothing else changes.",
                "The shape of a distribution is what is left when place and width are taken away: is it "
                "lopsided, has it two "
                "humps, how heavy are its tails? Two numbers catch much of it. Take Z-scores, z = (x − "
                "mean) / standard deviation; the "
                "skewness is the mean of z³ (0 if symmetric), the excess kurtosis the mean of z⁴ minus 3 "
                "(0 for a Gaussian, "
                "larger with heavy tails). A map x·w + b changes neither; a negative w mirrors, which "
                "turns the sign of the "
                "skewness.",
                "First the article's own example: two classes of 200 points in the plane, drawn from "
                "Gaussians with means 2 and "
                "8 and standard deviation 2 in both directions, each column Z-scored.",
            )
        ),
        _scatter(m.clusters),
        Prose(
            (
                "The two pictures are the same but for the numbers on the axes: two humps stay two humps. "
                "The two classes "
                f"are {words.number(separation(m.clusters.before, m.clusters.classes), 3)} standard deviations of a "
                "class apart before, "
                f"and {words.number(separation(m.clusters.after, m.clusters.classes), 3)} after. Skewness "
                "and "
                f"kurtosis of the columns differ by {words.number(m.clusters_change, 2)}, which is the "
                "rounding of 64-bit numbers.",
                "Then real networks, each channel of each norm. The demo network of bnprobe (52 batch "
                "norms, trained on "
                "handwritten digits) was run on held-out digits, and the inputs and outputs of all its "
                "norms were kept and "
                "compared by hand: the larger of the changes in skewness and kurtosis, each divided by 1 "
                "+ its size before. Once "
                "in eval mode, where mean and standard deviation are the running ones of training, so the map is "
                "one and the same for "
                "all images; once in train mode in batches of 16, where every batch is normalized by its "
                "own.",
                "And as counter-examples layer, group and instance norm in a network of 12 layers (the "
                "one of claim 3): they take "
                "mean and standard deviation from each image by itself, so every image has its own map, and what "
                "is spread over images "
                "changes shape.",
            )
        ),
        _by_layer(m),
        words.table(
            (
                ("network and norm", "what was run"),
                ("norms", "number of normalization layers"),
                ("typical layer", "median over layers of the median change over channels; 0 is no change"),
                ("most changed layer", "the largest of those medians"),
                ("most changed channel", "the largest change of any channel of any layer"),
            ),
            (_row(name, shapes) for name, shapes in _all(m).items()),
            "Change of shape: the larger of |change of skewness| / (1 + |skewness|) and the same for "
            "kurtosis. No unit. "
            f"{m.n_constant or 'None'} of the demo's channels are constant on these images, and so without "
            "a shape.",
        ),
        Prose(
            (
                "Nothing here was taken from bnprobe's own tables, which derive the outputs of batch norm "
                "from its inputs on the "
                "strength of this very claim; their column post_skew differs from what was read by at "
                f"most {words.number(m.gap_bnprobe, 2)}.",
            )
        ),
    )
    return words.section(1, TITLE, CLAIM, CHINESE, verdict, blocks)


TITLE = "The shape is kept"
CLAIM = "Normalization never changes a data set's distribution: it only moves and scales it."
CHINESE = "归一化不会改变数据分布的形状，只是对数据做平移和缩放。"


def _all(m: Measured) -> dict[str, Shapes]:
    return {
        "demo, batch norm, fixed statistics": m.demo_fixed,
        "demo, batch norm, batches of 16": m.demo_by_batch,
        **{f"12 layers, {name}": shapes for name, shapes in m.plain.items()},
    }


def _row(name: str, s: Shapes) -> tuple[str | float, ...]:
    return (
        name,
        len(s.typical),
        float(np.nanmedian(s.typical)),
        float(np.nanmax(s.typical)),
        float(np.nanmax(s.largest)),
    )


def _scatter(c: Clusters) -> object:
    def panel(title: str, points: Array, unit: str) -> Plot:
        lines = tuple(
            curve(*points[c.classes == k].T, f"class {'AB'[k]}", colour, dots=True)
            for k, colour in enumerate((MEASURED, EXPECTED))
        )
        return Plot(title, f"first column ({unit})", f"second column ({unit})", lines)

    return picture(
        "clusters",
        "Two clouds of points, before and after Z-scoring: the same picture on other axes.",
        (
            panel("before", c.before, "units of the data"),
            panel("after", c.after, "standard deviations from the mean"),
        ),
        "Every point is one example, colored by its class. Left as drawn, right after (x − mean) / "
        "standard deviation per column.",
    )


def _by_layer(m: Measured) -> object:
    def line(s: Shapes, label: str, colour: str) -> Curve:
        # a logarithmic axis has no place for an exact 0
        return curve(np.arange(1, len(s.typical) + 1), np.maximum(s.typical, 1e-17), label, colour)

    demo = (
        line(m.demo_by_batch, "batches of 16", EXPECTED),
        line(m.demo_fixed, "fixed statistics", MEASURED),
    )
    plain = tuple(line(s, name, COLOURS[name]) for name, s in m.plain.items())
    x, y = "norm, counted from the input", "change of shape (no unit)"
    return picture(
        "shape-by-layer",
        "Change of shape by layer: rounding for fixed statistics, visible for all others.",
        (
            Plot("demo network, batch norm", x, y, demo, log_y=True),
            Plot("12 layers, one norm each", x, y, plain, log_y=True),
        ),
        "Median over the channels of each layer. The axis is logarithmic: 10⁻¹⁵ is the rounding of 64-bit "
        "numbers, 1 a "
        "distribution of quite another shape.",
    )
