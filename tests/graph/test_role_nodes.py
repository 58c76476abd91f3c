"""What a norm is for, on graphs of a few nodes: attention, sums of the stream, and where each walk ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bnprobe.graph.attention import first_seen
from bnprobe.graph.graph import INPUT, LEAF, SITE, Node
from bnprobe.graph.operations import (
    ACTIVATION,
    ADD,
    MARK,
    MUL,
    OTHER,
    PASS,
    PRODUCT,
    SCALE,
    WEIGHTS,
    WHOLE_ATTENTION,
)
from bnprobe.graph.role import (
    MOST_ABOVE,
    MOST_IN_BLEND,
    MOST_STEPS,
    MOST_TO_SOFTMAX,
    _comes_from_softmax,
    _mixes_positions,
    _softmax_after,
    reads_stream,
    role_of,
    skip_of,
)

SHAPE = (2, 5, 4)


def op(part: str, name: str, *inputs: Node, **facts: Any) -> Node:
    return Node(part, name, SHAPE, tuple(dict.fromkeys(inputs)), facts={"operation": name, **facts})


def start() -> Node:
    return op(INPUT, "")


def norm(x: Node, name: str = "n") -> Node:
    return op(SITE, "norm", x, site=(name, 0))


def linear(x: Node) -> Node:
    return op(WEIGHTS, "linear", x, weight=torch.zeros(4, 4))


def view(x: Node) -> Node:
    return op(PASS, "view", x)


def add(*terms: Node) -> Node:
    return op(ADD, "add", *terms)


def attention(q: Node, k: Node, v: Node, **facts: Any) -> Node:
    return op(OTHER, "attention", q, k, v, operands=[q, k, v], **facts)


def product(a: Node, b: Node, *added: Node, **facts: Any) -> Node:
    return op(PRODUCT, "matmul", *added, a, b, operands=[*added, a, b], **facts)


def softmax(x: Node, **facts: Any) -> Node:
    return op(ACTIVATION, "softmax", x, **facts)


def by_hand(q: Node, k: Node, v: Node) -> Node:
    """Attention as its two products."""
    return product(softmax(op(SCALE, "scale", product(q, k))), v)


def mlp(x: Node) -> Node:
    return linear(op(ACTIVATION, "relu", linear(x)))


def role(site: Node, *outputs: Node) -> str:
    return role_of(site, set(outputs))[0]


Attend = Callable[[Node, Node, Node], Node]


@pytest.mark.parametrize("attend", [attention, by_hand])
def test_the_roles_of_a_block_before_its_norms(attend: Attend) -> None:
    """Fails if the norm before attention is that of an MLP, the last one is another, or one of queries is one of keys."""
    x = linear(start())
    first = norm(x)
    queries, keys = norm(linear(first)), norm(linear(first))
    x = add(x, linear(attend(view(queries), keys, linear(first))))
    second = norm(x)
    x = add(x, mlp(second))
    last = norm(x)
    assert [role(one, last) for one in (first, queries, keys, second, last)] == [
        "attention",
        "query",
        "key",
        "MLP",
        "final",
    ]
    assert role(last) == "MLP output"
    assert role(last, linear(last)) == "final"


@pytest.mark.parametrize("attend", [attention, by_hand])
def test_norms_after_sums_and_at_the_end_of_branches(attend: Attend) -> None:
    """Fails if what the last branch was is read off the wrong term, or from before the skip."""
    embedded = norm(linear(start()))
    q, k, v = (linear(embedded) for _ in "qkv")
    after_attention = norm(add(embedded, linear(attend(q, k, v))))
    after_mlp = norm(add(mlp(after_attention), after_attention))
    assert [role(one, after_mlp) for one in (embedded, after_attention, after_mlp)] == [
        "embedding",
        "attention output",
        "final",
    ]
    x = linear(start())
    before = norm(x)
    ends_attention = norm(linear(attend(*(linear(before) for _ in "qkv"))))
    x = add(x, ends_attention)
    ends_mlp = norm(mlp(norm(x)))
    x = add(x, view(ends_mlp))
    assert (role(ends_attention, x), role(ends_mlp, x)) == ("attention output", "MLP output")


@pytest.mark.parametrize("attend", [attention, by_hand])
def test_cross_attention(attend: Attend) -> None:
    """Fails if the norm that only makes queries is one of self-attention, or the encoder's last norm is one of keys."""
    encoded = linear(start())
    encoded = add(encoded, mlp(norm(encoded)))
    end = norm(encoded)
    x = linear(start())
    crossing = norm(x)
    branch = linear(attend(linear(crossing), linear(end), linear(end)))
    after = norm(add(x, branch))
    assert role(end) == "encoder end"
    assert role(crossing) == "cross-attention"
    more = add(after, mlp(after))
    assert role(after, more) == "cross-attention output"


