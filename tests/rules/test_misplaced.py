"""Vectors of B that A holds elsewhere: by another norm's name, in another order, or some of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from measures.sites import recording, running_stats_of, site, some_rows

import bnprobe
from bnprobe.recording import LayerRecord, Recording, TensorTable
from bnprobe.recording.neighbours import Folded, Neighbours

C = 8
ROWS = some_rows(n_channels=C)
ORDER = np.array([3, 1, 0, 2, 7, 5, 4, 6])
OTHER = np.array([0, 2, 1, 3, 4, 6, 5, 7])
VECTORS = ("gamma", "beta", "running_mean", "running_var")


def norm(layer: str, seed: int, lengths: np.ndarray | None = None, **changes: Any) -> LayerRecord:
    """A norm whose vectors no other seed has."""
    rng = np.random.default_rng(seed)
    stored = {"gamma": rng.normal(1, 0.1, C), "beta": rng.normal(0, 0.1, C), **running_stats_of(ROWS + seed)}
    made = site(ROWS, layer, **{**stored, **changes})
    if lengths is None:
        return made
    zeros = np.zeros(len(lengths))
    around = Neighbours("relu", "c", folded=Folded(lengths, zeros, zeros, None))
    return replace(made, neighbours=around)


def put(record: LayerRecord, **orders: np.ndarray) -> LayerRecord:
    """The same with each of these vectors in its order of channels."""
    return replace(record, **{name: getattr(record, name)[order] for name, order in orders.items()})


def called(record: LayerRecord, layer: str) -> LayerRecord:
    return replace(record, layer=layer)


def with_tensors(made: Recording, **checksums: float) -> Recording:
    """Matrices by their names, each with its checksum."""
    n, sums = len(checksums), np.array(list(checksums.values()), dtype=float)
    return replace(
        made, tensors=TensorTable(tuple(checksums), ("float32",) * n, ("2×2",) * n, sums, np.ones(n))
    )


def told(rule: str, a: Recording, b: Recording) -> list[tuple[str, str, str]]:
    found = bnprobe.compare(a, b).findings
    found = found[found["rule"] == rule]
    return list(zip(found["severity"], found["layer"], found["says"] + " " + found["because"], strict=True))


A = [norm(name, i) for i, name in enumerate("xyz")]


def test_norms_that_changed_places() -> None:
    """Fails if two exchanged norms pass, or are said to have been trained apart or to lack statistics of their own."""
    b = recording(called(A[1], "x"), called(A[0], "y"), A[2])
    ((severity, layer, text),) = told("vectors-moved", recording(*A), b)
    assert (severity, layer) == ("critical", "")
    assert text.startswith("Norms have changed places: 2 norms of B hold the vectors of other norms of A.")
    assert "γ, β, running_mean and running_var of x are those of y in A" in text
    rules = set(bnprobe.compare(recording(*A), b).findings["rule"])
    assert not rules & {"channels-unrelated", "statistics-outdated", "channels-reordered"}


def test_exchanged_norms_are_no_other_training() -> None:
    """Fails if γ of other norms, which correlate with nothing, make two files two trainings."""
    rows, rng = some_rows(n_channels=64), np.random.default_rng(5)
    a = [site(rows, name, gamma=rng.normal(1, 0.1, 64)) for name in "vwxyz"]
    b = [called(record, name) for record, name in zip(a, "wvyxz", strict=True)]
    found = set(bnprobe.compare(recording(*a[:4]), recording(*b[:4])).findings["rule"])
    assert "vectors-moved" in found
    assert "channels-unrelated" not in found


def test_one_vector_of_another_norm() -> None:
    """Fails if only norms as wholes are looked up, or the advice of stale statistics is given as well."""
    b = recording(replace(A[0], gamma=A[1].gamma), *A[1:])
    ((severity, layer, text),) = told("vectors-moved", recording(*A), b)
    assert (severity, layer) == ("critical", "x")
    assert "1 norm of B holds the vectors of other norms of A. γ of x is that of y in A" in text
    assert told("statistics-outdated", recording(*A), b) == []


def test_a_cycle_of_norms_is_no_exchange() -> None:
    """Fails if layers counted from another number are called an exchange of two."""
    b = recording(*(called(record, name) for record, name in zip(A, "zxy", strict=True)))
    ((severity, _, text),) = told("vectors-moved", recording(*A), b)
    assert severity == "critical"
    assert text.startswith("3 norms of B hold the vectors of other norms of A.")


@pytest.mark.parametrize(("theirs", "severity"), [((2.0, 1.0), "info"), ((1.0, 2.0), "critical")])
def test_blocks_that_have_other_places(theirs: tuple[float, float], severity: str) -> None:
    """Fails if blocks that were put into another order with all of their weights are a fault, or norms alone none."""
    a = with_tensors(recording(*A), v=1.0, w=2.0)
    b = with_tensors(recording(called(A[1], "x"), called(A[0], "y"), A[2]), v=theirs[0], w=theirs[1])
    assert [row[0] for row in told("vectors-moved", a, b)] == [severity]


@pytest.mark.parametrize(
    "same", [{"gamma": 1.0, "beta": 0.0}, {"gamma": [1.0, 1, 1, 1, 2, 2, 2, 2], "beta": 0.5}]
)
def test_vectors_that_hardly_vary_are_nobodys(same: dict[str, Any]) -> None:
    """Fails if initial values, which all norms share, or a few numbers that repeat, count as those of another norm."""
    a = [norm("x", 0, **same), norm("y", 1)]
    b = [norm("x", 0), replace(norm("y", 1), gamma=a[0].gamma, beta=a[0].beta)]
    assert told("vectors-moved", recording(*a), recording(*b)) == []


def test_what_two_norms_of_a_hold_is_of_neither() -> None:
    """Fails if a vector that A repeats is said to be that of one of both."""
    a = [A[0], replace(A[1], gamma=A[0].gamma), A[2]]
    b = [*a[:2], replace(A[2], gamma=A[0].gamma)]
    assert told("vectors-moved", recording(*a), recording(*b)) == []


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("of_a", [False, True])
def test_a_side_in_half_precision(half: torch.dtype, of_a: bool) -> None:
    """Fails if a conversion hides that norms changed places, or rounding is taken for another place: by torch's own."""

    def stored(record: LayerRecord) -> LayerRecord:
        vectors = {
            name: torch.from_numpy(getattr(record, name)).float().to(half).double().numpy()
            for name in VECTORS
        }
        return replace(record, parameter_dtype=str(half).removeprefix("torch."), **vectors)

    a = [replace(record, parameter_dtype="float32") for record in A]
    b = [called(a[1], "x"), called(a[0], "y"), a[2]]
    sides = [list(map(stored, a)), b] if of_a else [a, list(map(stored, b))]
    ((severity, _, text),) = told("vectors-moved", *(recording(*side) for side in sides))
    assert severity == "critical"
    assert "2 norms" in text
    rounded = recording(*map(stored, a))
    found = [told(rule, recording(*a), rounded) for rule in ("vectors-moved", "channels-reordered")]
    assert found == [[], []]


