"""NaN and infinite values: where and when they begin, and which norms only pass them on."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import bnprobe


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3), nn.BatchNorm1d(3)
    ).eval()  # fmt: skip


def found(model: nn.Module, batches: list[Any]) -> pd.DataFrame:
    findings = bnprobe.report(bnprobe.record(model, batches)).findings
    return findings[findings["rule"] == "values-not-finite"]


def batches(n: int = 6) -> list[torch.Tensor]:
    return [torch.randn(8, 5) for _ in range(n)]


@pytest.mark.parametrize("at", [0, 3, 5])
def test_the_call_in_which_it_begins_and_the_norms_that_follow(at: int) -> None:
    """Fails if another call is named, or the norms behind have findings of their own."""
    data = batches()
    data[at][2, 1] = float("nan")
    data[5][1, 1] = float("inf")
    (row,) = found(network(), data).itertuples()
    assert row.layer == "1"
    assert f"first in call {at + 1} of 6." in row.because
    assert "2 following norms get such values as well: layer 4, layer 6." in row.because


class Burst(nn.Module):
    """Spoils one value of its n-th call."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.left = call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        return x / (torch.arange(len(x)) != 3)[:, None] if self.left == 0 else x


def test_what_begins_earlier_further_on_is_a_finding_of_its_own() -> None:
    """Fails if values that arise in call 2 behind the first norm are taken for those that enter it in call 5."""
    model, data = network(), batches()
    model[2] = Burst(2)
    data[4][0, 0] = float("nan")
    rows = list(found(model, data).itertuples())
    assert [row.layer for row in rows] == ["1", "4"]
    assert ["first in call 5 of 6" in rows[0].because, "first in call 2 of 6" in rows[1].because] == [
        True,
        True,
    ]
    assert "1 following norm gets such values as well: layer 6." in rows[1].because
    assert "following" not in rows[0].because


def test_a_vector_that_is_not_finite_explains_what_it_makes() -> None:
    """Fails if the norms that a NaN in γ reaches are findings as well, or it is none."""
    model = network()
    with torch.no_grad():
        model[1].weight[2] = float("nan")
    (row,) = found(model, batches()).itertuples()
    assert row.layer == "1"
    assert row.says.startswith("γ of this layer is NaN or infinite")


def test_a_merge_keeps_the_first_of_both_parts() -> None:
    """Fails if a part without such values hides the call of the other."""
    clean, spoilt = batches(2), batches(2)
    spoilt[1][0] = float("nan")
    parts = [bnprobe.record(network(), one) for one in (clean, spoilt)]
    calls = [record.call_log.first_nonfinite for record in parts[0].merge(parts[1]).layers if record.call_log]
    assert calls == [1, 1, 1]
    assert [record.call_log.first_nonfinite for record in parts[0].layers if record.call_log] == [None] * 3


def test_what_follows_the_first_broken_vector_is_no_entry() -> None:
    """Fails if a second broken γ makes what the first one sends on a finding about inputs."""
    model = network()
    with torch.no_grad():
        for at in (1, 4):
            model[at].weight[2] = float("nan")
    says = {row.layer: row.says for row in found(model, batches()).itertuples()}
    assert list(says) == ["1", "4"]
    assert all(one.startswith("γ of this layer is NaN or infinite") for one in says.values())
