"""Claim 4: not mean 0 and variance 1 is best, but what keeps the gradients balanced."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bnprobe.report.colours import EXPECTED, GREEN, MEASURED, VIOLET
from bnprobe.report.figures.specs import Plot
from bnprobe.report.page.blocks import Prose, Section
from scripts.article import words
from scripts.article.networks import Laboratory, batches, build, look_back, train
from scripts.article.pictures import COLOURS, curve, picture
from scripts.article.verdicts import Verdict

TITLE = "Balance, not 0 and 1"
CLAIM = (
    "Mean 0 and variance 1 are not the optimum as such: the best is what keeps the gradients balanced "
    "once inputs, weights "
    "and activations are multiplied."
)
CHINESE = "均值 0、方差 1 本身并不是最优；最优的是使输入、权重与激活相乘之后梯度保持均衡的分布。"

FACTOR = 4.0
MOVES = {
    "γ × 4": (FACTOR, 1.0, 0.0),
    "γ / 4": (1 / FACTOR, 1.0, 0.0),
    "β + |γ|": (1.0, 1.0, 1.0),
    "γ and β × 4": (FACTOR, FACTOR, 0.0),
}
"""Factor of γ, factor of β, and what is added to β in units of |γ|."""
COLOURS_OF_MOVES = dict(zip(MOVES, (MEASURED, EXPECTED, GREEN, VIOLET), strict=True))


@dataclass(frozen=True)
class Moved:
    """Loss and imbalance with one layer's γ and β moved, and the length of the gradient at that layer's output."""

    loss: float
    imbalance: float
    grad_out: float


@dataclass(frozen=True)
class Measured:
    trained: Moved
    reset: float
    lengths: tuple[float, ...]
    moves: dict[str, tuple[Moved, ...]]
    losses: dict[str, dict[float, float]]
    imbalances: dict[str, dict[float, float]]
    same_start: float
    depth: int


def norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def moved(model: nn.Module, layer: int, move: tuple[float, float, float]) -> nn.Module:
    """A copy with γ and β of one norm moved."""
    model = copy.deepcopy(model)
    norm, (gamma, beta, shift) = norms(model)[layer], move
    norm.bias.mul_(beta).add_(shift * norm.weight.abs())
    norm.weight.mul_(gamma)
    return model


@torch.no_grad()
def reset(model: nn.Module) -> nn.Module:
    """A copy whose outputs all have mean 0 and variance 1: γ = 1 and β = 0 everywhere."""
    model = copy.deepcopy(model)
    for norm in norms(model):
        norm.weight.fill_(1)
        norm.bias.zero_()
    return model


@torch.no_grad()
def loss_of(model: nn.Module, n: int) -> float:
    """Mean loss in train mode on the batches that `look_back` uses; the model stays as it is."""
    model = copy.deepcopy(model).train()
    return float(np.mean([float(nn.functional.cross_entropy(model(x), y)) for x, y in batches(n, 2)]))


def look(model: nn.Module, layer: int, n: int) -> Moved:
    report = look_back(model, n)
    return Moved(loss_of(model, n), report.gradient_imbalance, float(report.layers["grad_out"].iloc[layer]))


@torch.no_grad()
def unbalanced(model: nn.Module, factor: float) -> nn.Module:
    """A copy that computes the same, with outputs of every other layer `factor` times as large and as small.

    Through γ where there are norms, which are followed by a norm that undoes it; else through the weights, whose
    factors cancel in pairs because a ReLU passes a positive factor on. Needs an even number of layers and β = 0.
    """
    model = copy.deepcopy(model)
    learned = [norm for norm in norms(model) if norm.affine]
    scaled = [norm.weight for norm in learned] or [
        m.weight for m in model.modules() if isinstance(m, nn.Conv2d)
    ]
    for i, weight in enumerate(scaled):
        weight.mul_(factor if i % 2 == 0 else 1 / factor)
    if learned:
        model[-1].weight.mul_(factor)
    return model


def measure(laboratory: Laboratory) -> Measured:
    sizes = laboratory.sizes
    model, n = laboratory.course("batch").model, sizes.n_looks
    report, layers = look_back(model, n), range(len(norms(model)))
    lengths = tuple(float(v) for v in report.layers["grad_out"])
    moves = {name: tuple(look(moved(model, i, move), i, n) for i in layers) for name, move in MOVES.items()}
    losses: dict[str, dict[float, float]] = {}
    imbalances: dict[str, dict[float, float]] = {}
    starts = {
        "no norm, careful start": build("none", sizes.balance_depth, True),
        "batch norm": build("batch", sizes.balance_depth),
    }
    same = 0.0
    for name, start in starts.items():
        losses[name], imbalances[name] = {}, {}
        for factor in sizes.factors:
            uneven = unbalanced(start, factor)
            same = max(same, abs(loss_of(uneven, n) / loss_of(start, n) - 1))
            imbalances[name][factor] = look_back(uneven, n).gradient_imbalance
            losses[name][factor] = train(uneven, sizes.balance_steps, f"{name}, unbalanced by {factor:g}")
    trained = Moved(loss_of(model, n), report.gradient_imbalance, lengths[-1])
    return Measured(
        trained, loss_of(reset(model), n), lengths, moves, losses, imbalances, same, sizes.balance_depth
    )


def numbers(m: Measured) -> dict[str, object]:
    """`free`: the worst relative change of the loss, and the least factor of a gradient, over all layers but the last,
    which no norm follows."""
    together = m.moves["γ and β × 4"][:-1]
    change = max(abs(x.loss - m.trained.loss) / m.trained.loss for x in together)
    factor = min(before / x.grad_out for before, x in zip(m.lengths, together, strict=False))
    plain, normed = m.losses["no norm, careful start"], m.losses["batch norm"]
    return {
        "trained": m.trained.loss,
        "reset": m.reset,
        "plain": plain,
        "normed": normed,
        "free": (change, factor),
    }


def section(m: Measured, verdict: Verdict) -> Section:
    n = words.number
    free_change, free_factor = numbers(m)["free"]
    blocks = (
        Prose(
            (
                "Gradients are balanced when they are equally long at every layer: then one learning rate "
                "suits all. bnprobe's number for the "
                "opposite is the imbalance, the standard deviation through depth of log₁₀ of the gradient's "
                "length: 0 when all are equal, 1 when they "
                "typically differ tenfold from their mean.",
                "First the network with batch norm of claim 3, after training: loss "
                f"{n(m.trained.loss, 2)}, imbalance {n(m.trained.imbalance, 2)}. With "
                "γ = 1 and β = 0 put back at every norm, so that all outputs have mean 0 and variance 1 "
                f"again, its loss is {n(m.reset, 2)} on "
                "the same batches. Then γ and β of one layer at a time were moved away from what was "
                "learned.",
            )
        ),
        _moves(m),
        Prose(
            (
                "One curve is flat where another rises: with γ and β of a layer both four times as large "
                "its output is four times as large, the "
                "ReLU passes that on, and the next norm divides it out again. The loss changes by at most "
                f"{n(100 * free_change, 2)}%, while the gradient at that layer becomes at least "
                f"{n(free_factor, 2)} times shorter. (At the last "
                "layer no norm follows, so there it matters.) In such a network the gradient's balance "
                "can be set at will without changing "
                "what the network computes: balance alone cannot be what makes values optimal.",
                f"So the test is in training. Two networks of {m.depth} layers, one without norm (careful "
                "start of "
                "claim 3) and one with batch norm, "
                "begin from weights that compute the same but are scaled up and down in turn: layer 1 "
                "times a factor, layer 2 divided by it, and "
                f"so on (loss at the start the same to {n(100 * m.same_start, 2)}%). Factor 1 is the same "
                "network brought back to balance.",
            )
        ),
        _training(m),
        words.table(
            (
                ("factor", "scale of every other layer, up and down"),
                ("imbalance, no norm", "imbalance of the gradient at the start, network without norm"),
                ("loss, no norm", "loss after training, network without norm; 2.30 is guessing"),
                ("imbalance, batch norm", "imbalance at the start, network with batch norm"),
                ("loss, batch norm", "loss after training, network with batch norm"),
            ),
            (
                (f"{k:g}", *(v for name in m.losses for v in (m.imbalances[name][k], m.losses[name][k])))
                for k in m.losses["batch norm"]
            ),
            "∞ where training diverged. Loss: cross-entropy, mean over the last tenth of the steps.",
        ),
        Prose(
            (
                "The reason why the norm helps an unbalanced start: whatever the size of a layer's input, "
                "the norm after it brings the output back to "
                "the same size, so the weights' part in the product no longer depends on it. What stays "
                "is how fast γ and β themselves learn.",
            )
        ),
    )
    return words.section(4, TITLE, CLAIM, CHINESE, verdict, blocks)


def _moves(m: Measured) -> object:
    x = "norm that was moved, counted from the input"
    depth = np.arange(1, len(m.lengths) + 1)

    def panel(title: str, unit: str, take: object, level: float) -> Plot:
        lines = tuple(
            curve(depth, [take(v) for v in moved], name, COLOURS_OF_MOVES[name])
            for name, moved in m.moves.items()
        )
        as_trained = curve([depth[0], depth[-1]], [level, level], "as trained", "#7d828a", dashed=True)
        return Plot(title, x, unit, (*lines, as_trained), log_y=title.startswith("loss"))

    return picture(
        "moves",
        "Loss and gradient imbalance when gamma and beta of one layer are moved.",
        (
            panel("loss", "cross-entropy", lambda v: v.loss, m.trained.loss),
            panel(
                "imbalance of the gradient",
                "standard deviation of log₁₀ length (no unit)",
                lambda v: v.imbalance,
                m.trained.imbalance,
            ),
        ),
        "One layer is moved at a time, all others stay as trained. The loss on a logarithmic axis.",
    )


def _training(m: Measured) -> object:
    def panel(title: str, unit: str, values: dict[str, dict[float, float]], **more: object) -> Plot:
        lines = tuple(curve(list(v), list(v.values()), name, COLOURS[name]) for name, v in values.items())
        ticks = tuple(m.losses["batch norm"])
        return Plot(title, "factor between layers (no unit)", unit, lines, log_x=True, ticks=ticks, **more)

    return picture(
        "unbalanced",
        "Imbalance at the start and loss after training, against the factor between layers.",
        (
            panel(
                "imbalance of the gradient at the start",
                "standard deviation of log₁₀ length (no unit)",
                m.imbalances,
            ),
            panel("loss after training", "cross-entropy", m.losses, limits=(0, 2.6)),
        ),
        "Every point is a network that computes the same at the start. A point that is missing has diverged.",
    )
