"""Every rule has its page, and every page its rule."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from bnprobe.rules import COMPARED, RULES, Limits, rule_docs

BOOK = (*RULES, *COMPARED)


@pytest.mark.parametrize("rule", BOOK, ids=lambda rule: rule.id)
def test_every_rule_has_a_page_that_says_the_four_things(rule):
    """Fails if a rule lands without documentation, or a page leaves out when to ignore it."""
    page = rule_docs.rule_page(rule.id)
    assert tuple(page) == rule_docs.HEADS
    assert all(len(text) > 5 and text.endswith(".") for text in page.values())
    assert rule_docs.rule_markdown(rule.id).startswith(f"# {rule.id}\n")


def test_no_page_is_left_behind():
    """Fails if a rule is renamed and its page is not."""
    written = {path.stem for path in Path(rule_docs.__file__).with_name("docs").glob("*.md")}
    assert written == {rule.id for rule in BOOK}


def test_the_address_of_a_page_is_where_it_lies():
    """Fails if the address that machines are given leads nowhere."""
    address = urlparse(rule_docs.rule_address(RULES[0].id))
    assert address.scheme == "file"
    assert Path(unquote(address.path)).read_text("utf-8") == rule_docs.rule_markdown(RULES[0].id)


def test_thresholds_that_pages_name_exist():
    """Fails if a page tells a user to set a threshold that the settings refuse."""
    import re

    known = {field.name for field in fields(Limits)}
    for rule in BOOK:
        named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", rule_docs.rule_page(rule.id)["How it is found"]))
        assert named <= known, rule.id
