"""The neighbours of a norm put together from the graph: weights folded as by hand, names of sources, parts joined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bnprobe.graph.geometry import Geometry, Producer, Source
from bnprobe.graph.neighbours import AT_ONCE, _activation, _folded, _joined, _named, _parts
from bnprobe.graph.producer import Known
from bnprobe.norms import describe
from bnprobe.recording.neighbours import Folded, Neighbours
from graph.watched import neighbours_of, random_vectors

LAYERS = {
    "conv": (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), torch.randn(2, 3, 8, 8)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4), torch.randn(2, 4, 8, 8)),
    "transposed": (nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4), torch.randn(2, 3, 8, 8)),
    "linear": (nn.Linear(5, 4), nn.BatchNorm1d(4), torch.randn(6, 5)),
    "without gamma": (nn.Linear(5, 4), nn.BatchNorm1d(4, affine=False), torch.randn(6, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_weights_are_folded_with_the_norms_own_vectors(name: str) -> None:
    """Fails if a vector of the norm is left out, belongs to another channel, or a weight lies on its side."""
    layer, norm, x = LAYERS[name]
    model = random_vectors(nn.Sequential(layer, norm))
    found = neighbours_of(model, x)["1"]
    assert found.folded is not None
    weight = layer.weight.detach().double().numpy()
    for c in range(4):
        own = (weight[:, c] if isinstance(layer, nn.ConvTranspose2d) else weight[c]).ravel()
        gamma = 1.0 if norm.weight is None else float(norm.weight.detach()[c])
        each = own * gamma / np.sqrt(float(norm.running_var[c]) + norm.eps)
        np.testing.assert_allclose(found.folded.low[c], each.min(), rtol=1e-6)
        np.testing.assert_allclose(found.folded.high[c], each.max(), rtol=1e-6)
        np.testing.assert_allclose(found.folded.norm[c], np.sqrt((own**2).sum()), rtol=1e-6)
    if layer.bias is None:
        assert found.folded.bias is None
    else:
        np.testing.assert_allclose(found.folded.bias, layer.bias.detach().double().numpy(), rtol=1e-12)


def test_a_transposed_layer_of_groups_is_not_folded_by_rows() -> None:
    """Fails if rows of another group are taken for the weights of a channel; its implied mean is known all the same."""
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 4, 3, groups=2), nn.BatchNorm2d(4))
    found = neighbours_of(random_vectors(model), torch.randn(2, 4, 8, 8))["2"]
    assert found.folded is None
    assert found.implied is not None


def test_a_stem_reads_the_models_input_as_it_is() -> None:
    """Fails if weights behind an activation or a pooling of the input are taken for a map of its mean."""
    x = torch.randn(2, 3, 8, 8)
    for before, there in ((nn.Identity(), True), (nn.ReLU(), False), (nn.AvgPool2d(2), False)):
        model = nn.Sequential(before, nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        assert (neighbours_of(random_vectors(model), x)["2"].stem is not None) is there


def part(first: int, n: int, bias: bool = True) -> Folded:
    values = np.arange(first, first + n, dtype=float)
    return Folded(values, -values, 2 * values, values + 0.5 if bias else None)


def test_answers_for_some_channels_are_put_side_by_side() -> None:
    """Fails if channels are lost or doubled, or a bias that is not there is invented."""
    whole = _joined([part(0, 2), part(2, 3)])
    assert whole is not None
    np.testing.assert_array_equal(whole.norm, np.arange(5))
    np.testing.assert_array_equal(whole.low, -np.arange(5.0))
    np.testing.assert_array_equal(whole.bias, np.arange(5) + 0.5)
    bare = _joined([part(0, 2, bias=False), part(2, 1, bias=False)])
    assert bare is not None
    assert bare.bias is None
    assert _joined([None, None]) is None
    alone = part(0, 2)
    assert _joined([alone]) is alone


def producer(weight: np.ndarray, **geometry: object) -> Producer:
    return Producer("conv", weight, None, Geometry(**geometry), Source("input"))


@pytest.mark.parametrize(
    ("weight", "geometry", "expected"),
    [
        (np.zeros((5, AT_ONCE // 2)), {}, [(0, 2), (2, 4), (4, 6)]),
        (np.zeros((3, AT_ONCE)), {}, [(0, 1), (1, 2), (2, 3)]),
        (np.zeros((2, AT_ONCE + 1)), {}, [(0, 1), (1, 2)]),
        (np.zeros((2, 3)), {}, [(0, AT_ONCE // 3)]),
        (np.zeros((2, 0)), {}, [(0, AT_ONCE)]),
        (np.zeros((0, 3)), {}, [(None, None)]),
        (np.zeros((5, AT_ONCE)), {"groups": 5}, [(None, None)]),
        (np.zeros((5, AT_ONCE)), {"transposed": True}, [(None, None)]),
    ],
)
def test_so_many_weights_at_a_time(
    weight: np.ndarray, geometry: dict[str, object], expected: list[object]
) -> None:
    """Fails if more weights are turned into float64 at once than are meant to be, or channels are left out."""
    assert [(one.start, one.stop) for one in _parts(producer(weight, **geometry))] == expected


def test_folding_takes_the_same_channels_of_every_vector() -> None:
    """Fails if the second part of a layer is folded with the vectors of the first."""
    norm = nn.BatchNorm1d(4)
    vectors = [np.array([1.0, 2, 3, 4]), np.zeros(4), np.array([1.0, 4, 9, 16])]
    known = Known(describe(norm)[0], vectors[0], None, vectors[1], vectors[2])
    found = _folded(producer(np.full((4, 2), 6.0)), known, slice(2, 4))
    np.testing.assert_allclose(found.high, [6 * 3 / 3, 6 * 4 / 4], rtol=1e-5)


def norm(site: str, **changes: object) -> Source:
    return Source("norm", site=site, **changes)


INPUT = Source("input")


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (norm("a"), ["a"]),
        (INPUT, ["input"]),
        (Source("unknown"), []),
        (Source("sum", parts=(norm("a"), norm("b"))), ["a", "b"]),
        (Source("concat", parts=(norm("a"), INPUT)), ["a", "input"]),
        (
            Source("concat", parts=(Source("sum", parts=(INPUT, norm("b"), norm("c"))), norm("d"))),
            ["sum at b", "d"],
        ),
        (Source("concat", parts=(Source("sum", parts=(INPUT, INPUT)),)), ["sum at unknown"]),
    ],
)
def test_the_names_of_what_a_source_is_made_of(source: Source, names: list[str]) -> None:
    """Fails if a sum inside a concatenation is taken apart, or the whole sum is not."""
    assert list(_named(source)) == names


@pytest.mark.parametrize(
    ("source", "activation"),
    [
        (norm("a", activation="relu"), "relu"),
        (Source("sum", activation="tanh", parts=(norm("a"), norm("b"))), "tanh"),
        (Source("concat", activation="silu", parts=(norm("a", activation="relu"),)), "silu"),
        (Source("concat", parts=(norm("a", activation="relu"), norm("b", activation="relu"))), "relu"),
        (Source("concat", parts=(norm("a", activation="relu"), norm("b"))), "several"),
        (Source("concat", parts=(norm("a", activation="relu"), norm(""))), "relu"),
        (Source("concat", parts=(norm("a", activation="relu"), INPUT)), "several"),
    ],
)
def test_the_activation_next_to_the_weights(source: Source, activation: str) -> None:
    """Fails if channels of zeros, which nothing acts on, make an activation uncertain, or one that differs does not."""
    assert _activation(source) == activation


def test_an_error_in_one_answer_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if an odd graph before a norm hides what follows it."""
    from bnprobe.graph import neighbours

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(neighbours, "producer_of", broken)
    model = random_vectors(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    found = neighbours_of(model, torch.randn(2, 3, 8, 8))["1"]
    assert isinstance(found, Neighbours)
    assert (found.follows, found.producer, found.feeds_alone) == ("relu", "", True)


@pytest.mark.parametrize("last", [True, False])
def test_a_stream_that_ends_in_a_head_without_a_norm(last: bool) -> None:
    """Fails if the last norm before the head is one that has none after it where there is one."""

    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.branch, self.head = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 2)
            self.last = nn.LayerNorm(4) if last else nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.last(x + self.branch(self.first(x))))

    found = neighbours_of(Stream().eval(), torch.randn(2, 5, 4))
    assert {site: one.bare_head for site, one in found.items()} == (
        {"first": False, "last": False} if last else {"first": True}
    )
    if last:
        assert (found["first"].stream, found["last"].stream) == ("", "first")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_stream_in_any_precision(dtype: torch.dtype) -> None:
    """Fails if weights of another precision leave norms without a role, or without what is read of them."""

    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.branch, self.last, self.head = (
                nn.LayerNorm(4),
                nn.Linear(4, 4),
                nn.LayerNorm(4),
                nn.Linear(4, 2),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.last(x + self.branch(self.first(x))))

    model = Stream().to(dtype).eval()
    found = neighbours_of(model, torch.randn(2, 5, 4, dtype=dtype))
    assert {site: one.role for site, one in found.items()} == {"first": "MLP", "last": "final"}
    for site, layer in (("first", model.branch), ("last", model.head)):
        lengths = np.sqrt((layer.weight.detach().double().numpy() ** 2).sum(0))
        np.testing.assert_allclose(found[site].reads, lengths, rtol=1e-6)
