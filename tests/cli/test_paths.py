"""Outputs of commands: never what is read, never each other, and by default never what somebody else wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bnprobe.cli.main import main


@pytest.fixture(autouse=True)
def checkpoint(tmp_path, monkeypatch) -> Path:
    """A checkpoint a.pt in the current folder."""
    monkeypatch.chdir(tmp_path)
    torch.save(nn.BatchNorm2d(3).state_dict(), "a.pt")
    return tmp_path / "a.pt"


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "a.pt", "--format", "json", "-o", "a.pt"),
        ("check", ".", "--format", "json", "-o", "./a.pt"),
        ("check", "a.pt", "--write-baseline", "a.pt"),
        ("compare", "a.pt", "b.pt", "-o", "a.pt"),
        ("report", "resnet18", "--checkpoint", "a.pt", "-o", "a.pt"),
        ("check", "a.pt", "--config", "c.toml", "--format", "json", "-o", "c.toml"),
    ],
)
def test_what_is_read_is_never_written(arguments, checkpoint, capsys):
    """Fails if a typing error costs a checkpoint or the settings."""
    Path("c.toml").write_text("")
    before = checkpoint.read_bytes()
    assert main(arguments) == 2
    assert "is what is read, and would be replaced. Choose another path" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before
    assert Path("c.toml").read_text() == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "a.pt", "-o", "new/"),
        ("check", "a.pt", "--write-baseline", "new/"),
        ("compare", "a.pt", "a.pt", "-o", "new/"),
        ("report", "resnet18", "--save", "new/"),
        ("merge", "a.bnp", "-o", "new/"),
        ("recalibrate", "resnet18", "--apply", "-o", "new/"),
    ],
)
def test_a_folder_is_no_name_of_a_file(arguments, capsys):
    """Fails if a file is written in the place of the folder that a slash at the end asks for."""
    assert main(arguments) == 2
    assert "'new/' is a folder. Add the name of the file to write in it." in capsys.readouterr().err
    assert not Path("new").exists()


def test_a_shard_is_never_written(capsys):
    """Fails if a link in the place of the recording costs a shard of images."""
    Path("a.tar").write_bytes(b"images")
    Path("list.txt").write_text("a.tar")
    Path("out").mkdir()
    Path("out", "whole.bnp").symlink_to(Path("a.tar").absolute())
    assert main(("record", "resnet18", "--shards", "list.txt", "--out", "out")) == 2
    assert "is what is read, and would be replaced" in capsys.readouterr().err
    assert Path("a.tar").read_bytes() == b"images"


def test_two_outputs_of_one_name(capsys):
    """Fails if the baseline replaces the findings, or the other way round."""
    assert main(("check", "a.pt", "--format", "json", "-o", "x", "--write-baseline", "./x")) == 2
    assert "would be written twice" in capsys.readouterr().err
    assert not Path("x").exists()


def test_a_page_by_default_replaces_only_pages(capsys):
    """Fails if a file that bnprobe did not write is lost to a name that nobody gave."""
    page = Path("reports", "a.check.html")
    page.parent.mkdir()
    page.write_text("mine")
    assert main(("check", "a.pt", "--format", "html")) == 2
    assert "is there, and no page of bnprobe. Name the output with -o FILE." in capsys.readouterr().err
    assert page.read_text() == "mine"
    assert main(("check", "a.pt", "--format", "html", "-o", str(page))) == 0
    assert main(("check", "a.pt", "--format", "html")) == 0
