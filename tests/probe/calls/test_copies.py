"""Equal samples of a first call: counted to the last digit, at norms that use their batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.probe.calls.copies import Copies, copies_among
from bnprobe.rules.groups import SAME_SAMPLES
from bnprobe.stats import Moments


def of(rows: np.ndarray) -> Moments:
    """The extremes of each (sample, channel); nothing else is looked at."""
    zero, n = np.zeros(rows.shape[:2]), np.full(rows.shape[:2], rows.shape[2])
    return Moments(n=n, mean=zero, m2=zero, m3=zero, m4=zero, low=rows.min(-1), high=rows.max(-1))


@pytest.mark.parametrize(
    ("order", "repeated", "largest"),
    [
        (range(10), 0.0, 0.0),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 8], 0.2, 0.0),
        ([0, 0, 0, 1, 1, 2, 3, 4, 5, 6], 0.5, 0.0),
        ([0, 1, 0, 2, 0, 3, 0, 4, 4, 5], 0.6, 0.4),
        ([0] * 10, 1.0, 1.0),
    ],
)
def test_equal_samples_are_counted(order, repeated: float, largest: float) -> None:
    """Fails if samples that are drawn twice make a group, or equal ones must stand side by side."""
    rows = np.random.default_rng(0).normal(size=(10, 3, 20))[list(order)]
    found = copies_among(of(rows))
    assert (found.repeated, found.largest) == pytest.approx((repeated, largest))


def test_equal_in_one_channel_is_not_equal() -> None:
    """Fails if one channel, or one end alone, decides."""
    rows = np.random.default_rng(0).normal(size=(10, 3, 20))
    rows[:, 0] = rows[0, 0]
    ends = rows.clip(-9, 0.1)
    assert copies_among(of(rows)) == copies_among(of(ends)) == copies_among(of(-ends)) == Copies()


def report(data: list[torch.Tensor]) -> bnprobe.Report:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4)
    )
    for x in data[4:]:
        model(x)
    return bnprobe.report(bnprobe.record(model.eval(), data[:4]))


def images(blank: float = 0.0, value: float = 0.0) -> list[torch.Tensor]:
    """Eight batches of 20, of which a share is one constant image."""
    torch.manual_seed(1)
    data = [torch.randn(20, 3, 8, 8) for _ in range(8)]
    for x in data:
        x[torch.randperm(20)[: round(20 * blank)]] = value
    return data


@pytest.mark.parametrize("value", [0.0, -2.0])
def test_blank_images_are_found(value: float) -> None:
    """Fails if files that could not be read pass for photographs, at the first norm or because of its padding."""
    found = report(images(0.3, value)).findings
    (row,) = found[found["rule"] == "samples-alike"].itertuples()
    assert (row.severity, row.layer) == ("warning", "1")
    assert row.because.startswith("30% of them (threshold 10%)")


def test_what_is_no_copy_is_silent() -> None:
    """Fails if a few blank images, samples drawn twice, repeated batches or a pass of zeros are called a mistake."""
    fine = images()
    twice = [torch.cat([x[:10], x[:10]]) for x in fine]
    repeated = [x[:4].repeat_interleave(5, 0) for x in fine]
    for data in (fine, images(0.05), twice, repeated, [torch.zeros(20, 3, 8, 8)] * 8):
        found = report(data).findings
        assert not (found["says"].str.contains("one and the same")).any()


def test_the_line_that_shows_equal_samples_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Fails if it names a batch without equal samples, or not how many there are."""
    data = [(x, None) for x in (images()[0], images(0.3, -2.0)[1])]
    exec(SAME_SAMPLES, {"batches": data})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["1"]
    assert "6" in printed[0].split("]")[0]