def test_attention_and_mlp_side_by_side() -> None:
    """Fails if x + attention + mlp is no sum of the stream, or the norm is for one of both."""
    x = linear(start())
    one = norm(x)
    branch = linear(attention(linear(one), linear(one), linear(one)))
    total = add(add(x, branch), mlp(one))
    assert role(one, total) == "attention and MLP"
    assert skip_of(total) is not None


def test_a_norm_without_weights_around_it_and_one_within_a_branch() -> None:
    """Fails if a norm inside an MLP is the one before it, or one of plain layers has a role."""
    x = linear(start())
    within = norm(linear(norm(x)))
    total = add(x, linear(within))
    assert role(within, total) == "inner"
    plain = norm(linear(start()))
    assert role(plain, linear(plain)) == ""
    assert role(plain, plain) == ""
    followed = norm(linear(start()))
    op(SITE, "norm", followed)
    assert role(followed) == ""


@pytest.mark.parametrize("branch", ["recurrent", "cumsum", "counts", "conv", "conv of one"])
def test_mixers(branch: str) -> None:
    """Fails if running counts mix positions, or a convolution along time does not."""
    x = linear(start())
    site = norm(x)
    y = linear(site)
    y = {
        "recurrent": lambda: op(OTHER, "recurrent", y),
        "cumsum": lambda: op(OTHER, "cumsum", y, of_numbers=True),
        "counts": lambda: op(OTHER, "cumsum", y, of_numbers=False),
        "conv": lambda: op(WEIGHTS, "conv", y, weight=torch.zeros(4, 4, 3)),
        "conv of one": lambda: op(WEIGHTS, "conv", y, weight=torch.zeros(4, 4, 1)),
    }[branch]()
    total = add(x, linear(y))
    assert role(site, total) == ("MLP" if branch in ("counts", "conv of one") else "mixer")


@pytest.mark.parametrize(
    ("kernel", "mixes"),
    [((1,), False), ((2,), True), ((1, 1), False), ((3, 1), True), ((1, 3), True), ((), False)],
)
def test_kernels_that_see_several_positions(kernel: tuple[int, ...], mixes: bool) -> None:
    """Fails if a kernel along one of two dimensions mixes nothing, or channels are positions."""
    assert _mixes_positions(op(WEIGHTS, "conv", weight=torch.zeros(5, 4, *kernel))) is mixes
    assert not _mixes_positions(op(WEIGHTS, "linear", weight=torch.zeros(5, 4)))
    assert not _mixes_positions(op(OTHER, "fft"))


def test_sharpness_is_that_of_the_queries() -> None:
    """Fails if attention that a norm gives its keys only counts, or the first that has a number is passed over."""

    def found(**facts: Any) -> tuple[float, float, float]:
        site = norm(linear(start()))
        attention(linear(site), linear(start()), linear(start()))
        attention(linear(site), linear(start()), linear(start()), **facts)
        attention(linear(start()), linear(site), linear(start()), sharpness=(9.0, 9.0, 9.0))
        return first_seen(role_of(site, set())[1])

    assert found(sharpness=(torch.tensor(2.0), torch.tensor(0.5), 1.0)) == (2.0, 0.5, 1.0)
    assert all(map(math.isnan, found()))
    assert all(map(math.isnan, found(sharpness=None)))
    site = norm(linear(start()))
    softmax(product(linear(site), linear(start())), sharpness=(3.0, 0.25, 2.0))
    assert first_seen(role_of(site, set())[1]) == (3.0, 0.25, 2.0)


