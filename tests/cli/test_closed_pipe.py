"""Output whose reader has left: no traceback, and the exit code says what was found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn


def into_a_closed_pipe(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and errors of a command whose standard output nobody reads."""
    command = [sys.executable, "-m", "bnprobe", *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        said = run.stderr.read().decode()
    return run.returncode, said


@pytest.mark.parametrize(
    "arguments", [("rules",), ("rules", "channels-dead"), ("--version",), ("report", "--help")]
)
def test_a_closed_pipe_ends_quietly(arguments, tmp_path):
    """Fails if `bnprobe rules | head` ends in a traceback, here or when the interpreter writes what is buffered."""
    assert into_a_closed_pipe(tmp_path, *arguments) == (0, "")


def test_the_exit_code_does_not_depend_on_the_reader(tmp_path):
    """Fails if a finding is lost because the list of findings was cut short."""
    norm = nn.BatchNorm2d(3)
    norm.running_var[1] = float("nan")
    torch.save(norm.state_dict(), tmp_path / "a.pt")
    assert into_a_closed_pipe(tmp_path, "check", "a.pt", "--fail-on", "critical") == (1, "")
