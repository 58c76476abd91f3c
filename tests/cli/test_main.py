"""The command line: what it writes, what it prints where, and by which code it ends."""

from __future__ import annotations

import io
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from report import pages
from support.paths import ROOT
from torch import nn

import bnprobe
from bnprobe import models
from bnprobe.cli.main import main
from bnprobe.recording import Recording
from bnprobe.report import figures

OWN = '''
"""Models as a user would bring them."""

import torch
from torch import nn


def trained():
    """A stem and a norm whose running statistics look trained."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    with torch.no_grad():
        model[1].running_mean.normal_()
        model[1].running_var.uniform_(0.05, 0.2)
        model[1].weight.uniform_(0.5, 1)
        model(torch.zeros(1, 3, 16, 16))
    return model


def grey():
    return nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5))


def poisoned():
    model = trained()
    model[1].running_var[2] = float("nan")
    return model


def unbuffered():
    """Trained vectors on fresh statistics: one critical finding and an info, no warning."""
    model = trained()
    model[0].bias = None
    model[1].reset_running_stats()
    return model


def wider():
    return nn.Sequential(nn.Conv2d(3, 7, 3, bias=False), nn.BatchNorm2d(7))


def other():
    return nn.Sequential(nn.Conv2d(3, 5, 1), nn.GroupNorm(1, 5))


def plain():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())


def number():
    return 7


def broken():
    raise KeyError("not today")


class Picky(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        torch._assert(x.shape[-1] == 224, "Wrong image height!")
        return self.norm(x)


def picky():
    return Picky()


class Forgetful(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.memory["x"])


def forgetful():
    return Forgetful()
'''


