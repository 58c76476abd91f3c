"""What the page says of timesteps: who follows them, who does not, and what cannot be said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.diffusion import C, DiT, UNet
from torch import Tensor, nn

import bnprobe


def report_of(model: nn.Module, top: float = 1000, n: int = 40) -> bnprobe.Report:
    """On samples with timesteps from 0 to `top`."""
    torch.manual_seed(1)
    with bnprobe.attach(model.eval()) as probe, torch.no_grad():
        for _ in range(2):
            x = torch.randn(n, 2, 4, 4) if isinstance(model, UNet) else torch.randn(n, 7, 5)
            model(x, 1 + torch.rand(n) * top)
    return bnprobe.report(probe)


def said(report: bnprobe.Report) -> str:
    """The section on timesteps; empty without one."""
    _, there, rest = report.to_text().partition("What does the timestep change?")
    return " ".join(rest.partition("What was probed")[0].split()) if there else ""


def test_a_model_that_follows_the_timestep():
    """Fails if shares are of the wrong part, or the picture is one per norm."""
    torch.manual_seed(0)
    report = report_of(DiT(), top=30)
    text = said(report)
    assert "What modulates all 4 norms follows the timestep: " in text
    assert all(f"of {part}s" in text for part in ("scale", "shift", "gate"))
    assert "over 16 buckets of timesteps; most at" in text
    assert [name for name in report.figures if name.startswith("timesteps")] == ["timesteps"]


class Deaf(DiT):
    """Modulated by its input, and not by the timestep."""

    def forward(self, x: Tensor, t: Any) -> Tensor:
        self.own = x.mean(1)
        return super().forward(x, t)


def test_a_model_that_does_not():
    """Fails if chance over many buckets is taken for an effect."""
    torch.manual_seed(0)
    model = Deaf()
    for block in model.blocks:
        block.modulation = nn.Linear(5, 6 * C)
        block.register_forward_pre_hook(lambda _, args: (args[0], model.own, *args[2:]))
    assert "What modulates all 4 norms does not depend on the timestep: " in said(report_of(model, n=400))


def test_a_new_model_whose_gates_are_all_0():
    """Fails if blocks that add nothing are passed over, as they are with zeros in the last layer of the modulation."""
    model = DiT()
    for block in model.blocks:
        nn.init.zeros_(block.modulation[1].weight)
        nn.init.zeros_(block.modulation[1].bias)
    text = said(report_of(model))
    assert text.startswith("-") or "Every gate is 0 at every timestep" in text
    assert "What modulates all 4 norms is the same at every timestep that was seen." in text


def test_group_norms_alone():
    """Fails if a UNet without modulation has no word, or one on gates."""
    torch.manual_seed(0)
    text = said(report_of(UNet(scaled=False)))
    assert "The standard deviation that the typical norm divides by changes" in text
    assert "modulates" not in text
    assert "What modulates 1 norm" in said(report_of(UNet()))


@pytest.mark.parametrize("top", [0.0, 1e-9])
def test_one_bucket(top: float):
    """Fails if something is said of a change that was not seen."""
    report = report_of(DiT(), top)
    assert "in one bucket: what they change cannot be said." in said(report)
    assert "timesteps" not in report.figures


def test_a_model_without_timesteps_has_no_such_section():
    """Fails if every page speaks of timesteps."""
    assert not said(bnprobe.report(bnprobe.record(nn.Sequential(nn.LayerNorm(5)), [torch.randn(8, 5)])))
