"""Which sums are those of a skip and a scaled branch, and what is measured of them, on nodes made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bnprobe.graph.graph import INPUT, LEAF, SITE, Node
from bnprobe.graph.layer_scale import branch_of, measured, scale_of
from bnprobe.graph.operations import ADD, MUL, OTHER, PASS

SHAPE = (2, 3, 5, 7)


def parameter(shape: tuple[int, ...] = (3, 1, 1), name: str = "gamma") -> Node:
    return Node(LEAF, "", shape, facts={"name": name, "tensor": torch.zeros(shape)})


def view(node: Node, shape: tuple[int, ...] | None = None) -> Node:
    return Node(PASS, "view", shape or node.shape, (node,))


def values() -> Node:
    return Node(OTHER, "values", SHAPE)


def product(*factors: Node) -> Node:
    return Node(MUL, "mul", SHAPE, factors)


BRANCH = (
    torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 2, 3])[:, None, None]
)
SKIP = 5 + 4 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))


def test_what_a_scale_is() -> None:
    """Fails if a factor that is no parameter is a scale, two parameters are one, or a view hides either."""
    gamma, x = parameter(), values()
    for factor in (gamma, view(view(gamma))):
        for term in (product(x, factor), product(factor, x)):
            assert scale_of(term) == (term, factor, "gamma")
            assert scale_of(view(view(term))) == (term, factor, "gamma")
    assert scale_of(x) is None
    assert scale_of(view(x)) is None
    assert scale_of(product(x, values())) is None
    assert scale_of(product(gamma, parameter(name="other"))) is None
    assert scale_of(product(gamma)) is None
    assert scale_of(product(x, Node(LEAF, "", (3, 1, 1)))) is None
    assert (
        scale_of(product(x, Node(OTHER, "sin", (3, 1, 1), facts={"name": "gamma", "tensor": BRANCH}))) is None
    )
    assert scale_of(Node(ADD, "add", SHAPE, (x, gamma))) is None
    assert scale_of(Node(PASS, "alias", SHAPE)) is None


@pytest.mark.parametrize("scaled_first", [True, False])
@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((3, 1, 1), (0, 2, 3)),
        ((1, 3, 1, 1), (0, 2, 3)),
        ((7,), (0, 1, 2)),
        ((5, 7), (0, 1)),
        ((3, 1, 7), (0, 2)),
        ((1,), (0, 1, 2, 3)),
        ((), (0, 1, 2, 3)),
    ],
)
def test_both_variances_are_means_over_channels(
    shape: tuple[int, ...], dims: tuple[int, ...], scaled_first: bool
) -> None:
    """Fails if branch and skip change places, a divisor is n - 1, or values of other channels are pooled."""
    branch, skip = product(values(), parameter(shape)), values()
    terms = (branch, skip) if scaled_first else (skip, branch)
    args = (BRANCH, SKIP) if scaled_first else (SKIP, BRANCH)
    found = measured(args, terms, BRANCH + SKIP, in_place=False)
    assert (found["scale"], found["branch"], found["skip"]) == ("gamma", branch, skip)
    expected = [side.double().numpy().var(axis=dims).mean() for side in (BRANCH, SKIP)]
    assert [float(one) for one in found["variances"]] == pytest.approx(expected, rel=1e-5)
    assert expected[0] != pytest.approx(BRANCH.double().numpy().var(axis=(0, 2, 3), ddof=1).mean(), rel=1e-5)


def test_in_place_the_skip_is_what_was_there_before() -> None:
    """Fails if the sum that stands in its place is taken for the skip, or a branch that was overwritten is read."""
    branch, skip, total = product(values(), parameter()), values(), SKIP + BRANCH
    found = measured((total, BRANCH), (skip, branch), total, in_place=True)
    expected = [np.var(side.double().numpy(), axis=(0, 2, 3)).mean() for side in (BRANCH, SKIP)]
    assert [float(one) for one in found["variances"]] == pytest.approx(expected, rel=1e-5)
    assert measured((total, SKIP), (branch, skip), total, in_place=True) == {}


def test_sums_of_other_kinds() -> None:
    """Fails if two branches, none, a third term, an offset, or a branch that is spread out are measured."""
    branch, skip, total = product(values(), parameter()), values(), BRANCH + SKIP
    both = (BRANCH, SKIP)

    def is_measured(args: tuple[Any, ...], sources: tuple[Node, ...], out: Any = total) -> bool:
        return bool(measured(args, sources, out, in_place=False))

    assert is_measured(both, (branch, skip))
    assert not is_measured(both, (branch, product(values(), parameter())))
    assert not is_measured(both, (values(), skip))
    assert not is_measured((*both, SKIP), (branch, skip, values()))
    assert not is_measured((BRANCH,), (branch,))
    assert not is_measured(both, (branch, parameter()))
    assert not is_measured(both, (branch, view(parameter())))
    assert not is_measured(both, (view(parameter()), branch))
    assert is_measured(both, (branch, Node(LEAF, "", SHAPE)))
    assert is_measured((BRANCH, SKIP[:1]), (branch, skip))
    assert not is_measured((BRANCH[:1], SKIP), (branch, skip))
    assert not is_measured((SKIP, BRANCH[:1]), (skip, branch))
    assert not is_measured(both, (branch, skip), (total,))


def total(branch: Node, skip: Node, scale: str, *variances: float) -> Node:
    facts = {"scale": scale, "branch": branch, "skip": skip, "variances": [Tensor([v])[0] for v in variances]}
    return Node(ADD, "add", SHAPE, (branch, skip), facts={"scaled": facts})


def norm(x: Node) -> Node:
    return Node(SITE, "norm", SHAPE, (x,))


def test_the_branch_that_a_norm_is_the_last_of() -> None:
    """Fails if the norm before the last is meant, one of the skip, or one of another branch."""
    x = Node(INPUT, "", SHAPE)
    first = norm(x)
    last = norm(Node(OTHER, "conv", SHAPE, (first,)))
    hidden = Node(OTHER, "conv", SHAPE, (last,))
    one = total(product(hidden, parameter()), x, "one", 2.0, 3.0)
    after = norm(one)
    other = total(product(view(after), parameter()), one, "other", 5.0, 7.0)
    sums = [one, other]
    assert branch_of(last, sums) == ("one", 2.0, 3.0)
    assert branch_of(after, sums) == ("other", 5.0, 7.0)
    assert branch_of(first, sums) is None
    assert branch_of(last, []) is None
    assert branch_of(after, sums[:1]) is None


@pytest.mark.parametrize("through_a_view", [True, False])
def test_a_norm_whose_output_is_also_the_skip_ends_no_branch(through_a_view: bool) -> None:
    """Fails if the norm before a whole block, as after an embedding, is one of its branch."""
    before = norm(Node(INPUT, "", SHAPE))
    skip = view(before) if through_a_view else before
    assert branch_of(before, [total(product(before, parameter()), skip, "gamma", 1.0, 1.0)]) is None


def test_every_way_up_a_branch_is_walked() -> None:
    """Fails if one of two norms side by side is passed over, or a diamond is walked for ever."""
    x = Node(INPUT, "", SHAPE)
    left, right = norm(x), norm(x)
    both = Node(OTHER, "cat", SHAPE, (view(left), view(right)))
    diamond = Node(OTHER, "gate", SHAPE, (view(both), both))
    sums = [total(product(diamond, parameter()), x, "gamma", 1.0, 2.0)]
    assert branch_of(left, sums) == branch_of(right, sums) == ("gamma", 1.0, 2.0)
