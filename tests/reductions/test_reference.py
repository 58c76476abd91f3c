"""The reference kernel: every number of one read against loops, for tensors in any layout and type."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import oracles
from support.oracles import assert_same_images, assert_same_moments
from torch import Tensor

from bnprobe.reductions import Affine, PerSample, ReadRequest, packing, reference
from bnprobe.reductions.reference import count, read
from bnprobe.stats.fields import SUMS, Sum

SHAPES = [(2, 3, 35), (1, 3, 7), (5, 3, 1), (1, 1, 1), (0, 3, 7)]


def values(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 5) -> Tensor:
    """Skewed, at a place and scale per channel and per sample."""
    rng = np.random.default_rng(seed)
    x = rng.gamma(0.7, size=shape) * (1 + rng.gamma(2.0, size=(shape[0], 1, 1)))
    channel = np.arange(shape[1])[:, None]
    return torch.tensor(x * 10.0 ** (channel % 3 - 1) + 5 * channel, dtype=dtype)


def spoilt(x: Tensor) -> Tensor:
    """One NaN, both infinities, and one row of which nothing is left."""
    x = x.clone()
    x[0, 0, 1], x[1, 2, 3], x[0, 2, 0] = torch.nan, torch.inf, -torch.inf
    x[1, 1] = torch.nan
    return x


def a_map(n_channels: int, per_sample: int | None = None) -> Affine:
    shape = (n_channels,) if per_sample is None else (per_sample, n_channels)
    rng = np.random.default_rng(3)
    return Affine(rng.normal(size=shape) + 3, rng.normal(size=shape), rng.normal(size=shape))


def mapped(x: np.ndarray, affine: Affine) -> np.ndarray:
    origin, scale, offset = (np.broadcast_to(v, x.shape[:2])[..., None] for v in vars(affine).values())
    return scale * (x - origin) + offset


@pytest.fixture(params=["one chunk", "many chunks"], autouse=True)
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test twice: whole, and a sample at a time, as for a batch larger than memory."""
    if request.param == "many chunks":
        monkeypatch.setattr(reference, "CHUNK", 1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_read_agrees_with_loops(shape):
    """Fails on any field of a reading: moments, images, counts, rows; for one value, none, or no sample."""
    x = values(shape)
    origin = np.linspace(0.5, 4, shape[1])
    gate, bins = a_map(shape[1]), a_map(shape[1])
    found = read(x, ReadRequest(origin=origin, gate=gate, bins=bins, keep_rows=True))
    rows = x.numpy()
    assert_same_moments(found.moments, oracles.channel_moments(rows))
    assert_same_moments(found.rows, oracles.moments(np.moveaxis(rows, 2, 0)))
    assert_same_images(found.images, oracles.images([rows], origin))
    np.testing.assert_array_equal(found.n_nonfinite, np.zeros(shape[1]))
    np.testing.assert_array_equal(found.counts.n_positive, oracles.n_positive(mapped(rows, gate)))
    one = np.ones(shape[1])
    np.testing.assert_array_equal(found.counts.histogram, oracles.histogram(mapped(rows, bins), 0 * one, one))
    assert found.per_sample is None


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_read_without_rows_is_the_same_read(shape):
    """Fails if the short way for one value per image, or the channel's own mean as origin, differ."""
    x = values(shape)
    found = read(x)
    rows = x.numpy()
    assert_same_moments(found.moments, oracles.channel_moments(rows))
    assert_same_images(found.images, oracles.images([rows], found.moments.mean))
    assert found.rows is None
    assert found.counts.n_positive is None
    assert found.counts.histogram is None


@pytest.mark.parametrize("shape", [(2, 3, 35), (5, 3, 4)], ids=str)
def test_what_is_not_finite_is_counted_and_left_out(shape):
    """Fails if a NaN reaches a sum, an empty row counts as an image, or counts name the wrong channel."""
    x = spoilt(values(shape))
    gate, origin = a_map(3), np.array([0.5, 5.0, 9.0])
    found = read(x, ReadRequest(origin=origin, gate=gate, bins=gate, keep_rows=True))
    rows = x.numpy()
    np.testing.assert_array_equal(found.n_nonfinite, oracles.n_nonfinite(rows))
    assert_same_moments(found.moments, oracles.channel_moments(rows))
    assert_same_moments(found.rows, oracles.moments(np.moveaxis(rows, 2, 0)))
    assert_same_images(found.images, oracles.images([rows], origin))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(found.counts.n_positive, oracles.n_positive(mapped(rows, gate)))
        expected = oracles.histogram(mapped(rows, gate), np.zeros(3), np.ones(3))
    np.testing.assert_array_equal(found.counts.histogram, expected)


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_a_sum_that_is_declared_is_added(shape, monkeypatch):
    """Fails if what `stats.fields` says of a value is not asked, or asked of NaN, or its sum runs in whole numbers."""
    more = (
        Sum("absolute", {"pre": "pre_absolute"}, whole=False, of=abs),
        Sum("above", {"pre": "pre_above"}, of=lambda x: x > 5),
    )
    monkeypatch.setattr(reference, "SUMS", (*SUMS, *more))
    monkeypatch.setattr(packing, "_NAMES", (*packing._NAMES, "absolute", "above"))
    x = values(shape)
    x[-1, 0, -1], x[-1, 1, -1], x[0, 2, 0] = torch.nan, torch.inf, -torch.inf
    found = read(x).packed[-2:]
    finite = np.where(np.isfinite(x.numpy()), x.numpy(), 0.0)
    np.testing.assert_allclose(found[0], np.abs(finite).sum((0, 2)), rtol=1e-12)
    np.testing.assert_array_equal(found[1], (finite > 5).sum((0, 2)))


def test_values_of_one_per_image_may_be_not_finite():
    """Fails if the short way for (N, C) counts lost images, or keeps their place."""
    x = values((5, 3, 1))
    x[1, 0], x[2, 0], x[:, 2] = torch.nan, torch.inf, torch.nan
    found = read(x, ReadRequest(origin=np.zeros(3)))
    assert_same_moments(found.moments, oracles.channel_moments(x.numpy()))
    assert_same_images(found.images, oracles.images([x.numpy()], np.zeros(3)))
    assert found.n_nonfinite.tolist() == [2, 0, 5]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_small_types_are_summed_in_float64(dtype):
    """Fails if a sum runs in the input's type: float16 ends at 65504, bfloat16 has three digits."""
    x = values((2, 3, 700), dtype) * 100
    found = read(x)
    assert_same_moments(found.moments, oracles.channel_moments(x.double().numpy()))


def test_far_from_zero_nothing_is_lost():
    """Fails if rows are summed without taking their mean out: at 1e6 no digit of the variance is left."""
    x = values((2, 3, 35)) + 1e6
    found = read(x, ReadRequest(origin=np.full(3, 1e6)))
    assert_same_moments(found.moments, oracles.channel_moments(x.numpy()))
    assert_same_images(found.images, oracles.images([x.numpy()], np.full(3, 1e6)), rtol=1e-7)


def test_any_memory_layout_is_read_alike():
    """Fails if strides are taken for granted: channels last, expanded, sliced and transposed tensors."""
    x = values((2, 3, 35))
    expected = oracles.channel_moments(x.numpy())
    last = x.transpose(1, 2).contiguous().transpose(1, 2)
    wide = torch.stack([x, -x], dim=-1)[..., 0]
    for other in (last, wide):
        assert not other.is_contiguous()
        assert_same_moments(read(other).moments, expected)
    expanded = x[:, :, :1].expand(2, 3, 35)
    assert_same_moments(read(expanded).moments, oracles.channel_moments(expanded.numpy()))


def test_input_is_not_changed():
    """Fails if anything is centred or replaced in place."""
    x = spoilt(values((2, 3, 35)))
    before = x.clone()
    read(x, ReadRequest(gate=a_map(3), bins=a_map(3), per_sample=PerSample(1e-5, True), keep_rows=True))
    assert torch.equal(torch.nan_to_num(x), torch.nan_to_num(before))
    assert torch.equal(x.isnan(), before.isnan())


@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_count_with_a_map_per_sample(shape):
    """Fails if chunks take the maps of other samples: train-mode instance norm has one per image."""
    x, affine = values(shape), a_map(shape[1], per_sample=shape[0])
    found = count(x, affine, affine)
    y = mapped(x.numpy(), affine)
    one = np.ones(shape[1])
    np.testing.assert_array_equal(found.n_positive, oracles.n_positive(y))
    np.testing.assert_array_equal(found.histogram, oracles.histogram(y, 0 * one, one))


def test_count_at_the_edges_and_far_outside():
    """Fails if an edge counts to the wrong bin, zero is positive, or the outermost values are lost."""
    edges = np.unique(np.concatenate([[0, 1e30], 2.0 ** np.arange(7) - 1, np.arange(16) / 8]))
    z = torch.tensor(np.concatenate([-edges, edges]))[None, None]
    itself = Affine(np.zeros(1), np.ones(1), np.zeros(1))
    found = count(z, itself, itself)
    np.testing.assert_array_equal(found.histogram, oracles.histogram(z.numpy(), np.zeros(1), np.ones(1)))
    assert found.n_positive[0] == len(edges) - 1
    assert found.histogram.sum() == z.numel()


@pytest.mark.parametrize("centred", [True, False], ids=["layer norm", "RMS norm"])
@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_own_statistics_of_each_position(shape, centred):
    """Fails if the mean is not taken out (or is, for RMS), the divisor is C - 1, or the axis is not channels."""
    x = values(shape)
    found = read(x, ReadRequest(per_sample=PerSample(1e-3, centred))).per_sample
    means, logs = oracles.own_statistics([x.numpy()], "channels", 1e-3, centred=centred)
    assert_same_moments(found[0], oracles.moments(means))
    assert_same_moments(found[1], oracles.moments(logs))


def test_own_statistics_leave_out_what_the_norm_cannot_normalize():
    """Fails if a position with a NaN yields the statistics of its other channels."""
    x = spoilt(values((2, 3, 35)))
    means, _ = read(x, ReadRequest(per_sample=PerSample(1e-5, True))).per_sample
    assert means.n[0] == 2 * 35 - 2 - 35
