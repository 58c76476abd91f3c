"""Copies of a tree in which mutants are tried, on a package of one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.mutants.workers import FAILED, PASSED, TIMED_OUT, mutated, run_tests, spread

CODE = "def f(a):\n    while a > 9:\n        a -= 1\n    return a\n"
TEST = "from bnprobe import f\n\ndef test_f():\n    assert f(11) == 9\n"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    for path, text in {"bnprobe/__init__.py": CODE, "tests/test_f.py": TEST}.items():
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(text, encoding="utf-8")
    return tmp_path.resolve()


def result(desk: Path, old: str, new: str, limit: float | None = None) -> int:
    with mutated(desk, "bnprobe/__init__.py", lambda text: text.replace(old, new)):
        return run_tests(desk, ["tests/test_f.py"], limit).code


def test_a_mutant_is_seen_and_taken_back(desk: Path) -> None:
    """Fails if a run sees the package of the tree and not that of the copy, or bytecode of an earlier mutant."""
    assert result(desk, "9", "8") == FAILED
    assert (desk / "bnprobe/__init__.py").read_text() == CODE
    assert result(desk, "9", "9") == PASSED
    assert result(desk, "a > 9", "a >= 10") == PASSED


def test_a_mutant_that_hangs_is_ended(desk: Path) -> None:
    """Fails if one endless loop stops all others, or counts as a survivor."""
    assert result(desk, "a -= 1", "a += 1", limit=8) == TIMED_OUT


def test_no_copy_is_used_twice_at_a_time() -> None:
    """Fails if two mutants meet in one copy, or an item is forgotten."""
    at_work: set[Path] = set()

    def job(item: int, desk: Path) -> int:
        assert desk not in at_work
        at_work.add(desk)
        at_work.remove(desk)
        return item * item

    done = dict(spread(range(50), [Path("a"), Path("b")], job))
    assert done == {i: i * i for i in range(50)}
