"""Mutants in forks of a warm process, on a package of two functions."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from scripts.mutants.lists import BadList
from scripts.mutants.warm import Job, Untrusted, exchange, try_all
from scripts.mutants.workers import FAILED, PASSED, TIMED_OUT

CODE = """from functools import cache

def f(a):
    while a > 9:
        a -= 1
    return a

@cache
def g(a):
    return [b + 1 for b in range(a)]
"""
TESTS = """from bnprobe import f, g

def test_f():
    assert f(11) == 9

def test_g():
    assert g(2) == [1, 2]
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    for path, text in {"bnprobe/__init__.py": CODE, "tests/test_f.py": TESTS}.items():
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(text, encoding="utf-8")
    return tmp_path.resolve()


def job(number: int, old: str, new: str, *tests: str, limit: float = 60.0) -> Job:
    names = tuple(f"tests/test_f.py::{test}" for test in tests)
    return Job(number, "bnprobe/__init__.py", CODE.replace(old, new), names, limit)


def test_every_mutant_meets_its_tests_alone(desk: Path) -> None:
    """Fails if a mutant is not seen, outlives its fork, hangs for ever, or meets tests that are not its own."""
    jobs = [
        job(0, "return a", "return a + 1", "test_g", "test_f"),
        job(1, "b + 1", "b - 1", "test_g"),
        job(2, "a > 9", "a >= 10", "test_f", "test_g"),
        job(3, "a -= 1", "a += 1", "test_f", limit=2.0),
        job(4, "return a", "return a + 1", "test_g"),
    ]
    found = {result.number: (result.code, result.failed[-6:]) for result in try_all(desk, jobs, workers=2)}
    assert found == {
        0: (FAILED, "test_f"),
        1: (FAILED, "test_g"),
        2: (PASSED, ""),
        3: (TIMED_OUT, ""),
        4: (PASSED, ""),
    }


def test_a_test_that_fails_anyway_catches_nothing(desk: Path) -> None:
    """Fails if a mutant counts as caught by a test that fails without it, too."""
    path = desk / "tests/test_f.py"
    path.write_text(path.read_text().replace("[1, 2]", "[3]"), encoding="utf-8")
    with pytest.raises(BadList, match="test_g fails without any mutant"):
        list(try_all(desk, [job(0, "a > 9", "a > 8", "test_g")], workers=1))
    path.write_text(path.read_text().replace("== 9", "== 8"), encoding="utf-8")
    jobs = [job(0, "a > 9", "a > 8", "test_g"), job(1, "a > 9", "a > 7", "test_f")]
    with pytest.raises(Untrusted) as caught:
        list(try_all(desk, jobs, workers=1))
    assert caught.value.tests == {"tests/test_f.py::test_f", "tests/test_f.py::test_g"}


def test_code_is_exchanged_wherever_the_function_went(tmp_path: Path) -> None:
    """Fails if a function that is wrapped, imported elsewhere or made in another one keeps its code."""
    path = tmp_path / "m.py"
    text = (
        CODE + "\ndef outer():\n    def inner(a):\n        return a * 2\n    return inner\n\nkept = outer()\n"
    )
    path.write_text(text, encoding="utf-8")
    module: Any = module_from_spec(spec := spec_from_file_location("m", path))  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    f, g, kept = module.f, module.g, module.kept
    changed = text.replace("return a\n", "return -a\n").replace("b + 1", "b + 7").replace("a * 2", "a * 3")
    exchange(path, changed)
    assert (f(3), g(1), kept(5), module.outer()(5)) == (-3, [7], 15, 15)
