"""The study of recalibration: corruptions are what the paper defines, and the verdict follows the numbers."""

from __future__ import annotations

import colorsys
import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter
from support.paths import ROOT

from bnprobe.report.page.blocks import Block, Prose, Table
from scripts import corruptions, recalibration_study
from scripts.corruptions import CORRUPTIONS, STRENGTHS, corrupted


def images(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_grow_stay_in_range_and_repeat(name: str) -> None:
    """Fails if a strength is out of order, or a draw is not that of the seed."""
    x = images()
    off = [(corrupted(x, name, k, 1) - x).square().mean().item() for k in STRENGTHS]
    assert off == sorted(off)
    assert off[0] > 0
    made = corrupted(x, name, 5, 1)
    assert 0 <= made.min() <= made.max() <= 1
    assert torch.equal(made, corrupted(x, name, 5, 1))
    assert torch.equal(corrupted(x, name, 0, 1), x)


def test_each_is_what_its_definition_says() -> None:
    """By numpy, scipy and colorsys."""
    x = images()
    a = x.double().numpy()
    mean = a.mean((2, 3), keepdims=True)
    np.testing.assert_allclose(corrupted(x, "contrast", 2, 0), mean + 0.5 * (a - mean), atol=1e-6)
    for k, sigma in ((1, 0.4), (5, 1.0)):
        blurred = gaussian_filter(a, (0, 0, sigma, sigma), mode="nearest", truncate=4)
        np.testing.assert_allclose(corrupted(x, "blur", k, 0), blurred, atol=1e-6)
    bright = corrupted(x, "brightness", 3, 0)
    for i, j in ((0, 0), (7, 3)):
        h, s, v = colorsys.rgb_to_hsv(*a[0, :, i, j])
        expected = colorsys.hsv_to_rgb(h, s, min(v + 0.15, 1))
        np.testing.assert_allclose(bright[0, :, i, j], expected, atol=1e-6)
    middle = torch.full((4, 3, 64, 64), 0.5)
    assert (corrupted(middle, "noise", 5, 0) - middle).std().item() == pytest.approx(0.1, rel=0.02)
    foggy = corruptions.fog(middle, 1, torch.Generator().manual_seed(0))
    assert foggy.min().item() == pytest.approx(0.5 * 0.5 / 0.7, rel=1e-5)
    assert foggy.max().item() == pytest.approx(0.7 * 0.5 / 0.7, rel=1e-5)


def table(rows: list[tuple[float, float, float]]) -> pd.DataFrame:
    made = pd.DataFrame(rows, columns=["low", "high", "before"])
    return made.assign(way="both", corruption=["none", *["fog"] * (len(rows) - 1)])


def test_the_verdict_follows_the_numbers() -> None:
    apart = table([(-0.1, -0.01, 0.9), (-0.1, 0.1, 0.8), (0.1, 0.2, 0.5)])
    said = recalibration_study.verdict(apart)
    assert (
        "in 1 of 3 cases, exactly those in which the stored ones leave less than 80% accuracy (90% without"
        in said
    )
    assert "They lower it in 1, and in 1 the 95% interval includes 0" in said
    mixed = table([(0.1, 0.2, 0.9), (-0.1, 0.1, 0.8), (0.1, 0.2, 0.5)])
    assert "in 2 of 3 cases, all those below 80% accuracy and some up to 90%" in recalibration_study.verdict(
        mixed
    )


def test_the_page_is_that_of_the_table() -> None:
    """Fails if the committed page tells other numbers than the committed table."""
    measured = pd.read_csv(ROOT / "reports" / "recalibration.csv", keep_default_na=False)
    page = (ROOT / "reports" / "recalibration.html").read_text("utf-8")
    assert recalibration_study.verdict(measured[measured["images"] == 1000]) in page


def test_the_page_says_what_was_done_in_words() -> None:
    """Fails if a reader meets "prior in 9" before anything says what the prior is, or a hyphen for a minus sign."""
    measured = pd.read_csv(ROOT / "reports" / "recalibration.csv", keep_default_na=False)
    page = recalibration_study.page(measured)
    words = " ".join(
        [paragraph for section in page.sections for block in section.blocks for paragraph in said(block)]
    )
    full = measured[measured["images"] == 1000].pivot_table(
        index=["corruption", "strength"], columns="way", values="difference"
    )
    n = int((full.idxmax(axis=1) == "prior").sum())
    assert f"both mixed with the stored ones as if these were of 64 images in {n}" in words
    assert not re.search(r"\b(half|prior) in \d", words)
    assert "−" in words
    assert not re.search(r"(?<![\w.])-\d", words)
    heads = [head for section in page.sections for block in section.blocks for head in heads_of(block)]
    assert "stored as 64 images" in heads
    assert not {"half", "prior"} & set(heads)


def said(block: Block) -> list[str]:
    """Sentences and cells."""
    if isinstance(block, Prose):
        return list(block.paragraphs)
    return [cell.text for row in block.rows for cell in row] if isinstance(block, Table) else []


def heads_of(block: Block) -> list[str]:
    return [name for name, _ in block.heads] if isinstance(block, Table) else []


def test_changes_have_a_sign() -> None:
    """Fails if a fall has a hyphen, or what rounds to nothing looks like a fall."""
    assert [recalibration_study._signed(x) for x in (0.123, -0.0456, 0.0, -0.0001)] == [
        "+12.3",
        "−4.6",
        "0.0",
        "0.0",
    ]