def test_a_whole_attention_takes_its_input_as_all_three() -> None:
    """Fails if projections and attention in one operation are no attention."""
    x = linear(start())
    site = norm(x)
    whole = op(OTHER, "linear", site, operands=[site, site, site], operation=WHOLE_ATTENTION)
    assert role(site, add(x, whole)) == "attention"


def test_a_product_that_adds_takes_its_last_two_as_queries_and_keys() -> None:
    """Fails if the mask that is added stands for the queries."""
    x, mask = linear(start()), op(LEAF, "")
    queries, keys, values = (norm(linear(norm(x))) for _ in "qkv")
    total = add(x, linear(product(softmax(product(queries, keys, mask)), values)))
    assert (role(queries, total), role(keys, total), role(values, total)) == ("query", "key", "key")


def sum_of_stream(x: Node) -> tuple[Node, Node]:
    """x + branch(x), and its skip."""
    return add(mlp(norm(x)), view(x)), x


def test_which_term_of_a_sum_is_the_skip() -> None:
    """Fails if a view hides the skip, the branch is taken for it, or a sum of two layers of one input has one."""
    x = linear(start())
    total, skip = sum_of_stream(x)
    assert skip_of(total) is skip
    assert skip_of(total) is total.facts["skip"]
    assert skip_of(add(linear(x), mlp(x))) is None
    assert skip_of(add(x, op(LEAF, ""))) is None
    assert skip_of(add(op(MARK, "dropout", x), linear(x))) is x
    assert skip_of(add(op(MARK, "cat", x), linear(x))) is None


def test_a_skip_that_numbers_multiply() -> None:
    """Fails if α x + branch(x), as in DeepNorm, is no sum of the stream, or the norm after it has no role."""
    x = linear(start())
    scaled = op(SCALE, "scale", view(x))
    total = add(linear(attention(linear(x), linear(x), linear(x))), scaled)
    after = norm(total)
    assert skip_of(total) is x
    assert role(after, add(op(SCALE, "scale", after), mlp(after))) == "attention output"
    before = norm(x)
    add(op(SCALE, "scale", x), mlp(before))
    assert reads_stream(before)


@pytest.mark.parametrize("factor", [MUL, SCALE])
def test_a_norm_whose_output_is_gated_before_the_sum(factor: str) -> None:
    """Fails if x + gate · norm(branch(x)) makes the norm one inside the branch."""
    x = linear(start())
    end = norm(linear(attention(*(linear(norm(x)) for _ in "qkv"))))
    gate = (op(LEAF, ""),) if factor == MUL else ()
    assert role(end, add(x, view(op(factor, factor, *gate, end)))) == "attention output"


def shifted(x: Node) -> Node:
    """The token before, less this one, times how much of it is taken: what RWKV adds to a token."""
    difference = op(OTHER, "sub", op(PASS, "constant_pad_nd", x), x)
    return op(MUL, "mul", difference, op(LEAF, ""))


def test_a_sum_with_the_token_before_is_no_sum_of_the_stream() -> None:
    """Fails if a token mixed with the one before it is a stream of its own, so that its norm begins one."""
    x = linear(start())
    site = norm(x)
    mixed = add(site, shifted(site))
    assert skip_of(mixed) is None
    y = op(OTHER, "cumsum", linear(mixed), of_numbers=True)
    assert role(site, add(x, linear(y))) == "mixer"


def test_a_sum_is_a_blend_where_all_of_its_terms_are() -> None:
    """Fails if a branch that adds its own input is no branch."""
    x = linear(start())
    assert skip_of(add(x, add(x, mlp(x)))) is x
    assert skip_of(add(x, add(shifted(x), view(x)))) is None


@pytest.mark.parametrize("n", [0, 1])
def test_what_may_blend_is_walked_so_far(n: int) -> None:
    """Fails if one node more is walked up what may be the term itself, or one fewer."""
    x = moved = linear(start())
    for _ in range(MOST_IN_BLEND + n):
        moved = op(MARK, "cat", moved)
    assert (skip_of(add(x, moved)) is None) is (n == 0)


