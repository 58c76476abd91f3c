"""Names by role where several norms would have one: calls of one norm, deep paths, and stacks beside each other."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from bnprobe.measures import norm_roles
from bnprobe.measures.norm_roles import is_transformer, names_by_role, towers_of
from bnprobe.recording.neighbours import Neighbours
from measures.sites import site, some_rows


def table(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["layer", "norm_role"])


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        # two calls of one norm are one
        ([("b.0.n", "attention"), ("b.0.n", "attention")], ["0.attn", "0.attn"]),
        # numbers tell them apart, however many there are
        (
            [("a.0.1.2.3.4.5.6.7.8.9.n", "attention"), ("a.0.1.2.3.4.5.6.7.8.5.n", "attention")],
            ["0.1.2.3.4.5.6.7.8.9.attn", "0.1.2.3.4.5.6.7.8.5.attn"],
        ),
        # only those that would have one name have more numbers
        (
            [("a.0.1.n", "attention"), ("a.0.2.n", "attention"), ("a.1.5.n", "attention")],
            ["0.1.attn", "0.2.attn", "1.attn"],
        ),
        # where numbers do not, the whole path does
        (
            [("a.0.x", "MLP"), ("a.0.y", "MLP"), ("a.0.z", "attention"), ("a.0.w", "")],
            ["a.0.x", "a.0.y", "0.attn", "a.0.w"],
        ),
        # two ends
        ([("a.0.x", "attention"), ("n1", "final"), ("n2", "final")], ["0.attn", "n1", "n2"]),
    ],
)
def test_names_tell_paths_apart(rows: list[tuple[str, str]], names: list[str]) -> None:
    """Fails if two paths have one name, or one path needs more than its block and role."""
    assert names_by_role(table(*rows)) == names


@pytest.mark.parametrize(
    ("rows", "towers"),
    [
        # one stack needs no name, whatever it is called
        ([("encoder.0.n", "attention"), ("encoder.1.n", "MLP"), ("encoder.norm", "final")], ["", "", ""]),
        (
            [
                ("encoder.0.n", "attention"),
                ("decoder.0.n", "MLP"),
                ("decoder.norm", "final"),
                ("head", "final"),
            ],
            ["enc", "dec", "dec", ""],
        ),
        # norms outside of blocks are no stack
        ([("encoder.0.n", "attention"), ("n", "MLP")], ["", ""]),
        # neither are those of no role that lies in blocks
        ([("encoder.0.n", "attention"), ("decoder.0.n", "final")], ["", ""]),
        ([("vision_tower.0.n", "attention"), ("text.0.n", "attention")], ["vision", "text"]),
        # all of its name is what towers have in common
        ([("_model.0.n", "attention"), ("text.0.n", "attention")], ["_model", "text"]),
        # a stack in which nothing is its own
        ([("m.0.n", "attention"), ("m.text.0.n", "attention")], ["", "text"]),
    ],
)
def test_stacks_beside_each_other_have_names(rows: list[tuple[str, str]], towers: list[str]) -> None:
    """Fails if a single stack has a name, or a word that stacks share is one."""
    assert towers_of(table(*rows)) == towers


def test_what_makes_a_transformer() -> None:
    """Fails if a table without roles, or with those of other networks alone, is one of a transformer."""
    assert not is_transformer(pd.DataFrame({"layer": ["a"]}))
    assert names_by_role(pd.DataFrame({"layer": ["a"]})) == ["a"]
    assert not is_transformer(table(("a", "MLP"), ("b", "final")))
    assert is_transformer(table(("a", "MLP"), ("b", "query")))


def test_the_columns_are_those_of_what_follows() -> None:
    """Fails if one number of attention stands for another, or a norm alone has a role."""
    neighbours = Neighbours(
        "linear",
        role="attention",
        largest_logit=1.0,
        attention_evenness=0.5,
        attention_factor=2.0,
        qk_bound=9.0,
    )
    names = ("norm_role", "largest_logit", "attention_evenness", "attention_factor", "qk_bound")
    found = norm_roles.layer_columns(site(some_rows(), neighbours=neighbours))
    assert [found[name] for name in names] == ["attention", 1.0, 0.5, 2.0, 9.0]
    found = norm_roles.layer_columns(site(some_rows()))
    assert found["norm_role"] == ""
    assert all(math.isnan(float(found[name])) for name in names[1:])
