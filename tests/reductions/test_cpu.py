"""The compiled loops against their float64 twin: layouts, types, and the values that break sums."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import bnprobe
from bnprobe.reductions import (
    Affine,
    PerSample,
    Reading,
    ReadRequest,
    Share,
    add_mapped,
    compiled,
    moments_of,
    packed,
    products,
    reference,
)
from bnprobe.stats import Moments
from bnprobe.stats.fields import FIELDS, IMAGES, NONFINITE, OF_IMAGES, ORIGIN, POSITIVE
from bnprobe.stats.histogram import N_BINS, SIDE

cpu = compiled()
pytestmark = pytest.mark.skipif(cpu is None, reason="numba is not installed")

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = [(2, 3, 5), (5, 7, 49), (3, 130, 150), (2, 3, 9001), (7, 5, 1), (1, 70, 33), (2, 1, 64), (9, 3, 2)]
LAYOUTS = ["positions next", "channels next", "samples next", "gaps", "reversed axes"]


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same values, lying otherwise in memory."""
    if layout == "channels next":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "samples next":
        return x.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    if layout == "gaps":
        return torch.stack([x, torch.full_like(x, 777.0)], dim=-1)[..., 0]
    if layout == "reversed axes":
        return x.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    return x.contiguous()


def values(shape: tuple[int, int, int], dtype: torch.dtype = torch.float32, seed: int = 5) -> Tensor:
    """Skewed, at a place and scale per channel, another per sample."""
    rng = np.random.default_rng(seed)
    x = rng.gamma(0.7, size=shape) * (1 + rng.gamma(2.0, size=(shape[0], 1, 1)))
    channel = np.arange(shape[1])[:, None]
    return torch.tensor(x * 2.0 ** (channel % 5 - 2) + channel % 7, dtype=dtype)


def a_map(n_channels: int, per_sample: int | None = None, seed: int = 3) -> Affine:
    shape = (n_channels,) if per_sample is None else (per_sample, n_channels)
    rng = np.random.default_rng(seed)
    return Affine(rng.normal(size=shape) + 2, rng.normal(size=shape), rng.normal(size=shape))


def assert_close(found: Moments, twin: Moments) -> None:
    """The promise of `cpu`: mean and variance to 1e-6 of the spread, the shape to 1e-4, extremes exactly."""
    for name in ("n", "low", "high"):
        np.testing.assert_array_equal(getattr(found, name), getattr(twin, name), err_msg=name)
    n = np.maximum(twin.n, 1)
    sd = np.sqrt(twin.m2 / n)
    unit = np.where(sd > 0, sd, 1.0)
    assert np.all(np.abs(found.mean - twin.mean) <= 1e-6 * sd + 1e-12 * np.abs(twin.mean)), "mean"
    np.testing.assert_allclose(found.m2, twin.m2, rtol=2e-6, atol=1e-300, err_msg="m2")
    np.testing.assert_allclose(found.m3 / n / unit**3, twin.m3 / n / unit**3, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.m4 / n / unit**4, twin.m4 / n / unit**4, rtol=1e-4)


