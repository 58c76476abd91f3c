"""Both sides on one spine, and the verdict above it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from measures.sites import recording, running_stats_of, site, some_rows

import bnprobe
from bnprobe.comparison.first_difference import NOISE
from bnprobe.report.figures.specs import Lane
from bnprobe.report.page.blocks import Figure, Headline, Prose

ROWS = some_rows(300, 12, 2)
SD = ROWS.std(axis=(0, 2))
GAMMA = np.linspace(0.5, 1.5, 12)


def side(*shifts: float, **changes: Any) -> bnprobe.Recording:
    """A norm per number, whose inputs are moved by so many running standard deviations."""
    vectors = {"gamma": GAMMA, "beta": 0.1, **running_stats_of(ROWS), **changes}
    sites = [site(ROWS + shift * SD[:, None], f"bn{i}", **vectors) for i, shift in enumerate(shifts)]
    return recording(*sites)


def first_section(comparison: bnprobe.Comparison) -> tuple[Headline, dict[str, Lane], list[str]]:
    """The headline, the lanes of the spine by title, and the rest in words."""
    section = comparison._page.sections[0]
    assert section.id == "answer"
    lanes = {
        lane.title: lane
        for block in section.blocks
        if isinstance(block, Figure) and block.name == "spine"
        for lane in block.spec.lanes
    }
    headline = section.blocks[0]
    assert isinstance(headline, Headline)
    return (
        headline,
        lanes,
        [p for block in section.blocks if isinstance(block, Prose) for p in block.paragraphs],
    )


def test_the_spine_shows_every_gap_with_its_noise() -> None:
    """Fails if a gap or its band is of another norm, or a difference is filled that samples explain."""
    comparison = bnprobe.compare(side(0, 0, 0), side(0.001, 2, 0.7))
    lanes = first_section(comparison)[1]
    lane = lanes["difference of the inputs"]
    layers = comparison.layers
    np.testing.assert_array_equal(lane.values, layers["pre_gap"])
    np.testing.assert_array_equal(lane.bands[0][1], NOISE * layers["pre_noise"])
    assert lane.strong == (False, True, True)
    assert (lane.marks, lanes["difference of the outputs"].marks) == (((1, "first"),), ((1, "largest"),))
    assert lane.levels == ((comparison.settings.limits.gap, "reported"),)


def test_the_spine_shows_what_both_sides_learned() -> None:
    """Fails if the |γ| of B stand where those of A should, or signs count."""
    comparison = bnprobe.compare(side(0, 0.5), side(0, 0.5, gamma=-2 * GAMMA))
    _, lanes, _ = first_section(comparison)
    lane = lanes["learned |γ| (dots: A, diamonds: B)"]
    assert lane.other is not None
    np.testing.assert_allclose(lane.values, 1.0)
    np.testing.assert_allclose(lane.other, 2.0)
    assert lane.words[0] == "A 1, B 2"
    assert "difference of the inputs" not in lanes  # which are the same
    captions = {f.width: f.caption for f in comparison._page.figures() if f.name.startswith("spine")}
    assert all("dots: A; orange diamonds: B" in captions[width] for width in ("wide", "narrow"))


def test_inputs_of_both_sides_stand_on_one_scale() -> None:
    """Fails if variances are drawn as deviations, or without data the running ones are not."""
    a, b = side(0), side(0.5, running_var=np.full(12, 9.0))
    lane = first_section(bnprobe.compare(a, b))[1]["standard deviation of the inputs (dots: A, diamonds: B)"]
    np.testing.assert_allclose(lane.values, np.sqrt(np.median(SD**2)))


@pytest.mark.parametrize(
    ("b", "state"),
    [
        (side(0, 0), "good"),
        (side(0, 0.45), "notice"),
        (side(0, 2), "warning"),
        (side(0, np.nan), "critical"),
    ],
    ids=["same", "small", "large", "broken"],
)
def test_the_headline_is_the_verdict(b: bnprobe.Recording, state: str) -> None:
    """Fails if a page of equal sides warns, or one of a broken side does not, or its first sentence is not the answer's."""
    comparison = bnprobe.compare(side(0, 0), b)
    headline, lanes, more = first_section(comparison)
    assert headline.state == state
    assert headline.text == comparison.answer[0]
    assert headline.title == comparison.answer[0].split(". ")[0].removesuffix(".")
    assert more == list(comparison.answer[1:])
    assert ("difference of the inputs" in lanes) == (state in ("notice", "warning"))


def test_both_sides_stand_below_the_title() -> None:
    """Fails if a reader must scroll to learn what was compared."""
    assert (
        bnprobe.compare(side(0), side(1))._page.lead
        == "A: Net on 300 samples. B: Net on 300 samples. 1 common norm, 12 channels."
    )
