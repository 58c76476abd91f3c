"""`bnprobe rules`: the list, and the page of each."""

from __future__ import annotations

from bnprobe.cli.main import main
from bnprobe.rules import COMPARED, RULES


def test_rules_prints_the_book_or_a_page(capsys):
    """Fails if a rule is missing from the list, or a page cannot be had."""
    assert main(["rules"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == [rule.id for rule in (*RULES, *COMPARED)]
    assert main(["rules", "channels-dead"]) == 0
    page = capsys.readouterr().out
    for head in ("What it means", "How it is found", "How to fix it", "When to ignore it", "Source"):
        assert f"## {head}\n" in page, head
    assert "arXiv:1811.12495" in page
    assert main(["rules", "chanels-dead"]) == 2
    assert "Did you mean channels-dead?" in capsys.readouterr().err


def test_a_name_like_no_other_is_sent_to_the_list(capsys):
    """Fails if a name that resembles none is refused without a next step."""
    assert main(["rules", "zzz"]) == 2
    assert "`bnprobe rules` lists them" in capsys.readouterr().err
