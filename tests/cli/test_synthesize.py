"""`bnprobe synthesize`: page, calibration file, resumed runs, and wrong uses in one line with nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bnprobe.cli.main import main

SOURCE = """
import torch
from torch import nn

def build(width=6, seed=0, channels=3):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2)
    )
    model(torch.randn(60, channels, 12, 12))
    return model

def judge():
    return build(4, 1)

def five():
    return build(channels=5)

def judge_of_five():
    return build(4, 1, 5)

def other():
    return nn.Sequential(nn.Flatten(), nn.Linear(5, 2))

def layers():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))

def untrained():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
"""
QUICK = ["synthesize", "making:build", "--size", "12", "-n", "4", "--steps", "3"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "making.py").write_text(SOURCE)
    g = torch.Generator().manual_seed(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(3):
            pixels = torch.randint(255, (12, 12, 3), generator=g).numpy().astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_page_and_calibration_file_are_written_and_the_answer_is_printed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = ["--judge", "making:judge", "--data", "images", "--save", "new/calibration.safetensors"]
    assert main([*QUICK, *judged, "--targets", "1,0", "-o", "made.html"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("making:judge, which took no part, recognizes ")
    assert "page: made.html" in out
    page = (home / "made.html").read_text("utf-8")
    assert "Images made from the running statistics of making:build" in page
    assert "Nearest real images" in page
    assert ">dog" in page.replace("<span>", ">")
    saved = load_file("new/calibration.safetensors")
    assert saved["images"].shape == (4, 3, 12, 12)
    assert saved["targets"].tolist() == [1, 0, 1, 0]


def test_the_page_has_a_default_place_and_needs_no_data(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*QUICK, "--no-controls"]) == 0
    assert (home / "reports" / "build-made.html").is_file()
    out, err = capsys.readouterr()
    assert "pass a judge" in out
    assert "digits" not in out + err


def test_constants_are_those_of_as_many_channels_as_the_model_takes(home: Path) -> None:
    """Fails if only one or three numbers are taken, or a judge of the user's gets others: it takes the same images."""
    of_five = [
        "synthesize",
        "making:five",
        "--judge",
        "making:judge_of_five",
        "--size",
        "12",
        "-n",
        "4",
        "--steps",
        "3",
    ]
    constants = ["--mean", "0,0.1,0.2,0.3,0.4", "--std", "1,2,3,4,5", "--save", "five.safetensors"]
    assert main([*of_five, *constants, "-o", "five.html"]) == 0
    mean, std = torch.arange(5) / 10, torch.arange(1, 6)
    pixels = load_file("five.safetensors")["images"] * std.view(5, 1, 1) + mean.view(5, 1, 1)
    # three steps move noise little, and every channel of it begins at black and ends at white
    assert pixels.amin((0, 2, 3)).tolist() == pytest.approx([0.0] * 5, abs=0.05)
    assert pixels.amax((0, 2, 3)).tolist() == pytest.approx([1.0] * 5, abs=0.05)


def test_a_run_goes_on_from_its_state(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--state", "run.safetensors", "-o", "a.html"]) == 0
    assert main([*QUICK, "--state", "run.safetensors", "-o", "b.html"]) == 0
    assert main([*QUICK, "--state", "run.safetensors", "--seed", "1"]) == 2
    assert "differs in seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (["synthesize", "making:layers", "--size", "12"], "needs track_running_stats=True"),
        (["synthesize", "making:untrained", "--size", "12"], "Train it, or load a checkpoint"),
        ([*QUICK, "--judge", "making:build"], "the judge is the network itself"),
        ([*QUICK, "--mean", "0,0,0,0", "--std", "1,1,1,1"], "is no mean and std of 3 channels"),
        ([*QUICK, "--mean", "0.5,x"], "is not a number for each channel"),
        ([*QUICK, "--judge", "making:other"], "does not take images of shape"),
        ([*QUICK, "--judge-checkpoint", "x.pt"], "Name the judge, too"),
        ([*QUICK, "--targets", "0,2"], "target 2 is no class of the model"),
        ([*QUICK, "--targets", "cat"], "no list of classes like 3,17,281"),
        ([*QUICK, "--budget", "0.0000001"], "too short for one step"),
        ([*QUICK, "--save", "images.pt"], "Name it images.safetensors"),
        ([*QUICK, "--save", "making.py"], "making.py exists, and synthesize replaces no file"),
        ([*QUICK, "--state", "making.py"], "Name another file as state"),
        ([*QUICK, "--data", "nothing"], "Check --data"),
        ([*QUICK, "--steps", "0"], "not a whole number of at least 1"),
        ([*QUICK, "-o", "images"], "Choose another path"),
        (["synthesize", "making:build", "--size", "2"], "refuses inputs of shape"),
    ],
)
def test_wrong_uses_are_one_line(
    home: Path, wrong: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in home.iterdir() if "cache" not in path.name)
    assert main(wrong) == 2
    err = capsys.readouterr().err
    assert advice in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in home.iterdir() if "cache" not in path.name) == before
