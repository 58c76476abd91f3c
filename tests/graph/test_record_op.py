"""One operation's arguments in words and numbers: activations, scales, dropout, geometry."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from bnprobe.graph.geometry import Geometry
from bnprobe.graph.graph import INPUT, LEAF, Node
from bnprobe.graph.operations import OTHER, clamped, plain, what_is
from bnprobe.graph.record_op import (
    Graph,
    NotTraceable,
    _argument,
    _clip,
    _each,
    _geometry,
    _inert,
    _is_number,
    _product,
    _same,
    _signature,
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


IN, KERNEL, OUT = torch.zeros(2, 3, 9, 11), torch.zeros(6, 3, 3, 4), torch.zeros(2, 6, 7, 8)
AS_USUAL = {
    "stride": (1, 1),
    "padding": ((0, 0), (0, 0)),
    "dilation": (1, 1),
    "groups": 1,
    "transposed": False,
}
ODD = {"stride": (2, 1), "padding": ((1, 1), (2, 2)), "dilation": (3, 1), "groups": 3, "transposed": False}
BIAS = None


@pytest.mark.parametrize(
    ("name", "more", "kwargs", "expected"),
    [
        ("conv2d", (), {}, AS_USUAL),
        ("conv2d", (BIAS, (2, 1), (1, 2), (3, 1), 3), {}, ODD),
        ("conv2d", (), {"stride": (2, 1), "padding": (1, 2), "dilation": (3, 1), "groups": 3}, ODD),
        ("conv2d", (BIAS, 2, 1, 3), {}, {"stride": (2, 2), "padding": ((1, 1), (1, 1)), "dilation": (3, 3)}),
        ("conv2d", (BIAS, 1, "same", (1, 3)), {}, {"padding": ((1, 1), (4, 5)), "dilation": (1, 3)}),
        ("conv2d", (BIAS, 1, "valid"), {}, {}),
        ("conv2d", (), {"padding": "same"}, {"padding": ((1, 1), (1, 2))}),
        ("convolution", (BIAS, (2, 1), (1, 2), (3, 1), False, (0, 0), 3), {}, ODD),
        ("_convolution", (BIAS, (2, 1), (1, 2), (3, 1), False, (0, 0), 3, True), {}, ODD),
        (
            "convolution_overrideable",
            (BIAS, (2, 1), (1, 2), (3, 1), True, (1, 0), 3),
            {},
            {**ODD, "transposed": True, "output_padding": (1, 0)},
        ),
        (
            "conv_transpose2d",
            (BIAS, (2, 1), (1, 2), (1, 0), 3, (3, 1)),
            {},
            {**ODD, "transposed": True, "output_padding": (1, 0)},
        ),
        ("conv_transpose2d", (), {}, {"transposed": True, "output_padding": (0, 0)}),
    ],
)  # fmt: skip
def test_the_geometry_of_every_spelling(
    name: str, more: tuple[Any, ...], kwargs: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Fails if an argument is read from another's place, or one that is missing is not torch's default."""
    wanted: dict[str, Any] = {**AS_USUAL, **expected, "input_size": (9, 11), "output_size": (7, 8)}
    assert _geometry(name, (IN, KERNEL, *more), kwargs, OUT) == Geometry(**wanted)


def test_the_geometry_of_a_lone_image() -> None:
    """Fails if sizes are counted from the front, where the batch is missing."""
    found = _geometry("conv2d", (IN[0], KERNEL), {}, (OUT[0], None))
    assert found is not None
    assert (found.input_size, found.output_size) == ((9, 11), (7, 8))


def test_which_arguments_an_operation_writes() -> None:
    """Fails if an operation in place is not known to write its first argument, or another is thought to."""
    aten = torch.ops.aten
    assert _signature(aten.add_.Tensor) == ("add", ((0, "self"),))
    assert _signature(aten.add.Tensor) == ("add", ())
    assert _signature(aten.tanh.out) == ("tanh", ((1, "out"),))
    assert _signature(len) == ("len", ())


def graph() -> Graph:
    return Graph({})


def test_a_tensor_has_one_node_and_one_that_was_named_its_name() -> None:
    """Fails if a parameter is not known by its path, or another tensor is kept alive by the graph."""
    w, x = nn.Parameter(torch.zeros(3)), torch.zeros(4)
    found = Graph({id(w): "conv.weight"})
    assert found.node_of(w).facts == {"name": "conv.weight", "tensor": w}
    assert found.node_of(x).facts == {}
    assert found.node_of(x) is found.node_of(x)
    assert (found.node_of(x).part, found.node_of(x).shape) == (LEAF, (4,))


