"""All small changes of a file, against lists written by hand."""

from __future__ import annotations

import ast

import pytest

from scripts.mutants.operators import changes, is_mutant
from scripts.mutants.packages import packages
from scripts.mutants.sample import mutants_of, one_a_line
from scripts.mutants.source import Source


def variants(text: str) -> list[str]:
    """What becomes of the text, one change at a time."""
    source = Source(text)
    return [change.apply(text) for change in changes(source)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < b", ["a <= b"]),
        ("a <= b", ["a < b"]),
        ("a > b", ["a >= b"]),
        ("a >= b", ["a > b"]),
        ("a == b", ["a != b"]),
        ("a != b", ["a == b"]),
        ("a is not b", ["a is b"]),
        ("a is b", ["a is not b"]),
        ("a not in b", ["a in b"]),
        ("a in b", ["a not in b"]),
        ("a < b < c", ["a <= b < c", "a < b <= c"]),
        ("a + b", ["a - b"]),
        ("a - b", ["a + b"]),
        ("a * b", ["a / b"]),
        ("a / b", ["a * b"]),
        ("a // b", ["a * b"]),
        ("a % b", ["a * b"]),
        ("a ** b", ["a * b"]),
        ("a & b", ["a | b"]),
        ("a | b", ["a & b"]),
        ("a += b", ["a -= b"]),
        ("a and b and c", ["a or b and c", "a and b or c"]),
        ("a or b", ["a and b"]),
        ("-a", ["+a"]),
        ("not a", [" a"]),
        ("~a", ["a"]),
        ("a = 0", ["a = 1"]),
        ("a = 1", ["a = 0", "a = 2"]),
        ("a = 7", ["a = 8"]),
        ("a = 0.5", ["a = -0.5", "a = 0.55"]),
        ("a = 0.0", ["a = 1.0"]),
        ("a = True", ["a = False"]),
        ("a[1:]", ["a[0:]", "a[2:]"]),
        ("min(a)", ["max(a)"]),
        ("a.any()", ["a.all()"]),
        ("np.nanmedian(a)", ["np.nanmean(a)"]),
        ("np.abs(a)", ["(a)"]),
        ("abs(a)", ["(a)"]),
    ],
)
def test_every_operator_by_hand(text: str, expected: list[str]) -> None:
    """Fails if an operator is forgotten, or makes another change than its row says."""
    assert sorted(variants(text)) == sorted(expected)


@pytest.mark.parametrize(
    "text",
    [
        '"""1 + 1 is 2."""',
        'f"{n + 1} of {m}"',
        'a = "x" + b',
        "a = [1.5j] + b",
        "a: Literal[1] = b",
        "def f(a: Literal[1]) -> Literal[2]: ...",
        "@dataclass(order=True)\nclass A: ...",
        'raise ValueError("at most", 7)',
        "zip(a, b, strict=True)",
        "if TYPE_CHECKING:\n    a = 1",
        "import a",
    ],
)
def test_what_no_test_should_have_to_catch_is_left_alone(text: str) -> None:
    """Fails if sentences, annotations, decorators or guards are changed: survivors nobody wants to read."""
    assert variants(text) == []


def test_columns_are_characters() -> None:
    """Fails if a Greek letter before the place shifts it: ast counts its two bytes."""
    assert variants('σ, β = "γ", a < b') == ['σ, β = "γ", a <= b']


def test_an_operator_on_a_line_of_its_own() -> None:
    """Fails if an operator is sought beside its operands only, or one inside of an operand is taken for it."""
    text = "a = (\n    (b - c)  # not this +\n    + d\n)"
    assert variants(text) == [text.replace("b - c", "b + c"), text.replace("+ d", "- d")]


def test_a_change_is_one_line_and_a_program() -> None:
    """Fails if a change of the package spills over a line, or leaves no program or the same one."""
    for package in packages():
        for mutant in mutants_of(package)[::97]:
            before, after = mutant.source.text, mutant.mutate(mutant.source.text)
            differing = [
                i
                for i, (a, b) in enumerate(zip(before.split("\n"), after.split("\n"), strict=True), 1)
                if a != b
            ]
            assert differing == [mutant.change.line], mutant.place
            ast.parse(after)


def test_the_same_program_is_no_mutant() -> None:
    """Fails if a change that changes nothing, or breaks the syntax, counts as one."""
    source = Source("a = 1 + 1")
    change = changes(source)[0]
    assert is_mutant(change, source)
    assert not is_mutant(type(change)(1, 4, "1", "0x1"), source)
    assert not is_mutant(type(change)(1, 4, "1", "1 1"), source)


def test_one_mutant_of_every_line() -> None:
    """Fails if a line is left out or has two, or another seed always draws the same ones."""
    stats = next(package for package in packages() if package.name == "stats")
    drawn = one_a_line([stats], seed=1)
    changed = {mutant.place for mutant in mutants_of(stats) if is_mutant(mutant.change, mutant.source)}
    assert sorted(mutant.place for mutant in drawn) == sorted(changed)
    again, other = one_a_line([stats], seed=1), one_a_line([stats], seed=2)
    assert drawn == again
    assert {mutant.becomes for mutant in drawn} != {mutant.becomes for mutant in other}
