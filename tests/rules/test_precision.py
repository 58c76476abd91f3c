"""γ in half precision: updates that are smaller than a step, on real training."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import bnprobe
from rules.edited import edited, evidence, findings

RULE = "updates-below-step"


def trained(dtype: torch.dtype, lr: float, learns: bool = True) -> bnprobe.Recording:
    """An RMS norm that is trained for some steps, and recorded with its gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.RMSNorm(8), nn.Linear(8, 1)).to(dtype)
    model[1].weight.requires_grad_(learns)
    x = torch.randn(64, 8).to(dtype)
    step = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.0, eps=1e-4)
    for _ in range(20):
        step.zero_grad()
        (model(x).float().squeeze(1) - x[:, 0].float()).square().mean().backward()
        step.step()
    with bnprobe.attach(model) as probe:
        for part in x.split(16):
            model(part).float().square().mean().backward()
    return probe.recording


def found(report: bnprobe.Report, rule: str = RULE) -> pd.DataFrame:
    return report.findings[report.findings["rule"] == rule]


@pytest.mark.parametrize(
    ("dtype", "lr", "fires"),
    [
        (torch.bfloat16, 3e-4, True),
        (torch.float16, 1e-4, True),
        (torch.float32, 3e-4, False),
        (torch.bfloat16, 3e-2, False),
    ],
)
def test_updates_that_are_rounded_away(dtype: torch.dtype, lr: float, fires: bool):
    """Fails if float32 is blamed, γ that did move is, or the remedy is to load trained weights."""
    report = bnprobe.report(trained(dtype, lr))
    told = found(report)
    assert len(told) == fires
    if fires:
        row = told.iloc[0]
        assert (row["severity"], row["layer"], len(row["channels"])) == ("warning", "1", 8)
        assert "a gradient arrives" in row["because"]
        assert ("0.0078" if dtype == torch.bfloat16 else "0.00098") in row["because"]
        assert found(report, "affine-untrained").empty


def test_a_scale_that_is_frozen_is_not_rounded_away():
    """Fails if γ at 1 in bfloat16 is enough: here it gets no gradient."""
    assert found(bnprobe.report(trained(torch.bfloat16, 3e-4, learns=False))).empty


@pytest.mark.parametrize(
    ("dtype", "beta", "fires"),
    [(torch.bfloat16, 0.3, True), (torch.bfloat16, 0.0, False), (torch.float32, 0.3, False)],
)
def test_a_file_whose_offsets_moved(dtype: torch.dtype, beta: float, fires: bool):
    """Fails if a fresh file is said to be stuck, or one whose β was trained is not."""
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)).to(dtype)
    model[1].bias.data.fill_(beta)
    report = bnprobe.check(model.state_dict())
    assert len(found(report)) == fires
    if dtype == torch.bfloat16 and not fires:
        assert "master copies" in found(report, "affine-untrained")["do"].item()


def test_a_gradient_of_zero_is_nothing_to_round_away():
    """Fails if γ that a backward pass reaches with a gradient of 0 is said to be rounded away."""
    model = nn.Sequential(nn.RMSNorm(8)).bfloat16()
    with bnprobe.attach(model) as probe:
        (model(torch.randn(16, 8).bfloat16()) * 0).sum().backward()
    assert found(bnprobe.report(probe)).empty


@pytest.mark.parametrize("moved", [1, 8])
def test_one_offset_that_moved_is_enough(moved: int):
    """Fails if every β must have moved for γ to be stuck: some channels are never used."""
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)).bfloat16()
    model[1].bias.data[:moved] = 0.3
    assert len(found(bnprobe.check(model.state_dict()))) == 1


@pytest.mark.parametrize(
    ("row", "cells", "channels"),
    [
        ({"n_backward": 0, "learns": "both"}, {}, (0, 1, 2)),
        ({"n_backward": 0, "learns": "both"}, {"beta": 0.0}, ()),
        ({"n_backward": 3, "learns": "both"}, {"grad_gamma": [0.1, 0.0, -0.1]}, (0, 2)),
        ({"n_backward": 3, "learns": "γ"}, {"grad_gamma": [0.1, 0.0, -0.1]}, (0, 2)),
        ({"n_backward": 1, "learns": "γ"}, {"grad_gamma": [0.1, 0.0, -0.1]}, (0, 2)),
        ({"n_backward": 1, "learns": "γ"}, {"grad_gamma": [0.1, 0.0, -0.1], "gamma": [1.0, 1.0, 0.9]}, (0,)),
        ({"n_backward": 3, "learns": "β"}, {"grad_gamma": 0.1}, (0, 1, 2)),
        ({"n_backward": 0, "learns": "both"}, {"gamma": [1.0, 1.0, 0.9]}, ()),
        ({"n_backward": 3, "learns": "both"}, {"gamma": [1.0, 0.9, 0.9], "grad_gamma": 0.1}, ()),
    ],
)
def test_what_shows_that_a_scale_is_stuck(
    row: dict[str, Any], cells: dict[str, Any], channels: tuple[int, ...]
):
    """Fails if gradients are asked for where no pass was seen or γ takes none, or one γ at 1 is enough."""
    base = edited(evidence(), {"gamma": 1.0, "beta": 0.3, **cells}, parameter_dtype="bfloat16", **row)
    found = findings(RULE, base)
    assert [one.channels for one in found] == [channels] * bool(channels)
    arrives = "a gradient arrives at them" if row["n_backward"] else "β was trained"
    assert [arrives in one.because for one in found] == [True] * bool(channels)
