"""The picture of one channel from input to output: which channel, its densities, and what is drawn of them."""

from __future__ import annotations

import numpy as np
import pytest
from measures.sites import memory_of, recording, site, some_rows

import bnprobe
from bnprobe.recording.neighbours import Neighbours
from bnprobe.report.chapters.transfer import transfer
from bnprobe.report.colours import CRITICAL, MEASURED
from bnprobe.report.figures.specs import Density, Transfer

ROWS = some_rows(30, 3, 11)
STORED = memory_of(ROWS)
FAR = {**STORED, "running_mean": STORED["running_mean"] + [0, -2, 0] * np.sqrt(STORED["running_var"])}
AFTER_RELU = Neighbours(follows="relu")


def a_report(**changes: object) -> bnprobe.Report:
    """Two batch norms, the second with its second channel two standard deviations too high."""
    near = site(ROWS, "near", gamma=[1, 2, 3], beta=0.5, **STORED)
    far = site(ROWS, "far", gamma=[1, -2, 3], beta=0.5, **{**FAR, "neighbours": AFTER_RELU, **changes})
    return bnprobe.report(recording(near, far))


def area(density: Density) -> float:
    return float(np.sum(density.heights * np.diff(density.edges)))


def mean(density: Density) -> float:
    """By the middles of the bins."""
    return float(
        np.sum(density.heights * np.diff(density.edges) * (density.edges[:-1] + density.edges[1:]) / 2)
    )


def test_figures_hold_the_spine_and_the_channel_farthest_from_its_running_mean():
    """Fails if a paper cannot have what a page draws by its scripts, or another channel is shown."""
    report = a_report()
    assert {"spine", "transfer"} <= set(report.figures)
    assert report.figures["transfer"].get_suptitle() == "far, channel 1"


def test_densities_are_the_channels_own():
    """Fails if inputs are not in running σ, outputs not in their own units, or another channel's are taken."""
    report = a_report()
    drawn = transfer(report.recording.layers[1], 1)
    assert drawn is not None
    assert area(drawn.inputs) == pytest.approx(1)
    assert area(drawn.outputs) == pytest.approx(1)
    assert mean(drawn.inputs) == pytest.approx(2, abs=0.06), "two running standard deviations too high"
    assert mean(drawn.outputs) == pytest.approx(0.5 - 2 * 2, abs=0.12), "β + γ z"
    assert drawn.alive == (0.0, np.inf)
    np.testing.assert_allclose(drawn.after, np.maximum(0.5 - 2 * drawn.z, 0))


def test_a_channel_without_counts_or_without_spread_is_not_drawn():
    """Fails if a picture of nothing is made, or a constant channel ends in a division by 0."""
    assert transfer(site(ROWS, "bn", histograms=False, **STORED), 0) is None
    still = np.zeros_like(ROWS)
    assert transfer(site(still, "bn", kind="batch_norm", eps=0.0), 0) is None
    assert "transfer" not in bnprobe.report(recording(site(ROWS, "bn", histograms=False, **STORED))).figures


def test_what_the_activation_cuts_is_red():
    """Fails if the part of the outputs below 0 is drawn as if it got through, or the line has another slope."""
    report = a_report()
    figure = report.figures["transfer"]
    spec: Transfer = report.figures._specs["transfer"]
    main, _, outputs = figure.axes
    line = main.lines[1].get_xydata()
    slope = np.polyfit(line[:, 0], line[:, 1], 1)
    np.testing.assert_allclose(slope, [-2, 0.5], atol=1e-9)
    by_colour = {}
    for fill in outputs.collections:
        corners = np.concatenate([path.vertices for path in fill.get_paths()])
        wide = corners[:, 0] > 0
        by_colour[tuple(np.round(fill.get_facecolor()[0][:3], 3))] = corners[wide, 1]
    from matplotlib.colors import to_rgb

    alive, cut = (by_colour[tuple(np.round(to_rgb(colour), 3))] for colour in (MEASURED, CRITICAL))
    width = np.diff(spec.outputs.edges).max()
    assert cut.max() <= width
    assert alive.min() >= -width
    assert cut.min() < -2
