"""Numbers as people read them, and names short enough to print."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnprobe.report.numbers import MISSING, count, listed, number, share, shorten, visible


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-3.0, "−3"),
        (1234.0, "1,234"),
        (999_999.0, "999,999"),
        (3.14159, "3.14"),
        (-0.012345, "−0.0123"),
        (12.345, "12.3"),
        (123.45, "123"),
        (1234.5, "1,234"),
        (0.001, "0.00100"),
        (0.00099, "9.90e−4"),
        (123456.7, "1.23e5"),
        (-1e30, "−1.00e30"),
        (5e-324, "4.94e−324"),
        (float("nan"), MISSING),
        (float("inf"), "∞"),
        (float("-inf"), "−∞"),
    ],
)
def test_number(value, text):
    """Fails if digits are lost, a hyphen stands for a minus, or nan reaches the reader."""
    assert number(value) == text


@given(st.floats(-1e307, 1e307), st.integers(1, 6))
def test_a_number_can_be_read_back(value, digits):
    """Fails if rounding, the thousands' comma or the exponent changes the size of a number."""
    text = number(value, digits)
    back = float(text.replace("−", "-").replace(",", ""))
    assert math.isclose(back, value, rel_tol=0.6 * 10.0 ** (1 - digits), abs_tol=5e-324)
    assert "-" not in text
    assert len(text) <= 14


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0%"),
        (1.0, "100%"),
        (0.5, "50%"),
        (0.099, "9.9%"),
        (0.026, "2.6%"),
        (float("nan"), MISSING),
    ],
)
def test_share(value, text):
    """Fails if a share is printed without its digit, or as nan%."""
    assert share(value).replace("\u00a0", " ") == text


def test_a_small_share_is_not_shown_as_none():
    """Fails if one channel of 5,328 reads as 0%: nothing and little are different answers."""
    assert share(1 / 5328).replace("\u00a0", " ") not in ("0%", "0.0%")


def test_almost_all_is_not_shown_as_all():
    """Fails if 5,327 of 5,328 reads as 100%."""
    assert share(5327 / 5328).replace("\u00a0", " ") != "100%"


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (1234, "channel", "1,234 channels"),
        (2, "forward pass", "2 forward passes"),
        (1, "forward pass", "1 forward pass"),
        (2, "batch", "2 batches"),
        (3, "batch norm", "3 batch norms"),
    ],
)
def test_count(n, noun, text):
    """Fails if one thing is called things, or two passes are passs."""
    assert count(n, noun) == text


@given(st.text(), st.integers(5, 60))
def test_shorten_keeps_the_limit_and_both_ends(text, length):
    """Fails if a long path loses its last part, which tells layers apart, or grows beyond the limit."""
    short = shorten(text, length)
    assert len(short) <= length
    assert short.isprintable()
    if len(text) <= length:
        assert short == visible(text)
    else:
        head, _, tail = short.rpartition("…") if "…" not in visible(text) else (short[:1], "", short[-1:])
        assert visible(text).startswith(head[:1])
        assert visible(text).endswith(tail[-1:])


def test_shorten_keeps_more_of_the_end():
    """Fails if layers of one long path look alike: they differ at the end."""
    paths = [f"model.encoder.backbone.stage.layers.{i}.norm{j}" for i in range(12) for j in (1, 2)]
    short = [shorten(path, 34) for path in paths]
    assert len(set(short)) == len(paths)
    assert all(text.startswith("model.enco") and len(text) == 34 for text in short)


@given(st.text())
def test_visible_changes_nothing_that_can_be_seen(text):
    """Fails if letters of another script are replaced, or a control character is let through."""
    seen = visible(text)
    assert seen.isprintable()
    assert len(seen) == len(text)
    assert all(a == b or not a.isprintable() for a, b in zip(text, seen, strict=True))


def test_listed_names_some_and_counts_the_rest():
    """Fails if the number of those left out is off by one."""
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert listed(["a", "b", "c"], 1) == "a and 2 more"