@pytest.fixture
def place(drawn_place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`drawn_place`, where pictures are left out: they are most of the time that a page takes."""
    monkeypatch.setattr(figures, "to_svg", lambda name, draw: "<svg></svg>")
    return drawn_place


@pytest.fixture
def drawn_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with own models, twelve images of two classes, and a folder without any."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    (tmp_path / "own.py").write_text(OWN)
    draw_images(tmp_path / "data", 12)
    (tmp_path / "empty").mkdir()
    return tmp_path


def draw_images(folder: Path, n: int) -> None:
    rng = np.random.default_rng(8)
    for i in range(n):
        path = folder / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)


def files(folder: Path) -> set[str]:
    """Every file below `folder`, hidden ones too, and nothing of Python's own."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return {str(path) for path in found if "__pycache__" not in path.parts}


def report(*more: str, subject: str = "own:trained") -> list[str]:
    return ["report", subject, "--data", "data", "--size", "16", *more]


def saved(place: Path, function: str = "trained", name: str = "run.bnp") -> Path:
    assert main(report("--save", name, "-o", "first.html", subject=f"own:{function}")) == 0
    return place / name


# What it makes


def test_report_writes_the_page_and_prints_the_answer(place, capsys):
    """Fails if the page goes elsewhere than -o, or the answer is printed to stderr, where pipes lose it."""
    assert main(report("-o", "out/mine.html")) == 0
    out, err = capsys.readouterr()
    page = (place / "out/mine.html").read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert "12 images" in page
    assert out.splitlines()[-1] == "page: out/mine.html"
    said = r"What the norms of trained learned =+ 1 batch norm, \d channels, measured on 12 images in eval mode\."
    assert re.match(said, " ".join(out.split()))
    assert err == ""
    assert files(place) >= {"out/mine.html"}
    assert not any(name.endswith(".part") for name in files(place))


def test_the_page_is_named_after_the_subject(place, capsys):
    """Fails if the default path is not the one that --help names: reports/SUBJECT.html."""
    assert main(report()) == 0
    assert (place / "reports/trained.html").is_file()
    assert "page: reports/trained.html" in capsys.readouterr().out


def test_a_saved_recording_rebuilds_the_same_page(drawn_place, capsys):
    """Fails if the way over the file loses a digit, or the page holds the hour of its making."""
    recording = saved(drawn_place)
    first = (drawn_place / "first.html").read_bytes()
    assert first.count(b"<figure>") >= 2
    assert f"recording: {recording.name}" in capsys.readouterr().out
    assert main(["report", recording.name]) == 0
    assert (drawn_place / "reports/run.html").read_bytes() == first


def test_limit_takes_part_and_the_page_says_so(place):
    """Fails if --limit is ignored, or a page of 5 images reads as one of all."""
    assert main(report("--limit", "5", "--batch-size", "2", "--save", "part.bnp", "-o", "x.html")) == 0
    recording = bnprobe.load("part.bnp")
    assert (recording.about.n_images, recording.about.n_forwards) == (5, 3)
    assert recording.about.data.startswith("5 of 12 images of 2 classes")


def test_preprocessing_is_as_asked(place):
    """Fails if --mean or --std are swapped or dropped, in the numbers or in the words."""
    more = ["--mean", "0.1,0.2,0.3", "--std", "0.5,0.6,0.7"]
    assert main(report(*more, "--save", "a.bnp", "-o", "a.html")) == 0
    about = bnprobe.load("a.bnp").about
    assert "mean (0.1, 0.2, 0.3), std (0.5, 0.6, 0.7)" in about.preprocessing
    x = np.stack([np.asarray(Image.open(path)) for path in sorted(Path("data").rglob("*.png"))]) / 255
    x = (x - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    own = models.subject("own:trained", size=16)
    with torch.no_grad():
        y = own.model[0](torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32)).double().numpy()
    found = bnprobe.load("a.bnp").layers[0].pre.mean
    np.testing.assert_allclose(found, y.mean((0, 2, 3)), rtol=1e-5, atol=1e-5)


def test_the_size_of_trainings_batches_is_recorded_or_given_later(place, capsys):
    """Fails if --training-batch is lost on its way to the recording, or is refused for a saved one."""
    assert main(report("--training-batch", "8", "--save", "t.bnp", "-o", "t.html")) == 0
    assert bnprobe.load("t.bnp").layers[0].training_batch == 8
    for given, said in (
        ([], "batches of 8 in training, as given"),
        (["--training-batch", "64"], "batches of 64 in training, as given"),
    ):
        assert main(["report", "t.bnp", *given, "-o", "again.html"]) == 0
        assert said in Path("again.html").read_text("utf-8")
    assert main(report("--training-batch", "0")) == 2
    assert "'0' is not a whole number of at least 1" in capsys.readouterr().err


def test_layers_modes_and_histograms_are_narrowed(place):
    """Fails if --layers, --train-mode or --no-histograms does not reach the probe."""
    assert (
        main(report("--layers", "1", "--train-mode", "--no-histograms", "--save", "t.bnp", "-o", "t.html"))
        == 0
    )
    (record,) = bnprobe.load("t.bnp").layers
    assert (record.mode, record.normalized_by, record.pre_histogram) == ("train", "batch", None)


def test_text_prints_the_whole_report(place, capsys):
    """Fails if --text prints no more than the summary."""
    assert main(report("-o", "x.html")) == 0
    summary = capsys.readouterr().out
    assert main(report("-o", "x.html", "--text")) == 0
    whole = capsys.readouterr().out
    assert "How it was measured" in whole
    assert "How it was measured" not in summary
    assert "Findings" in summary


def test_without_data_the_substitute_is_said(place, capsys):
    """Fails if digits stand in for the user's images without a word, on the terminal or on the page."""
    assert (
        main(["report", "own:trained", "--size", "16", "--limit", "3", "-o", "x.html", "--save", "x.bnp"])
        == 0
    )
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "no --data" in err
    assert "handwritten digits" in err
    assert "3 of 360 handwritten digits" in bnprobe.load("x.bnp").about.data


def test_the_recording_knows_the_constants_of_the_preprocessing(place):
    """Fails if what is subtracted from pixels is only given in words, from which no colour can be computed."""
    given = ("--mean", "0.5,0.25,0.5", "--std", "0.5,0.5,0.25")
    assert main(report(*given, "--save", "run.bnp", "-o", "x.html")) == 0
    found = bnprobe.load("run.bnp").about.normalize
    assert (found.mean, found.std) == ((0.5, 0.25, 0.5), (0.5, 0.5, 0.25))


def test_unreadable_images_are_counted_and_named_and_the_run_goes_on(place, capsys):
    """Fails if one damaged file ends the run, or is passed over in silence."""
    good = place / "data/a/00.png"
    (place / "data/a/cut.png").write_bytes(good.read_bytes()[:100])
    (place / "data/b/words.jpg").write_text("not an image")
    assert main(report("-o", "x.html", "--save", "x.bnp")) == 0
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "2 of 14 images could not be read" in err
    recording = bnprobe.load("x.bnp")
    assert recording.about.n_images == 12
    page = (place / "x.html").read_text("utf-8")
    for name in ("cut.png", "words.jpg"):
        assert name in err, name
        assert name in page, name
    assert "page: x.html" in out


def test_no_progress_bar_where_nobody_watches(place, capsys):
    """Fails if a log file is filled with the bar's carriage returns."""
    assert main(report("-o", "x.html")) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\r" not in out


def test_output_that_cannot_spell_greek_is_still_printed(place, monkeypatch):
    """Fails if a terminal of another encoding (cp1252 on Windows) ends the run with a traceback."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    assert main(report("-o", "x.html")) == 0
    sys.stdout.flush()
    assert b"page: x.html" in raw.getvalue()


def test_interruption_is_one_line(place, monkeypatch, capsys):
    """Fails if Ctrl-C shows a traceback, or leaves a part of a page behind."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bnprobe.probe.record.record", interrupted)
    before = files(place)
    assert main(report("-o", "x.html")) == 130
    assert capsys.readouterr().err == "bnprobe: interrupted.\n"
    assert files(place) == before


