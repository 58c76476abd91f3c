"""A few random files; `python -m attacks.fuzz` goes on for ten minutes, and CI for one."""

from __future__ import annotations

from attacks.fuzz import fuzz, mutated
from attacks.sandbox import Sandbox


def test_whatever_comes_in_is_answered(sandbox: Sandbox, tmp_path):
    """Fails if some file ends in a traceback, a long wait, or much RAM."""
    assert fuzz(sandbox, tmp_path, seconds=600, most=20) == 20


def test_files_are_changed_at_all():
    """Fails if the fuzzer tries the same healthy file over and over."""
    whole = bytes(range(100))
    for kind in ("flip", "cut", "insert", "drop", "repeat", "number"):
        assert mutated(whole, [(kind, 0.5, b"\xff\xff")]) != whole
