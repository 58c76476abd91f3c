"""One operation's arguments in words and numbers: activations, scales, dropout, geometry."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from bnprobe.graph.graph import LEAF, Node
from bnprobe.graph.operations import OTHER, clamped, plain, what_is
from bnprobe.graph.record_op import (
    _argument,
    _clip,
    _each,
    _inert,
    _is_number,
    _product,
    _same,
    _trains,
    _with_numbers,
    layer_of,
    made_of_parameters,
)
from graph.watched import follows

X = None
"""The values themselves, which the names do not depend on."""


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [
        (0, None, "relu"),
        (0.0, None, "relu"),
        (1, None, "clamp"),
        (None, 0, "clamp"),
        (None, None, "clamp"),
        (0, 6, "relu6"),
        (0, 5, "hardtanh(0, 5)"),
        (1, 6, "hardtanh(1, 6)"),
        (-1, 1, "hardtanh"),
        (-1, 2, "hardtanh(-1, 2)"),
        (-2, 1, "hardtanh(-2, 1)"),
        (0, torch.ones(1), "clamp"),
    ],
)
def test_clipping_by_its_ends(low: Any, high: Any, name: str) -> None:
    """Fails if an end is taken for another, or one that is not a number for one that is."""
    assert clamped(low, high) == name


@pytest.mark.parametrize(
    ("operation", "args", "kwargs", "name"),
    [
        ("clamp", (X, 0), {}, "relu"),
        ("clamp", (X, None, 6), {"min": 0}, "clamp"),
        ("clamp", (X,), {"min": 0, "max": 6}, "relu6"),
        ("clamp_min", (X, 0), {}, "relu"),
        ("clamp_min", (X, 1), {}, "clamp"),
        ("clamp_max", (X, 0), {}, "clamp"),
        ("clamp_max", (X, 6), {}, "clamp"),
        ("hardtanh", (X,), {}, "hardtanh"),
        ("hardtanh", (X, -2), {}, "hardtanh(-2, 1)"),
        ("hardtanh", (X,), {"max_val": 3}, "hardtanh(-1, 3)"),
        ("hardtanh", (X, 0, 6), {}, "relu6"),
        ("threshold", (X, 0, 0), {}, "relu"),
        ("threshold", (X, 1, 0), {}, "threshold"),
        ("threshold", (X, 0, 1), {}, "threshold"),
    ],
)
def test_spellings_of_clipping(
    operation: str, args: tuple[Any, ...], kwargs: dict[str, Any], name: str
) -> None:
    """Fails if an argument is read from the wrong place, or torch's default from elsewhere."""
    called = "threshold" if operation == "threshold" else "clamp"
    assert _clip(operation, args, kwargs, called) == name


@pytest.mark.parametrize(
    ("operation", "args", "kwargs", "name"),
    [
        ("elu", (X,), {}, "elu"),
        ("elu", (X, 1, 1, 1), {}, "elu"),
        ("elu", (X, 0.5), {}, "elu(0.5)"),
        ("elu", (X, 1.67, 1.05, 1), {}, "selu"),
        ("elu", (X, 1, 1, 0.5), {}, "celu"),
        ("elu", (X, 2, 1, 0.5), {}, "celu(2)"),
        ("celu", (X,), {}, "celu"),
        ("celu", (X, 3), {}, "celu(3)"),
        ("leaky_relu", (X,), {}, "leaky_relu"),
        ("leaky_relu", (X, 0.01), {}, "leaky_relu"),
        ("leaky_relu", (X, 0.2), {}, "leaky_relu(0.2)"),
        ("softplus", (X,), {}, "softplus"),
        ("softplus", (X,), {"beta": 2}, "softplus(2)"),
        ("tanh", (X,), {}, "tanh"),
    ],
)
def test_activations_with_their_numbers(
    operation: str, args: tuple[Any, ...], kwargs: dict[str, Any], name: str
) -> None:
    """Fails if torch's default is printed, or a number that is none of it left out."""
    assert _with_numbers(operation, args, kwargs, operation) == name


@pytest.mark.parametrize(
    ("args", "trains"),
    [
        ((X, 0.5, True), True),
        ((X, 0.5, False), False),
        ((X, 0.0, True), False),
        ((X, 1.0, True), True),
        ((X,), True),
    ],
)
def test_a_dropout_that_drops(args: tuple[Any, ...], trains: bool) -> None:
    """Fails if a dropout in evaluation, or one with p = 0, counts as one that chooses."""
    assert _trains("dropout", args, {}) is trains


def leaf(shape: tuple[int, ...] = (3,), **facts: Any) -> Node:
    return Node(LEAF, "", shape, facts=facts)


def test_arithmetic_with_a_number() -> None:
    """Fails if a sum of two tensors counts as a scale, or a constant of one entry does not."""
    assert _is_number((X, 2), [leaf()])
    assert _is_number((X, X), [leaf(), leaf(())])
    assert not _is_number((X, X), [leaf(), leaf()])
    assert not _is_number((X, X), [leaf(), Node("pass", "", (), (leaf(),))])


