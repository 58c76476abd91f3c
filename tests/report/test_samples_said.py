"""Tables that show some of their rows say so, with the number of all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.runs import recorded
from torch import nn

import bnprobe
from bnprobe.comparison.page import moving
from bnprobe.recording import Recording
from bnprobe.report.document import Document

from .pages import parsed, text_of


def words_of(document: Document, folder: Path) -> str:
    """Everything that the page says."""
    return text_of(parsed(document.to_html(folder / "page.html").read_text("utf-8")))


def shifted(n: int, by: float = 0.0) -> Recording:
    """That many batch norms, each behind a convolution, whose inputs do not match their running statistics."""
    torch.manual_seed(0)
    model = nn.Sequential()
    for _ in range(n):
        model.append(nn.Conv2d(3, 3, 1))
        model.append(nn.BatchNorm2d(3))
        nn.init.constant_(model[-1].running_mean, 2 + by)
        model[-1].num_batches_tracked.fill_(1000)
    return recorded(model.eval(), torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (3, ["The norms that are shifted.", "with one scale per layer."]),
        (10, ["The norms that are shifted most: 8 of 10.", "with one scale per layer: 6 of 10."]),
    ],
)
def test_tables_of_norms_say_of_how_many(n, said, tmp_path):
    """Fails if the first rows look like all there are."""
    page = words_of(bnprobe.report(shifted(n)), tmp_path)
    assert [words for words in said if words not in page] == []


def test_outliers_say_of_how_many(tmp_path):
    """Fails if the first rows look like all there are."""
    model = nn.Sequential(*(nn.LayerNorm(64) for _ in range(9)))
    x = torch.randn(20, 64)
    x[:, 7] = 100
    page = words_of(bnprobe.report(recorded(model, x)), tmp_path)
    assert "as large as the typical one, the largest first: 8 of 9." in page


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (1, "The one norm that changed."),
        (6, "The 6 norms that changed, most changed first. All"),
        (7, "The 7 norms that changed, most changed first. The first 6 have a picture. All"),
        (25, "The 24 of 25 changed norms that changed most, most changed first. The first 6 have a picture."),
    ],
)
def test_a_comparison_says_of_how_many(n, said, tmp_path):
    """Fails if the norms that are shown look like all that changed."""
    page = words_of(bnprobe.compare(shifted(n), shifted(n, by=1.0)), tmp_path)
    assert said in page
    assert "would not fit" not in page


def test_a_wide_comparison_says_that_it_has_no_histograms(monkeypatch, tmp_path):
    """Fails if histograms are left out without a word."""
    monkeypatch.setattr(moving, "MOST_CHANNELS", 5)
    page = words_of(bnprobe.compare(shifted(2), shifted(2, by=1.0)), tmp_path)
    assert "The histograms of all 6 channels would not fit" in page
