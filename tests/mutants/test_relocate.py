"""After files were moved: paths in the lists are corrected where only one place fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.mutants import relocate
from scripts.mutants.lists import check, read

LIST = """\
# A head that stays.

# of f
[[mutant]]
name = "f"
file = "bnprobe/old.py"
find = "a + 1"
replace = "a - 1"
breaks = "f, which is in bnprobe/old.py"
test = "tests/test_old.py::test_f[1]"

[[mutant]]
name = "g"
file = "bnprobe/old.py"
find = "b + 1"
replace = "b - 1"
breaks = "g"
test = "tests/test_old.py::test_g"
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def test_a_file_that_was_split_and_tests_that_moved(tmp_path: Path) -> None:
    """Fails if every entry of a file is sent to the same place, or anything but the paths is rewritten."""
    write(
        tmp_path,
        {
            "tests/mutants/some.toml": LIST,
            "bnprobe/new/f.py": "def f(a):\n    return a + 1\n",
            "bnprobe/new/g.py": "def g(b):\n    return b + 1\n",
            "tests/new/test_f.py": "def test_f(): ...\n",
            "tests/new/test_g.py": "def test_g(): ...\n",
        },
    )
    assert relocate.main({}, tmp_path) == 0
    found = read([tmp_path / "tests/mutants/some.toml"])
    assert [mutant.file for mutant in found] == ["bnprobe/new/f.py", "bnprobe/new/g.py"]
    assert [mutant.test for mutant in found] == [
        "tests/new/test_f.py::test_f[1]",
        "tests/new/test_g.py::test_g",
    ]
    check(found, tmp_path)
    back = (tmp_path / "tests/mutants/some.toml").read_text()
    for name in "fg":
        back = back.replace(f'"bnprobe/new/{name}.py', '"bnprobe/old.py')
        back = back.replace(f'"tests/new/test_{name}.py', '"tests/test_old.py')
    assert back == LIST


def test_what_is_not_clear_is_left_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails if one of two places that fit is taken by chance, or the one that was given is not."""
    text = LIST.partition('\n[[mutant]]\nname = "g"')[0]
    places = {f"bnprobe/{name}.py": "a + 1\n" for name in ("one", "two")}
    write(tmp_path, {"tests/mutants/some.toml": text, "tests/test_old.py": "def test_f(): ...\n", **places})
    assert relocate.main({}, tmp_path) == 1
    assert (tmp_path / "tests/mutants/some.toml").read_text() == text
    assert "bnprobe/old.py → not clear" in capsys.readouterr().out
    assert relocate.main({"bnprobe/old.py": "bnprobe/two.py"}, tmp_path) == 0
    (mutant,) = read([tmp_path / "tests/mutants/some.toml"])
    assert mutant.file == "bnprobe/two.py"


def test_the_same_name_goes_first(tmp_path: Path) -> None:
    """Fails if a copy of the text elsewhere keeps a file from being followed into its new folder."""
    text = LIST.partition('\n[[mutant]]\nname = "g"')[0]
    places = dict.fromkeys(("bnprobe/two.py", "bnprobe/new/old.py"), "a + 1\n")
    write(tmp_path, {"tests/mutants/some.toml": text, "tests/test_old.py": "def test_f(): ...\n", **places})
    assert relocate.main({}, tmp_path) == 0
    (mutant,) = read([tmp_path / "tests/mutants/some.toml"])
    assert mutant.file == "bnprobe/new/old.py"


def test_lines_of_equivalent_mutants_are_followed(tmp_path: Path) -> None:
    """Fails if proofs get lost when a file is moved."""
    entry = '[[equivalent]]\nfile = "bnprobe/old.py"\nline = "return a + 1"\nbecomes = "return a"\nwhy = "because"\n'
    files = {"tests/mutants/equivalent.toml": entry, "bnprobe/new.py": "def f(a):\n    return a + 1\n"}
    write(tmp_path, files)
    assert relocate.main({}, tmp_path) == 0
    assert 'file = "bnprobe/new.py"' in (tmp_path / "tests/mutants/equivalent.toml").read_text()
