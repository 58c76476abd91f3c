"""Which site stands against which, what is the same to the last bit, and which tensors differ beside the norms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from measures.sites import recording, running_stats_of, site, some_rows

from bnprobe.comparison.lineage import correlations, trained_apart
from bnprobe.comparison.pairs import Pair, _same, pairs
from bnprobe.comparison.tensors import COLUMNS, first_place, n_others, tensor_differences
from bnprobe.comparison.upstream import Upstream
from bnprobe.recording import Dropout, LayerRecord, Recording, TensorTable
from bnprobe.recording.neighbours import Folded, Neighbours

ROWS = some_rows()
STORED = {"gamma": 1.5, "beta": 0.5, **running_stats_of(ROWS)}
ONE = np.ones(3)


def norm(layer: str = "bn", call: int = 0, **changes: Any) -> LayerRecord:
    return site(ROWS, layer, call=call, **{**STORED, **changes})


def test_sites_by_path_call_and_width() -> None:
    """Fails if sites stand in the order of B, one is compared with another of other channels, or a reason is another's."""
    wide = site(some_rows(n_channels=4), "wide")
    a = recording(
        norm("x"), norm("y"), norm("y", 1), norm("wide"), norm("only a"), norm("z"), never_called=("n",)
    )
    b = recording(wide, norm("z"), norm("y"), norm("x"), norm("n"), never_called=("only a",))
    found = pairs(a, b)
    assert [(pair.a.layer, pair.a.call) for pair in found.common] == [("x", 0), ("y", 0), ("z", 0)]
    assert [(one.layer, one.call, one.side, one.why) for one in found.alone] == [
        ("y", 1, "A", "called fewer times on the other side"),
        ("wide", 0, "A", "3 channels here, 4 on the other side"),
        ("only a", 0, "A", "not reached on the other side"),
        ("wide", 0, "B", "4 channels here, 3 on the other side"),
        ("n", 0, "B", "not reached on the other side"),
    ]
    assert [one.n_channels for one in found.alone] == [3, 3, 3, 4, 3]
    gone = pairs(recording(norm("x"), norm("only a")), recording(norm("x")))
    assert [one.why for one in gone.alone] == ["not there on the other side"]


@pytest.mark.parametrize(
    ("assumed_a", "assumed_b", "eps"),
    [
        (False, False, (0.1, 0.2)),
        (True, False, (0.2, 0.2)),
        (False, True, (0.1, 0.1)),
        (True, True, (0.1, 0.2)),
    ],
)
def test_an_assumed_eps_is_that_of_the_side_that_knows(
    assumed_a: bool, assumed_b: bool, eps: tuple[float, float]
) -> None:
    """Fails if a file's usual eps makes a difference to a run, or a known one is replaced by what was assumed."""
    a, b = norm(eps=0.1, eps_assumed=assumed_a), norm(eps=0.2, eps_assumed=assumed_b)
    (pair,) = pairs(recording(a), recording(b)).common
    assert (pair.a.eps, pair.b.eps) == eps


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (1, 1, True),
        (1, 2, False),
        (1, 1.0, False),
        (np.nan, np.nan, True),
        (np.nan, 1.0, False),
        ((1, 2), (1, 2), True),
        ((1, 2), (1, 3), False),
        ((1, 2), (1,), False),
        (np.array([1, np.nan]), np.array([1, np.nan]), True),
        (np.array([1, np.nan]), np.array([1, 2.0]), False),
        (None, None, True),
        (None, np.ones(1), False),
        (
            Neighbours("relu", folded=Folded(ONE, ONE, ONE, None)),
            Neighbours("relu", folded=Folded(ONE, ONE, ONE, None)),
            True,
        ),
        (
            Neighbours("relu", folded=Folded(ONE, ONE, ONE, None)),
            Neighbours("relu", folded=Folded(ONE, ONE, 2 * ONE, None)),
            False,
        ),
    ],
)
def test_the_same_to_the_last_bit(a: object, b: object, same: bool) -> None:
    """Fails if NaN differs from itself, another type is the same, or a part inside is not looked at."""
    assert _same(a, b) is same
    assert _same(b, a) is same


