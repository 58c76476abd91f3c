"""Heads of tables: words on the page, and the names of columns where a head is hovered over."""

from __future__ import annotations

import pytest
from measures.sites import memory_of, recording, site, some_rows

import bnprobe
from bnprobe.comparison.page import page as compared
from bnprobe.report.chapters import affine, gradients, layers, overview, per_sample, residual, running_stats
from bnprobe.report.formats.html import to_html
from bnprobe.report.headings import heading, hint
from report import pages

SHOWN = {
    head
    for chapter in (affine, gradients, layers, per_sample, residual, running_stats)
    for head in chapter.HEADS
} | {*overview.LAYER_HEADS, *compared.LAYER_HEADS, *compared.CHANNEL_HEADS}


@pytest.mark.parametrize("head", sorted(SHOWN))
def test_every_head_of_a_table_is_words(head):
    """Fails if a column comes into a table without words, so that its head reads gamma_abs_median."""
    assert "_" not in heading(head)
    assert hint(head, "What it is.") == ("What it is." if heading(head) == head else f"{head}: What it is.")


@pytest.mark.parametrize(
    "heads", [overview.LAYER_HEADS, layers.HEADS, residual.HEADS, gradients.HEADS, compared.CHANNEL_HEADS]
)
def test_no_two_heads_of_a_table_are_the_same_words(heads):
    """Fails if two columns cannot be told apart."""
    assert len({heading(head) for head in heads}) == len(heads)


def test_sides_are_said_in_words():
    """Fails if a column of one side loses its side."""
    assert (heading("gamma_a"), heading("running_var_b")) == ("γ, A", "running variance, B")


def test_the_table_of_layers_has_words_and_names():
    """Fails if the page shows names of columns as heads, loses them where they are looked for, or sets the head of words
    to the right of them."""
    rows = some_rows(40)
    layers_of = [site(rows, name, gamma=0.7, beta=0.1, **memory_of(rows)) for name in "ab"]
    document = pages.parsed(to_html(bnprobe.report(recording(*layers_of))._page))
    network = pages.sections(document)["network"]
    heads = {pages.text_of(th): th.get("title", "") for th in pages.elements(network, "th")}
    assert heads["typical |γ|"].startswith("gamma_abs_median: Half of the channels have a |γ| below this.")
    assert not any("_" in words for words in heads)
    aligned = {pages.text_of(th): th.get("class") for th in pages.elements(network, "th")}
    assert (aligned["layer"], aligned["typical |γ|"]) == ("word", None)
    assert "The same for all layers: kind batch norm, mode eval, normalized by running." in pages.text_of(
        network
    )
