"""What a user reads uses the vocabulary of the trade: no word of a private language in sentences, pages, help, docs.

`python -m tests.support.words FILE ...` lists what is left in some files or folders.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT
from support.words import ALLOWED, BANNED, Text, changelog, files, texts, violations

import bnprobe
from bnprobe.cli.main import _parser
from scripts.mutants import lists as planted

PACKAGE = ROOT / "bnprobe"
SPEAKING = ("checkpoints", "cli", "comparison", "errors.py", "measures", "models", "report", "rules")
"""Packages whose business is words: their public docstrings are read as well, those of all others by developers only."""
PLACES = sorted(
    path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
)


def assert_plain(read: Iterator[Text]) -> None:
    found = [said for text in read for said in violations(text)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("place", PLACES)
def test_the_package_speaks_plainly(place: str):
    """Fails if a sentence, a page of a rule, a template or a script says a word that WORDS bans; with file and line."""
    assert_plain(
        text for path in files(PACKAGE / place) for text in texts(path, ROOT, docstrings=place in SPEAKING)
    )


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/guide.md", "docs/many_machines.md", "reports/README.md"]
)
def test_pages_of_the_repository_speak_plainly(page: str):
    """Fails if the first page that a visitor opens needs a glossary."""
    assert_plain(texts(ROOT / page, ROOT))


def test_the_newest_changes_are_told_plainly():
    """Fails if the newest section of the changelog falls back into the old words; older sections are history."""
    assert_plain(changelog(ROOT / "CHANGELOG.md", ROOT))


def test_mutants_are_described_plainly():
    """Fails if the name of a mutant, or what it breaks, needs a glossary: a survivor is reported by both."""
    mutants = planted.read(planted.planted_lists())
    assert_plain(
        Text(f"tests/mutants: {mutant.name}", 1, words)
        for mutant in mutants
        for words in (mutant.name.replace("-", " "), mutant.breaks)
    )


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from commands(command)


def test_help_speaks_plainly():
    """Fails if `--help` of a command says something that no sentence in the source shows, such as a joined default."""
    assert len(list(commands(_parser()))) > 5
    assert_plain(Text(f"{command.prog} --help", 1, command.format_help()) for command in commands(_parser()))


@pytest.mark.parametrize("name", bnprobe.__all__)
def test_docstrings_of_the_public_names_speak_plainly(name: str):
    """Fails if `help(bnprobe.attach)` or a method of a public class uses the old words, wherever it is defined."""
    thing = getattr(bnprobe, name)
    members = vars(thing).items() if inspect.isclass(thing) else ()
    documented = [
        (name, thing),
        *((f"{name}.{key}", value) for key, value in members if not key.startswith("_")),
    ]
    assert_plain(
        Text(f"bnprobe.{key}.__doc__", 1, inspect.getdoc(value) or "")
        for key, value in documented
        if callable(value) or isinstance(value, property | classmethod)
    )


# The checker itself


@pytest.mark.parametrize(
    "words",
    [
        "what the norm remembers",
        "its memory is empty",
        "a shift of half a deviation",
        "surely shifted",
        "outputs keep the promise",
        "its filters have withered",
        "channels were silent",
        "nothing of them; it lets nothing through",
        "the norms before this one",
        "found again in norms behind",
        "made anew",
        "is frozen and moves none the less",
        "the mean, B less A",
        "told at the last norm",
        "results depend on batch mates",
        "let batches normalize themselves",
        "findings of this file do not count",
        "Of one batch give [batch].",
        "this room knows numpy",
        "the slow twin",
        "4.1 % below",
        "colour order",
        "a neighbouring norm",
        "unlabelled samples",
        "at initialisation",
    ],
)
def test_the_old_words_are_found(words: str):
    """Fails if a pattern catches nothing, at the end of a line or in capitals."""
    assert violations(Text("bnprobe/x.py", 1, f"First line.\n{words.replace(' ', chr(10), 1)}."))
    assert violations(Text("bnprobe/x.py", 1, words.upper()))


@pytest.mark.parametrize(
    "words",
    [
        "standard\n  deviation",
        "the running mean",
        "headroom",
        "make sure that it fits",
        "channels-silent",
        "`memory_moved` and `surely_shifted`",
        "batch norms before a ReLU",
        "a small kernel",
        "4.1% below",
        "NormLayer(centred=False)",
        "`neighbours_of` norms",
    ],
)
def test_plain_words_are_left_alone(words: str):
    """Fails if a column, an id of a rule or a word of the trade is taken for an old word."""
    assert not violations(Text("bnprobe/x.py", 1, words))


def test_the_place_is_named():
    """Fails if file or line of a word are not those where it stands."""
    (found,) = violations(Text("a/b.md", 10, "One.\nTwo.\nWhat it remembers."))
    assert found.startswith("a/b.md:12: “remembers”")
    assert BANNED[r"remember(?:s|ed|ing)?"] in found


def test_sentences_are_read_and_keys_are_not(tmp_path: Path):
    """Fails if parts of an f-string, a public docstring or a template are not read, or a key, a comment or code is."""
    (tmp_path / "a.py").write_text(
        '"""Module."""\n\n\ndef f(x):\n    """Its memory."""\n    # memory\n    return x["memory"], f"its {x} memory"\n\n\n'
        'def _g():\n    """A memory."""\n'
    )
    (tmp_path / "b.j2").write_text("{# memory #}<p title='x'>\nof memory {{ memory_of }}</p>")
    (tmp_path / "c.js").write_text("// memory of\nconst memory = 1;\nshow(`the ${x} memory`);")
    found = {
        path.name: [said.split(":")[1] for text in texts(path, tmp_path) for said in violations(text)]
        for path in files(tmp_path)
    }
    assert found == {"a.py": ["7", "5"], "b.j2": ["2"], "c.js": ["3"]}


def test_no_exception_outlives_its_reason(monkeypatch: pytest.MonkeyPatch):
    """Fails if an exception allows a word that is not there any more, or gives no reason."""
    monkeypatch.setattr("support.words._ALLOWED", [])
    for glob, _, reason in ALLOWED:
        assert len(reason) > 10
        assert [
            said for path in ROOT.glob(glob) for text in texts(path, ROOT) for said in violations(text)
        ], glob


def test_an_exception_is_for_its_file_and_its_phrase_only(monkeypatch: pytest.MonkeyPatch):
    """Fails if an exception opens a file to a word wherever it stands, or every file to its phrase."""
    allowed = [("a/*.py", re.compile("GPU memory", re.IGNORECASE))]
    monkeypatch.setattr("support.words._ALLOWED", allowed)
    assert not violations(Text("a/b.py", 1, "out of GPU memory"))
    assert len(violations(Text("a/b.py", 1, "GPU memory and a memory"))) == 1
    assert violations(Text("c/b.py", 1, "out of GPU memory"))