def fed(
    norm_: np.ndarray = ONE, bias: np.ndarray | None = None, guessed: bool = False, producer: str = "c"
) -> LayerRecord:
    neighbours = Neighbours("relu", producer, folded=Folded(norm_, -ONE, ONE, bias), guessed=guessed)
    return replace(norm(), neighbours=neighbours)


NEARLY = ONE * (1 + 1e-13)


@pytest.mark.parametrize(
    ("a", "b", "differ"),
    [
        (fed(), fed(), False),
        (fed(), fed(NEARLY), True),
        (fed(), fed(NEARLY, guessed=True), False),
        (fed(), fed(ONE * (1 + 1e-11), guessed=True), True),
        (fed(), fed(2 * ONE, guessed=True, producer="d"), False),
        (fed(), fed(bias=ONE), True),
        (fed(), fed(bias=ONE, guessed=True), True),
        (fed(np.array([1.0, np.nan, 1.0])), fed(np.array([1.0, np.nan, 1.0]), guessed=True), False),
        (fed(), norm(), False),
        (norm(), fed(2 * ONE), False),
        (fed(), replace(norm(), neighbours=Neighbours("relu")), False),
    ],
)
def test_weights_before_a_norm_that_differ(a: LayerRecord, b: LayerRecord, differ: bool) -> None:
    """Fails if rounding of two ways to add is a difference, or weights that one side does not know are."""
    assert Pair(a, b).filters_differ is differ
    assert Pair(a, b).identical is not differ


def table(**tensors: tuple[float, str]) -> TensorTable:
    """Tensors by name, with their checksum, which is their size too, and their shape."""
    sums = np.array([value for value, _ in tensors.values()])
    names = tuple(name.replace("__", ".") for name in tensors)
    return TensorTable(
        names, ("float32",) * len(sums), tuple(shape for _, shape in tensors.values()), sums, sums
    )


def with_tensors(*layers: str, **tensors: tuple[float, str]) -> Recording:
    return replace(recording(*map(norm, layers)), tensors=table(**tensors))


def test_tensors_that_differ_or_stand_alone() -> None:
    """Fails if a norm's own tensors count, sides or places are exchanged, or a tensor that is the same is told."""
    a = with_tensors(
        "bn", w=(1.0, "3"), bn__weight=(1.0, "3"), same=(4.0, "3"), m__a=(5.0, "3"), v=(2.0, "3")
    )
    b = with_tensors(
        "bn", same=(4.0, "3"), w=(2.0, "3"), bn__weight=(9.0, "3"), v=(2.0, "4"), m__b=(6.0, "3")
    )
    found = tensor_differences(a, b)
    assert list(found) == list(COLUMNS)
    assert found[["tensor", "side", "place"]].to_numpy().tolist() == [
        ["w", "both", 0],
        ["m.a", "A", 3],
        ["v", "both", 4],
        ["m.b", "B", 4],
    ]
    np.testing.assert_array_equal(found["size_a"], [1, 5, 2, np.nan])
    np.testing.assert_array_equal(found["size_b"], [2, np.nan, 2, 6])
    assert found["shape_b"].tolist() == ["3", "", "4", "3"]
    assert tensor_differences(a, a).empty
    assert tensor_differences(a, replace(b, tensors=None)).empty


