"""What values are made of, on graphs of a few nodes: sums, concatenations, padding and how deep they are followed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bnprobe.graph import producer
from bnprobe.graph.geometry import Geometry, Source
from bnprobe.graph.graph import INPUT, LEAF, SITE, Node
from bnprobe.graph.operations import ACTIVATION, ADD, MARK, PASS
from bnprobe.graph.producer import Known, _flat, _is_bias, _is_same, _with_padding, source_of
from bnprobe.norms import NormLayer

SHAPE = (2, 3, 5, 7)
GAMMA, BETA = np.array([1.0, 2, 3]), np.array([-1.0, 0, 1])
NORMS = {
    (name, 0): Known(NormLayer("batch_norm", "batch", 3, 1e-5), GAMMA, BETA, None, None)
    for name in ("a", "b")
}


def node(part: str, name: str = "", *inputs: Node, shape: tuple[int, ...] = SHAPE, **facts: Any) -> Node:
    return Node(part, name, shape, inputs, facts=facts)


def norm(name: str = "a") -> Node:
    return node(SITE, "norm", site=(name, 0))


def what(values: Node, dim: int | None = 1) -> Source:
    return source_of(values, dim, NORMS)


def test_a_norm_is_known_by_its_site_and_vectors() -> None:
    """Fails if another norm's vectors are handed on, or channels along another dimension are taken for the norm's."""
    found = what(norm())
    assert (found.what, found.site, found.n_channels) == ("norm", "a", 3)
    np.testing.assert_array_equal(found.gamma, GAMMA)
    np.testing.assert_array_equal(found.beta, BETA)
    assert what(norm(), 2).what == "unknown"
    assert what(norm(), None).what == "unknown"
    assert what(norm("stranger")).what == "unknown"
    assert what(node(INPUT)).what == "input"
    assert what(node(LEAF)).what == "unknown"


def test_activations_and_pooling_in_their_order() -> None:
    """Fails if two activations, or a pooling before one, count as the second alone."""
    relu = node(ACTIVATION, "relu", norm())
    pooled = node(MARK, "max_pool", relu, shape=(2, 3, 2, 3))
    assert (what(relu).activation, what(relu).pool) == ("relu", "")
    assert (what(pooled).activation, what(pooled).pool) == ("relu", "max")
    assert what(node(ACTIVATION, "tanh", relu)).what == "unknown"
    assert what(node(ACTIVATION, "tanh", pooled, shape=(2, 3, 2, 3))).what == "unknown"
    assert what(node("other", "avg_pool", pooled, shape=(2, 3, 1, 1))).what == "unknown"
    assert what(node("other", "avg_pool", norm(), shape=(2, 3))).what == "unknown"
    assert what(node("other", "avg_pool", norm(), shape=(2, 3, 1, 1))).pool == "avg"


def test_sums_of_two_terms() -> None:
    """Fails if a term that is spread over positions counts as one of the sum, or nothing known is a sum."""
    found = what(node(ADD, "add", norm("a"), norm("b")))
    assert (found.what, [part.site for part in found.parts]) == ("sum", ["a", "b"])
    half = what(node(ADD, "add", norm("a"), node(LEAF)))
    assert (half.what, [part.what for part in half.parts]) == ("sum", ["norm", "unknown"])
    assert what(node(ADD, "add", node(LEAF), node(LEAF))).what == "unknown"
    assert what(node(ADD, "add", norm("a"), node(LEAF, shape=(3, 1, 1)))).what == "unknown"
    assert what(node(ADD, "add", norm("a"))).what == "unknown"


def test_concatenations() -> None:
    """Fails if more images of the same source are not that source, or channels are counted without all parts."""
    six = (2, 6, 5, 7)
    side = what(node(MARK, "cat", norm("a"), norm("b"), shape=six, dim=1))
    assert (side.what, side.n_channels, [part.site for part in side.parts]) == ("concat", 6, ["a", "b"])
    assert what(node(MARK, "cat", norm("a"), norm("b"), shape=six, dim=-3)).what == "concat"
    assert what(node(MARK, "cat", norm("a"), norm("b"), shape=(2, 7, 5, 7), dim=1)).what == "unknown"
    more = (4, 3, 5, 7)
    assert what(node(MARK, "cat", norm("a"), norm("a"), shape=more, dim=0)).site == "a"
    assert what(node(MARK, "cat", norm("a"), norm("b"), shape=more, dim=0)).what == "unknown"
    assert what(node(MARK, "cat", node(INPUT), node(INPUT), shape=more, dim=-4)).what == "input"
    inner = node(MARK, "cat", norm("a"), norm("b"), shape=six, dim=1)
    nine = what(node(MARK, "cat", inner, norm("a"), shape=(2, 9, 5, 7), dim=1))
    assert [part.site for part in nine.parts] == ["a", "b", "a"]


def padded(pad: tuple[int, ...], *value: Any, n: int, shape: tuple[int, ...] | None = None) -> Source:
    return what(node(PASS, "constant_pad_nd", norm(), shape=shape or (2, n, 5, 7), args=(None, pad, *value)))


def test_channels_of_zeros_beside_a_norm() -> None:
    """Fails if zeros are put on the wrong side, another value counts as zero, or padded positions as channels."""
    found = padded((0, 0, 0, 0, 2, 1), n=6)
    assert (found.what, [part.n_channels for part in found.parts]) == ("concat", [2, 3, 1])
    assert [part.site for part in found.parts] == ["", "a", ""]
    np.testing.assert_array_equal(found.parts[0].gamma, [0, 0])
    np.testing.assert_array_equal(found.parts[0].beta, [0, 0])
    one_side = padded((0, 0, 0, 0, 0, 1), 0, n=4)
    assert [part.n_channels for part in one_side.parts] == [3, 1]
    assert padded((0, 0, 0, 0, 2, 1), 0.5, n=6).what == "unknown"
    assert padded((0, 1, 0, 0, 2, 1), n=6).what == "unknown"
    assert padded((0, 0, 0, 0, 2, 1, 0, 1), n=6).what == "unknown"
    assert padded((0, 0, 1, 0), n=4).what == "unknown"
    # positions alone: the channels are as they were
    assert padded((1, 1), n=3, shape=(2, 3, 5, 9)).site == "a"


@pytest.mark.parametrize(("depth", "known"), [(2, True), (3, False)])
def test_sums_inside_one_another_are_followed_so_deep(
    depth: int, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if the limit of nesting is one less or more than it says."""
    monkeypatch.setattr(producer, "DEEPEST", 2)
    values = norm()
    for _ in range(depth):
        values = node(ADD, "add", values, node(INPUT))
    found = what(values)
    while found.parts:
        found = found.parts[0]
    assert (found.site == "a") is known
    assert producer.source_of(values, 1, NORMS, depth=3).what == "unknown"