LENGTHS = np.linspace(1, 2, C)


@pytest.mark.parametrize(
    ("orders", "lengths", "severity", "says"),
    [
        ({"gamma": ORDER, "beta": ORDER}, LENGTHS, "warning", "γ and β have others than running_mean and running_var."),
        ({"gamma": ORDER}, LENGTHS, "warning", "γ has others than β, running_mean and running_var."),
        (dict.fromkeys(VECTORS, ORDER), LENGTHS, "warning", "weights before the norm did not change with them."),
        (dict.fromkeys(VECTORS, ORDER), LENGTHS[ORDER], "info", "those of A in another order."),
        (dict.fromkeys(VECTORS, ORDER), None, "warning", "those of A in another order."),
        ({}, LENGTHS, "", ""),
    ],
)  # fmt: skip
def test_channels_in_another_order(
    orders: dict[str, np.ndarray], lengths: np.ndarray | None, severity: str, says: str
) -> None:
    """Fails if a vector alone in its order passes, or a network that was put into another order throughout is a fault."""
    a = norm("x", 0, LENGTHS if lengths is not None else None)
    b = put(norm("x", 0, lengths), **orders)
    found = told("channels-reordered", recording(a, A[1]), recording(b, A[1]))
    assert [(row[0], row[1]) for row in found] == ([(severity, "x")] if severity else [])
    assert all(says in row[2] for row in found)


