"""Whatever is read stays: an output that would take its place is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

from attacks import replaced
from attacks.headers import named
from attacks.sandbox import Sandbox
from attacks.test_checkpoints import assert_cheap, assert_one_line

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")

WORDS = "is what is read, and would be replaced. Choose another path"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", replaced.REPLACED)
def test_what_is_read_is_not_replaced(sandbox: Sandbox, name, tmp_path):
    """Fails if an image, a shard, a table or a config is lost to an output of that name."""
    arguments = replaced.REPLACED[name](tmp_path)
    before = contents(tmp_path)
    verdict = sandbox.run(*arguments)
    assert_one_line(verdict, WORDS)
    assert_cheap(verdict)
    assert contents(tmp_path) == before


def test_the_settings_that_are_found(sandbox: Sandbox, tmp_path):
    """Fails if the pyproject.toml of the project, which nobody named, is lost to an output."""
    (tmp_path / "pyproject.toml").write_text("[tool.bnprobe]\n")
    path = named(tmp_path, "bn")
    verdict = sandbox.run("check", path, "--format", "json", "-o", "pyproject.toml", inside=tmp_path)
    assert_one_line(verdict, WORDS)
    assert (tmp_path / "pyproject.toml").read_text() == "[tool.bnprobe]\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there a file that is open is not replaced")
def test_what_standard_input_comes_from(tmp_path):
    """Fails if `bnprobe check - < FILE -o FILE` loses the file."""
    path = named(tmp_path, "bn")
    before = path.read_bytes()
    with path.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "bnprobe", "check", "-", "--format", "json", "-o", path],
            stdin=file,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert done.returncode == 2
    assert WORDS in done.stderr
    assert path.read_bytes() == before


def test_an_earlier_report_beside_the_weights_is(sandbox: Sandbox, tmp_path):
    """Fails if every file of a folder of weights is taken for one that is read."""
    named(tmp_path, "bn")
    (tmp_path / "o.json").write_text("{}")
    verdict = sandbox.run("check", tmp_path, "--format", "json", "-o", tmp_path / "o.json")
    assert verdict.code == 0, verdict.err
    assert json.loads((tmp_path / "o.json").read_text())
