"""The numbers of a picture by depth as text: every line that is drawn, in the order of the network, and nothing made up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bnprobe.report.figures.as_text import BETWEEN, as_text
from bnprobe.report.figures.from_tables import by_depth
from bnprobe.report.figures.specs import Band, Cloud, Clouds, Curves, Line, Part, Stack


def values(*numbers: float) -> np.ndarray:
    return np.array(numbers)


def test_every_line_has_a_column_and_every_norm_a_row():
    """Fails if a line, a band or a part is left out, numbers are those of another norm, or a gap becomes a number."""
    layers = pd.DataFrame({"layer": ["stage.a", "stage.b", "stage.b"], "call": [0, 0, 1]})
    nan, inf = float("nan"), float("inf")
    lines = Line(values(1, nan, 0.000012345678), "mean"), Line(values(-2, 3, inf))
    curves = Curves("off by", lines, Band(values(0, 1, 2), values(10, 11, 12)))
    stack = Stack("shares", (Part(values(0.25, 0.5, 1), "dead", "#000"),), (Line(values(4, 5, 6), "limit"),))
    table = [line.split(BETWEEN) for line in as_text(by_depth(layers, (curves, stack))).split("\n")]
    heads = [
        "layer",
        "off by: mean",
        "off by",
        "off by, low",
        "off by, high",
        "shares: dead",
        "shares: limit",
    ]
    assert table == [
        heads,
        ["stage.a", "1", "-2", "0", "10", "0.25", "4"],
        ["stage.b", "–", "3", "1", "11", "0.5", "5"],
        ["stage.b (call 2)", "1.235e-05", "∞", "2", "12", "1", "6"],
    ]


@pytest.mark.parametrize(
    ("name", "said"), [("a\tb", "a b"), (" a\r\n\tb", "a b"), ("\u202ea", "\ufffda"), ("a\u2003b", "a b")]
)
def test_a_name_is_one_cell_that_can_be_seen(name: str, said: str):
    """Fails if a name with a tab, a wide space or a line of its own moves all numbers after it, or turns what is written."""
    layers = pd.DataFrame({"layer": [name], "call": [0]})
    assert (
        as_text(by_depth(layers, (Curves("t", (Line(values(7)),)),))) == f"layer{BETWEEN}t\n{said}{BETWEEN}7"
    )


def test_what_is_not_by_depth_has_no_such_text():
    """Fails if thousands of points become a table that nobody reads."""
    assert as_text(Clouds((Cloud("t", values(1), values(2), "x", "y"),))) == ""
