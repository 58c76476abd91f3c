"""Results on a disk as they come: whole lines alone, the last of each name, one command at a time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bnprobe.errors import CannotWrite
from bnprobe.files import Journal


def test_results_come_back(tmp_path):
    """Fails if a result is another's, or an earlier one of its name."""
    with Journal(tmp_path / "t.csv") as journal:
        journal.add("a", [1, "x"], {"n": 1, "nan": float("nan")})
        journal.add("b", None, [np.float32(0.5), np.int64(3)])
        journal.add("a", [2, "y"], {"n": 2})
        assert journal.result("a") == {"n": 2}
    with Journal(tmp_path / "t.csv") as journal:
        assert "a" in journal
        assert "c" not in journal
        assert (journal.mark("a"), journal.mark("b"), journal.mark("c")) == ([2, "y"], None, None)
        assert journal.result("a") == {"n": 2}
        assert journal.result("b") == [0.5, 3]
        journal.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "torn", [b'["c", 1, ', b'["c", 1, 2]', b"\xff\n", b"3\n", b"[3, 1, 2]\n", b"[" * 9999 + b"\n"]
)
def test_a_torn_line_is_taken_off(tmp_path, torn):
    """Fails if what a kill left is a result, or spoils the one after it."""
    with Journal(tmp_path / "t.csv") as journal:
        journal.add("a", 1, "one")
        path = journal.path
    with path.open("ab") as file:
        file.write(torn)
    with Journal(tmp_path / "t.csv") as journal:
        assert "c" not in journal
        journal.add("b", 2, "two")
    with Journal(tmp_path / "t.csv") as journal:
        assert (journal.result("a"), journal.result("b")) == ("one", "two")


def test_one_command_at_a_time(tmp_path):
    """Fails if two commands that write one output mix their results."""
    with Journal(tmp_path / "t.csv") as journal:
        journal.add("a", 1, "one")
        with pytest.raises(CannotWrite, match=r"another command writes this output. Choose another path"):
            Journal(tmp_path / "t.csv")
        assert journal.result("a") == "one"


def test_nothing_is_left_of_nothing(tmp_path):
    """Fails if a command that was refused leaves a file."""
    with Journal(tmp_path / "t.csv"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "make", [lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to("/etc/passwd")]
)
def test_what_is_no_file_is_refused(tmp_path, make):
    """Fails if a pipe keeps the command waiting, or a link has another file written."""
    make(tmp_path / ".t.csv.bnprobe-results")
    with pytest.raises(CannotWrite, match=r"Choose another path for the output"):
        Journal(Path(tmp_path / "t.csv"))
