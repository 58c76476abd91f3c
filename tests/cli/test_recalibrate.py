"""`bnprobe recalibrate`: the table, the effect, the file that is written only if asked for, and wrong uses in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bnprobe.cli.main import main

SOURCE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    return nn.Sequential(*layers)

def batches():
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(10, 3, 8, 8, generator=g) + 2, torch.arange(10) % 2) for _ in range(6)]

def one():
    return batches()[:1]
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's module and images of two classes, as the current one."""
    (tmp_path / "renewing.py").write_text(SOURCE)
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 255, (12, 12, 3)).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


IMAGES = [
    "recalibrate",
    "renewing:build",
    "--data",
    "images",
    "--size",
    "12",
    "--mean",
    "0,0,0",
    "--std",
    "1,1,1",
]


def test_half_of_the_images_are_tried(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(IMAGES) == 0
    said = capsys.readouterr().out
    assert "Samples: 8 for the estimate, 8 to try it." in said
    assert "Accuracy " in said
    assert "Nothing was written" in said
    assert sorted(path.name for path in home.iterdir() if path.is_file()) == ["renewing.py"]


@pytest.mark.parametrize("name", ["renewed.pt", "renewed.safetensors"])
def test_the_state_dict_is_written_only_where_nothing_is(
    home: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["recalibrate", "renewing:build", "--batches", "renewing:batches", "--apply", "-o", name]
    assert main(command) == 0
    state = load_file(name) if name.endswith("safetensors") else torch.load(name, weights_only=True)
    assert set(state) == {
        "0.weight",
        "0.bias",
        *(f"1.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
        "5.weight",
        "5.bias",
    }
    assert not torch.equal(state["1.running_mean"], torch.zeros(8))
    before = Path(name).read_bytes()
    assert main(command) == 2
    assert "replaces no file" in capsys.readouterr().err
    assert Path(name).read_bytes() == before


def test_labels_that_are_not_the_models_are_left_out(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three folders for a model of two classes: no accuracy is claimed."""
    (home / "images" / "hen").mkdir()
    (home / "images" / "cat" / "0.png").rename(home / "images" / "hen" / "0.png")
    assert main(IMAGES) == 0
    said = capsys.readouterr()
    assert "3 classes and the model's output 2" in said.err
    assert "Agreement with the model as it is" in said.out


def test_images_to_try_may_be_given(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main([*IMAGES, "--preview-data", "images/cat", "--what", "mean", "--prior", "16", "--layer-by-layer"])
        == 0
    )
    said = capsys.readouterr().out
    assert "Samples: 16 for the estimate, 8 to try it." in said
    assert "flattered" in said


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--apply"], "--apply needs -o FILE"),
        (["-o", "new.pt"], "written with --apply only"),
        (["--alpha", "2"], "from 0 to 1"),
        (["--alpha", "much"], "is not a number"),
        (["--layers", "bn7"], "Nearest: 1"),
        (["--batches", "renewing:one"], "fewer than two batches"),
        (["--preview-data", "nowhere"], "nowhere"),
    ],
)
def test_wrong_uses_are_one_line(
    home: Path, options: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = IMAGES if "--batches" not in options else IMAGES[:2]
    assert main([*command, *options]) == 2
    said = capsys.readouterr()
    assert advice in said.err
    assert said.err.count("\n") == 1
