"""`--batches` and `--size` on the command line: models of any input, and images that are not square."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bnprobe
from bnprobe.cli.main import _parser, main
from bnprobe.cli.ranks import share
from bnprobe.errors import BnprobeError
from bnprobe.models.preprocessing import CropAndScale
from bnprobe.models.user_batches import UserBatches
from bnprobe.scaling.ranks import Ranks

SOURCE = """
import torch
from torch import nn

def sound():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, 8, 9), nn.BatchNorm1d(8), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3))

def clips():
    torch.manual_seed(1)
    for i in range(4):
        yield torch.randn(10, 1, 64) + 2, torch.arange(10) % 3

def loud():
    return [(3 * x, y) for x, y in clips()]

def unlabeled():
    return [x for x, _ in clips()]

def nothing():
    return 5

def broken():
    raise ValueError("no such\\ncorpus")

def stops():
    yield torch.randn(10, 1, 64)
    raise OSError("disk\\nwent away")

def wrong():
    return [torch.randn(4, 7, 7, 7)]

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn, self.act = nn.BatchNorm1d(6, eps=1e-3), nn.Tanh()
    def forward(self, a, b):
        return self.act(self.bn(a * b))

def pairs():
    yield (torch.randn(9, 6), torch.randn(9, 6)), torch.arange(9) % 3

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
    def forward(self, x, keep=None, cu_seqlens=None):
        return self.norm(x)

def padded():
    for n in (5, 2):
        yield {"x": torch.randn(3, 5, 4), "keep": torch.arange(5)[None] < torch.tensor([n, 5, 1])[:, None]}

def packed():
    yield {"x": torch.randn(9, 4), "cu_seqlens": torch.tensor([0, 5, 9])}

def time_first():
    yield torch.randn(5, 3, 4)

def frames():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 119 * 159, 2))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "batches_made.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return main([*arguments, "--no-histograms"])


def test_a_model_of_sound_is_recorded_on_its_own_batches(capsys):
    """Fails if batches are stacked, preprocessed or counted like images, or their labels are lost."""
    assert run("report", "batches_made:sound", "--batches", "batches_made:clips", "--save", "a.bnp") == 0
    recording = bnprobe.load("a.bnp")
    assert (recording.about.n_images, recording.about.n_forwards) == (40, 4)
    assert recording.about.data == "batches of batches_made:clips"
    assert recording.layers[0].classes is not None
    torch.manual_seed(1)
    x = torch.cat([torch.randn(10, 1, 64) + 2 for _ in range(4)])
    torch.manual_seed(0)
    with torch.no_grad():
        before = torch.nn.Conv1d(1, 8, 9)(x).double().numpy()
    np.testing.assert_allclose(recording.layers[0].pre.mean, before.mean((0, 2)), rtol=1e-5)
    assert "digits" not in capsys.readouterr().err


def test_the_first_batches_with_a_loss(capsys):
    """Fails if --limit or --loss is not applied to a user's batches."""
    arguments = (
        "--batches",
        "batches_made:clips",
        "--limit",
        "2",
        "--loss",
        "cross_entropy",
        "--save",
        "a.bnp",
    )
    assert run("report", "batches_made:sound", *arguments) == 0
    recording = bnprobe.load("a.bnp")
    assert recording.about.n_images == 20
    assert recording.about.data == "the first 2 batches of batches_made:clips"
    assert recording.layers[0].gradient is not None


