"""What a type checker, and with it an editor, knows of the installed package."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from support.paths import ROOT

import bnprobe

SCRIPTS = ROOT / "tests" / "typing"
MESSAGE = re.compile(
    r"^(?P<file>[\w.]+):(?P<line>\d+): (?P<kind>error|note): (?P<text>.*?)(  \[(?P<code>[\w-]+)\])?$"
)


def installed(folder: Path) -> Path:
    """The Python of a new environment that has this package and its libraries, and nothing of the folder it lies in."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    inside = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    libraries = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    libraries |= {entry for entry in sys.path if entry.endswith("site-packages")}
    package = folder / "package"
    package.mkdir()
    (package / "bnprobe").symlink_to(Path(bnprobe.__file__).parent)
    Path(inside, "all.pth").write_text("\n".join([str(package), *sorted(libraries)]))
    return python


def revealing() -> str:
    """A script that asks for the type of every public name."""
    lines = [f"reveal_type(bnprobe.{name})" for name in sorted(bnprobe.__all__)]
    return "\n".join(["import bnprobe", *lines, ""])


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, list[tuple[str, str]]]]:
    """What mypy says: (code or "note", text) by line, by file."""
    pytest.importorskip("mypy", reason="the test extra brings mypy")
    folder = tmp_path_factory.mktemp("typing")
    python = installed(folder / "env")
    for name in ("right.py", "wrong.py"):
        (folder / name).write_text((SCRIPTS / name).read_text("utf-8"), "utf-8")
    (folder / "names.py").write_text(revealing(), "utf-8")
    files = ["right.py", "wrong.py", "names.py"]
    options = ["--strict", "--no-error-summary", "--config-file=", f"--python-executable={python}"]
    cache = f"--cache-dir={ROOT / '.mypy_cache' / 'typing'}"
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options, cache, *files],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found: dict[str, dict[int, list[tuple[str, str]]]] = {name: {} for name in files}
    for line in run.stdout.splitlines():
        message = MESSAGE.match(line)
        assert message, line
        said = (message["code"] or message["kind"], message["text"])
        found[message["file"]].setdefault(int(message["line"]), []).append(said)
    return found


@pytest.mark.slow
def test_right_uses_are_accepted_and_wrong_ones_refused(messages):
    """Fails if a public name becomes Any, or a signature accepts what it cannot use or refuses what it can."""
    assert messages["right.py"] == {}
    expected = {
        n: line.rpartition("# expect: ")[2].split(" or ")
        for n, line in enumerate((SCRIPTS / "wrong.py").read_text("utf-8").splitlines(), 1)
        if "# expect: " in line
    }
    said = {
        n: codes
        for n, found in messages["wrong.py"].items()
        if (codes := [code for code, _ in found if code != "note"])
    }
    assert len(expected) > 30
    assert said.keys() == expected.keys(), {
        n: messages["wrong.py"].get(n) for n in said.keys() ^ expected.keys()
    }
    for n, codes in said.items():
        assert len(codes) == 1, (n, messages["wrong.py"][n])
        assert codes[0] in expected[n], (n, messages["wrong.py"][n])
    revealed = [text for lines in messages["names.py"].values() for _, text in lines]
    assert len(revealed) == len(bnprobe.__all__)
    for text in revealed:
        assert re.match(r'Revealed type is "(def |overload|.*\bstr")', text), text


def test_the_package_says_that_it_is_typed():
    """Fails if the mark is missing without which type checkers ignore every annotation of an installed package."""
    assert (Path(bnprobe.__file__).parent / "py.typed").exists()
