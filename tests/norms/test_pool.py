"""What a norm pools over: the four with a word of their own, and others that a description alone adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support import oracles
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from bnprobe.errors import BnprobeError
from bnprobe.norms import POOLS, NormLayer, Pool
from bnprobe.recording import LayerRecord

N, C, H, W = 2, 6, 5, 7

WHOLE = Pool("each sample as a whole", channels=True, positions=True)
EVERYTHING = Pool("all values of a batch together", samples=True, channels=True, positions=True)


@pytest.mark.parametrize(
    ("pool", "n_groups", "first", "last"),
    [
        (POOLS["batch"], 1, (0, 2, 3), (0, 1, 2)),
        (POOLS["instance"], 1, (2, 3), (1, 2)),
        (POOLS["group"], 2, (1, 2, 3), (1, 2, 3)),
        (POOLS["channels"], 1, (1,), (3,)),
        (POOLS["channels"], 3, (1,), (3,)),
        (WHOLE, 1, (1, 2, 3), (1, 2, 3)),
        (EVERYTHING, 2, (0, 1, 2, 3), (0, 1, 2, 3)),
    ],
    ids=str,
)
def test_axes_and_values(pool: Pool, n_groups: int, first: tuple[int, ...], last: tuple[int, ...]):
    """Fails if an axis is pooled that is not, or a mean is said to be of more values than it is, or of fewer."""
    assert pool.axes(4, 1) == first
    assert pool.axes(4, 3) == last
    sizes = (N, C // n_groups if pool.channels else C, H, W)
    expected = np.prod([sizes[axis] for axis in first])
    assert pool.values_per_statistic(N * H * W, N, C // n_groups) == expected


def test_the_word_of_a_recording():
    """Fails if a pool is recorded as one whose statistics are of another sort (of the batch, of a sample, of a position)."""
    assert {word: pool.recorded_as for word, pool in POOLS.items()} == {word: word for word in POOLS}
    assert WHOLE.recorded_as == "group"
    assert EVERYTHING.recorded_as == "batch"


def test_whose_statistics_are_of_one_channel_alone():
    """Fails if γ of one channel is said to undo what was normalized over several, or the reverse."""
    found = {word: pool.within_channel for word, pool in POOLS.items()}
    assert found == {"batch": True, "instance": True, "group": False, "channels": False}
    assert not WHOLE.within_channel


@pytest.mark.parametrize(
    ("axes", "advice"),
    [
        ({}, "no axis. Pool channels, positions, or samples and positions"),
        ({"samples": True}, "no axis. Pool channels, positions, or samples and positions"),
        ({"samples": True, "channels": True}, "Pool positions too"),
    ],
    ids=str,
)
def test_a_pool_checks_itself(axes: dict[str, bool], advice: str):
    """Fails if a pool is taken that nothing here can record."""
    with pytest.raises(BnprobeError, match=advice):
        Pool("something", **axes)


def test_a_word_and_its_pool_are_the_same():
    """Fails if a layer described by a pool is another one than the layer described by its word."""
    for word, pool in POOLS.items():
        by_word = NormLayer("k", word, C, 1e-5)
        assert by_word.pool is pool
        assert NormLayer("k", pool, C, 1e-5).pool is pool
        assert "pool=" not in repr(by_word), "it follows from `pools`"


# Norms that pool over other axes, each by one pool and one description


class Learned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.randn(C) + 0.3), nn.Parameter(torch.randn(C))


class SampleNorm(Learned):
    """Over all channels and positions of a sample, as GroupNorm(1, C)."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (x - mean) / ((x - mean).square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return self.gain[:, None, None] * x + self.shift[:, None, None]


class WholeBatchNorm(Learned):
    """Over everything, as the layer norms of graph networks pool all nodes and features of a graph."""

    def forward(self, x: Tensor) -> Tensor:
        x = (x - x.mean()) / ((x - x.mean()).square().mean() + 1e-5).sqrt()
        return self.gain[:, None, None] * x + self.shift[:, None, None]


class GroupedRMSNorm(Learned):
    """Over the channels of a group at each position, as in Mamba 2."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(-1, (2, 3))
        x = (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)).flatten(-2)
        return self.gain * x + self.shift


@dataclass(frozen=True)
class Added:
    """A class and its description, and numpy's version of what it divides by: x (N, C, P) to the same shape."""

    cls: type[Learned]
    pools: Pool | str
    denominator: Callable[[np.ndarray], np.ndarray]
    output: str
    fewest: int
    options: dict[str, Any]
    last: bool = False

    def describe(self, module: Any) -> NormLayer:
        learned = {"weight": module.gain, "bias": module.shift}
        return NormLayer("mine", self.pools, C, 1e-5, **learned, **self.options)

    def rows(self, x: Tensor) -> np.ndarray:
        x = x.detach().movedim(-1, 1) if self.last else x.detach()
        return x.flatten(2).numpy()


def _whole(x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.sqrt(x.var((1, 2), keepdims=True) + 1e-5), x.shape)


