"""`bnprobe fold`, `replace` and `prune`: what is printed and written, and refusals in one line that write nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bnprobe.cli.main import main

SOURCE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 2),
    )
    with torch.no_grad():
        layers[1].running_mean.normal_()
        layers[1].running_var.uniform_(0.5, 2)
        layers[1].weight[:2], layers[1].bias[:2] = 0, -1
    return nn.Sequential(*layers)

def without():
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))

def batches():
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(10, 3, 8, 8, generator=g), torch.arange(10) % 2) for _ in range(3)]

def rows():
    return [torch.randn(10, 4)]
"""
SUBJECT = ["surgeon:build", "--batches", "surgeon:batches"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "surgeon.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own() -> dict[str, Any]:
    """What the user's module holds."""
    names: dict[str, Any] = {}
    exec(SOURCE, names)
    return names


def outputs(layers: list[nn.Module], state: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of the network that has these layers in the first three places, on the first batch."""
    model = nn.Sequential(*layers, *list(own()["build"]())[3:]).eval()
    model[3] = nn.Conv2d(state["3.weight"].shape[1], 6, 3)
    model.load_state_dict(state)
    with torch.no_grad():
        return model(own()["batches"]()[0][0])


@pytest.mark.parametrize(
    ("command", "layers", "says"),
    [
        (["fold"], [nn.Conv2d(3, 8, 3), nn.Identity(), nn.ReLU()], "folded into 0"),
        (["prune"], [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()], "2 of 8 channels removed"),
    ],
)
def test_the_state_dict_is_that_of_the_changed_model(
    command: list[str], layers: list[nn.Module], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails if the old model's state dict is written."""
    assert main([*command, *SUBJECT, "-o", "new.safetensors", "--certificate", "new.json"]) == 0
    said = capsys.readouterr().out
    assert says in said
    assert "1 of 1 norm changed" in said
    with torch.no_grad():
        before = own()["build"]().eval()(own()["batches"]()[0][0])
    torch.testing.assert_close(outputs(layers, load_file("new.safetensors")), before)


def test_the_certificate_is_bound_to_the_file(home: Path) -> None:
    assert main(["replace", *SUBJECT, "--by", "frozen", "-o", "new.pt", "--certificate", "new.json"]) == 0
    certificate = json.loads((home / "new.json").read_text())
    digest = hashlib.sha256((home / "new.pt").read_bytes()).hexdigest()
    assert certificate["state_dict"] == {"file": "new.pt", "sha256": digest}
    assert certificate["command"] == "replace"
    (row,) = certificate["layers"]
    assert (row["layer"], row["done"]) == ("1", "replaced by FrozenNorm")
    assert certificate["effect"]["largest_change"] == 0
    assert certificate["effect"]["n"] == 30
    assert "checkpoint" not in certificate


def test_what_is_not_known_is_null(home: Path) -> None:
    """The change of a group norm's output is not measured by itself, and JSON has no NaN."""
    assert main(["replace", *SUBJECT, "--by", "group", "--groups", "2", "--certificate", "new.json"]) == 0
    (row,) = json.loads((home / "new.json").read_text())["layers"]
    assert row["change"] is None
    assert row["done"] == "replaced by GroupNorm(2, 8)"


def test_nothing_is_written_unless_asked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fold", *SUBJECT]) == 0
    assert "Nothing was written" in capsys.readouterr().out
    assert [path.name for path in home.iterdir() if path.is_file()] == ["surgeon.py"]


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        (["fold", *SUBJECT, "--layers", "bn"], "Pass a path or a pattern"),
        (["fold", "surgeon:without", "--batches", "surgeon:rows"], "Only batch norms in eval mode"),
        (["prune", *SUBJECT, "--proof", "hope"], "choose from"),
        (["replace", *SUBJECT], "--by"),
        (["replace", *SUBJECT, "--by", "frozen", "--groups", "2"], "is for by='group'"),
        (["replace", *SUBJECT, "--by", "group", "--groups", "3"], "does not divide the 8 channels"),
        (["fold", *SUBJECT, "-o", "surgeon.py"], "fold replaces no file"),
        (["fold", *SUBJECT, "-o", "new.pt", "--certificate", "new.pt"], "new.pt"),
        (["fold", *SUBJECT, "-o", "new.pt", "--certificate", "surgeon.py/x.json"], "surgeon.py"),
        (["fold", "surgeon:build", "--batches", "surgeon:rows", "-o", "new.pt"], "failed on its inputs"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(
    home: Path, command: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    err = capsys.readouterr().err
    assert advice in err
    assert len(err.splitlines()) == 1
    assert [path.name for path in home.iterdir() if path.is_file()] == ["surgeon.py"]


def test_where_nothing_can_be_done_nothing_is_written(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SOURCE.replace("layers[1].weight[:2], layers[1].bias[:2] = 0, -1", "pass")
    (home / "alive.py").write_text(source)
    assert main(["prune", "alive:build", "--batches", "alive:batches", "-o", "new.pt"]) == 2
    said = capsys.readouterr()
    assert "prune changed no norm" in said.err
    assert "kept: " in said.out
    assert not (home / "new.pt").exists()
