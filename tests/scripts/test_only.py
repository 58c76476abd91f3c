"""A word that chooses faults and cases of the benchmark, and one that chooses none."""

from __future__ import annotations

import pytest

from scripts.rule_benchmark.__main__ import parse
from scripts.rule_benchmark.only import nearest, parts_with

PARTS = ["planted", "cases", "statistics"]


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("", PARTS),
        ("shards were not", ["cases", "statistics"]),
        ("inplace_abn", ["cases", "statistics"]),
        ("resnet20", ["planted", "statistics"]),
    ],
    ids=["none", "a name", "a source", "a model"],
)
def test_the_parts_that_hold_a_word(word: str, kept: list[str]) -> None:
    """Fails if a part without a match runs and makes an empty table, or one that takes no word is left out."""
    assert parts_with(PARTS, word) == kept


def test_parts_that_take_no_word_are_asked_for_none() -> None:
    """Fails if a word is demanded of parts that have no names."""
    assert parts_with(["statistics"], "zzz") == ["statistics"]


def test_the_nearest_names() -> None:
    """Fails if a sentence is less near because it is long, or one in capitals is not near at all."""
    names = {"drop", "the Dropout stands before the norm of a long list of layers", "momentum", "zero"}
    assert nearest("dropuot", names)[:2] == [
        "the Dropout stands before the norm of a long list of layers",
        "drop",
    ]


def test_a_word_that_nothing_holds_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Fails if the benchmark goes on to an empty table, and ends in a KeyError."""
    with pytest.raises(SystemExit) as ended:
        parse(["--parts", "cases", "--only", "shadrs"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.count("\n") == 1
    assert "shards were not gathered before saving" in said