def assert_same(found: Reading, twin: Reading) -> None:
    """Every part of two readings."""
    assert_close(found.moments, twin.moments)
    np.testing.assert_array_equal(found.n_nonfinite, twin.n_nonfinite)
    for name in ("n_positive", "histogram"):
        np.testing.assert_array_equal(getattr(found.counts, name), getattr(twin.counts, name), err_msg=name)
    assert (found.rows is None) == (twin.rows is None)
    if found.rows is not None and twin.rows is not None:
        assert_close(found.rows, twin.rows)
    for mine, other in zip(found.per_sample or (), twin.per_sample or (), strict=True):
        np.testing.assert_array_equal(mine.n, other.n)
        np.testing.assert_allclose(mine.mean, other.mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(mine.m2, other.m2, rtol=1e-6, atol=1e-20)
    assert_same_images(found, twin)


def assert_same_images(found: Reading, twin: Reading) -> None:
    """Image means to 1e-6 of the spread of values, and their sums likewise."""
    mine, other = found.images, twin.images
    np.testing.assert_allclose(mine.origin, other.origin, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(mine.n, other.n)
    sd = np.sqrt(twin.moments.m2 / np.maximum(twin.moments.n, 1))
    a, b = sd + np.abs(other.a), sd**2 + np.abs(other.b)
    for name, size in (("a", a), ("b", b), ("aa", a * a), ("bb", b * b), ("ab", a * b)):
        apart = np.abs(getattr(mine, name) - getattr(other, name))
        assert np.all(apart <= 2e-5 * size * np.maximum(other.n, 1) + 1e-12), name


def both(x: Tensor, **asked: object) -> tuple[Reading, Reading]:
    assert cpu.can_read(x)
    return cpu.read(x, ReadRequest(**asked)), reference.read(x, ReadRequest(**asked))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_number_of_a_read(shape, dtype, layout):
    """Fails if a stride, a type, a tail or a lane is lost: every part of a reading, in every layout."""
    x = laid_out(values(shape, dtype), layout)
    n, c, _ = shape
    assert_same(
        *both(
            x,
            origin=np.linspace(0, 3, c),
            gate=a_map(c),
            bins=a_map(c, seed=4),
            per_sample=PerSample(1e-3, True),
        )
    )
    each = {"gate": a_map(c, n), "bins": a_map(c, n, seed=4), "share": Share(3, 2)}
    assert_same(*both(x, keep_rows=True, per_sample=PerSample(1e-3, False), **each))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(5, 3, 50), (6, 3, 1), (2, 70, 20)], ids=str)
@pytest.mark.parametrize("per_sample", [False, True], ids=["one map", "a map per sample"])
def test_counts_alone(shape, layout, per_sample):
    """Fails if `count` mistakes a layout or a map: it has loops of its own, for gates known late."""
    n, c, _ = shape
    x = laid_out(values(shape), layout)
    x[0, 0, 0], x[1, 1, 0], x[1, 2, 0] = torch.nan, torch.inf, -torch.inf
    gate, bins = (a_map(c, n if per_sample else None, seed) for seed in (1, 2))
    for asked in ((gate, None), (None, bins), (gate, bins)):
        found, twin = cpu.count(x, *asked, Share(2, 1)), reference.count(x, *asked, Share(2, 1))
        np.testing.assert_array_equal(found.n_positive, twin.n_positive)
        np.testing.assert_array_equal(found.histogram, twin.histogram)
    assert cpu.count(x, None, None) == reference.Counts()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_channels_than_a_board_is_wide(layout):
    """Fails if channels side by side are written past the end of a board: DenseNet-161 ends in 2,208 of them."""
    x = laid_out(values((3, 2500, 1)), layout)
    bins = a_map(2500)
    assert_same(cpu.read(x, ReadRequest(bins=bins)), reference.read(x, ReadRequest(bins=bins)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_that_are_not_finite(dtype, layout):
    """Fails if a NaN or an infinity enters a sum, hides in an extreme, or is not counted."""
    x = laid_out(values((3, 130, 40), dtype), layout)
    x[0, 0, 1], x[1, 2, 3], x[0, 2, 0], x[2, 77, 39] = torch.nan, torch.inf, -torch.inf, torch.nan
    x[1, 1], x[:, 5], x[:, 129, 0] = torch.nan, torch.inf, torch.nan
    found, twin = both(
        x, gate=a_map(130), bins=a_map(130, seed=4), keep_rows=True, per_sample=PerSample(1e-3, True)
    )
    assert_same(found, twin)
    assert found.n_nonfinite[[0, 1, 2, 5, 77]].tolist() == [1, 40, 2, 120, 1]


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("far", [1e6, -3e5, 1e8])
def test_far_from_zero(far, layout):
    """Fails if rows are summed about 0 or an old point: at 1e6 no digit of the variance is left."""
    x = laid_out(values((4, 66, 300)) * 30 + far, layout)
    assert_same(*both(x, origin=np.full(66, far), keep_rows=True))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_rows_far_from_each_other(layout):
    """Fails if the point of one image serves the next unchecked: rows at 0, 1e4, -1e4, with spread 1."""
    x = values((6, 3, 700)) + torch.tensor([0, 1e4, -1e4, 1e4, 0, 5])[:, None, None]
    assert_same(*both(laid_out(x, layout), keep_rows=True))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e-9, 1e12, 1e25, 1e37])
def test_very_small_and_very_large(size, layout):
    """Fails if float32 runs out of range: the fourth power of 1e-10 is below it, that of 1e10 above."""
    x = laid_out(values((3, 5, 200)) * size, layout)
    assert_same(*both(x, keep_rows=True))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6 - 0.1, 3e38])
