"""One channel from its inputs, below, over the line of the norm to its outputs, at the left."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnprobe.report.colours import CRITICAL, EXPECTED, INK, MEASURED, MUTED
from bnprobe.report.figures.specs import Density, Transfer
from bnprobe.report.numbers import number
from bnprobe.stats.moments import Array

REACH, FARTHEST = 4.5, 9.0
"""σ at the ends of the inputs' axis: where nearly all inputs are nearer, and at most."""


def transfer(spec: Transfer) -> Figure:
    """The norm's line among its inputs and outputs; red is what the activation cuts."""
    figure = Figure(figsize=(5.2, 4.6))
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 3.4), height_ratios=(3.4, 1), wspace=0.02, hspace=0.02)
    main = figure.add_subplot(grid[0, 1])
    below = figure.add_subplot(grid[1, 1], sharex=main)
    beside = figure.add_subplot(grid[0, 0], sharey=main)
    low, high = sorted((spec.beta - 4 * spec.gamma, spec.beta + 4 * spec.gamma))
    limits = min(low, 0.0), max(high, 0.0)
    _line(main, spec, limits)
    _inputs(below, spec)
    _outputs(beside, spec)
    reach = _reach(spec.inputs)
    main.set_xlim(-reach, reach)
    main.set_ylim(*limits)
    figure.suptitle(spec.title, fontsize=10, x=0.02, ha="left")
    figure.legend(loc="lower left", fontsize=8, frameon=False)
    return figure


def _reach(inputs: Density) -> float:
    """σ within which all but one in a hundred inputs lie."""
    below = np.cumsum(inputs.heights * np.diff(inputs.edges))
    start, end = np.searchsorted(below, (0.005, 0.995))
    low, high = inputs.edges[start], inputs.edges[end + 1]
    return float(np.clip(max(-low, high) + 0.5, REACH, FARTHEST))


def _line(axes: Axes, spec: Transfer, limits: tuple[float, float]) -> None:
    for start, end in ((limits[0], spec.alive[0]), (spec.alive[1], limits[1])):
        if end > start:
            axes.axhspan(max(start, limits[0]), min(end, limits[1]), color=CRITICAL, alpha=0.08, linewidth=0)
    axes.axhline(0, color=MUTED, linewidth=0.6)
    axes.plot(spec.z, spec.beta + spec.gamma * spec.z, color=INK, linewidth=1.2)
    if spec.after is not None and spec.follows:
        axes.plot(spec.z, spec.after, color=INK, linewidth=2.4)
    axes.set_title(_words(spec), fontsize=9)
    axes.tick_params(labelbottom=False, labelleft=False, length=0)


def _words(spec: Transfer) -> str:
    words = f"slope γ = {number(spec.gamma)}, β = {number(spec.beta)}"
    return f"{words}; bold: after the {spec.follows}" if spec.follows else words


def _inputs(axes: Axes, spec: Transfer) -> None:
    at, heights = _steps(spec.inputs)
    axes.fill_between(at, heights, step="post", color=MEASURED, linewidth=0, alpha=0.75, label="measured")
    bell = np.exp(-(spec.z**2) / 2) / np.sqrt(2 * np.pi)
    axes.plot(spec.z, bell, color=EXPECTED, linewidth=1.2, label=_expected(spec))
    axes.set_ylim(0, 1.15 * max(float(bell.max()), float(heights.max())))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(spec.x_label)


def _expected(spec: Transfer) -> str:
    return "expected from\nrunning statistics,\nβ and γ" if spec.expected else "expected\nfrom β and γ"


def _outputs(axes: Axes, spec: Transfer) -> None:
    at, heights = _steps(spec.outputs)
    middle = (spec.outputs.edges[:-1] + spec.outputs.edges[1:]) / 2
    alive = (middle > spec.alive[0]) & (middle < spec.alive[1])
    cut = np.append(~alive, False)
    for shown, colour in ((~cut, MEASURED), (cut, CRITICAL)):
        axes.fill_betweenx(
            at, np.where(shown, heights, 0), step="post", color=colour, linewidth=0, alpha=0.75
        )
    sd = abs(spec.gamma)
    bell = np.exp(-(spec.z**2) / 2) / np.sqrt(2 * np.pi) / sd
    axes.plot(bell, spec.beta + spec.gamma * spec.z, color=EXPECTED, linewidth=1.2)
    axes.set_xlim(1.15 * max(float(bell.max()), float(heights.max())), 0)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_ylabel("output of the norm")


def _steps(density: Density) -> tuple[Array, Array]:
    """Left edges with heights, and the last edge with the last height once more."""
    return density.edges, np.append(density.heights, density.heights[-1:])