@pytest.mark.parametrize(
    ("value", "n", "expected"),
    [
        (None, 2, (7, 7)),
        (3, 2, (3, 3)),
        ((1, 2), 2, (1, 2)),
        ([4], 2, (4, 4)),
        ((5, 6), 2, (5, 6)),
        ([4], 1, (4,)),
    ],
)
def test_one_entry_per_dimension(value: Any, n: int, expected: tuple[int, ...]) -> None:
    """Fails if one number does not stand for all, or a missing one for the default."""
    assert _each(value, n, 7) == expected


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_the_padding_called_same(kernel: int, dilation: int) -> None:
    """Fails if the odd zero stands in front, or dilation counts for the last entry: torch's own output is the judge."""
    ((before, behind),) = _same((kernel,), (dilation,))
    x, weight = torch.arange(1.0, 12.0)[None, None], torch.arange(1.0, kernel + 1)[None, None]
    same = torch.nn.functional.conv1d(x, weight, padding="same", dilation=dilation)
    by_hand = torch.nn.functional.conv1d(
        torch.nn.functional.pad(x, (before, behind)), weight, dilation=dilation
    )
    assert torch.equal(same, by_hand)


def test_arguments_by_place_or_name() -> None:
    """Fails if the place before or after is read, or the default goes before the name."""
    assert _argument(("a", "b"), {"k": "c"}, 1, "k") == "b"
    assert _argument(("a", "b"), {"k": "c"}, 2, "k") == "c"
    assert _argument((), {}, 0, "k", "d") == "d"


def test_arguments_without_their_tensors() -> None:
    """Fails if a tensor is kept alive by the arguments that are remembered, or a number is lost."""
    found = _inert((torch.ones(1), [1, True, "x", None], {"y": torch.ones(1), "z": 2.5}, object()))
    assert found == (None, (1, True, "x", None), {"y": None, "z": 2.5}, None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("relu_", "relu"), ("relu", "relu"), ("__and__", "__and__"), ("_softmax", "_softmax")],
)
def test_names_of_in_place_forms(name: str, expected: str) -> None:
    """Fails if the mark of an in-place form stays, or a name that ends in two underscores loses one."""
    assert plain(name) == expected


W, V, B = torch.zeros(3, 2), torch.zeros(4, 2), torch.zeros(3)


def test_which_side_of_a_product_is_the_weight() -> None:
    """Fails if weight, values or bias of one spelling are read from another's place, or a turned weight is not told."""
    values, weight, bias = (
        Node("pass", "", (4, 2), (Node("input", "", (4, 2)),)),
        leaf(name="w"),
        leaf(name="b"),
    )
    assert _product("linear", (V, W, B), [values, weight, bias]) == (values, weight, W, B, False)
    assert _product("linear", (V, W), [values, weight]) == (values, weight, W, None, False)
    assert _product("addmm", (B, V, W), [bias, values, weight]) == (values, weight, W, B, True)
    assert _product("mm", (V, W), [values, weight]) == (values, weight, W, None, True)
    assert _product("matmul", (V, W), [values, weight]) == (values, weight, W, None, True)
    assert _product("linear", (V,), [values]) is None
    assert _product("mm", (V,), [values]) is None
    assert _product("dot", (V, W), [values, weight]) is None
    assert _product("mm", (V, torch.zeros(2)), [values, weight]) is None
    assert _product("mm", (V, W), [weight, values]) is None
    assert _product("mm", (V, W), [leaf(name="v"), weight]) is None


def test_what_is_made_of_parameters() -> None:
    """Fails if one source that is none is enough, or a chain of views hides one."""
    one, two, other = leaf(name="a"), leaf(name="b"), leaf()
    view = Node("pass", "view", (3,), (one,))
    assert made_of_parameters(view)
    assert made_of_parameters(Node("add", "add", (3,), (view, two)))
    assert not made_of_parameters(Node("add", "add", (3,), (view, other)))
    assert not made_of_parameters(other)
    assert not made_of_parameters(Node("input", "", (3,)))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("conv.weight", "conv"),
        ("a.b.weight", "a.b"),
        ("weight", ""),
        ("conv.parametrizations.weight.0.x", "conv"),
    ],
)
def test_the_module_of_a_weight(name: str, layer: str) -> None:
    """Fails if the last part of a path stays, or a parametrization is taken for the layer."""
    assert layer_of(Node("pass", "t", (3,), (leaf(name=name),))) == layer
    assert layer_of(leaf()) == ""


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("upsample_nearest2d", "upsample"),
        ("_upsample_bilinear2d_aa", "upsample"),
        ("grid_sampler_2d", "upsample"),
        ("grid_sampler_3d", "grid_sampler_3d"),
        ("_unheard_of_", "unheard_of"),
    ],
)
def test_operations_without_a_part_of_their_own(name: str, called: str) -> None:
    """Fails if what is not known is called by the name of another operation."""
    assert what_is(name) == (OTHER, called)


def test_of_several_results_the_values_go_on() -> None:
    """Fails if places of maxima are followed as if they were values, or all but the first part of a split are not."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(4)
            self.eval()

        def forward(self, x: torch.Tensor) -> Any:
            y, places = functional.max_pool2d(self.bn(x), 2, return_indices=True)
            first, second = y.chunk(2, 1)
            return first.relu(), second.sigmoid(), places.float().tanh()

    assert follows(Net(), torch.randn(2, 4, 4, 4))["bn"] == "max_pool, relu | max_pool, sigmoid | unknown"