def test_two_sets_of_batches_are_compared(capsys):
    """Fails if both sides get the same batches."""
    twice = ("--batches", "batches_made:clips", "--batches", "batches_made:loud")
    assert run("compare", "batches_made:sound", *twice, "--format", "json") == 0
    assert '"inputs-differ"' in capsys.readouterr().out
    assert (
        run("compare", "batches_made:sound", "--batches", "batches_made:clips", "--modes", "--format", "text")
        == 0
    )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (
            ["--batches", "batches_made:nothing"],
            "returned an object of type int. Let it return an iterable of batches",
        ),
        (
            ["--batches", "batches_made:broken"],
            "raised ValueError: no such corpus. It is called without arguments",
        ),
        (
            ["--batches", "batches_made:stops"],
            "the batches of batches_made:stops ended in OSError: disk went away. Loop over them without a model",
        ),
        (["--batches", "batches_made:gone"], 'batches_made has no function "gone"'),
        (["--batches", "clips.pt"], "Give --batches as package.module:function"),
        (
            ["--batches", "batches_made:clips", "--data", "x", "--size", "8"],
            "so --data, --size can change nothing",
        ),
        (["--batches", "batches_made:wrong"], "Check what batches_made:wrong returns"),
        (["--size", "12"], "For inputs that are no images give --batches"),
        (["--size", "0x9"], "neither a side like 224 nor WIDTHxHEIGHT like 320x240"),
        (["--size", "9x"], "neither a side"),
        (["--batches", "batches_made:unlabeled", "--loss", "cross_entropy"], "the batches have no targets"),
    ],
)
def test_bad_input_is_one_line(arguments, match, capsys):
    """Fails if a user's own function ends in a traceback, or the advice is not about it."""
    assert run("report", "batches_made:sound", *arguments) == 2
    err = capsys.readouterr().err
    assert match in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("batches", "options", "samples", "positions", "left_out"),
    [
        ("padded", ["--mask", "keep", "--unit", "sequences"], 6, 5 + 5 + 1 + 2 + 5 + 1, 11),
        ("padded", ["--mask", "~keep"], 3, 11, 19),
        ("packed", ["--mask", "cu_seqlens"], 2, 9, 0),
        ("time_first", ["--sample-dim", "1"], 3, 15, 0),
    ],
)
def test_what_counts_as_a_sample_and_a_position(batches, options, samples, positions, left_out, capsys):
    """Fails if an option of masks, units or dimensions is lost between the command line and the probe."""
    given = ("--batches", f"batches_made:{batches}", *options)
    assert run("report", "batches_made:Tokens", *given, "--save", "a.bnp", "-o", "a.html") == 0
    (record,) = (recording := bnprobe.load("a.bnp")).layers
    assert (record.n_images, record.pre.n[0], record.n_masked) == (samples, positions, left_out)
    assert recording.about.unit == ("sequences" if "--unit" in options else "")
    assert run("report", "a.bnp", *options) == 2
    assert "can change nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mask", "kept"], "Tokens.forward has no such argument; it has x, keep, cu_seqlens"),
        (["--mask", "x"], "a mask holds True or 1 for positions that count"),
        (["--unit", "things"], "is no name for samples. Pass one of images"),
        (["--sample-dim", "-1"], "is not the number of a dimension"),
        (["--sample-dim", "7"], "Pass the number of the dimension that counts samples"),
    ],
)
def test_masks_and_units_that_cannot_be(options, words, capsys):
    """Fails if a name that the model does not have, or a unit without a word, ends in a traceback or is ignored."""
    assert run("report", "batches_made:Tokens", "--batches", "batches_made:padded", *options) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_a_size_of_width_and_height(folder, capsys):
    """Fails if width and height are swapped, or images are cropped to a square."""
    (folder / "images").mkdir()
    pixels = np.zeros((60, 200, 3), np.uint8)
    pixels[:, :100] = 255  # the left half is white
    Image.fromarray(pixels).save(folder / "images" / "a.png")
    assert (
        run("report", "batches_made:frames", "--data", "images", "--size", "320x240", "--save", "a.bnp") == 0
    )
    about = bnprobe.load("a.bnp").about
    assert "resized to 320 x 240" in about.preprocessing
    assert "crop" not in about.preprocessing
    made = CropAndScale((240, 320), 224, (0.0,), (1.0,))(Image.fromarray(pixels))
    assert made.shape == (1, 240, 320)
    assert made[:, :, :150].min() == 1
    assert made[:, :, 170:].max() == 0


def test_check_runs_a_model_of_two_inputs_on_a_batch(folder, capsys):
    """Fails if what follows a norm cannot be shown to check, or numbers of the batch are kept."""
    torch.save(
        {
            "bn.weight": torch.rand(6),
            "bn.bias": torch.rand(6),
            "bn.running_mean": torch.rand(6),
            "bn.running_var": torch.rand(6),
        },
        "a.pt",
    )
    arguments = ("check", "a.pt", "--arch", "batches_made:Pair")
    assert main([*arguments, "--batches", "batches_made:pairs"]) == 0
    assert "with one batch" in capsys.readouterr().out
    import batches_made

    for batches, follows in ((batches_made.pairs(), "tanh"), (None, "unknown")):
        report = bnprobe.check("a.pt", arch="batches_made:Pair", batches=batches)
        assert list(report.layers["follows"]) == [follows]
        assert list(report.layers["eps"]) == [1e-3]
        assert report.recording.weights_only
        assert report.channels["pre_mean"].isna().all()
    assert main(["check", "a.pt", "--batches", "batches_made:pairs"]) == 2
    assert "Give --arch NAME as well" in capsys.readouterr().err
    assert main([*arguments, "--batches", "batches_made:wrong"]) == 2
    assert "does not run on the first batch" in capsys.readouterr().err
    with pytest.raises(BnprobeError, match="Give arch as well"):
        bnprobe.check("a.pt", batches=[])


def test_processes_take_turns():
    """Fails if a batch of the user's is run by two processes, or by none."""
    whole = UserBatches("a:b", list(range(11)), 9)
    shares = [list(whole.share(index, 4)) for index in range(4)]
    assert shares == [[0, 4, 8], [1, 5], [2, 6], [3, 7]]
    assert list(whole) == list(range(9))


@pytest.mark.parametrize("option", ["--try", "--ablate", "--save-partial"])
def test_what_needs_all_batches_is_refused_under_torchrun(option):
    """Fails if each of several processes would try a remedy on a share of the batches, or save under one name."""
    options = _parser().parse_args(["report", "resnet18", option])
    with pytest.raises(
        BnprobeError, match=f"{option} needs all batches in one process, and torchrun started 3"
    ):
        share(UserBatches("a:b", []), options, Ranks(1, 3))
    assert share(whole := UserBatches("a:b", []), options, Ranks(0, 1)) is whole