def test_an_order_that_other_tensors_may_share() -> None:
    """Fails if a norm whose weights are not known is a fault although other tensors changed with it."""
    a = with_tensors(recording(A[0], A[1]), w=1.0)
    b = with_tensors(recording(put(A[0], **dict.fromkeys(VECTORS, ORDER)), A[1]), w=2.0)
    assert [row[0] for row in told("channels-reordered", a, b)] == ["info"]


KEEP, OTHERS = np.array([0, 2, 3, 5, 6]), np.array([0, 1, 3, 5, 6])


@pytest.mark.parametrize(
    ("of_statistics", "says"),
    [(OTHERS, "γ and β have others than running_mean and running_var."), (KEEP, None)],
)
def test_pruning_that_takes_other_channels(of_statistics: np.ndarray, says: str | None) -> None:
    """Fails if statistics of channels that were removed pass, or pruning that takes the same everywhere is a fault."""
    rows = some_rows(n_channels=len(KEEP))
    kept = {
        name: getattr(A[0], name)[KEEP if name in ("gamma", "beta") else of_statistics] for name in VECTORS
    }
    found = told("channels-reordered", recording(*A), recording(site(rows, "x", **kept), *A[1:]))
    assert [row[0] for row in found] == ["warning"] * bool(says)
    assert all(str(says) in row[2] and "5 of its 8 channels" in row[2] for row in found)


def test_training_moves_no_vector() -> None:
    """Fails if vectors that were trained on are said to be those of A elsewhere."""
    trained = [replace(record, gamma=record.gamma + 0.01, beta=record.beta * 1.1) for record in A]
    found = bnprobe.compare(recording(*A), recording(*trained)).findings
    assert not set(found["rule"]) & {"vectors-moved", "channels-reordered"}


@pytest.mark.parametrize(
    ("layer", "name", "changed", "severity"),
    [
        ("attn.q_norm", "attn.q_proj.weight", False, "warning"),
        ("attn.k_norm", "attn.k_proj.weight", False, "warning"),
        ("attn.norm_q", "attn.q.weight", False, "warning"),
        ("attn.key_layernorm", "attn.key.weight", False, "warning"),
        ("attn.q_norm", "attn.q_proj.weight", True, "info"),
        # weights of another kind, or of another place
        ("attn.q_norm", "attn.k_proj.weight", False, "info"),
        ("attn.q_norm", "other.q_proj.weight", False, "info"),
        ("attn.norm", "attn.q_proj.weight", False, "info"),
    ],
)
def test_norms_of_queries_and_keys_beside_their_weights(
    layer: str, name: str, changed: bool, severity: str
) -> None:
    """Fails if γ per head in another order is a note because any tensor differs, though its own weights are as they were."""
    one = called(A[0], layer)
    other = put(one, **dict.fromkeys(VECTORS, ORDER))
    a = with_tensors(recording(one), **{name: 1.0, "head.weight": 1.0})
    b = with_tensors(recording(other), **{name: 2.0 if changed else 1.0, "head.weight": 2.0})
    assert [row[0] for row in told("channels-reordered", a, b)] == [severity]
