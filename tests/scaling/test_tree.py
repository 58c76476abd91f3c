"""The order of merging: the same for one process and many, files and ranks."""

from __future__ import annotations

import pytest

from bnprobe.scaling.tree import merge_in_order


def pair(a: str, b: str) -> str:
    return f"({a}{b})"


def test_neighbors_first():
    """Fails if sums are taken one after another, or in an order that another process could not repeat."""
    assert merge_in_order("abcdefg", pair) == "(((ab)(cd))((ef)g))"
    assert merge_in_order("a", pair) == "a"
    assert merge_in_order("", pair) is None


@pytest.mark.parametrize("n", range(1, 41))
def test_blocks_are_subtrees(n):
    """Fails if the sums of blocks of eight, merged in their order, are other sums than those of all parts."""
    parts = [chr(97 + i) for i in range(n)]
    blocks = [merge_in_order(parts[start : start + 8], pair) for start in range(0, n, 8)]
    assert merge_in_order(blocks, pair) == merge_in_order(parts, pair)


def test_few_sums_are_held():
    """Fails if parts are collected before they are merged."""
    held, most = 0, 0

    def parts():
        nonlocal held, most
        for _ in range(1000):
            held += 1
            most = max(most, held)
            yield "x"

    def merged(a, b):
        nonlocal held
        held -= 1
        return "x"

    merge_in_order(parts(), merged)
    assert most <= 10
