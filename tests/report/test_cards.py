"""Findings as cards: one for each thing, with everything that was found of it."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
from measures.sites import memory_of, recording, site, some_rows
from torch import nn

import bnprobe
from bnprobe.recording import LayerRecord
from bnprobe.report.chapters.cards import cards, sources
from bnprobe.report.formats.html import to_html, with_code
from bnprobe.report.page import blocks
from report.pages import elements, parsed, text_of

ROWS = some_rows(40)


def finding(
    rule: str, layer: str = "a", channels: tuple[int, ...] = (), **other: object
) -> dict[str, object]:
    row = {
        "severity": "info",
        "rule": rule,
        "layer": layer,
        "call": 0,
        "channels": channels,
        "says": f"It is {rule}.",
    }
    return {**row, "because": f"{len(channels)} channels.", "do": "Look.", "source": "Book 1999", **other}


def layers(*names: str) -> tuple[LayerRecord, ...]:
    return tuple(site(ROWS, name, gamma=1.1, beta=0, **memory_of(ROWS)) for name in names)


def made(*rows: dict[str, object], names: str = "ab") -> tuple[blocks.Card, ...]:
    return cards(pd.DataFrame(rows), recording(*layers(*names)))


CONSTANT, DEAD, DECAYED = "channels-constant", "channels-dead", "filters-decayed"


def test_rules_about_the_same_channels_are_one_card():
    """Fails if one set of channels fills several cards, counts more than once, or is not reconciled."""
    (card,) = made(
        finding(CONSTANT, "a", (0, 1)),
        finding(CONSTANT, "b", (2,)),
        finding(DEAD, "a", (1,)),
        finding(DECAYED, "a", (0, 1)),
    )
    assert card.rules == (CONSTANT, DEAD, DECAYED)
    assert card.title == "3 of 6 channels pass no signal on."
    assert card.overlap is not None
    held = dict(card.overlap.rows)
    assert held == {(True, False, True): 1, (True, True, True): 1, (True, False, False): 1}
    assert [place.name for place in card.places] == ["a, channels 0 and 1", "b, channel 2"]
    assert card.places[0].because.count("channels") == 3  # what each rule says of it


def test_other_channels_are_another_card():
    """Fails if rules that share no more than a channel by chance, or are about whole layers, become one card."""
    rows = (
        finding(CONSTANT, "a", (0, 1, 2)),
        finding("channels-shifted", "a", (0, 1, 2)),
        finding(DEAD, "b", (0,)),
    )
    assert [card.rules for card in made(*rows)] == [(CONSTANT,), ("channels-shifted",), (DEAD,)]


def test_what_is_sure_of_channels_without_a_signal():
    """Fails if what only these data show is said of all data."""
    both = finding("channels-silent", "a", (0, 1)), finding(CONSTANT, "a", (0,))
    (card,) = made(*both)
    assert card.title == "2 of 6 channels passed no signal on, as far as these data show."


def test_one_rule_is_one_card_whatever_its_sentences():
    """Fails if the same fault in several layers, in other words each, fills several cards, or loses its worst severity."""
    (card,) = made(
        finding(DEAD, "a", (0, 1, 2), says="All channels are dead.", severity="critical"),
        finding(DEAD, "b", (1,), says="Some channels are dead."),
    )
    assert (card.severity, card.title) == ("critical", "4 of 6 channels are dead.")
    assert card.strip == (1.0, 1.0)  # three of three, and one of three, which is more than a quarter


def test_the_strip_shows_where():
    """Fails if a norm without a place has a bar, or a single channel of many none that can be seen."""
    wide = some_rows(40, 200, 3)
    many = tuple(site(wide, name, gamma=1.1, beta=0, **memory_of(wide)) for name in "abc")
    rows = [finding(CONSTANT, "a", tuple(range(25))), finding(CONSTANT, "c", (0,))]
    (card,) = cards(pd.DataFrame(rows), recording(*many))
    assert card.strip == (pytest.approx(25 / 200 / 0.25), None, 0.1)


def test_every_place_has_its_repair():
    """Fails if the code under two kinds of places repairs the first alone."""
    (card,) = made(finding(DEAD, "a", (0,), do="Do `x = 1`."), finding(DEAD, "b", (1,), do="Do `x = 2`."))
    assert [(action.do, action.where) for action in card.actions] == [
        ("Do `x = 1`.", "a"),
        ("Do `x = 2`.", "b"),
    ]


def test_sources_are_links():
    """Fails if a paper or a thread cannot be followed, or words get lost."""
    found = sources(
        "Li et al. 2016, arXiv:1603.04779; Welch 1947, https://github.com/pytorch/pytorch/issues/88474 (a root)"
    )
    assert [(one.words, one.link) for one in found] == [
        ("Li et al. 2016, arXiv:1603.04779", "https://arxiv.org/abs/1603.04779"),
        ("Welch 1947", ""),
        ("pytorch/pytorch#88474 (a root)", "https://github.com/pytorch/pytorch/issues/88474"),
    ]


def test_every_rules_source_keeps_its_words():
    """Fails if a rule's source loses its paper or its thread when it is taken apart."""
    for rule in bnprobe.rules.RULES:
        addresses = re.findall(r"arXiv:[\d.]+\d|https://[^\s,;]+", rule.source)
        linked = [
            one.link.replace("https://arxiv.org/abs/", "arXiv:") for one in sources(rule.source) if one.link
        ]
        assert linked == addresses, rule.id