# Exit codes


@pytest.mark.parametrize(
    ("function", "fail_on", "code"),
    [
        ("trained", None, 0),
        ("trained", "critical", 0),
        ("trained", "warning", 1),
        ("trained", "info", 1),
        ("poisoned", None, 0),
        ("poisoned", "critical", 1),
        ("unbuffered", "warning", 1),
        ("wider", "critical", 0),
        ("wider", "warning", 0),
        ("wider", "info", 1),
    ],
)
def test_fail_on_counts_its_severity_and_above(place, function, fail_on, code):
    """Fails if --fail-on compares with == or the wrong way round, or a finding alone makes the code 1.

    `trained` was shifted (warning), `poisoned` has a NaN and `unbuffered` fresh statistics (critical), `wider`
    is untrained (info).
    """
    more = ["--fail-on", fail_on] if fail_on else []
    assert main(report("-o", "x.html", *more, subject=f"own:{function}")) == code
    assert (place / "x.html").is_file(), "the page is written whatever the code"


def test_fail_on_holds_for_a_rebuilt_page_too(place):
    """Fails if a recording is judged by another code than the run that made it."""
    recording = saved(place)
    assert main(["report", recording.name, "-o", "x.html", "--fail-on", "warning"]) == 1
    assert main(["report", recording.name, "-o", "x.html", "--fail-on", "critical"]) == 0


# Bad input: one line with fact, place and next step


def zero_batches(place: Path) -> None:
    with bnprobe.attach(torch.nn.Sequential(torch.nn.BatchNorm2d(3))) as probe:
        pass
    probe.recording.save(place / "zero.bnp")


def cut_checkpoint(place: Path) -> None:
    torch.save(torch.nn.Linear(50, 50).state_dict(), place / "cut.pt")
    whole = (place / "cut.pt").read_bytes()
    (place / "cut.pt").write_bytes(whole[: len(whole) // 2])


def cut_recording(place: Path) -> None:
    zero_batches(place)
    (place / "cut.bnp").write_bytes((place / "zero.bnp").read_bytes()[:-7])


def other_checkpoint(place: Path) -> None:
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 1), torch.nn.GroupNorm(1, 5))
    torch.save(layers.state_dict(), place / "other.pt")


def dangling_output(place: Path) -> None:
    (place / "file").write_text("not a folder")


def only_damage(place: Path) -> None:
    (place / "empty/x.png").write_text("no")


