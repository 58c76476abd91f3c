"""New networks with nothing wrong are left in peace, and what is wrong in a new network is found."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("torchvision", reason="the list of healthy networks begins with torchvision's")
pytest.importorskip("sklearn", reason="the trained networks of the benchmark learned scikit-learn's digits")

import bnprobe
from bnprobe.rules.gradient import FIRST_PASSES
from scripts.rule_benchmark.__main__ import with_earlier
from scripts.rule_benchmark.healthy import _drawn, _small, first_steps, severe
from scripts.rule_benchmark.small_networks import SMALL
from scripts.zoo.entries import Call


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("name", [name for name in SMALL if name != "resnet18, zeros"])
def test_a_new_network_is_left_in_peace(name: str) -> None:
    """Fails if a rule warns of what random weights or a recipe's zeros bring with them."""
    assert first_steps(_small(name)) == set()


class Zeroed(nn.Module):
    """Two blocks; the norm at the end of each branch starts at 0. `fault` is done to the output of the first norm."""

    def __init__(self, fault: Any = None) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(8) for _ in range(4))
        self.maps = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.head, self.fault = nn.Linear(8, 3), fault or (lambda y: y)
        nn.init.zeros_(self.norms[3].weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fault(self.norms[0](self.maps[0](x)))
        y = self.norms[1](self.maps[1](torch.relu(y)))
        return self.head(y + self.norms[3](self.maps[3](torch.relu(self.norms[2](self.maps[2](y))))))


def warned(model: nn.Module, n: int, steps: int) -> set[str]:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with bnprobe.attach(model.train()) as probe:
        for _ in range(steps):
            optimizer.zero_grad()
            (model(torch.randn(n, 8)) - torch.randn(n, 3)).square().mean().backward()
            optimizer.step()
    return severe(bnprobe.report(probe).findings)


@pytest.mark.parametrize(
    ("fault", "n", "rule"),
    [
        (None, 64, None),
        (None, 8, "few-values"),
        (Tensor.detach, 64, "moving-without-gradient"),
        (lambda y: (y - y.detach()).abs().sqrt() + y, 64, "gradient-not-finite"),
        (lambda y: 0 * y, 64, "gradient-no-signal"),
    ],
    ids=["healthy", "few values", "detached", "no finite gradient", "multiplied by 0"],
)
def test_what_is_wrong_in_a_new_network_is_found(fault: Any, n: int, rule: str | None) -> None:
    """Fails if being new excuses what no new network has, or a norm behind what starts at 0 is a warning."""
    found = warned(Zeroed(fault), n, steps=FIRST_PASSES)
    assert rule in found if rule else found == set()


def test_samples_are_drawn_anew_and_as_many_as_asked() -> None:
    """Fails if steps see the same noise, or targets and images of a detector differ in number."""
    first, second = (_drawn(Call((torch.zeros(1, 3, 4, 4),)), 5, seed).args[0] for seed in (0, 1))
    assert first.shape == second.shape == (5, 3, 4, 4)
    assert not torch.equal(first, second)
    images, targets = _drawn(Call(([torch.zeros(3, 4, 4)] * 2, [{"labels": 1}] * 2)), 5, 0).args
    assert [tuple(image.shape) for image in images] == [(3, 4, 4)] * 5
    assert targets == [{"labels": 1}] * 5
    tokens = _drawn(Call(kwargs={"input_ids": torch.tensor([[1, 2, 3]])}), 2, 0).kwargs
    assert tokens is not None
    assert tokens["input_ids"].tolist() == [[1, 2, 3]] * 2


def test_tables_of_an_earlier_run_stay(tmp_path: Any) -> None:
    """Fails if a run of one part drops the others from the summary, or reads what is empty as a rule."""
    row = {"group": "trained", "network": "demo", "rules": ""}
    for name in ("healthy", "cases"):
        pd.DataFrame([row]).to_csv(tmp_path / f"{name}.csv", index=False)
    new = pd.DataFrame([{**row, "rules": "few-values"}])
    tables = with_earlier({"healthy": new}, tmp_path)
    assert tables.keys() == {"healthy", "cases"}
    assert tables["healthy"] is new
    assert tables["cases"]["rules"].tolist() == [""]
