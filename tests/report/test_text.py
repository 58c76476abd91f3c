"""The page as text: what fits a terminal, and nothing that could take it over."""

from __future__ import annotations

import unicodedata

import pytest
from measures.sites import memory_of, recording, site, some_rows

import bnprobe
from bnprobe.recording import Recording
from bnprobe.report.formats.text import to_text
from bnprobe.report.page import blocks
from report.test_html import HOSTILE, everything


@pytest.fixture(scope="module")
def all_kinds() -> Recording:
    return recording(*everything(), never_called=("spare",), not_understood=("odd (StrangeNorm)",))


def widest(text: str) -> str:
    return max(text.splitlines(), key=len)


def page(*contents: blocks.Block, **fields: object) -> blocks.Page:
    section = blocks.Section("one", "One", contents)
    return blocks.Page(**{"title": "Title", "lead": "Lead.", "sections": (section,), "footer": "", **fields})


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_line_is_wider_than_asked(all_kinds, width):
    """Fails if a table, a fact, a title or a rule's name runs over the edge, where terminals break it anywhere."""
    text = bnprobe.report(all_kinds).to_text(width)
    assert len(widest(text)) <= width, widest(text)


@pytest.mark.parametrize("width", [40, 100])
@pytest.mark.parametrize("name", HOSTILE)
def test_foreign_names_fit_and_do_not_control_the_terminal(name, width):
    """Fails if a model from elsewhere can move the cursor, colour the text, or push it over the edge."""
    rows, hostile = some_rows(), HOSTILE[name]
    layers = [site(rows, hostile, gamma=1e-4, beta=0, **memory_of(rows)), site(rows, "other")]
    about = {"model": hostile, "data": hostile, "weights": hostile, "notes": (hostile,), "device": hostile}
    text = bnprobe.report(recording(*layers, never_called=(hostile,), **about)).to_text(width)
    text.encode()
    for character in set(text) - {"\n"}:
        assert unicodedata.category(character) not in ("Cc", "Cf", "Cs"), repr(character)
    if name != "wide":  # a character may be two columns wide
        assert len(widest(text)) <= width, widest(text)


def test_text_is_what_the_page_says(all_kinds):
    """Fails if text and page are written by two hands: sentences and facts must be the same."""
    report = bnprobe.report(all_kinds)
    said = " ".join(report.to_text(100_000).split())
    for section in report._page.sections:
        if section.id in ("probed", "answer", "learned", "findings", "provenance"):
            assert section.title in said
            for block in section.blocks:
                for sentence in _sentences(block):
                    assert " ".join(sentence.replace("\u00a0", " ").split()) in said


def _sentences(block: blocks.Block) -> list[str]:
    if isinstance(block, blocks.Prose):
        return list(block.paragraphs)
    if isinstance(block, blocks.Headline):
        return [block.text]
    if isinstance(block, blocks.Tiles):
        return [tile.says for tile in block.tiles]
    if isinstance(block, blocks.Learned):
        return [fact.says for fact in block.facts]
    if isinstance(block, blocks.Facts):
        return [value for _, value in block.rows]
    if isinstance(block, blocks.Findings):
        return [
            part
            for card in block.cards
            for part in (card.title, card.places[0].because, *card.rules, *(one.do for one in card.actions))
        ]
    return []


def test_folded_sections_are_left_out(all_kinds):
    """Fails if a terminal is flooded with every layer and the glossary."""
    text = bnprobe.report(all_kinds).to_text(100)
    assert "Glossary" not in text
    assert "Layer by layer" not in text


def test_columns_that_do_not_fit_are_named():
    """Fails if a table is cut without a word, or the last column that still fits is dropped."""
    heads = tuple((name, "") for name in ("layer", "a" * 10, "b" * 10, "c" * 10))
    row = tuple(blocks.Cell(text, number=i > 0) for i, text in enumerate(("net", "1", "2", "3")))
    table = page(blocks.Table(heads, (row,), ""))
    lines = to_text(table, 5 + 2 + 10 + 2 + 10).splitlines()
    at = lines.index("layer  aaaaaaaaaa  bbbbbbbbbb")
    assert lines[at + 1] == "net             1           2"
    assert " ".join(lines[at + 2 :]) == "(columns not shown here: cccccccccc)"
    assert "\nlayer  aaaaaaaaaa\n" in to_text(table, 28), "one less"
    assert "not shown" not in to_text(table, 5 + 3 * 12)


def test_words_stand_left_and_numbers_right():
    """Fails if a column is aligned by its head and not by what it holds."""
    heads = (("layer", ""), ("kind", ""), ("n", ""))
    texts = (("x", "bn", "7"), ("longer", "layer", "10"))
    rows = tuple((blocks.Cell(a, False), blocks.Cell(b, False), blocks.Cell(c)) for a, b, c in texts)
    lines = to_text(page(blocks.Table(heads, rows, "")), 80).splitlines()[-3:]
    assert lines == ["layer   kind    n", "x       bn      7", "longer  layer  10"]


def test_every_place_of_a_finding_is_counted():
    """Fails if a finding in three layers is shown as one in one layer, or its severity is lost."""
    places = tuple(blocks.Place(*one) for one in (("a", "by 1"), ("b", "by 2"), ("c", "by 3")))
    card = blocks.Card("warning", "It moved.", ("a-rule",), places, (blocks.Action("Look."),))
    text = to_text(page(blocks.Findings((card, card), "Nothing.")), 80)
    said = "WARNING It moved.\n    a and 2 more places: by 1\n    What to do: Look.\n    rule a-rule\n"
    assert text.count(said) == 2
    assert "Nothing." not in text
    assert "Nothing." in to_text(page(blocks.Findings((), "Nothing.")), 80)


def test_the_width_is_the_terminals_where_none_is_given(monkeypatch):
    """Fails if COLUMNS is ignored, or a very wide terminal gets lines nobody can read."""
    long = page(blocks.Prose(("word " * 100,)))
    monkeypatch.setenv("COLUMNS", "50")
    assert 40 < len(widest(to_text(long))) <= 50
    monkeypatch.setenv("COLUMNS", "400")
    assert 100 < len(widest(to_text(long))) <= 120


def test_facts_stand_in_two_columns():
    """Fails if the second line of a long value slips under its name."""
    text = to_text(page(blocks.Facts((("a", "one"), ("longer", "many words")))), 30)
    assert text.splitlines()[-2:] == ["a       one", "longer  many words"]
    lines = to_text(page(blocks.Facts((("a", "x" * 10 + " " + "y" * 15),))), 26).splitlines()
    assert lines[-2:] == ["a  " + "x" * 10, "   " + "y" * 15]


def test_the_summary_is_the_first_of_the_text(all_kinds):
    """Fails if the summary leaves out the answer or the findings, or shows the table too."""
    report = bnprobe.report(all_kinds)
    summary = report.summary(90)
    opening, title, facts = summary.partition("\nWhat was probed\n")
    assert report.to_text(90).startswith(opening)
    assert title + facts in report.to_text(90)
    assert "The answer" in summary
    assert "Findings" in summary
    assert "The network at a glance" not in summary