def test_five_cards_and_the_rest_folded():
    """Fails if the sixth card pushes the network off the screen, or what is folded is not said."""
    many = tuple(finding(f"rule-{i}", severity="warning" if i < 6 else "info") for i in range(8))
    section = blocks.Section("findings", "Findings", (blocks.Findings(made(*many), "None."),))
    page = parsed(to_html(blocks.Page("Title", "Lead.", (section, *_rules(8)), "")))
    (folded,) = (one for one in elements(page, "details") if one.get("class") == "more-findings")
    assert len(elements(page, "article")) == 8
    assert len(elements(folded, "article")) == 3
    assert text_of(folded).startswith("3 more: 1 warning, 2 info")


def _rules(n: int) -> list[blocks.Section]:
    return [blocks.Section(f"rule-rule-{i}", "Rule", ()) for i in range(n)]


def test_long_code_stands_in_lines_and_does_the_same():
    """Fails if code of several statements is one line of a sentence, or another program than it was."""
    code = 'for name, at in [("a", [0]), ("b", [1, 2])]: n = names[name]; n[at] = 1; done.append(name)'
    shown = with_code(f"Do this: `{code}`.")
    lines = re.search(r'<code class="lines" tabindex="0">(.*)</code>$', shown, re.DOTALL)
    assert lines
    assert lines[1].count("\n") == 3
    results = []
    for program in (code, lines[1].replace("&#39;", "'")):
        names = {"names": {"a": np.zeros(3), "b": np.zeros(3)}, "done": []}
        exec(program, names)
        results.append((names["names"]["a"].tolist(), names["names"]["b"].tolist(), names["done"]))
    assert results[0] == results[1]
    assert with_code("`model.eval()` first.") == "<code>model.eval()</code> first."


def test_a_real_network_with_dead_channels():
    """Fails if dead channels of a recorded network are told twice."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU()).eval()
    model[1].weight.data[:2], model[1].bias.data[:2] = 1e-6, -1.0
    report = bnprobe.report(bnprobe.record(model, [torch.randn(40, 3, 8, 8)]))
    (found,) = (b for s in report._page.sections for b in s.blocks if isinstance(b, blocks.Findings))
    (card,) = (card for card in found.cards if CONSTANT in card.rules)
    assert DEAD in card.rules
    assert card.title == "2 of 5 channels pass no signal on."
