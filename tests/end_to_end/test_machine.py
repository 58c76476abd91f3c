"""Faults of the machine: a full disk, Ctrl-C, a process that is killed. What was there stays, or the new is whole."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import ROOT
from torch import Tensor, nn

import bnprobe
from bnprobe.cli.main import main
from bnprobe.errors import CannotWrite
from bnprobe.files import write as files_write
from bnprobe.probe.interrupt import stoppable
from bnprobe.probe.record import Interrupted


class Struck(nn.Module):
    """A network that gets SIGINT in the middle of its third forward pass, and again at `second`."""

    def __init__(self, at: int = 3, second: int = 0) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.passes, self.at, self.second = 0, at, second

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        y = self.conv(x)
        if self.passes in (self.at, self.second):
            os.kill(os.getpid(), signal.SIGINT)
        y = self.bn(y)
        if self.second and self.passes == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return y.relu()


def struck() -> nn.Module:
    torch.manual_seed(3)
    return Struck().eval()


def whole() -> nn.Module:
    torch.manual_seed(3)
    return Struck(at=-1).eval()


def struck_twice() -> nn.Module:
    return Struck(second=-2).eval()


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """SIGINT as Python has it, also where whoever started the tests has it ignored, as shells do in the background."""
    was = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, was)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten grey squares."""
    (tmp_path / "data").mkdir()
    for i in range(10):
        Image.new("RGB", (8, 8), (20 * i, 7 * i, 3)).save(tmp_path / "data" / f"{i}.png")
    return tmp_path / "data"


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    return tmp_path


def run(subject: str, pictures: Path, *more: str) -> int:
    return main(
        [
            "report",
            f"end_to_end.test_machine:{subject}",
            "--data",
            str(pictures),
            "--size",
            "8",
            "--batch-size",
            "2",
            *more,
        ]
    )


def test_an_interrupted_report_says_how_far_it_came(inside, pictures, capsys):
    """Fails if a run of hours ends without a word on what it had, or with half a page."""
    assert run("struck", pictures, "-o", "x.html") == 130
    assert capsys.readouterr().err == (
        "bnprobe: interrupted after 6 of 10 images; nothing was saved. "
        "Use --save-partial to keep the recording of an interrupted run.\n"
    )
    assert [path.name for path in inside.iterdir()] == ["data"]


def test_the_partial_recording_is_that_of_the_images_so_far(inside, pictures, capsys):
    """Fails if the batch that was struck counts in some layers and not in others, or the file is not said to be partial."""
    assert run("struck", pictures, "-o", "x.html", "--save-partial") == 130
    said = capsys.readouterr().err
    assert "which are saved: `bnprobe report x.partial.bnp` writes their page.\n" in said
    partial = bnprobe.load("x.partial.bnp")
    assert partial.about.data.startswith("the first 6 of 10 images in ")
    assert "The run was interrupted after 6 of 10 images." in partial.about.notes
    for name in "3489":  # batches run through all of the folder: 0 and 5, 1 and 6, 2 and 7
        (pictures / f"{name}.png").unlink()
    assert run("whole", pictures, "-o", "y.html", "--save", "y.bnp") == 0
    (mine,), (other,) = partial.layers, bnprobe.load("y.bnp").layers
    assert (mine.n_images, mine.n_calls) == (6, 3) == (other.n_images, other.n_calls)
    np.testing.assert_array_equal(mine.pre.m4, other.pre.m4)
    np.testing.assert_array_equal(mine.pre_histogram.counts, other.pre_histogram.counts)
    assert main(["report", "x.partial.bnp", "-o", "z.html"]) == 0
    assert "interrupted after 6 of 10 images" in Path("z.html").read_text("utf-8")


def test_the_partial_recording_lies_beside_the_one_that_was_asked_for(inside, pictures):
    """Fails if a partial recording takes the place of a whole one."""
    Path("run.bnp").write_bytes(b"an old one")
    assert run("struck", pictures, "--save", "run.bnp", "--save-partial") == 130
    assert Path("run.bnp").read_bytes() == b"an old one"
    assert bnprobe.load("run.partial.bnp").about.n_images == 6


def test_a_second_interruption_does_not_wait(inside, pictures, capsys):
    """Fails if somebody who presses Ctrl-C again waits for the end of the batch."""
    assert run("struck_twice", pictures, "--save-partial", "-o", "x.html") == 130
    assert "interrupted after 4 of 10 images" in capsys.readouterr().err
    assert bnprobe.load("x.partial.bnp").layers[0].n_calls == 2


def test_an_interruption_between_batches_is_at_once():
    """Fails if a loader that hangs cannot be interrupted."""

    def hanging():
        yield torch.rand(2, 3, 8, 8)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")

    with pytest.raises(Interrupted, match="after 2 images") as stopped:
        bnprobe.record(whole(), hanging())
    assert stopped.value.recording.about.n_forwards == 1


