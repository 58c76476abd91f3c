"""What is printed: names stay names, a reader who has left ends nothing, and whatever fails is one line."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_import_boundaries import dotted, modules
from torch import nn

from bnprobe.cli import main as command_line
from bnprobe.cli.main import main
from bnprobe.printing import escaped, note, one_exit, say, say_lines


def into_a_closed_pipe(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and errors of a command whose standard output nobody reads."""
    command = [sys.executable, "-m", "bnprobe", *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        said = run.stderr.read().decode()
    return run.returncode, said


@pytest.mark.parametrize(
    "arguments", [("rules",), ("rules", "channels-dead"), ("--version",), ("report", "--help")]
)
def test_a_closed_pipe_ends_quietly(arguments, tmp_path):
    """Fails if `bnprobe rules | head` ends in a traceback, here or when the interpreter writes what is buffered."""
    assert into_a_closed_pipe(tmp_path, *arguments) == (0, "")


def test_the_exit_code_does_not_depend_on_the_reader(tmp_path):
    """Fails if a finding is lost because the list of findings was cut short."""
    norm = nn.BatchNorm2d(3)
    norm.running_var[1] = float("nan")
    torch.save(norm.state_dict(), tmp_path / "a.pt")
    assert into_a_closed_pipe(tmp_path, "check", "a.pt", "--fail-on", "critical") == (1, "")


HOSTILE = "a\x1b]0;pwned\x07\x9b31m\u202e\r\nbnprobe: fine.\ud800"


def test_names_stay_names(capsys):
    """Fails if a name reaches the terminal as more than letters, or makes a line of its own."""
    say(HOSTILE)
    note(HOSTILE)
    say_lines(f"one\n{HOSTILE}\n")
    out, err = capsys.readouterr()
    spelled = r"a\x1b]0;pwned\x07\x9b31m\u202e\r\nbnprobe: fine.\ud800"
    assert err == f"bnprobe: {spelled}\n"
    assert out == f"{spelled}\none\n" + spelled.replace(r"\n", "\n") + "\n"


def test_whatever_is_printed_inside_goes_through_the_exit(capsys):
    """Fails if argparse, a warning or a user's own model can still send what a terminal obeys."""
    with one_exit():
        print("mine\x1b[2J\t1\r2")
        print("theirs\x9b", file=sys.stderr)
    out, err = capsys.readouterr()
    assert out == "mine\\x1b[2J\t1\r2\n"
    assert err == "theirs\\x9b\n"


def test_what_can_be_seen_is_printed_as_it_is():
    """Fails if Greek letters, accents, other scripts or a narrow space are spelled out."""
    text = "γ, β − 3 σ²: größer 中文 😀"
    assert escaped(text) == text
    assert escaped("99\u00a0%") == "99 %"


def test_a_full_disk_is_a_line_and_code_2(tmp_path):
    """Fails if a cut list of findings ends in a traceback, or with the code of a finding or of none."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    torch.save(nn.BatchNorm2d(3).state_dict(), tmp_path / "a.pt")
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "bnprobe", "check", "a.pt"]
        ended = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.stderr == (
        "bnprobe: the output cannot be printed (No space left on device). Print or write it to another place.\n"
    )
    assert ended.returncode == 2


def test_closed_from_the_start(tmp_path):
    """Fails if a service without standard streams cannot run a command."""
    torch.save(nn.BatchNorm2d(3).state_dict(), tmp_path / "a.pt")
    line = f"{sys.executable} -m bnprobe check a.pt >&- 2>&-"
    assert subprocess.run(["bash", "-c", line], cwd=tmp_path).returncode == 0


@pytest.fixture
def broken(monkeypatch):
    """A command with a mistake of ours in it."""

    def run(_):
        raise TypeError("a\x1b[2J\nname.")

    monkeypatch.setattr(command_line, "_list", run)


def test_the_unexpected_is_a_line_and_code_2(broken, capsys):
    """Fails if a mistake of ours is a page of code, or looks like a finding to a script."""
    assert main(["list"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("bnprobe: unexpected TypeError in test_printing.py:")
    assert "Run it again with --debug, and report what is printed." in err
    assert err.count("\n") == 1
    assert ".." not in err
    assert err[:-1].isprintable()


@pytest.mark.parametrize("arguments", [["--debug", "list"], ["list", "--debug"]])
def test_debug_shows_where(broken, arguments):
    """Fails if nobody can find out where a mistake is."""
    with pytest.raises(TypeError):
        main(arguments)


def test_not_enough_memory_is_a_line(monkeypatch, capsys):
    """Fails if the machine's limit looks like a mistake in the program."""

    def run(_):
        raise MemoryError

    monkeypatch.setattr(command_line, "_list", run)
    assert main(["list"]) == 2
    assert capsys.readouterr().err.startswith("bnprobe: there was not enough RAM. ")


@pytest.mark.parametrize("form", ["json", "sarif"])
def test_printed_json_is_ascii_and_parses(form, tmp_path, monkeypatch, capsys):
    """Fails if a name in JSON can turn, recolor or end what a terminal shows, or comes out as another name."""
    monkeypatch.chdir(tmp_path)
    name = "a\x9b31m\u202e\x7f\x1b"
    dead = {f"{name}.{end}": torch.full((4,), 1e-12) for end in ("running_mean", "running_var")}
    torch.save(dead, "a.pt")
    assert main(["check", "a.pt", "--format", form]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert all(line.isprintable() for line in out.split("\n"))
    assert any(name in text for text in _texts(json.loads(out)))


def _texts(value):
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def printings(text: str) -> Iterator[int]:
    """Lines that print, or hold a standard stream."""
    for node in ast.walk(ast.parse(text)):
        prints = isinstance(node, ast.Name) and node.id in ("print", "tqdm")
        holds = isinstance(node, ast.Attribute) and node.attr.strip("_") in ("stdout", "stderr")
        imports = isinstance(node, ast.ImportFrom) and str(node.module).startswith(("tqdm", "logging"))
        if prints or holds or imports:
            yield node.lineno


def test_nothing_else_prints():
    """Fails if another file prints, past the place that knows what may be printed."""
    found = {dotted(path): list(printings(path.read_text("utf-8"))) for path in modules()}
    assert {name for name, lines in found.items() if lines} == {"printing"}, found
