"""Two probes on one model: each records as if it were alone, and says that there was another."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.probe.notes import TWO_PROBES


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
    )  # fmt: skip


def recorded(n: int, late: int = 0, training: bool = True) -> list[bnprobe.Report]:
    """Reports of `n` probes, the later ones attached after `late` passes."""
    model, data = (
        network().train(training),
        torch.randn(4, 6, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
    )
    probes = [bnprobe.attach(model)]
    for i, x in enumerate(data):
        if i == late:
            probes += [bnprobe.attach(model) for _ in range(n - 1)]
        model(x).square().mean().backward()
    for probe in probes:
        probe.detach()
    return [bnprobe.report(probe) for probe in probes]


@pytest.mark.parametrize("training", [True, False])
def test_each_of_two_probes_records_as_if_alone(training: bool) -> None:
    """Fails if one probe takes the reading of the other for an operation of the model, as a second use of its inputs."""
    (alone,) = recorded(1, training=training)
    for report in recorded(2, training=training):
        for table in ("layers", "channels"):
            assert getattr(report, table).equals(getattr(alone, table)), table
        assert list(report.findings["rule"]) == list(alone.findings["rule"])


def test_a_probe_that_came_later_is_not_disturbed_by_the_first() -> None:
    """Fails if a probe whose own trace is over is seen in that of another."""
    first, second = recorded(2, late=2)
    assert first.layers["feeds_alone"].tolist() == second.layers["feeds_alone"].tolist() == [1, 1]


def test_both_say_that_there_was_another() -> None:
    """Fails if a probe that was left over in a notebook goes unnoticed, or one that is gone is told of."""
    notes = [report.recording.about.notes for report in recorded(2, late=3)]
    assert [TWO_PROBES in one for one in notes] == [True, True]
    model = network()
    bnprobe.attach(model).detach()
    with bnprobe.attach(model) as probe:
        model(torch.randn(2, 3, 8, 8))
    assert TWO_PROBES not in probe.recording.about.notes
