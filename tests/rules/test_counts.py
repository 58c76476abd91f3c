"""num_batches_tracked as torch keeps it."""

from __future__ import annotations

import torch
from torch import nn

import bnprobe


def test_an_instance_norm_is_not_counted():
    """Fails if a count that torch never touches is held against those of batch norms."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3),
        nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        nn.BatchNorm2d(8),
    )
    for _ in range(20):
        model(torch.randn(8, 3, 12, 12))
    assert model[3].num_batches_tracked == 0
    assert not torch.equal(model[3].running_mean, torch.zeros(8))
    report = bnprobe.report(bnprobe.record(model.eval(), [(torch.randn(16, 3, 12, 12), None)]))
    assert "batches-differ" not in set(report.findings["rule"])