def test_constant_rows_have_no_variance(value, layout):
    """Fails if rounding makes a variance where there is none, or a constant image moves its neighbours."""
    x = values((3, 4, 50))
    x[:, 1], x[1, 2] = value, value
    found, twin = both(laid_out(x, layout), keep_rows=True)
    assert_close(found.rows, twin.rows)
    assert found.moments.m2[1] == found.rows.m2[1, 2] == 0
    assert found.moments.mean[1] == torch.tensor(value).item()


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("n_positions", [2, 3, 100, 5000])
def test_two_valued_rows_stay_possible(n_positions, layout):
    """Fails if rounding breaks a law: two values reach the bounds of Popoviciu and Pearson exactly."""
    rng = np.random.default_rng(2)
    coin = rng.random((4, 6, n_positions)) < np.array([0.5, 0.01, 0.99, 0.1, 0.5, 0.7])[:, None]
    x = laid_out(torch.tensor(np.where(coin, 0.7, 0.1), dtype=torch.float32), layout)
    found = cpu.read(x, ReadRequest(keep_rows=True))
    found.moments.check_sane()
    found.rows.check_sane()


def test_float16_near_its_end():
    """Fails if sums run in float16, which ends at 65504."""
    x = torch.full((2, 3, 100), 65504.0, dtype=torch.float16)
    x[:, 1] = -65504.0
    x[0, 2, 0] = 6e-8
    assert_same(*both(x, bins=a_map(3), gate=a_map(3)))


def test_maps_that_are_not_finite_or_flat():
    """Fails if a gate with scale 0, NaN or an infinite scale is compared as if it had a threshold."""
    x = values((3, 8, 40))
    x[0, :, 0], x[1, :, 1] = torch.inf, torch.nan
    one, zero = np.ones(8), np.zeros(8)
    scale = np.array([0, 0, np.nan, np.inf, -np.inf, 1, -1, 1e-300])
    offset = np.array([1, -1, 1, 0.5, 0.5, np.nan, np.inf, 3])
    gate = Affine(x[2, :, 3].double().numpy(), scale, offset)
    with np.errstate(all="ignore"):
        assert_same(*both(x, gate=gate, bins=Affine(one, one, zero)))


def test_gates_are_exact_at_the_edge():
    """Fails if the threshold is rounded to nearest: values just at, above and below it must fall right."""
    edge = np.float32(0.1)
    near = np.array([np.nextafter(edge, -1, dtype=np.float32), edge, np.nextafter(edge, 1, dtype=np.float32)])
    x = torch.tensor(near).repeat(2, 6, 5)
    for at in (0.1, float(edge), np.nextafter(float(edge), 1), np.nextafter(float(edge), 0)):
        for sign in (1.0, -1.0):
            gate = Affine(np.full(6, at), np.full(6, sign), np.zeros(6))
            assert (
                cpu.count(x, gate, None).n_positive.tolist()
                == reference.count(x, gate, None).n_positive.tolist()
            )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bins_are_exact_at_every_edge(layout):
    """Fails if a bin comes from rounded arithmetic: values on, just below and just above each edge."""
    edges = np.concatenate([bnprobe.stats.histogram.Z_EDGES, [0.0, -0.0, 1e30, -1e30, 63.0, 64.0]])
    z = np.concatenate(
        [edges, np.nextafter(edges, 1e9), np.nextafter(edges, -1e9), [np.nan, np.inf, -np.inf]]
    )
    x = laid_out(torch.tensor(z).repeat(1, 2, 1), layout)
    unit = Affine(np.zeros(2), np.ones(2), np.zeros(2))
    found, twin = cpu.count(x, None, unit).histogram, reference.count(x, None, unit).histogram
    np.testing.assert_array_equal(found, twin)
    assert found.sum() == 2 * 3 * len(edges)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_of_every_length(dtype):
    """Fails if the tail of a row is read twice, or not at all: lengths around whole vectors and blocks."""
    for p in [*range(1, 70), 2047, 2048, 2049, 2050, 4095, 4097, 5000]:
        x = values((2, 3, p), dtype, seed=p)
        assert_same(*both(x, origin=np.ones(3), gate=a_map(3), bins=a_map(3, seed=4)))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_pieces_of_many_chunks(layout):
    """Fails if channels of one chunk meet the gate, the point or the sums of another: 700 channels."""
    x = laid_out(values((3, 700, 20)), layout)
    x[0, 66, 3], x[1, 699, 0], x[2, 127] = torch.nan, torch.inf, -torch.inf
    for per_sample in (None, 3):
        asked = {"gate": a_map(700, per_sample), "bins": a_map(700, per_sample, seed=4), "share": Share(2, 1)}
        assert_same(*both(x, origin=np.linspace(-1, 3, 700), keep_rows=True, **asked))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_a_channel_without_values_in_one_image(layout):
    """Fails if an image of which nothing is finite counts as one with mean 0, or sets the first point."""
    x = laid_out(values((4, 5, 30)) + 1e4, layout)
    x[0, 1], x[2, 3], x[:, 4] = torch.nan, torch.inf, torch.nan
    found, twin = both(x, origin=np.full(5, 1e4))
    assert_same(found, twin)
    assert found.images.n.tolist() == [4, 3, 4, 3, 0]


