"""`bnprobe report --try`: remedies carried out, in the summary and on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnprobe.cli.main import main

SOURCE = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8, eps=1e3), nn.ReLU(), nn.Linear(8, 3)).eval()
    model[1].weight.data.uniform_(.5, 1.5)
    model[1].bias.data.uniform_(-.5, .5)
    with torch.no_grad():
        y = model[0](torch.randn(500, 6))
    model[1].running_mean, model[1].running_var = y.mean(0), y.var(0)
    return model

def data():
    torch.manual_seed(1)
    return [(torch.randn(20, 6), torch.arange(20) % 3) for _ in range(2)]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_net_of_tries.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return "my_net_of_tries"


def test_what_came_of_each_remedy_is_shown(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails if --try changes nothing, or its results do not reach summary and page."""
    command = ["report", f"{module}:net", "--batches", f"{module}:data", "--no-histograms", "-o", "page.html"]
    assert main([*command, "--try"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Tried: finding gone; outputs change by at most" in said
    assert "accuracy" in said.partition("Tried: ")[2]
    assert '<p class="tried">Tried: finding gone;' in Path("page.html").read_text(encoding="utf-8")


def test_a_saved_recording_has_no_model_to_try_on(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "run.bnp", "--try"]) == 2
    assert "--try can change nothing" in capsys.readouterr().err
