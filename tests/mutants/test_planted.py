"""Planted mutants: whoever is not caught in a warm process meets its test in a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.mutants.lists import PlantedMutant
from scripts.mutants.planted import summary, try_all

CODE = "ONE = 1\n\n\ndef f(a):\n    return a + ONE\n"
TESTS = {
    "a": "from bnprobe import f\n\n\ndef test_f():\n    assert f(1) == 2\n\n\ndef test_zero():\n    assert f(-1) == 0\n",
    "s": "import pytest\n\n\ndef test_s():\n    pytest.skip('needs more')\n",
    "c": "import pytest\n\npytest.importorskip('not_installed')\n\n\ndef test_c():\n    assert False\n",
    "b": "from pathlib import Path\n\n\ndef test_text():\n    assert 'f(a)' in Path('bnprobe/text.md').read_text()\n",
}


@pytest.fixture
def desks(tmp_path: Path) -> list[Path]:
    for desk in (tmp_path / "0", tmp_path / "1"):
        for name in ("bnprobe", "tests"):
            (desk / name).mkdir(parents=True)
        (desk / "bnprobe/__init__.py").write_text(CODE)
        (desk / "bnprobe/text.md").write_text("f(a)\n")
        for name, text in TESTS.items():
            (desk / f"tests/test_{name}.py").write_text(text)
    return [(tmp_path / name).resolve() for name in "01"]


def planted(name: str, find: str, replace: str, test: str, file: str = "__init__.py") -> PlantedMutant:
    return PlantedMutant(name, f"bnprobe/{file}", ((find, replace),), "", f"tests/{test}")


def test_every_mutant_meets_its_own_test(desks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if what is no function, or no program, counts as survived, or another test's failure as this one's."""
    monkeypatch.setattr("scripts.mutants.planted.LIMIT", 20.0)
    mutants = [
        planted(
            "endless", "    return a", "    while a < 9:\n        pass\n    return a", "test_a.py::test_f"
        ),
        planted("in a function", "a + ONE", "a - ONE", "test_a.py::test_f"),
        planted("at import", "ONE = 1", "ONE = 2", "test_a.py"),
        planted("in a text", "f(a)", "g(a)", "test_b.py::test_text", "text.md"),
        planted("needs more", "a + ONE", "a - ONE", "test_c.py::test_c"),
        planted("skipped", "a + ONE", "a - ONE", "test_s.py::test_s"),
        planted("unseen", "a + ONE", "a * a + ONE", "test_a.py::test_f"),
        planted("seen by another test", "a + ONE", "abs(a) + ONE", "test_a.py::test_f"),
    ]
    assert dict(try_all(mutants, desks)) == {
        "endless": "caught",
        "in a function": "caught",
        "at import": "caught",
        "in a text": "caught",
        "needs more": "NOT TRIED",
        "skipped": "NOT TRIED",
        "unseen": "SURVIVED",
        "seen by another test": "SURVIVED",
    }


def test_a_test_that_fails_without_a_mutant_catches_none(desks: list[Path]) -> None:
    """Fails if such a test counts as having caught a mutant, or keeps the others from being tried."""
    for desk in desks:
        (desk / "tests/test_d.py").write_text("def test_d():\n    assert False\n")
    mutants = [
        planted("warm", "a + ONE", "a - ONE", "test_d.py::test_d"),
        planted("on the disk", "ONE = 1", "ONE = 2", "test_d.py"),
        planted("with a sound test", "ONE = 1", "ONE = 2", "test_a.py"),
    ]
    assert dict(try_all(mutants, desks)) == {
        "warm": "BROKEN",
        "on the disk": "BROKEN",
        "with a sound test": "caught",
    }


def test_what_was_not_caught_is_named_with_its_test() -> None:
    """Fails if a survivor is lost among hundreds that were caught, or a mutant that was not tried counts."""
    mutants = [planted(name, "a", "b", "test_a.py::test_f") for name in ("one", "two", "three")]
    lines = list(summary(mutants, {"one": "caught", "two": "SURVIVED", "three": "NOT TRIED"}))
    assert [line.split()[:2] for line in lines[:-1:2]] == [["SURVIVED", "two"], ["NOT", "TRIED"]]
    assert lines[1].endswith("expected to fail: tests/test_a.py::test_f")
    assert lines[-1] == "1 of 2 mutants caught; 1 not tried, as their tests need what is not installed"