def test_an_origin_that_cannot_be_written():
    """Fails if read-only arrays, which recordings are made of, cannot be handed to the loops."""
    x, origin = values((2, 3, 40)), np.ones(3)
    origin.flags.writeable = False
    assert_same(*both(x, origin=origin))


def test_constants_of_the_loops_are_those_of_the_statistics():
    """Fails if a bin or a field moves on one side only: compiled code cannot import them."""
    from bnprobe.reductions.cpu import channels, tally, totals

    assert (tally.N_BINS, tally.SIDE) == (N_BINS, SIDE)
    assert channels.N_OUT == totals.N_FIELDS == len(FIELDS)
    assert FIELDS[ORIGIN:NONFINITE] == OF_IMAGES
    assert (FIELDS[IMAGES], FIELDS[NONFINITE], FIELDS[POSITIVE]) == ("images", "nonfinite", "positive")


def test_the_rotating_share_counts_every_image_in_turn():
    """Fails if the offset stands still, so that some images never count: four calls count all of them."""
    x = values((6, 3, 50))
    unit = Affine(np.zeros(3), np.ones(3), np.zeros(3))
    total = sum(cpu.count(x, None, unit, Share(4, first)).histogram for first in range(4))
    np.testing.assert_array_equal(total, reference.count(x, None, unit).histogram)
    assert cpu.read(x, ReadRequest(bins=unit, share=Share(4, 1))).counts.histogram.sum() == 50 * 3