def _everything(x: np.ndarray) -> np.ndarray:
    return np.full(x.shape, np.sqrt(x.var() + 1e-5))


def _grouped(x: np.ndarray) -> np.ndarray:
    square = np.stack([(x[:, :3] ** 2).mean(1), (x[:, 3:] ** 2).mean(1)], 1)
    return np.sqrt(np.repeat(square, 3, axis=1) + 1e-5)


ADDED = {
    "sample": Added(SampleNorm, WHOLE, _whole, "derived", C * H * W, {}),
    "everything": Added(WholeBatchNorm, EVERYTHING, _everything, "derived", N * C * H * W, {}),
    "grouped channels": Added(
        GroupedRMSNorm,
        "channels",
        _grouped,
        "read",
        C // 2,
        {"n_groups": 2, "channels": "last", "centred": False},
        last=True,
    ),
}


def recorded(module: nn.Module, batches: list[Tensor]) -> LayerRecord:
    model = nn.Sequential(module)
    with bnprobe.attach(model) as probe:
        for x in batches:
            weigh(model(x)).backward()
    (record,) = probe.recording.layers
    return record


def weigh(y: Tensor) -> Tensor:
    """A loss that pulls at each value with a force of its own."""
    return (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape).sin()).sum()


def inputs(last: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    shape = (N, H, W, C) if last else (N, C, H, W)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).exp().requires_grad_() for _ in range(2)
    ]


@pytest.mark.parametrize("name", ADDED)
def test_a_norm_that_pools_otherwise_is_added_by_its_description(name: str):
    """Fails if the probe must be changed for a norm that pools over other axes: its formula, values or gradients are off.

    Everything is held against numpy, on the real inputs and outputs.
    """
    added = ADDED[name]
    bnprobe.register_norm(added.cls, added.describe)
    torch.manual_seed(3)
    module, batches = added.cls().double(), inputs(added.last)
    record = recorded(module, batches)
    x, y = ([added.rows(t) for t in tensors] for tensors in (batches, map(module, batches)))
    assert record.output == added.output
    assert record.mismatch < 1e-9
    assert record.call_log.fewest_values == added.fewest
    for moments, rows in ((record.pre, x), (record.post, y)):
        flat = np.concatenate([np.moveaxis(one, 1, 2).reshape(-1, C) for one in rows])
        oracles.assert_same_moments(moments, oracles.moments(flat), 1e-9)
    np.testing.assert_array_equal(record.n_positive, sum((one > 0).sum((0, 2)) for one in y))
    # to the gradient of the input, had the statistics been constants
    energy = 0.0
    for one in batches:
        out = module(one.detach()).requires_grad_()
        (dy,) = torch.autograd.grad(weigh(out), out)
        gain = module.gain.detach().numpy()[:, None]
        energy = energy + ((added.rows(dy) * gain / added.denominator(added.rows(one))) ** 2).sum((0, 2))
    assert record.gradient is not None
    np.testing.assert_allclose(record.gradient.energy, energy, rtol=1e-9)
    oracles.assert_same_moments(
        record.gradient.dx,
        oracles.moments(np.concatenate([_flat(added.rows(b.grad)) for b in batches])),
        1e-9,
    )


def _flat(rows: np.ndarray) -> np.ndarray:
    return np.moveaxis(rows, 1, 2).reshape(-1, C)


def test_a_pool_of_whole_samples_is_a_group_norm_with_one_group():
    """Fails if the statistics that a norm uses of each sample are lost for a pool without a word of its own."""
    added = ADDED["sample"]
    bnprobe.register_norm(SampleNorm, added.describe)
    torch.manual_seed(3)
    mine = SampleNorm().double()
    torchs = nn.GroupNorm(1, C).double()
    with torch.no_grad():
        torchs.weight.copy_(mine.gain)
        torchs.bias.copy_(mine.shift)
    one, other = recorded(mine, inputs(False)), recorded(torchs, inputs(False))
    assert (one.pools, one.normalized_by, one.output) == (other.pools, other.normalized_by, other.output)
    for name in ("own_mean", "own_log_var", "pre", "post"):
        oracles.assert_same_moments(getattr(one, name), vars(getattr(other, name)), 1e-12)


class InstanceRMSNorm(Learned):
    """Over the positions of each channel, without taking out the mean."""

    def forward(self, x: Tensor) -> Tensor:
        return self.gain[:, None, None] * F.normalize(x.flatten(2), dim=-1).reshape(x.shape) * (H * W) ** 0.5


def test_a_norm_that_takes_out_no_mean_violates_nothing():
    """Fails if the gradient of a norm without centring is held to a law of norms with it."""
    bnprobe.register_norm(
        InstanceRMSNorm, lambda m: NormLayer("mine", "instance", C, 0.0, weight=m.gain, centred=False)
    )
    record = recorded(InstanceRMSNorm().double(), inputs(False))
    assert record.mismatch < 1e-9
    assert record.gradient is not None
    assert np.isnan(record.gradient.gap_centre).all()
