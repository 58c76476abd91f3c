"""Prefixes before the names of one side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from measures.sites import recording, site, some_rows

import bnprobe
from bnprobe.comparison.names import under_names_of
from bnprobe.errors import CannotCompare
from bnprobe.recording import Dropout, Recording, TensorTable

NARROW, WIDE = some_rows(), some_rows(n_channels=4)


def of(*layers: tuple[str, int], **more: object) -> Recording:
    made = recording(*(site(NARROW if width == 3 else WIDE, name) for name, width in layers))
    return replace(made, **more)


def names(found: Recording) -> list[str]:
    return [record.layer for record in found.layers]


@pytest.mark.parametrize(
    ("a", "b", "renamed"),
    [
        ([("bn1", 3), ("l.bn2", 4)], [("model.bn1", 3), ("model.l.bn2", 4)], ["bn1", "l.bn2"]),
        ([("model.bn1", 3), ("model.l.bn2", 4)], [("bn1", 3), ("l.bn2", 4)], ["model.bn1", "model.l.bn2"]),
        ([("1", 3), ("4", 3)], [("net.1.1", 3), ("net.4", 3), ("net.1", 3)], ["1.1", "4", "1"]),
        ([("bn1", 3)], [("a.b.bn1", 3), ("head", 4)], ["bn1", "head"]),
        ([("bn1", 3)], [("model.bn1", 4)], ["model.bn1"]),
        ([("bn1", 3), ("x", 4)], [("bn1", 3), ("model.x", 4)], ["bn1", "model.x"]),
    ],
    ids=["of B", "of A", "the most frequent", "deep", "other width", "some agree"],
)
def test_the_prefix_under_which_most_norms_agree(
    a: list[tuple[str, int]], b: list[tuple[str, int]], renamed: list[str]
) -> None:
    """Fails if names are changed where some agree as they are, or a prefix is taken under which fewer norms do."""
    found, words = under_names_of(of(*a), of(*b))
    assert names(found) == renamed
    assert bool(words) == (renamed != [name for name, _ in b])


def test_everything_that_has_a_name_gets_the_new_one() -> None:
    """Fails if tensors, dropout or norms that were not called keep the prefix, and differ by it."""
    table = TensorTable(("m.w", "m.bn.weight"), ("float32",) * 2, ("3",) * 2, np.zeros(2), np.zeros(2))
    b = of(("m.bn", 3), tensors=table, never_called=("m.x",), folded=("m.y",),
           dropouts=(Dropout("m.drop", 0.5, "m.bn"), Dropout("m.last", 0.5, "")))  # fmt: skip
    found, _ = under_names_of(of(("bn", 3)), b)
    assert found.tensors is not None
    assert found.tensors.names == ("w", "bn.weight")
    assert (found.never_called, found.folded) == (("x",), ("y",))
    assert [(one.path, one.before) for one in found.dropouts] == [("drop", "bn"), ("last", "")]


def test_a_comparison_says_which_prefix_it_left_out() -> None:
    """Fails if names are changed without a word, or networks that have nothing in common are compared."""
    a, b = of(("bn", 3)), of(("model.bn", 3))
    found = bnprobe.compare(a, b)
    assert found.identical
    assert (
        found.answer[-1]
        == "Names of B begin with “model.”, which was left out to compare them with those of A."
    )
    back = bnprobe.compare(b, a)
    assert (
        back.answer[-1] == "Names of A begin with “model.”, which was put before those of B to compare them."
    )
    assert len(bnprobe.compare(a, a).answer) == len(found.answer) - 1
    with pytest.raises(CannotCompare):
        bnprobe.compare(a, of(("other", 3)))
