"""What recordings and their parts show of themselves: short, telling, and safe in a notebook."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

import bnprobe
from recording.old import net

LONGEST = 200


@pytest.fixture(scope="module")
def recorded() -> bnprobe.Recording:
    return net.record()


def test_a_recording_says_what_it_holds(recorded):
    """Fails if a recording prints its arrays: that of a ResNet-18 had 2.5 million characters."""
    assert repr(recorded) == "Recording(Net: 4 norms, 16 channels, 7 samples, eval)"


@pytest.mark.parametrize(
    "part",
    ["pre", "pre_histogram", "pre_images", "pre_folds", "classes", "gradient", "neighbours", "call_log"],
)
def test_parts_are_short_and_name_themselves(recorded, part):
    """Fails if a part of a record prints arrays, or something that does not say what it is."""
    record = recorded.layers[0]
    value = getattr(record, part)
    assert repr(value).startswith(f"{type(value).__name__}(")
    assert len(repr(value)) <= LONGEST
    assert "array" not in repr(value)


def test_numbers_in_a_repr_are_those_of_the_run(recorded):
    """Fails if a count is of something else: 7 images of 5 by 5 pixels, of two classes, in two backward passes."""
    record = recorded.layers[0]
    assert repr(record) == "LayerRecord(bn: batch_norm, 4 channels, 2 calls, eval)"
    assert repr(record.pre) == f"Moments(shape (4,), {4 * 7 * 25} values)"
    assert repr(record.pre_histogram) == f"Histogram(4 channels, {4 * 7 * 25} values counted on 1 scale)"
    assert repr(record.pre_images) == "ImageMoments(shape (4,), 7 samples)"
    assert repr(record.pre_folds) == "Folds(2 of 4 channels, 2 batches)"
    assert repr(record.classes) == "ClassMoments(2 classes, 7 samples, 4 channels)"
    assert repr(record.gradient) == "GradientRecord(4 channels, 2 backward passes)"


def test_a_notebook_lists_the_sites_and_escapes_names():
    """Fails if a path is written into HTML as it is, or all of many sites are listed."""

    class Hostile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleDict({f"<b>{i}</b>": nn.BatchNorm1d(2) for i in range(12)})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for norm in self.norms.values():
                x = norm(x)
            return x

    html = bnprobe.record(Hostile().eval(), [torch.tensor(np.eye(4, 2), dtype=torch.float32)])._repr_html_()
    assert "&lt;b&gt;0&lt;/b&gt;" in html
    assert "<b>" not in html
    assert html.count("batch_norm") == 10
    assert "2 more" in html


def test_public_objects_show_themselves_alike():
    """Fails if one object says <Report on ...> and the next Recording(...)."""
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).eval()
    with bnprobe.attach(model) as probe:
        model(torch.randn(5, 6))
    report = bnprobe.report(probe)
    for shown in (probe, probe.recording, report, report.figures, bnprobe.compare(probe, probe)):
        assert re.fullmatch(rf"{type(shown).__name__}\(.*\)", repr(shown))


def test_a_file_of_weights_has_no_samples():
    """Fails if a recording without data is said to hold 0 samples."""
    report = bnprobe.check(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).state_dict())
    assert repr(report.recording).endswith(": 1 norm, 4 channels, weights only)")
