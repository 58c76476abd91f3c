"""`bnprobe compare`: two files, one model recorded twice, formats, exit codes, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import bnprobe
from bnprobe.cli.main import main
from bnprobe.report import figures

OWN = """
from torch import nn
import torch

def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(6, 4, 3),
                          nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
    model(torch.randn(16, 3, 16, 16))
    return model
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model of our own, two folders of images, recordings and checkpoints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
    monkeypatch.setattr(figures, "to_svg", lambda name, draw: "<svg></svg>")
    Path("mine.py").write_text(OWN)
    rng = np.random.default_rng(0)
    for folder, scale in (("dark", 80), ("light", 255)):
        Path(folder).mkdir()
        for i in range(12):
            pixels = rng.integers(0, scale, size=(16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder, f"{i}.png"))
    model = nn.Sequential(nn.BatchNorm2d(3))
    for name, scale in (("a", 1.0), ("b", 4.0)):
        bnprobe.record(model.eval(), [torch.randn(40, 3, 4, 4) * scale]).save(f"{name}.bnp")
        nn.init.constant_(model[0].weight, scale)
        model.train()(torch.randn(40, 3, 4, 4))
        torch.save(model.state_dict(), f"{name}.pt")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["compare", *arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_two_recordings_give_a_page_and_its_summary(place, capsys):
    """Fails if the page is not where it is said to be, or the summary leaves out the answer."""
    code, out, err = said(capsys, "a.bnp", "b.bnp")
    assert (code, err) == (0, "")
    assert "page: reports/a-vs-b.html" in out
    assert Path("reports/a-vs-b.html").is_file()
    assert "differ from the input of layer 0 on" in " ".join(out.split())
    assert "rule inputs-differ" in out


def test_pages_of_sides_with_one_name_are_two_pages(place, capsys):
    """Fails if a page overwrites that of another comparison because the sides' files are named alike."""
    Path("x/old").mkdir(parents=True)
    for copy in ("x/a.bnp", "x/old/a.bnp"):
        Path(copy).write_bytes(Path("a.bnp").read_bytes())
    told = {
        ("a.bnp", "b.pt"): "a-vs-b",
        ("a.bnp", "a.pt"): "a.bnp-vs-a.pt",
        ("x/a.bnp", "x/old/a.bnp"): "x-a-vs-old-a",
        ("a.bnp", "./a.bnp"): "a-vs-a",
    }
    for sides, name in told.items():
        code, out, _ = said(capsys, *sides)
        assert (code, f"page: reports/{name}.html" in out) == (0, True), out
    assert len(list(Path("reports").iterdir())) == len(told)


def test_two_checkpoints_are_compared_by_what_they_store(place, capsys):
    code, out, _ = said(capsys, "a.pt", "b.pt", "-o", "mine.html")
    assert code == 0
    assert Path("mine.html").is_file()
    assert "No data were run on A and B." in " ".join(out.split())


@pytest.mark.parametrize(
    ("sides", "fail_on", "code"),
    [
        (["a.bnp", "b.bnp"], "critical", 0),
        (["a.bnp", "b.bnp"], "warning", 1),
        (["a.bnp", "a.bnp"], "info", 0),
        (["a.bnp", "gone.bnp"], "critical", 2),
        (["a.bnp"], "critical", 2),
        (["a.bnp", "b.bnp", "a.bnp"], "critical", 2),
    ],
)
def test_exit_codes(sides, fail_on, code, place, capsys):
    """Fails if a serious finding passes, or bad input is taken for one."""
    found, _, err = said(capsys, *sides, "--fail-on", fail_on)
    assert found == code
    assert (err.count("\n") == 1) == (code == 2)


def test_json_and_text_are_printed_or_written(place, capsys):
    """Fails if a machine gets prose around its JSON, or -o is forgotten."""
    _, out, _ = said(capsys, "a.bnp", "b.bnp", "--format", "json")
    assert json.loads(out)["opens"]["layer"] == "0"
    assert not Path("reports").exists()
    code, out, _ = said(capsys, "a.bnp", "b.bnp", "--format", "text", "-o", "out.txt")
    assert (code, out) == (0, "")
    assert "The answer" in Path("out.txt").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--data", "dark", "--data", "light"], "the images or the weights feeding it differ"),
        (
            ["--modes", "--data", "dark"],
            "both sides saw the same images. 2 norms used running statistics on one side",
        ),
    ],
    ids=["data", "modes"],
)
def test_one_model_is_recorded_twice(options, says, place, capsys):
    """Fails if both sides are given the same, or train mode moves what the other side sees."""
    code, out, _ = said(capsys, "mine:build", *options, "--size", "16")
    assert code == 0
    text = " ".join(out.split())
    assert says in text
    assert "The norms store the same values on both sides" in text
    assert "page: reports/build.compared.html" in out


def test_two_checkpoints_of_one_model_see_the_same_images(place, capsys):
    """Fails if the first checkpoint serves both sides."""
    import mine

    model = mine.build()
    torch.save(model.state_dict(), "one.pt")
    nn.init.constant_(model[1].weight, 5.0)
    torch.save(model.state_dict(), "two.pt")
    options = ["--checkpoint", "one.pt", "--checkpoint", "two.pt", "--data", "dark", "--size", "16"]
    code, out, _ = said(capsys, "mine:build", *options, "--format", "json")
    whole = json.loads(out)
    assert code == 0
    assert (whole["opens"]["layer"], whole["opens"]["aspect"]) == ("1", "post")


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (
            ["a.bnp", "b.bnp", "--data", "dark"],
            "--data can change nothing. Leave them out, or name one model",
        ),
        (["mine:build", "--data", "dark"], "Give a second file, or the one option that differs twice"),
        (["mine:build", "--data", "dark", "--data", "light", "--modes"], "the one option that differs twice"),
        (["mine:build", "--data", "dark", "--data", "light", "--data", "dark"], "Compare two by two"),
        (["a.bnp", "dark"], "is a folder without a checkpoint"),
        (["a.bnp", "b.bnp", "-o", "dark"], "is a folder, not a file. Choose another path"),
    ],
)
def test_refusals_say_what_to_give(arguments, advice, place, capsys):
    """Fails if a wrong call is taken for another one, or leaves a user without the next step."""
    code, _, err = said(capsys, *arguments)
    assert code == 2
    assert advice in err


def test_two_recordings_are_compared_where_there_is_no_torch(place):
    """Fails if comparing two files on a laptop reaches for the model side."""
    from test_without_torch import TAKEN_AWAY, python

    code = """
from bnprobe.cli.main import main
assert main(["compare", "a.bnp", "b.bnp", "-o", "page.html"]) == 0
assert not [name for name in ("torch", "torchvision") if sys.modules.get(name)]
"""
    for way in TAKEN_AWAY.values():
        assert "page: page.html" in python(way + code, place)
