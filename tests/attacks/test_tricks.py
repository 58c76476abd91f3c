"""Attacks made anew, of kinds that were closed before: refused in a line, or worked on like any other file."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from attacks import tricks
from attacks.headers import NAMES, named
from attacks.sandbox import Sandbox
from attacks.test_checkpoints import assert_cheap, assert_left_nothing, assert_one_line


@pytest.mark.parametrize("name", tricks.REFUSED)
def test_refused_in_a_line(sandbox: Sandbox, name, tmp_path):
    """Fails if shared values, sizes, places or links are believed, and a wait, a traceback or a file is what comes of it."""
    make, advice = tricks.REFUSED[name]
    verdict = sandbox.run(*make(tmp_path))
    assert_left_nothing(verdict, tmp_path)
    assert_one_line(verdict, advice)
    assert_cheap(verdict)


@pytest.mark.parametrize("name", tricks.JUDGED)
def test_worked_on(sandbox: Sandbox, name, tmp_path):
    """Fails if what lies beside the weights, or what nobody asks of them, ends a check."""
    verdict = sandbox.run(*tricks.JUDGED[name](tmp_path))
    assert verdict.code == 0, verdict.err[-2000:]
    assert_left_nothing(verdict, tmp_path)
    assert_cheap(verdict)


def test_a_folder_that_may_not_be_written(sandbox: Sandbox):
    """Fails if a folder without permission is a traceback, or is found out after the work."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes somebody else")
    # not within pytest's own folder, which others may not even enter
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = named(folder, "bn")
        verdict = sandbox.run("check", path, "--format", "json", "-o", folder / "o.json", as_nobody=True)
        assert_one_line(verdict, "no permission to write in .*Choose another path")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ["a script", "a closing tag", "the terminal's escape", "a template"])
def test_names_on_the_page_of_two(sandbox: Sandbox, name, tmp_path):
    """Fails if the page that compares two files shows a layer's name as anything but text."""
    one = named(tmp_path, NAMES[name]).rename(tmp_path / "b.safetensors")
    named(tmp_path, NAMES[name])
    page = tmp_path / "out" / "o.html"
    verdict = sandbox.run("compare", one, tmp_path / "a.safetensors", "-o", page, writes=page.parent)
    assert verdict.code == 0, verdict.err[-2000:]
    written = page.read_text("utf-8")
    assert not set(written) & set("\x1b\x07")
    assert "<script>alert" not in written
    assert "<img src=x" not in written
