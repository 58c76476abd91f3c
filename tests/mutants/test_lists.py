"""The lists of mutants against the code: what `python -m scripts.mutants check` says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scripts.mutants import equivalent
from scripts.mutants.__main__ import main
from scripts.mutants.equivalent import Equivalent
from scripts.mutants.lists import BadList, PlantedMutant, check, has_test, read

CODE = "def f(a):\n    return a + 1\n"
TEST = "class TestF:\n    def test_g(self): ...\n\ndef test_f(): ...\n"
GOOD = PlantedMutant("plus", "bnprobe/f.py", (("a + 1", "a - 1"),), "a number", "tests/test_f.py::test_f")
SAME = Equivalent("bnprobe/f.py", "return a + 1", "return a - 1", "this is only an example")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for path, text in {"bnprobe/f.py": CODE, "tests/test_f.py": TEST}.items():
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(text, encoding="utf-8")
    return tmp_path


def test_every_list_fits_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    """Fails if code is changed or moved and a mutant of it no longer means anything."""
    assert main(["check"]) == 0, capsys.readouterr().err
    assert "planted mutants" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"edits": (("a * 1", "a"),)}, "'a \\* 1' stands 0 times in bnprobe/f.py"),
        ({"edits": (("a", "b"),)}, "'a' stands 2 times in"),
        ({"edits": (("a + 1", "a +"),)}, "is no program any more"),
        ({"file": "bnprobe/g.py"}, "there is no bnprobe/g.py"),
        ({"test": "tests/test_f.py::test_h"}, "there is no tests/test_f.py::test_h"),
    ],
)
def test_a_mutant_that_does_not_fit_is_named(tree: Path, changed: dict[str, object], said: str) -> None:
    """Fails if a list may speak of code or tests that are not there."""
    check([GOOD], tree)
    with pytest.raises(BadList, match=f"^plus: .*{said}"):
        check([replace(GOOD, **changed)], tree)  # type: ignore[arg-type]


def test_all_misfits_are_named_at_once(tree: Path) -> None:
    """Fails if whoever moves files must run the check once per entry."""
    bad = [replace(GOOD, name=name, file=f"bnprobe/{name}.py") for name in "xyz"]
    with pytest.raises(BadList) as caught:
        check([*bad, GOOD, GOOD], tree)
    assert [line.split()[0] for line in str(caught.value).splitlines()] == ["2", "x:", "y:", "z:"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"becomes": "return a * 1"}, "0 mutants make 'return a \\* 1' of it"),
        ({"line": "return b + 1"}, "0 mutants make"),
        ({"function": "g"}, "0 mutants make"),
        ({"why": "it is so"}, "has no reason"),
        ({"file": "bnprobe/g.py"}, "no such file"),
    ],
)
def test_an_equivalent_mutant_that_does_not_fit_is_named(
    tree: Path, changed: dict[str, str], said: str
) -> None:
    """Fails if a survivor may be excused by an entry that proves nothing about it."""
    equivalent.check([SAME, replace(SAME, function="f")], tree)
    with pytest.raises(BadList, match=said):
        equivalent.check([replace(SAME, **changed)], tree)


def test_a_line_that_stands_twice_needs_its_function(tree: Path) -> None:
    """Fails if one proof excuses two mutants."""
    (tree / "bnprobe/f.py").write_text(CODE + CODE.replace("def f", "def g"), encoding="utf-8")
    equivalent.check([replace(SAME, function="g")], tree)
    with pytest.raises(BadList, match="2 mutants make"):
        equivalent.check([SAME], tree)


@pytest.mark.parametrize(
    ("test", "there"),
    [
        ("tests/test_f.py", True),
        ("tests/test_f.py::test_f[a::b]", True),
        ("tests/test_f.py::TestF::test_g", True),
        ("tests/test_f.py::test_g", False),
        ("tests/test_g.py", False),
    ],
)
def test_which_tests_are_there(tree: Path, test: str, there: bool) -> None:
    """Fails if a method counts as a function, or parameters as part of a name."""
    assert has_test(tree, test) is there


def test_an_entry_without_a_key_is_refused(tmp_path: Path) -> None:
    """Fails if a mutant without a test to catch it slips in."""
    path = tmp_path / "some.toml"
    path.write_text('[[mutant]]\nname = "x"\nfile = "f"\nfind = "a"\nreplace = "b"\nbreaks = "c"\n')
    with pytest.raises(BadList, match=r"some.toml: an entry has no 'test'.*Add it"):
        read([path])