@pytest.mark.parametrize("n", [0, 1])
def test_a_branch_of_so_many_nodes(n: int) -> None:
    """Fails if a branch is walked further up than to the last node that is looked at, or not that far."""
    x = start()
    branch = x
    for _ in range(MOST_ABOVE - 1 + n):
        branch = op(ACTIVATION, "relu", branch)
    assert (skip_of(add(x, branch)) is x) is (n == 0)


@pytest.mark.parametrize("n", [0, 1])
def test_a_norm_is_followed_so_many_nodes(n: int) -> None:
    """Fails if one node more is walked from a norm, or one fewer."""
    x = linear(start())
    site = end = norm(x)
    end = linear(end)
    for _ in range(MOST_STEPS - 2 + n):
        end = op(PASS, "view", end)
    total = add(x, end)
    total.facts["skip"] = x
    assert (role(site, total) == "MLP") is (n == 0)


@pytest.mark.parametrize("n", [0, 1])
def test_the_softmax_of_scores_is_looked_for_so_far(n: int) -> None:
    """Fails if one operation more is looked past, or one fewer: the product itself is the first."""
    scores = node = product(start(), start())
    for _ in range(MOST_TO_SOFTMAX - 1 + n):
        node = op(SCALE, "scale", node)
    end = softmax(node)
    assert (_softmax_after(scores) is end) is (n == 0)


@pytest.mark.parametrize(
    ("part", "name", "is_on_the_way"),
    [
        (PASS, "view", True),
        (SCALE, "scale", True),
        (ADD, "add", True),
        (MUL, "mul", True),
        (OTHER, "div", True),
        (OTHER, "where", True),
        (OTHER, "masked_fill", True),
        (ACTIVATION, "tanh", True),
        (ACTIVATION, "relu", False),
        (WEIGHTS, "linear", False),
        (OTHER, "fft", False),
    ],
)
def test_what_stands_between_scores_and_their_softmax(part: str, name: str, is_on_the_way: bool) -> None:
    """Fails if scores that are capped or masked are no attention, or a layer on scores is passed over."""
    scores = product(start(), start())
    op(PASS, "view", scores)
    end = softmax(op(part, name, scores))
    assert (_softmax_after(scores) is end) is is_on_the_way
    assert _softmax_after(product(start(), start())) is None


def test_values_that_come_from_a_softmax() -> None:
    """Fails if another activation makes shares, dropout or a view hides them, or what is called so by chance is one."""
    shares = softmax(start())
    assert _comes_from_softmax(shares)
    assert _comes_from_softmax(op(MARK, "dropout", view(shares)))
    assert not _comes_from_softmax(op(ACTIVATION, "relu", start()))
    assert not _comes_from_softmax(op(OTHER, "softmax", start()))
    assert not _comes_from_softmax(op(MARK, "cat", shares))
    assert not _comes_from_softmax(op(PASS, "alias"))


@pytest.mark.parametrize("between", [[], ["view"], ["view", "dropout"]])
def test_a_norm_that_reads_the_stream(between: list[str]) -> None:
    """Fails if what goes on beside a norm is not seen past views, or a sum that it does not skip to counts."""
    x = linear(start())
    site, skip = norm(x), x
    for name in between:
        skip = view(skip) if name == "view" else op(MARK, "dropout", skip)
    assert not reads_stream(site)
    add(skip, mlp(site))
    assert reads_stream(site)
    other = linear(start())
    beside = norm(other)
    add(op(ACTIVATION, "relu", other), mlp(beside))
    add(other, op(LEAF, ""))
    assert not reads_stream(beside)


def test_what_happens_inside_another_norm_is_its_own_affair() -> None:
    """Fails if the attention or the sums that a norm computes for itself are the role of the one before."""
    x = linear(start())
    site = norm(x)
    y = linear(site)
    inner = Node(ADD, "add", SHAPE, (y, x), (("other", 0),))
    inner.facts["skip"] = x
    assert role(site, inner) == ""
