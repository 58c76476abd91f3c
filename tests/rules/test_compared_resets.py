"""γ and β that went back to their initial values between two recordings of one network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import bnprobe
from rules.edited import compared, edited, findings

RESET = "affine-reset"
SET_OFF = {"gamma_a": [0.5, -0.7, 1.2], "beta_a": [0.1, 0.3, 0.1]}


@pytest.mark.parametrize(
    ("cells", "because"),
    [
        (
            {"gamma_b": 1.0, "beta_b": 0.0},
            "γ is 1 in B, and in A it is up to 1.7 away; β is 0 in B, and in A it is up to 0.3 away",
        ),
        (
            {"gamma_b": [1.0, 1.019, 0.99], "beta_b": [0.0, 0.01, 0.0]},
            "γ is nearly 1 in B, and in A it is up to 1.7 away; β is nearly 0 in B, and in A it is up to 0.3 away",
        ),
        ({"gamma_b": 0.0}, "γ is 0 in B, and in A it is up to 1.2 away"),
        ({"gamma_b": [1.0, 1.0, 1.03]}, None),
        ({"gamma_b": [0.0, 0.0, 0.01]}, None),
        ({"beta_b": 0.0}, "β is 0 in B, and in A it is up to 0.3 away"),
        ({"beta_b": [0.0, 0.001, 0.0]}, None),
        ({"gamma_b": 1.0, "gamma_a": [1.0, 1.09, 1.0]}, None),
        ({"gamma_b": 1.0, "gamma_a": [1.0, 1.11, 1.0]}, "γ is 1 in B, and in A it is up to 0.11 away"),
        ({"gamma_b": [1.0, 1.0, math.nan]}, None),
        ({"gamma_b": 1.0, "gamma_a": math.nan}, None),
        ({"gamma_b": 1.0, "gamma_a": [1.0, math.inf, 1.0]}, None),
        ({"beta_b": 0.0, "beta_a": [0.0, -math.inf, 0.5]}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_vectors_that_went_back(cells: dict[str, Any], because: str | None) -> None:
    """Fails if a channel that stays is overlooked, a limit moves, or a scale that shrank counts as reset."""
    found = findings(RESET, edited(compared(), {**SET_OFF, "gamma_b": 0.9, "beta_b": 0.3, **cells}))
    assert [one.because for one in found] == ([f"{because}, in all 3 channels."] if because else [])


def test_networks_of_two_trainings_reset_nothing() -> None:
    """Fails if vectors of channels that do not correspond are held against each other."""
    reset = edited(compared(), {**SET_OFF, "gamma_b": 1.0, "beta_b": 0.0})
    assert findings(RESET, reset)
    assert findings(RESET, replace(reset, apart={"γ": 0.02})) == []


def test_a_norm_that_was_reset_as_a_whole_is_one_finding() -> None:
    """Fails if one reset is two findings, or that of the statistics says nothing of γ and β."""
    cells = {**SET_OFF, "gamma_b": 1.0, "beta_b": 0.0, "running_mean_b": 0.0, "running_var_b": 1.0}
    both = edited(compared(), cells)
    assert findings(RESET, both) == []
    (one,) = findings("statistics-lost", both)
    assert "γ and β have their initial values as well" in one.because
    (one,) = findings("statistics-lost", edited(both, {"gamma_b": [0.5, -0.7, 1.2], "beta_b": 0.1}))
    assert "γ" not in one.because
    assert len(findings(RESET, edited(both, missing_b="running_mean, running_var"))) == 0


class Tokens(nn.Module):
    """Three norms over features, of which nothing follows the last."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first, self.second, self.last = norm(8), norm(8), norm(8)
        self.mlp = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x + self.mlp(self.second(self.first(x))))


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": nn.LayerNorm,
    "rms": nn.RMSNorm,
    "group": lambda n: nn.GroupNorm(2, n),
}


def learned(norm: Callable[[int], nn.Module]) -> Tokens:
    torch.manual_seed(3)
    model = Tokens(norm)
    for name, vector in model.named_parameters():
        if "mlp" not in name:
            vector.data += 0.4 * torch.randn(8)
    return model


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("trained_on", [False, True])
def test_the_last_norm_is_reset_between_two_recordings(
    norm: Callable[[int], nn.Module], trained_on: bool
) -> None:
    """Fails if a norm that no other follows is not named, or one that went on learning is."""
    x = torch.randn(64, 8)
    model = learned(norm)
    before = bnprobe.record(model, [x])
    if trained_on:
        for vector in model.parameters():
            vector.data += 0.01 * torch.randn_like(vector)
    assert RESET not in set(bnprobe.compare(before, bnprobe.record(model, [x])).findings["rule"])
    model.last.reset_parameters()  # type: ignore[operator]
    found = bnprobe.compare(before, bnprobe.record(model, [x])).findings
    assert found.loc[found["rule"] == RESET, "layer"].tolist() == ["last"]
    assert found.loc[found["rule"] == RESET, "severity"].tolist() == ["warning"]


def test_a_network_that_was_not_loaded_is_one_finding() -> None:
    """Fails if every norm of a new network is a finding, or a new network that is trained is one."""
    x = torch.randn(64, 8)
    trained, new = (bnprobe.record(model, [x]) for model in (learned(nn.LayerNorm), Tokens(nn.LayerNorm)))
    found = bnprobe.compare(trained, new).findings
    assert found.loc[found["rule"] == RESET, "layer"].tolist() == [""]
    assert RESET not in set(bnprobe.compare(new, trained).findings["rule"])
