"""Residual branches with a layer scale: both sides of the sum as they were in the pass, by torch's own arithmetic."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe


class Block(nn.Module):
    """x + scale * branch(x), as in ConvNeXt, written in one of the ways that people write it."""

    def __init__(self, scale: float, way: str) -> None:
        super().__init__()
        self.mix, self.norm = nn.Conv2d(6, 6, 3, padding=1), nn.GroupNorm(1, 6)
        self.out = nn.Conv2d(6, 6, 1)
        self.gamma, self.way = nn.Parameter(scale * (1 + torch.arange(6.0))), way
        self.sides: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        branch = nn.functional.gelu(self.out(self.norm(self.mix(x))))
        branch = branch * self.gamma.reshape(1, -1, 1, 1)
        self.sides = [branch.detach().clone(), x.detach().clone()]
        if self.way == "in place":
            y = x.clone()
            y += branch
            return y
        return branch + x if self.way == "branch first" else x + branch


def network(scale: float, way: str = "skip first") -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), Block(scale, way), Block(scale, way)).eval()


def images() -> Tensor:
    return torch.randn(5, 3, 9, 9, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("way", ["skip first", "branch first", "in place"])
def test_both_sides_of_the_sum_are_measured(way):
    """Fails if branch and skip are exchanged, channels are pooled, or what was overwritten is read."""
    model = network(0.3, way)
    found = bnprobe.report(bnprobe.record(model, [images()])).layers.set_index("layer")
    for i in (2, 3):
        variances = [side.double().numpy().var((0, 2, 3)).mean() for side in model[i].sides]
        row = found.loc[f"{i}.norm"]
        assert row["layer_scale"] == f"{i}.gamma"
        assert [row["branch_var"], row["skip_var"]] == pytest.approx(variances, rel=1e-5)
        assert row["branch_share"] == pytest.approx(variances[0] / sum(variances), rel=1e-5)
    assert found.loc["1", "layer_scale"] == ""
    assert np.isnan(found.loc["1", "branch_share"])


def test_the_model_computes_as_before():
    """Fails if reading both sides changes an output."""
    model = network(0.3, "in place")
    plain = model(images())
    with bnprobe.attach(model):
        assert torch.equal(model(images()), plain)


def findings(model: nn.Module) -> list[tuple[str, str]]:
    found = bnprobe.report(bnprobe.record(model, [images()])).findings
    rows = found[found["rule"] == "branch-off"]
    return list(zip(rows["layer"], rows["severity"], strict=True))


def test_a_lost_layer_scale_is_a_warning_and_a_new_one_a_note(tmp_path):
    """Fails if a trained network whose branches are off passes, a new one is warned of, or one that works has a finding."""
    new, trained = network(1e-6), network(0.3)
    for module in trained.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    lost = copy.deepcopy(trained)
    for block in (lost[2], lost[3]):
        nn.init.constant_(block.gamma, 1e-6)
    assert findings(new) == [("2.norm", "info"), ("3.norm", "info")]
    assert findings(trained) == []
    assert findings(lost) == [("2.norm", "warning"), ("3.norm", "warning")]
    page = bnprobe.report(bnprobe.record(lost, [images()])).to_html(tmp_path / "page.html").read_text("utf-8")
    assert "could not be drawn" not in page
    assert "In 2 residual blocks the branch contributes" in page


class Offset(nn.Module):
    """A scale and an offset, which are no branch and no skip."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.scale, self.offset = (
            nn.LayerNorm(4),
            nn.Parameter(torch.ones(4)),
            nn.Parameter(torch.ones(4)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) * self.scale + self.offset


def test_an_affine_layer_is_no_branch():
    """Fails if an offset that is added to a scaled norm is taken for a skip connection."""
    found = bnprobe.report(bnprobe.record(Offset(), [torch.randn(8, 4)])).layers
    assert found["layer_scale"].tolist() == [""]