def test_a_tensor_of_a_class_of_its_own_has_no_known_origin() -> None:
    """Fails if what only wraps other tensors is taken for values with a storage; a parameter is one, whatever its class."""

    class Wrapped(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            raise NotImplementedError

    with pytest.raises(NotTraceable, match="Wrapped"):
        graph().node_of(torch.zeros(3).as_subclass(Wrapped))
    assert graph().node_of(nn.Parameter(torch.zeros(3))).part == LEAF


def run(found: Graph, name: str, *args: Any, **kwargs: Any) -> tuple[Any, Node]:
    """One operation of torch's, carried out and told to the graph; its output and the node of that."""
    func = getattr(torch.ops.aten, name.partition(".")[0])
    func = getattr(func, name.partition(".")[2] or "default")
    sources = found.before(args, kwargs)
    out = func(*args, **kwargs)
    found.after(func, args, kwargs, sources, out)
    first = out[0] if isinstance(out, tuple | list) else out
    return out, found.node_of(first)


def test_an_operation_is_a_node_of_what_went_into_it() -> None:
    """Fails if an input is forgotten or counted twice, or the name of the operation is lost."""
    found, x, y = graph(), torch.ones(2, 3), torch.ones(2, 3)
    _, node = run(found, "add.Tensor", x, y)
    assert (node.part, node.inputs) == ("add", (found.node_of(x), found.node_of(y)))
    _, twice = run(found, "add.Tensor", x, x)
    assert twice.inputs == (found.node_of(x),)
    _, number = run(found, "mul.Tensor", x, 2.0)
    assert (number.part, number.name) == ("scale", "scale")
    _, gate = run(found, "mul.Tensor", x, y)
    assert gate.part == "mul"
    assert node.facts["operation"] == "add"


def test_only_plain_sums_outside_norms_are_measured() -> None:
    """Fails if products, sums with a factor, or those inside a norm are looked at as sums of a branch and its skip."""
    found, x, y = graph(), torch.ones(2, 3), torch.ones(2, 3)
    assert "scaled" in run(found, "add.Tensor", x, y)[1].facts
    assert "scaled" not in run(found, "mul.Tensor", x, y)[1].facts
    assert "scaled" not in run(found, "add.Tensor", x, y, alpha=2)[1].facts
    found.norm_begins(("bn", 0), x)
    assert "scaled" not in run(found, "add.Tensor", x, y)[1].facts


def test_an_operation_in_place_makes_other_values_of_the_same_tensor() -> None:
    """Fails if what a tensor was before is taken for what it is now."""
    found, x = graph(), torch.ones(2, 3)
    before = found.node_of(x)
    _, node = run(found, "relu_", x)
    assert found.node_of(x) is node
    assert (node.part, node.name, node.inputs) == ("activation", "relu", (before,))
    assert before.consumers == [node]


def test_values_that_are_copied_are_those_of_the_source() -> None:
    """Fails if what is copied into a tensor is taken for what stood there."""
    found, x, y = graph(), torch.zeros(3), torch.ones(3)
    _, node = run(found, "copy_", x, y)
    assert (node.part, node.inputs) == ("pass", (found.node_of(y),))


def test_results_beside_the_first_are_aside() -> None:
    """Fails if places of maxima count as values."""
    found, x = graph(), torch.ones(1, 1, 4, 4)
    (_, places), node = run(found, "max_pool2d_with_indices", x, [2, 2])
    assert (node.name, found.node_of(places).name) == ("max_pool", "aside")


@pytest.mark.parametrize(
    ("p", "training", "part"), [(0.5, True, "mark"), (0.5, False, "pass"), (0.0, True, "pass")]
)
def test_a_dropout_at_rest_hands_values_on(p: float, training: bool, part: str) -> None:
    """Fails if a dropout that drops nothing is named, or one that drops is not."""
    found = graph()
    _, node = run(found, "dropout", torch.ones(3), p, training)
    assert node.part == part


def test_weights_are_found_with_their_layer_and_bias() -> None:
    """Fails if weight and bias change places, values have a weight among their inputs, or the call is not kept."""
    w, b, x = (nn.Parameter(torch.zeros(s)) for s in ((4, 3), (4,), (2, 3)))
    found = Graph({id(w): "fc.weight", id(b): "fc.bias"})
    with torch.no_grad():
        values = x.detach().clone()
        found.model_begins({"x": values})
        turned = run(found, "t", w)[0]
        _, node = run(found, "addmm", b, values, turned)
    assert (node.part, node.name, node.facts["layer"]) == ("weights", "linear", "fc")
    assert (node.facts["turned"], node.facts["bias"] is b, node.inputs) == (
        True,
        True,
        (found.node_of(values),),
    )
    _, direct = run(found, "linear", values, w, b)
    assert (direct.part, direct.name) == ("weights", "linear")
    assert direct.facts["layer"] == "fc"
    assert direct.facts["weight"] is w
    assert direct.facts["bias"] is b
    assert direct.facts["bias_node"] is found.node_of(b)
    assert direct.inputs == (found.node_of(values),)
    assert found.node_of(values).part == INPUT
    assert direct in found.weighted


def test_a_concatenation_knows_its_dimension() -> None:
    """Fails if a dimension that is given by name, or not at all, is another one."""
    found, x = graph(), torch.ones(2, 3)
    assert run(found, "cat", [x, x], 1)[1].facts["dim"] == 1
    assert run(found, "cat", [x, x], dim=-1)[1].facts["dim"] == -1
    assert run(found, "cat", [x, x])[1].facts["dim"] == 0


def test_what_happens_inside_a_norm_is_inside() -> None:
    """Fails if a norm's own operations count as the model's, its output is not its own, or a call that failed stays open."""
    found, x = graph(), torch.ones(2, 3)
    found.norm_begins(("a", 0), x)
    _, inner = run(found, "mul.Tensor", x, 2.0)
    found.norm_begins(("b", 0), x)  # and fails
    y, last = run(found, "add.Tensor", x, x)
    found.norm_ends(("a", 0), y)
    assert (inner.inside, last.inside) == ((("a", 0),), (("a", 0), ("b", 0)))
    site = found.node_of(y)
    assert (site.part, site.inputs, site.inside, site.facts) == (
        "site",
        (found.node_of(x),),
        (),
        {"site": ("a", 0)},
    )
    assert found.sites == {("a", 0): site}
    found.norm_ends(("c", 0), y)
    assert list(found.sites) == [("a", 0)]
    found.model_ends([y])
    assert found.outputs == [site]


def test_parameters_deep_down() -> None:
    """Fails if a long chain of views, as of a network of a thousand layers, exceeds what Python can nest."""
    for start, made in ((leaf(name="w"), True), (Node(INPUT, "", (3,)), False)):
        node = start
        for _ in range(3000):
            node = Node("add", "add", (3,), (leaf(name="b"), Node("pass", "view", (3,), (node,))))
        assert made_of_parameters(node) is made
    assert not made_of_parameters(Node("other", "arange", (3,), facts={"name": "w"}))


def test_views_of_what_a_norm_wrote_are_its_output() -> None:
    """Fails if a view that was there before the norm ended is still what the norm's own operations made."""
    found, y = graph(), torch.ones(2, 6)
    view = y[:, :3]
    found.norm_begins(("bn", 0), torch.ones(2, 6))
    run(found, "mul_.Tensor", y, torch.ones(2, 6))
    inner = found.node_of(view)
    found.norm_ends(("bn", 0), y)
    assert found.node_of(view) is not inner
    assert found.node_of(view).inputs == (found.sites["bn", 0],)


def test_the_padding_of_an_operation_that_arrives_whole() -> None:
    """Fails if a value other than zero counts as zeros, or a mirrored border as one of a constant."""
    found, x = graph(), torch.ones(1, 2, 5)
    for args, value in (
        ((x, [1, 2]), 0),
        ((x, [1, 2], "constant", 1.5), 1.5),
        ((x, [1, 2], "constant", None), 0),
    ):
        node = padded(found, *args)
        assert (node.part, node.name, node.facts["args"]) == (
            "pass",
            "constant_pad_nd",
            (None, (1, 2), value),
        )
    by_name = padded(found, x, [1, 2], mode="constant", value=2.5)
    assert by_name.facts["args"] == (None, (1, 2), 2.5)
    for kwargs in ({"mode": "reflect"}, {"mode": "replicate"}):
        mirrored = padded(found, x, [1, 2], **kwargs)
        assert (mirrored.part, mirrored.name) == ("pass", "pad")
    assert padded(found, x, [1, 2], "reflect").name == "pad"


def padded(found: Graph, *args: Any, **kwargs: Any) -> Node:
    """The call entered as it arrives in inference mode; elsewhere torch takes it apart before it is seen."""
    facts, part, called, sources = found._facts(
        "pass", "pad", "pad", args, kwargs, found.before(args, kwargs), None
    )
    return Node(part, called, (1, 2, 8), tuple(sources), facts=facts)


@pytest.mark.parametrize(
    ("args", "kwargs", "trains"),
    [
        ((X,), {}, True),
        ((X, 0.3, True), {}, True),
        ((X, 0.3, False), {}, False),
        ((X, 0.3, None), {}, False),
        ((X, 0.0, True), {}, False),
        ((X, 0, True), {}, False),
        ((X, 1e-9, True), {}, True),
        ((X, 1.0, True), {}, True),
        ((X,), {"p": 0.0, "train": True}, False),
        ((X, 0.3), {"train": False}, False),
    ],
)
def test_a_dropout_that_drops(args: tuple[Any, ...], kwargs: dict[str, Any], trains: bool) -> None:
    """Fails if a dropout in evaluation, or one of probability 0, changes values, or another does not."""
    assert _trains("dropout", args, kwargs) is trains


@pytest.mark.parametrize(
    ("name", "part"),
    [("sub.Tensor", "other"), ("div.Tensor", "other"), ("add.Tensor", "add"), ("mul.Tensor", "mul")],
)
def test_arithmetic_with_a_number_is_a_scale(name: str, part: str) -> None:
    """Fails if a number, or a constant of no dimensions, is the other side of a sum, or one of one entry is none."""
    found, x = graph(), torch.ones(2, 3)
    one = name.replace("Tensor", "Scalar")
    assert run(found, one, x, 2.0)[1].part == "scale"
    assert run(found, name, x, torch.tensor(2.0))[1].part == "scale"
    assert run(found, name, x, torch.ones(1))[1].part == part
    assert run(found, name, x, torch.ones(2, 3))[1].part == part
    scalar = torch.tensor(2.0)
    found.storages.put(scalar, Node("other", "sum", (), (found.node_of(x),)))
    assert run(found, name, x, scalar)[1].part == part


def test_running_sums_of_numbers_and_of_counts() -> None:
    """Fails if counts of tokens are numbers, or other operations are asked."""
    found = graph()
    assert run(found, "cumsum", torch.ones(3), 0)[1].facts["of_numbers"] is True
    assert run(found, "cumsum", torch.ones(3, dtype=torch.long), 0)[1].facts["of_numbers"] is False
    assert "of_numbers" not in run(found, "sin", torch.ones(3))[1].facts


def test_attention_keeps_its_operands_and_how_sharp_it_is() -> None:
    """Fails if queries, keys and values change places, or a softmax of other shapes has a sharpness."""
    found = graph()
    q, k, v = (torch.randn(1, 2, 9, 4) for _ in "qkv")
    _, node = run(found, "_scaled_dot_product_attention_math", q, k, v)
    assert node.name == "attention"
    assert [one is found.node_of(x) for one, x in zip(node.facts["operands"], (q, k, v), strict=True)] == [
        True
    ] * 3
    assert node.facts["sharpness"][2] == 1.0
    _, product = run(found, "bmm", q[0], k[0].transpose(1, 2))
    assert [one.shape for one in product.facts["operands"]] == [(2, 9, 4), (2, 4, 9)]
    assert run(found, "_softmax", torch.zeros(1, 2, 9, 9), -1, False)[1].facts["sharpness"] is not None
    assert run(found, "_softmax", torch.zeros(2, 9, 9), -1, False)[1].facts["sharpness"] is None
    assert "sharpness" not in run(found, "_log_softmax", torch.zeros(1, 2, 9, 9), -1, False)[1].facts
    assert "sharpness" not in product.facts


def test_an_operation_that_takes_a_shape_has_no_node() -> None:
    """Fails if zeros of the same shape are made of the values."""
    found, x = graph(), torch.ones(2, 3)
    _, node = run(found, "zeros_like", x)
    assert (node.part, node.inputs) == (LEAF, ())
