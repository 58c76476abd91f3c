"""Where in a file its statements are."""

from __future__ import annotations

from scripts.mutants.source import Change, Source

TEXT = """\
LIMIT = (
    3,
)

def f(a):
    if a > (
        LIMIT
    ):
        return a
    return [
        a,
    ]
"""


def test_a_statement_has_all_its_lines_and_none_of_those_inside_it() -> None:
    """Fails if the second line of a condition is taken for another statement, or a body for its condition."""
    source = Source(TEXT)
    spans = {line: source.statement_at(line) for line in (2, 6, 7, 9, 11)}
    assert spans[2] == (range(1, 4), False)
    assert spans[6] == spans[7] == (range(6, 9), True)
    assert spans[9] == (range(9, 10), True)
    assert spans[11] == (range(10, 13), True)


def test_a_change_keeps_the_rest_of_the_file() -> None:
    """Fails if the last line loses its end, or another occurrence on the line is changed."""
    assert Change(2, 4, "3", "4").apply(TEXT) == TEXT.replace("3", "4")
    assert Change(1, 4, "1", "2").apply("1 + 1\n") == "1 + 2\n"
    assert Change(1, 4, "1", "2").apply("1 + 1") == "1 + 2"
