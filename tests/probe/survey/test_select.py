"""Which layers are chosen, and what is said where there are none."""

from __future__ import annotations

import pytest
import torch
from support.models import BY_NAME, Mixed, StrangeNorm
from torch import nn

import bnprobe
from bnprobe.errors import NoNormLayers


def test_layers_narrow_by_path():
    """Fails if a pattern is ignored, or matched somewhere inside the path."""
    case = BY_NAME["mixed"]
    model, (x, *_) = case.model(), case.batches()
    for pattern, expected in (("?n", ["bn", "gn", "ln"]), (["rms", "b*"], ["bn", "rms"])):
        with bnprobe.attach(model, layers=pattern) as probe:
            model(x)
        assert [r.layer for r in probe.recording.layers] == expected
        assert probe.recording.never_called == ()


def test_no_norms_says_what_to_do():
    """Fails if a model without norms is probed in silence, or the advice is missing."""
    with pytest.raises(NoNormLayers, match=r"Check that Conv\+BN were not fused"):
        bnprobe.attach(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()))


def test_unknown_norms_are_named_with_the_way_to_teach_them():
    """Fails if the closest class is not named, or the call that teaches it."""
    with pytest.raises(
        NoNormLayers, match=r"Add it with bnprobe.register_norm\(StrangeNorm, describe\)"
    ) as caught:
        bnprobe.attach(nn.Sequential(StrangeNorm(), StrangeNorm()))
    assert "2 modules" in str(caught.value)


def test_no_match_shows_real_paths():
    """Fails if a pattern without a match records nothing in silence."""
    with pytest.raises(NoNormLayers, match="have paths like bn, gn, ln"):
        bnprobe.attach(Mixed(), layers="layer4.*")


def test_the_only_norm_is_named_in_the_singular():
    """Fails if a model with one norm is said to have "1 norm layers"."""
    with pytest.raises(NoNormLayers, match=r"Its only norm layer is '1'\. Pass a path"):
        bnprobe.attach(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), layers="layer4.*")


class Gain(nn.Module):
    """An RMS norm under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.w


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.w


def test_a_norm_of_another_name_is_suggested_by_its_code_with_a_line_that_runs() -> None:
    """Fails if a class that takes a root of its input is passed over, a plain scale is suggested, or the line fails."""
    with pytest.raises(NoNormLayers, match=r"1 \(Gain\) has a vector and takes a root") as caught:
        bnprobe.attach(nn.Sequential(nn.Linear(4, 4), Gain()))
    code = str(caught.value).split("add it with ")[1].split(". The formula")[0]
    exec(code, {"bnprobe": bnprobe, "Gain": Gain})
    model = nn.Sequential(nn.Linear(4, 4), Gain())
    report = bnprobe.report(bnprobe.record(model, [torch.randn(40, 4)]))
    assert report.layers[["kind", "output"]].values.tolist() == [["rms_norm", "read"]]
    assert report.layers["mismatch"].max() < 1e-4
    with pytest.raises(NoNormLayers, match=r"Check that Conv\+BN were not fused"):
        bnprobe.attach(nn.Sequential(nn.Linear(4, 4), Plain()))
