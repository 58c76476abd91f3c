"""A process in odd surroundings: streams that are closed, and a folder that is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

from attacks.headers import named

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the shell of other systems")


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell, in which $B is the command."""
    command = f"{sys.executable} -m bnprobe"
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "B": command, "F": str(named(folder, "bn"))}
    return subprocess.run(["sh", "-c", script], cwd=folder, env=surroundings, capture_output=True, text=True)


def test_what_is_said_where_standard_error_is_closed(tmp_path):
    """Fails if a complaint lands in what a program reads from standard output."""
    done = run(tmp_path, "$B check nothing.pt --format json 2>&-")
    assert (done.returncode, done.stdout) == (2, "")


def test_no_stream_at_all(tmp_path):
    """Fails if the output, which gets the number of a closed stream, gets what is said as well."""
    done = run(tmp_path, "$B check $F --format json -o o.json <&- >&- 2>&-")
    assert done.returncode == 0
    assert json.loads((tmp_path / "o.json").read_text())["schema"] == "bnprobe/check"


@pytest.mark.parametrize("more", ["", "--format json -o o.json", "--format html"])
def test_a_folder_that_is_gone(more, tmp_path):
    """Fails if a folder that was deleted under the process is an error that nobody foresaw."""
    done = run(tmp_path, f"mkdir gone; cd gone; rmdir ../gone; $B check $F {more}")
    assert done.returncode == 2
    assert done.stderr == "bnprobe: the folder that this runs in was deleted. Change to one that is there.\n"
