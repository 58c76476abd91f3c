"""`bnprobe report --exemplars`: which images a channel is highest and lowest on."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bnprobe
from bnprobe.cli.main import main
from bnprobe.report import figures

SOURCE = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))

def batches():
    return [torch.rand(4, 3, 5, 5)]
"""

GRAYS = {"dark": (10, 30, 20), "light": (200, 250, 225)}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model and six images of one gray each, in two classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "shown", raising=False)
    monkeypatch.setattr(figures, "to_svg", lambda name, draw: "<svg></svg>")
    (tmp_path / "shown.py").write_text(SOURCE)
    for name, grays in GRAYS.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for i, gray in enumerate(grays):
            Image.fromarray(np.full((9, 9, 3), gray, np.uint8)).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path


def report(*more: str) -> list[str]:
    images = ("--data", "data", "--size", "8", "--batch-size", "4")
    return ["report", "shown:small", "-o", "out.html", "--save", "run.bnp", *images, *more]


def test_files_and_classes_are_named(place, capsys):
    """Fails if exemplars have the names of other images, or none, or classes are numbers."""
    assert main(report("--exemplars", "2")) == 0
    found = bnprobe.report("run.bnp").exemplars
    first = found[found["channel"] == 1]
    expected = ["data/light/1.png", "data/light/2.png", "data/dark/0.png", "data/dark/2.png"]
    assert first["sample"].tolist() == expected
    assert first["label"].tolist() == ["light", "light", "dark", "dark"]


def test_without_the_option_nothing_is_kept(place, capsys):
    """Fails if exemplars are kept that nobody asked for."""
    assert main(report()) == 0
    assert bnprobe.load("run.bnp").samples is None


def test_own_batches_have_numbers(place, capsys):
    """Fails if batches without files cannot have exemplars."""
    assert (
        main(["report", "shown:small", "--batches", "shown:batches", "--save", "own.bnp", "--exemplars", "9"])
        == 0
    )
    assert set(bnprobe.report("own.bnp").exemplars["sample"]) == {0, 1, 2, 3}


@pytest.mark.parametrize("given", ["-1", "2.5", "many"])
def test_a_number_that_is_none(given, capsys):
    """Fails if a number of images is taken that no list has, or a traceback is printed."""
    assert main(report("--exemplars", given)) == 2
    said = capsys.readouterr().err
    assert "--exemplars" in said
    assert said.count("\n") == 1


def test_a_saved_recording_keeps_what_it_has(place, capsys):
    """Fails if the option is taken where it can change nothing."""
    assert main(report()) == 0
    assert main(["report", "run.bnp", "--exemplars", "2"]) == 2
    assert "--exemplars can change nothing" in capsys.readouterr().err


def test_a_saved_recording_is_told_where_its_images_are(place, capsys):
    """Fails if thumbnails are lost with the run, or a folder is taken that can change nothing."""
    assert main(report("--exemplars", "2")) == 0
    assert 'data-name="thumbnails"' in Path("out.html").read_text("utf-8")
    assert main(["report", "run.bnp", "-o", "plain.html"]) == 0
    assert 'data-name="thumbnails"' not in Path("plain.html").read_text("utf-8")
    assert main(["report", "run.bnp", "-o", "again.html", "--data", "data"]) == 0
    assert 'data-name="thumbnails"' in Path("again.html").read_text("utf-8")
    assert main(report()) == 0
    assert main(["report", "run.bnp", "--data", "data"]) == 2
    assert "--data can change nothing" in capsys.readouterr().err