def test_before_the_first_batch_there_is_nothing_to_keep(inside, pictures, monkeypatch, capsys):
    """Fails if an empty recording is written, or a traceback shown."""
    monkeypatch.setattr(
        "bnprobe.models.image_folder.Source.image", lambda *_: os.kill(os.getpid(), signal.SIGINT)
    )
    assert run("whole", pictures, "--save-partial") == 130
    assert capsys.readouterr().err == (
        "bnprobe: interrupted before the first batch ended, so there is nothing to save.\n"
    )
    assert not list(inside.glob("**/*.bnp"))


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN, lambda *_: None])
def test_the_users_handler_of_ctrl_c_comes_back(handler):
    """Fails if a program that handles Ctrl-C in its own way finds ours in its place."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        with stoppable():
            assert (signal.getsignal(signal.SIGINT) is handler) == (handler is not signal.default_int_handler)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


# A full disk


def limited(size: int, *statements: str) -> subprocess.CompletedProcess[str]:
    """A program that may write files of `size` bytes at most."""
    code = "\n".join(
        ("from pathlib import Path", "from bnprobe.files.write import write_output", *statements)
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        capture_output=True,
        text=True,
    )


def test_a_disk_that_fills_leaves_the_old_file(tmp_path):
    """Fails if what was there is lost, or a part of the new file stays and fills the disk."""
    (tmp_path / "a.html").write_bytes(b"old")
    ended = limited(1 << 16, f"write_output(Path({str(tmp_path / 'a.html')!r}), b'x' * (1 << 20))")
    assert "CannotWrite" in ended.stderr
    assert "File too large. Choose another path" in ended.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.html": b"old"}


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 64 kB, where this machine lets us have one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_real_disk_that_is_full(small_disk):
    """Fails if the message does not say what is wrong and what to do."""
    files_write.write_output(small_disk / "a.bnp", b"old")
    with pytest.raises(CannotWrite, match=r"No space left on device\. Choose another path"):
        files_write.write_output(small_disk / "a.bnp", b"x" * (1 << 17))
    assert {path.name: path.read_bytes() for path in small_disk.iterdir()} == {"a.bnp": b"old"}


@pytest.mark.parametrize("missing", ["O_TMPFILE", "link"])
def test_where_files_without_names_cannot_be_had(missing, tmp_path, monkeypatch):
    """Fails if a system or a file system without them cannot save, or keeps parts."""
    if missing == "O_TMPFILE":
        monkeypatch.delattr(os, "O_TMPFILE")
    else:
        monkeypatch.setattr(os, "open", refuse_nameless(os.open))
    files_write.write_output(tmp_path / "a.bnp", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.bnp": b"new"}


def refuse_nameless(real_open):
    def opened(path, flags, *more):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return real_open(path, flags, *more)

    return opened


# Killed


SAVES = """
import sys
from pathlib import Path
from bnprobe.files import write as files_write
from bnprobe.files.write import write_output
files_write.STALE = 1e9  # nothing is swept
path, contents = Path(sys.argv[1]), [bytes([letter]) * 300_000 for letter in b"ab"]
print("ready", flush=True)
while True:
    for content in contents:
        write_output(path, content)
"""


def test_a_killed_process_leaves_a_whole_file_and_nothing_else(tmp_path):
    """Fails if a file is ever seen half written, or parts of it pile up beside it (twenty kills at odd moments)."""
    path = tmp_path / "a.bnp"
    for i in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVES, str(path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        with process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.011 * i)
            process.kill()
        if path.exists():
            assert path.read_bytes() in (b"a" * 300_000, b"b" * 300_000)
    assert all(part.read_bytes() in (b"a" * 300_000, b"b" * 300_000) for part in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) < 8, "only the instant between two names may leave one"
    time.sleep(files_write.STALE)
    files_write.write_output(path, b"again")
    assert [p.name for p in tmp_path.iterdir()] == ["a.bnp"]


def test_what_a_killed_save_left_is_swept_and_nothing_else(tmp_path):
    """Fails if leftovers stay for ever, or a file is taken from another process that is writing it."""
    names = (
        ".a.bnp.bnprobe-0badcafe.part",
        ".a.bnp.bnprobe-5a5a5a5a.part",
        ".b.bnp.bnprobe-5a5a5a5a.part",
        ".a.bnp.bnprobe-00000bed.part",
        ".a.bnp.mine.part",
        "a.bnp.part",
    )
    left, locked, other, fresh, named, mine = (tmp_path / name for name in names)
    for part in (left, locked, other, fresh, named, mine):
        part.write_bytes(b"part")
        if part != fresh:
            os.utime(part, (0, 0))
    with locked.open() as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        files_write.write_output(tmp_path / "a.bnp", b"whole")
    kept = {part.name for part in (locked, other, fresh, named, mine)} | {"a.bnp"}
    assert {part.name for part in tmp_path.iterdir()} == kept


def test_two_saves_of_one_recording_are_the_same_file(tmp_path):
    """Fails if the order of a header is left to chance: the file could not be cached, signed or compared."""
    recording = bnprobe.record(whole(), [torch.rand(2, 3, 8, 8)])
    saved = [recording.save(tmp_path / f"{i}.bnp").read_bytes() for i in range(8)]
    assert len(set(saved)) == 1
    assert bnprobe.load(tmp_path / "0.bnp").save(tmp_path / "again.bnp").read_bytes() == saved[0]
