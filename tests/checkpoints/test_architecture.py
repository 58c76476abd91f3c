"""A file with its architecture: inputs of any kind are found by the first layer, and without one nothing is refused."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.checkpoints.blank import blanks
from bnprobe.report.result import Report

SOURCE = """
import torch
from torch import nn

def grey():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 26 * 26, 10))

def audio():
    return nn.Sequential(nn.Conv1d(1, 8, 80, 4), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 6, 3), nn.BatchNorm1d(6))

def table():
    return nn.Sequential(nn.Linear(13, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1))

def volume():
    return nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.ReLU())

def words():
    return nn.Sequential(nn.Embedding(50, 6), nn.Linear(6, 6), nn.LayerNorm(6), nn.ReLU())

def frame():  # 240 x 320
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 119 * 159, 2))

def odd():  # 77 x 113, which nobody guesses
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU6(), nn.InstanceNorm2d(8, affine=True), nn.Flatten(),
        nn.Linear(8 * 75 * 111, 10))

class Hidden(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        setattr(self, name, [])

    def forward(self, x):
        return self.bn(self.conv(x)).relu()

def modules(): return Hidden("modules")
def children(): return Hidden("children")
def parameters(): return Hidden("parameters")
def buffers(): return Hidden("buffers")
def named_modules(): return Hidden("named_modules")
def named_children(): return Hidden("named_children")
def train(): return Hidden("train")
def hooks(): return Hidden("register_forward_hook")
def pre_hooks(): return Hidden("register_forward_pre_hook")
def load(): return Hidden("load_state_dict")
"""

HIDDEN = (
    *("modules", "children", "parameters", "buffers", "named_modules", "named_children"),
    *("train", "hooks", "pre_hooks", "load"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("architectures")
    (path / "architectures_made.py").write_text(SOURCE)
    return path


def checked(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.syspath_prepend(str(folder))
    model = getattr(importlib.import_module("architectures_made"), name)()
    torch.save(nn.Module.state_dict(model), folder / "a.pt")
    return bnprobe.check(folder / "a.pt", arch=f"architectures_made:{name}")


@pytest.mark.parametrize(
    ("name", "follows"),
    [
        ("grey", ["relu"]),
        ("audio", ["relu", "none"]),
        ("table", ["relu"]),
        ("volume", ["relu"]),
        ("words", ["relu"]),
        ("frame", ["relu"]),
    ],
)
def test_models_of_other_inputs_are_run(name, follows, folder, monkeypatch):
    """Fails if only photographs of three channels show what follows a norm."""
    report = checked(folder, name, monkeypatch)
    assert list(report.layers["follows"]) == follows
    assert "with one blank input" in report.recording.about.notes[0]
    assert not report.recording.layers[0].neighbours.guessed
    assert report.recording.weights_only


def test_a_model_that_takes_no_guess_is_read_by_its_modules(folder, monkeypatch):
    """Fails if eps and kinds, which need no pass, are lost with it."""
    report = checked(folder, "odd", monkeypatch)
    rows = report.layers[
        ["layer", "kind", "class_name", "eps", "eps_assumed", "follows", "feeder"]
    ].values.tolist()
    assert rows == [
        ["1", "batch_norm", "BatchNorm2d", 1e-3, 0, "relu6", "0 (by name)"],
        ["3", "instance_norm", "InstanceNorm2d", 1e-5, 0, "unknown", ""],
    ]
    assert report.recording.weights_only
    assert "does not run on a blank input (RuntimeError: mat1 and mat2" in report.recording.about.notes[0]
    assert "unread" not in report.to_text()
    assert set(report.recording.never_called) == set()


@pytest.mark.parametrize("name", HIDDEN)
def test_names_that_a_class_hides_do_not_matter(name, folder, monkeypatch):
    """Fails if `self.modules = []` on a user's class, or the like, ends in a traceback, here or in attach."""
    report = checked(folder, name, monkeypatch)
    assert list(report.layers["layer"]) == ["bn"]
    model = getattr(importlib.import_module("architectures_made"), name)()
    with bnprobe.attach(model) as probe:
        model(torch.randn(2, 3, 8, 8))
    assert probe.recording.about.n_forwards == 1
    assert not model._forward_hooks


def test_blanks_have_the_first_layers_channels_and_rank():
    """Fails if the shape is not that of the first layer that has one."""
    for layer, shapes in (
        (nn.Conv1d(5, 2, 3), {(1, 5, 1024)}),
        (nn.Conv2d(4, 2, 3), {(1, 4, 224, 224), (1, 4, 240, 320), (1, 4, 48, 512)}),
        (nn.Conv2d(1, 2, 3), {(1, 1, 101, 40), (1, 101, 40)}),
        (nn.Conv3d(2, 2, 3), {(1, 2, 32, 32, 32)}),
        (nn.Linear(784, 2), {(1, 784), (1, 16, 784), (1, 1, 28, 28)}),
        (nn.LSTM(9, 2), {(1, 16, 9)}),
        (nn.BatchNorm1d(7), {(1, 7), (1, 16, 7), (1, 7, 1024)}),
        (nn.Embedding(7, 2), {(1, 16)}),
    ):
        made = {tuple(x.shape) for x in blanks(nn.Sequential(nn.Dropout(), layer, nn.Conv2d(3, 1, 1)))}
        assert shapes <= made
    assert list(blanks(nn.Sequential(nn.ReLU()))) == []
    assert next(blanks(nn.Embedding(7, 2))).dtype == torch.long