def test_sources_without_parts_are_compared() -> None:
    """Fails if arrays make two mentions of one norm differ, or two sums are taken for one."""
    a = Source("norm", site="a", gamma=GAMMA)
    assert _is_same(a, Source("norm", site="a", gamma=GAMMA.copy()))
    assert not _is_same(a, Source("norm", site="b", gamma=GAMMA))
    both = Source("sum", parts=(a, a))
    assert not _is_same(both, both)


@pytest.mark.parametrize("changes", [{"activation": "relu"}, {"pool": "avg"}, {"what": "sum"}])
def test_only_plain_concatenations_are_laid_out(changes: dict[str, str]) -> None:
    """Fails if parts lose the activation or pooling that acts on all of them."""
    a, b = Source("norm", site="a"), Source("norm", site="b")
    plain = Source("concat", parts=(a, b))
    assert _flat([plain, a]) == [a, b, a]
    other = Source(**{"what": "concat", "parts": (a, b), **changes})
    assert _flat([other]) == [other]


def leaf(shape: tuple[int, ...], tensor: bool = True) -> Node:
    return node(LEAF, shape=shape, **({"tensor": torch.zeros(shape)} if tensor else {}))


@pytest.mark.parametrize(
    ("terms", "bias"),
    [
        ((node(INPUT), leaf((7,))), True),
        ((leaf((7,)), node(INPUT)), True),
        ((node(INPUT), node(PASS, "_to_copy", leaf((7,)), shape=(7,))), True),
        ((node(INPUT), leaf((5,))), False),
        ((node(INPUT), leaf((7,), tensor=False)), False),
        ((leaf((7,)), leaf((7,))), False),
        ((node(INPUT),), False),
    ],
)
def test_a_bias_that_is_added_by_itself(terms: tuple[Node, ...], bias: bool) -> None:
    """Fails if a sum with another tensor, or with a vector along another dimension, is taken for a bias."""
    assert _is_bias(node(ADD, "add", *terms)) is bias
    assert not _is_bias(node("mul", "mul", *terms))


GEOMETRY = Geometry((1, 1), ((1, 1), (0, 0)), (1, 1), 1, (9, 13), (9, 11))


@pytest.mark.parametrize(
    ("pad", "value", "expected"),
    [
        ((1, 2, 3, 4), (), ((4, 5), (1, 2))),
        ((1, 2), (), ((1, 1), (1, 2))),
        ((1, 2), (0,), ((1, 1), (1, 2))),
        ((1, 2), (0.5,), None),
        ((1, -2), (), None),
        ((0, 0, 0, 0, 1, 1), (), None),
    ],
)
def test_zeros_right_before_a_convolution_are_its_own(
    pad: tuple[int, ...], value: tuple[float, ...], expected: Any
) -> None:
    """Fails if a side is exchanged, a crop or another value counts as zeros, or channels are padded into positions."""
    before = node(INPUT)
    values = node(PASS, "constant_pad_nd", before, args=(None, pad, *value))
    found, inner = _with_padding(GEOMETRY, values, 2)
    if expected is None:
        assert (found, inner) == (GEOMETRY, values)
    else:
        assert (found.padding, found.input_size, inner) == (expected, (5, 7), before)
    assert _with_padding(GEOMETRY, values, 0) == (GEOMETRY, values)
    turned = Geometry(stride=(1, 1), transposed=True)
    assert _with_padding(turned, values, 2) == (turned, values)