def test_places_and_counts_of_tensors() -> None:
    """Fails if the first tensor of another layer is a norm's, or a norm's own are among the others."""
    one = with_tensors(
        "bn", "m.bn", w=(1.0, "3"), m__bn__weight=(1.0, "3"), m__bn__bias=(1.0, "3"), v=(1.0, "3")
    )
    assert first_place(one, "m.bn") == 1
    assert first_place(one, "bn") == 4
    assert n_others(one) == 2
    assert n_others(replace(one, tensors=None)) == 0
    assert first_place(replace(one, tensors=None), "m.bn") == 0


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (None, [False] * 3),
        (0, [True] * 3),
        (1, [False, True, True]),
        (2, [False, True, True]),
        (9, [False] * 3),
    ],
)
def test_a_tensor_that_differs_changes_what_comes_after_it(place: int | None, expected: list[bool]) -> None:
    """Fails if a norm is told of a tensor at its own place or behind it, or the next one is not."""
    one = recording(norm("a"), norm("b"), norm("c"))
    rows = (
        [] if place is None else [["w", "both", 1.0, 2.0, "3", "3", place], ["v", "A", 1.0, 2.0, "3", "", 0]]
    )
    upstream = Upstream(pd.DataFrame(rows, columns=list(COLUMNS)), {"a": 1, "b": 3, "c": 5})
    facts = list(upstream.facts(pairs(one, one).common))
    assert [fact["weights_before_differ"] for fact in facts] == expected


def test_dropout_is_told_at_the_norm_that_it_stands_before() -> None:
    """Fails if another norm is told, or two are not told together."""
    one = recording(norm("a"), norm("b"))
    dropouts = (Dropout("d1", 0.5, "b"), Dropout("d2", 0.25, "b"), Dropout("d3", 0.1, ""))
    facts = Upstream(dropouts=dropouts).facts(pairs(one, one).common)
    assert [fact["dropout_before"] for fact in facts] == ["", "d1 (p = 0.5), d2 (p = 0.25)"]
    of_b = Upstream.of(one, replace(one, dropouts=dropouts))
    assert of_b.dropouts == dropouts


def drawn(r: float, n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two vectors of exactly this correlation."""
    values = np.random.default_rng(seed).normal(size=(n, 2))
    _, x, y = np.linalg.qr(np.column_stack([np.ones(n), values]))[0].T
    return 1 + 0.1 * x, 1 + 0.1 * (r * x + np.sqrt(1 - r**2) * y)


def layers_of(*gammas: tuple[np.ndarray, np.ndarray], call: int = 0) -> list[Pair]:
    return [
        Pair(
            *(
                site(some_rows(n_channels=len(side)), f"n{i}", gamma=side, beta=0.0, call=call)
                for side in both
            )
        )
        for i, both in enumerate(gammas)
    ]


def test_correlations_of_layers_are_pooled_as_fishers_z() -> None:
    """Fails if layers count alike whatever their channels, or later calls count again: by numpy."""
    found = correlations([*layers_of(drawn(0.8), drawn(-0.2, 13)), *layers_of(drawn(0.0), call=1)])
    expected = np.tanh((np.arctanh(0.8) * 37 + np.arctanh(-0.2) * 10) / 47)
    assert found["γ"] == pytest.approx((expected, 47**-0.5), rel=1e-6)
    assert set(found) == {"γ"}, "β does not vary"
    alone = correlations(layers_of(drawn(1.0, 8)))
    assert alone["γ"][0] == pytest.approx(0.999999)
    assert correlations(layers_of(drawn(0.5, 7))) == {}


@pytest.mark.parametrize(("r", "apart"), [(0.0, True), (0.2, True), (0.4, False), (0.6, False)])
def test_sides_are_apart_where_three_errors_stay_below_a_half(r: float, apart: bool) -> None:
    """Fails if the correlation alone decides, or more errors are added: of 3 layers with 40 channels, 3 errors are 0.28."""
    found = trained_apart(layers_of(*(drawn(r, seed=i) for i in range(3))))
    bound = np.arctanh(r) + 3 * (3 * 37) ** -0.5
    assert bool(found) is apart is bool(bound < 0.5)
    if apart:
        assert found == {"γ": pytest.approx(r, abs=1e-6)}
    assert trained_apart([]) == {}