def test_totals_add_as_the_statistics_merge():
    """Fails if the compiled sum of readings is not that of `Moments.merge` and `ImageMoments.merge`."""
    parts = [values((n, 5, p), seed=n) for n, p in ((1, 3), (4, 50), (2, 1), (3, 700))]
    parts[1][0, 2] = torch.nan
    parts[2][:, 3] = torch.nan
    readings = [reference.read(x, ReadRequest(origin=np.full(5, i / 2))) for i, x in enumerate(parts)]
    empty = reference.read(torch.zeros(0, 5, 3), ReadRequest(origin=np.zeros(5)))
    total = empty.packed.copy()
    for reading in [*readings, empty]:
        cpu.add(total, reading.packed)
    moments, images, bad = empty.moments, empty.images, np.zeros(5)
    for reading in readings:
        moments, images = moments.merge(reading.moments), images.merge(reading.images)
        bad = bad + reading.n_nonfinite
    found = Reading(total, reference.Counts())
    for mine, other in ((found.moments, moments), (found.images, images)):
        for name, value in vars(other).items():
            np.testing.assert_allclose(getattr(mine, name), value, rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_array_equal(found.n_nonfinite, bad)


@pytest.mark.parametrize("loops", [True, False], ids=["compiled", "numpy"])
def test_the_image_of_a_total_is_added(loops, monkeypatch):
    """Fails if a reading that is mapped and added at once is not what `Moments.affine` and `merge` make of it."""
    if not loops:
        monkeypatch.setattr(sys.modules["bnprobe.reductions.dispatch"], "compiled", lambda: None)
    scale = np.array([2.0, -0.5, 0.0, np.nan, 1.0])
    map_ = Affine(np.linspace(-1, 1, 5), scale, np.array([0.0, 1.0, 2.0, 3.0, np.inf]))
    total, moments, bad = packed(Moments.empty(5)), Moments.empty(5), np.zeros(5)
    for seed, shape in enumerate([(4, 5, 50), (1, 5, 3), (0, 5, 3), (3, 5, 9)]):
        x = values(shape, seed=seed)
        x[:1, 1, :1] = torch.inf
        reading = reference.read(x, ReadRequest(origin=np.zeros(5)))
        before, after = reading.moments, reading.moments.affine(map_.scale, map_.offset, map_.origin)
        add_mapped(total, reading.packed, map_)
        moments, bad = moments.merge(after), bad + before.n + reading.n_nonfinite - after.n
    for name, value in vars(moments).items():
        np.testing.assert_allclose(
            getattr(moments_of(total), name), value, rtol=1e-9, atol=1e-9, err_msg=name
        )
    np.testing.assert_array_equal(total[NONFINITE], bad)
    assert not total[ORIGIN:NONFINITE].any()
    assert bad.tolist()[3] == sum(s[0] * s[2] for s in [(4, 5, 50), (1, 5, 3), (3, 5, 9)])


@pytest.fixture
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(8, 3, 20000), (16, 64, 400), (300, 1, 600)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.usefixtures("_two_threads")
def test_threads_share_the_work(shape, layout):
    """Fails if a piece of work is done twice, or by nobody, when several threads take them."""
    x = laid_out(values(shape), layout)
    c = shape[1]
    for _ in range(5):
        assert_same(*both(x, origin=np.zeros(c), gate=a_map(c), bins=a_map(c, seed=4), share=Share(3, 1)))


@pytest.mark.usefixtures("_two_threads")
def test_two_python_threads_at_once():
    """Fails if passes in two threads meet in one buffer, or if the thread layer cannot be entered twice."""
    tensors = [values((8, 64, 400), seed=seed) for seed in range(4)]
    expected = [reference.read(x, ReadRequest(origin=np.zeros(64))) for x in tensors]
    faults: list[BaseException] = []

    def work(i: int) -> None:
        try:
            for _ in range(20):
                assert_same(cpu.read(tensors[i], ReadRequest(origin=np.zeros(64))), expected[i])
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults[0]


@pytest.mark.usefixtures("_two_threads")
def test_without_torchs_threads(monkeypatch):
    """Fails if the way without GOMP_parallel (another OpenMP, or none) loses pieces of work."""
    from bnprobe.reductions.cpu import launch

    monkeypatch.setattr(launch, "_openmp", lambda: None)
    assert_same(*both(values((16, 64, 400)), bins=a_map(64)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_are_not_modified(layout):
    """Fails if a loop writes where it reads."""
    x = laid_out(values((3, 5, 40)), layout)
    before = x.clone()
    cpu.read(x, ReadRequest(gate=a_map(5), bins=a_map(5), per_sample=PerSample(1e-5, True), keep_rows=True))
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def test_what_cannot_be_walked_goes_to_the_twin():
    """Fails if memory is read as what it is not: integers, complex parts, subclasses, no memory at all."""

    class Own_(Tensor):
        pass

    negative = torch.complex(torch.ones(2, 3, 4), torch.ones(2, 3, 4)).conj().imag
    odd = [torch.zeros(2, 3, 4, dtype=torch.int32), negative, torch.zeros(2, 3, 4).as_subclass(Own_)]
    odd += [torch.zeros(0, 3, 4), torch.zeros(2, 3, 4, device="meta")]
    assert not any(cpu.can_read(x) for x in odd)
    assert bnprobe.reductions.read(negative).moments.mean.tolist() == [-1, -1, -1]


def test_real_nets_keep_the_promise():
    """Fails if whole nets drift: variance to 1e-5, mean to 1e-5 of the deviation, shape to 1e-4."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 24, 5, padding=2),
        torch.nn.BatchNorm2d(24),
        torch.nn.ReLU(inplace=True),
        torch.nn.Conv2d(24, 48, 3, stride=2),
        torch.nn.BatchNorm2d(48),
    )
    seen: dict[str, list[Tensor]] = {"1": [], "4": []}
    for name, batches in seen.items():
        net.get_submodule(name).register_forward_pre_hook(
            lambda _, x, batches=batches: batches.append(x[0].clone())
        )
    with bnprobe.attach(net) as probe, torch.no_grad():
        for batch in range(3):
            net(torch.randn(4, 3, 61, 47) * (1 + batch))
    for record in probe.recording.layers:
        x = torch.cat(seen[record.layer]).double().movedim(1, 0).flatten(1).numpy()
        twin = Moments.of(x, axis=1)
        np.testing.assert_allclose(record.pre.var_population, twin.var_population, rtol=1e-5)
        assert np.all(np.abs(record.pre.mean - twin.mean) <= 1e-5 * np.sqrt(twin.var_population))
        np.testing.assert_allclose(record.pre.skewness, twin.skewness, atol=1e-4)
        np.testing.assert_allclose(record.pre.kurtosis_excess, twin.kurtosis_excess, atol=1e-4, rtol=1e-4)


SILENT = """
import torch, bnprobe
net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
with bnprobe.attach(net) as probe:
    net(torch.randn(2, 3, 16, 16))
from bnprobe import reductions
assert reductions.compiled() is {engine}, reductions.compiled()
assert probe.recording.layers[0].pre.n[0] == 2 * 14 * 14
"""


def run_silently(engine: str, *options: str, **environment: str) -> None:
    root = str(Path(bnprobe.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", SILENT.format(engine=engine)],
        env={**os.environ, "PYTHONPATH": root, **environment},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_first_call_of_a_process_is_silent():
    """Fails if compiling or loading the loops prints or warns."""
    run_silently("reductions.cpu.engine")


def test_without_a_place_for_compiled_code(tmp_path):
    """Fails if the loops need a writable home: a package and a user directory that cannot be written."""
    package = tmp_path / "bnprobe"
    shutil.copytree(Path(bnprobe.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    kernels = package / "reductions" / "cpu"
    (kernels / "__pycache__").write_text("a file where the directory should be")
    home = tmp_path / "home"
    home.write_text("likewise")
    environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "NUMBA_CACHE_DIR": ""}
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", SILENT.format(engine="reductions.cpu.engine")],
        env={**os.environ, **environment, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,  # where it runs comes before PYTHONPATH
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_numba():
    """Fails if the package needs numba to run: the twin takes over without a word."""
    run_silently("None", NUMBA_DISABLE_JIT="1")
    blocked = "import sys; sys.modules['numba'] = None\n" + SILENT.format(engine="None")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocked],
        env={**os.environ, "PYTHONPATH": str(Path(bnprobe.__file__).parent.parent)},
        cwd=Path(bnprobe.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 2049), (257, 5000), (4, 0)])
@pytest.mark.parametrize("turned", [False, True], ids=["rows", "on its side"])
def test_products_of_weights_and_gradients(shape, dtype, turned):
    """Fails if a block at the end is left out, or a row begins where another one does."""
    draw = torch.Generator().manual_seed(sum(shape))
    w = torch.randn(shape, generator=draw).to(dtype)
    g = (torch.randn(shape[::-1], generator=draw).T if turned else torch.randn(shape, generator=draw)).to(
        dtype
    )
    exact_w, exact_g = w.double().numpy(), g.double().numpy()
    found = products(w, g)
    # plain torch, which reads what lies on its side, rounds as it goes and answers in the type of the weights
    close = 1e-5 if dtype in (torch.float32, torch.float64) else 1e-2
    np.testing.assert_allclose(found[0], np.sqrt((exact_w**2).sum(1)), rtol=close)
    np.testing.assert_allclose(found[1], np.sqrt((exact_g**2).sum(1)), rtol=close)
    reach = np.sqrt((exact_w**2).sum(1) * (exact_g**2).sum(1))
    assert (np.abs(found[2] - (exact_w * exact_g).sum(1)) <= close * reach).all()


def test_nothing_is_read_beyond_the_end_of_an_array():
    """Fails if loops, which do not look where an array ends, are given one that is too short."""
    x = values((2, 5, 7))
    with pytest.raises(ValueError, match=r"4 channels.* 5"):
        cpu.read(x, ReadRequest(origin=np.zeros(4)))
    with pytest.raises(ValueError, match="do not add"):
        cpu.add(cpu.read(x).packed, cpu.read(x[:, :4]).packed)
    w = torch.randn(6, 3)
    with pytest.raises((ValueError, RuntimeError)):
        cpu.products(w, w[:5])