BAD: dict[str, tuple[Callable[[Path], None] | None, list[str], tuple[str, ...]]] = {
    "no command": (None, [], ("COMMAND", "bnprobe --help")),
    "unknown command": (None, ["rapport"], ("rapport", "report", "bnprobe --help")),
    "no subject": (None, ["report"], ("SUBJECT", "bnprobe report --help")),
    "unknown option": (None, report("--quick"), ("--quick", "--help")),
    "unknown model": (None, report(subject="resnet5"), ("resnet5", "Did you mean resnet50", "bnprobe list")),
    "unknown model without data": (None, ["report", "resnet5"], ("Did you mean resnet50",)),
    "model options for a recording": (
        None,
        ["report", "run.bnp", "--limit", "3", "--train-mode"],
        ("run.bnp is a saved recording", "--limit, --train-mode", "Leave them out"),
    ),
    "unknown module": (None, report(subject="nowhere:build"), ("nowhere", "Run in the folder")),
    "unknown function": (None, report(subject="own:traind"), ("traind", "Did you mean trained?")),
    "not a model": (None, report(subject="own:number"), ("own:number", "int", "torch.nn.Module")),
    "model that raises": (None, report(subject="own:broken"), ("own:broken", "not today", "own.py:")),
    "no norm layer": (None, report(subject="alexnet")[:4], ("AlexNet", "Conv+BN were not fused")),
    "no norm layer of own": (None, report(subject="own:plain"), ("Sequential", "Conv+BN were not fused")),
    "no layer matches": (None, report("--layers", "layer9.*"), ("layer9.*", "only norm layer is '1'")),
    "no folder": (None, ["report", "own:trained", "--data", "nodata"], ("nodata", "Check --data")),
    "folder is a file": (None, ["report", "own:trained", "--data", "own.py"], ("own.py", "folder")),
    "folder without images": (None, ["report", "own:trained", "--data", "empty"], ("empty", ".png")),
    "only damaged images": (
        only_damage,
        ["report", "own:trained", "--data", "empty", "--size", "16"],
        ("x.png", "image viewer"),
    ),
    "no checkpoint": (None, report("--checkpoint", "no.pt"), ("no.pt", "Check the path")),
    "cut checkpoint": (cut_checkpoint, report("--checkpoint", "cut.pt"), ("cut.pt", "download it again")),
    "checkpoint of another model": (
        other_checkpoint,
        report("--checkpoint", "other.pt"),
        ("other.pt", "missing", "own:trained", "Name the model that was saved"),
    ),
    "unknown weights": (
        None,
        ["report", "resnet18", "--data", "data", "--weights", "BEST"],
        ("BEST", "IMAGENET1K_V1"),
    ),
    "output below a file": (dangling_output, report("-o", "file/x.html"), ("file/x.html", "another path")),
    "output is a folder": (None, report("-o", "empty"), ("empty", "another path")),
    "saving below a file": (
        dangling_output,
        report("-o", "x.html", "--save", "file/x.bnp"),
        ("file/x.bnp", "another path"),
    ),
    "limit 0": (None, report("--limit", "0"), ("--limit", "at least 1", "--help")),
    "limit below zero": (None, report("--limit", "-3"), ("--limit", "--help")),
    "limit in words": (None, report("--limit", "few"), ("--limit", "few", "whole number")),
    "limit of half an image": (None, report("--limit", "1.5"), ("--limit", "1.5", "whole number")),
    "limit without end": (None, report("--limit", "9" * 5000), ("--limit", "--help")),
    "batch size 0": (None, report("--batch-size", "0"), ("--batch-size", "at least 1")),
    "size 0": (None, ["report", "own:trained", "--size", "0"], ("--size", "at least 1")),
    "gray model": (None, report(subject="own:grey"), ("own:grey", "--mean and --std", "gray images")),
    "two means": (None, report("--mean", "1,2"), ("mean (1, 2)", "three of each", "one of each (gray)")),
    "mean in words": (None, report("--mean", "a,b,c"), ("--mean", "a number for each channel")),
    "mean not a number": (None, report("--mean", "nan,0,0"), ("nan",)),
    "mean without end": (None, report("--mean", "inf,0,0"), ("inf",)),
    "deviation 0": (None, report("--std", "0,1,1"), ("std", "above zero")),
    "deviation not a number": (None, report("--std", "1,nan,1"), ("nan",)),
    "unknown severity": (None, report("--fail-on", "fatal"), ("fatal", "critical")),
    "no recording": (None, ["report", "no.bnp"], ("no.bnp", "recording.save(path)")),
    "cut recording": (cut_recording, ["report", "cut.bnp"], ("cut.bnp", "Record it again")),
    "recording of nothing": (zero_batches, ["report", "zero.bnp"], ("no forward pass", "Run the object")),
    "inputs of a wrong size": (
        None,
        ["report", "own:trained", "--data", "data", "--size", "8"],
        ("own:trained", "Check --size"),
    ),
    "a model that asserts its size": (
        None,
        report(subject="own:picky"),
        ("Wrong image height", "Check --size"),
    ),
    "a model with a bug": (None, report(subject="own:forgetful"), ("own:forgetful", "memory")),
    "nothing listed": (None, ["list", "resnot"], ("resnot", "bnprobe list")),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(place, capsys, name):
    """Fails if the line, its place or its advice is missing, a traceback shows, or something is half written."""
    prepare, arguments, words = BAD[name]
    if prepare:
        prepare(place)
    before = files(place)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("bnprobe: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert len(err) < 700, "a line, not a page"
    for word in words:
        assert word in err, err
    assert files(place) == before


def test_a_bad_model_name_leaves_no_folder_behind(place):
    """Fails if the folder of the page is made before it is known that there will be a page."""
    assert main(["report", "resnet5"]) == 2
    assert not (place / "reports").exists()


def test_a_page_that_was_there_survives_bad_input(place):
    """Fails if the old page is opened for writing before the new one is known."""
    (place / "x.html").write_text("yesterday's")
    assert main(report("-o", "x.html", "--checkpoint", "no.pt")) == 2
    assert (place / "x.html").read_text() == "yesterday's"


def test_the_program_itself_ends_with_the_code(place):
    """Fails if the exit code is lost on the way out of the process, or torch writes to stderr."""
    run = subprocess.run(
        [sys.executable, "-m", "bnprobe.cli.main", "report", "no.bnp"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("bnprobe: no.bnp: no such file")
    assert run.stderr.count("\n") == 1


# Words


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ("What did normalization learn", "demo", "report", "list", "--version", "130 interrupted")),
        (["demo"], ("bnprobe-demo.html", "--fail-on", "--text")),
        (
            ["report"],
            ("SUBJECT", "FILE.bnp", "package.module:function", "--data", "--checkpoint", "--limit", "--save"),
        ),
        (["list"], ("PATTERN", "shell pattern")),
    ],
)
def test_help_says_what_can_be_done(capsys, command, words):
    """Fails if an option or a form of SUBJECT is not explained where one looks for it."""
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    out, err = capsys.readouterr()
    assert ended.value.code == 0
    assert err == ""
    for word in words:
        assert word in " ".join(out.split())


def test_the_version_is_that_of_the_package(capsys):
    """Fails if `bnprobe --version` asks for a command, or prints another version than the project file has."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"bnprobe {project['version']}\n"


def test_list_prints_a_name_a_line(capsys):
    """Fails if the pattern is ignored, or a name is printed that cannot be built."""
    assert main(["list", "resnet1*"]) == 0
    names = capsys.readouterr().out.split("\n")
    assert names == ["resnet101", "resnet152", "resnet18", ""]
    assert main(["list"]) == 0
    assert set(names[:-1]) < set(capsys.readouterr().out.split())


@pytest.mark.slow
def test_the_demo_needs_nothing(drawn_place, capsys):
    """Fails if the shipped network, its digits or the default path are not found from another folder."""
    assert main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[-1] == "page: bnprobe-demo.html"
    said = r"52 batch norms, [\d,]+ channels, measured on 360 images in eval mode\."
    assert re.search(said, " ".join(out.split()))
    page = (drawn_place / "bnprobe-demo.html").read_text("utf-8")
    norms = [name for name, m in models.demo().model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    pages.assert_pictures_are(pages.assert_sound(page), 13, norms)
    assert "could not be drawn" not in page
    assert "trained by scripts/train_demo.py" in page
    assert "What each vector is worth" in page


def test_the_recording_of_a_run_says_what_was_run(place):
    """Fails if a saved recording cannot tell later from what it came."""
    about = bnprobe.load(saved(place)).about
    assert about.model == "own:trained"
    assert about.weights == "as own:trained made them (seed 0)"
    assert about.data.startswith("12 images of 2 classes")
    assert about.preprocessing.startswith("shorter side to 16 px")
    assert isinstance(bnprobe.load("run.bnp"), Recording)
    assert replace(about, notes=()) == about


def test_a_model_of_grey_images(place, capsys):
    """Fails if one mean and one standard deviation do not make grey images."""
    assert main(report("--mean", "0.3", "--std", "0.4", "-o", "x.html", subject="own:grey")) == 0
    assert "one gray channel" in (place / "x.html").read_text("utf-8")


def test_a_file_in_place_of_a_model_is_sent_to_check(place, capsys):
    """Fails if a path that exists is only called an unknown model."""
    Path("weights.pt").write_bytes(b"")
    assert main(["report", "weights.pt"]) == 2
    assert "`bnprobe check weights.pt`" in capsys.readouterr().err


def test_the_package_runs_as_a_module(monkeypatch, capsys):
    """Fails if `python -m bnprobe` is not the command line."""
    monkeypatch.setattr(sys, "argv", ["bnprobe", "rules", "channels-dead"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("bnprobe", run_name="__main__")
    assert ended.value.code == 0
    assert "dead" in capsys.readouterr().out


def test_names_are_completed():
    """Fails if a shell or an editor does not offer what is imported on first use."""
    assert set(bnprobe.__all__) <= set(dir(bnprobe))
