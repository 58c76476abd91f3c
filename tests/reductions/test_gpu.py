"""The triton kernels against their float64 twin: on a GPU where there is one, else interpreted on the CPU.

The interpreter runs one program after the other, so shapes are small and chosen for the ways through the
kernels: rows in one tile of one warp, in one tile of four, in several; tiles that are not full; one channel.
On a machine with a GPU the same tests run there; those that ask about waiting run only there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import bnprobe
from bnprobe import reductions
from bnprobe.reductions import Affine, PerSample, Reading, Share, reference
from bnprobe.stats.histogram import N_BINS, SIDE, Z_EDGES

from .test_cpu import LAYOUTS, a_map, assert_close, assert_same_images, laid_out, values

pytest.importorskip("triton", reason="triton ships with torch's CUDA builds only")

from bnprobe.reductions import ReadRequest
from bnprobe.reductions.gpu import engine

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
# the interpreter takes the extremes of NaN alone with numpy, which warns
pytestmark = pytest.mark.filterwarnings("ignore:All-NaN")
on_gpu = pytest.mark.skipif(DEVICE != "cuda", reason="needs a GPU")
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = [(2, 3, 5), (5, 7, 49), (1, 70, 33), (2, 3, 300), (3, 5, 1), (2, 1, 64), (9, 3, 2)]


@pytest.fixture(autouse=True)
def _numpy_is_as_quiet_as_a_gpu() -> Iterator[None]:
    with np.errstate(all="ignore"):
        yield


def there(x: Tensor, layout: str = LAYOUTS[0]) -> Tensor:
    return laid_out(x.to(DEVICE), layout)


def assert_same(found: Reading, twin: Reading) -> None:
    """Every part of two readings; what a norm itself computes to 1e-6, for it is summed in float32 here."""
    assert_close(found.moments, twin.moments)
    np.testing.assert_array_equal(found.n_nonfinite, twin.n_nonfinite)
    for name in ("n_positive", "histogram"):
        np.testing.assert_array_equal(getattr(found.counts, name), getattr(twin.counts, name), err_msg=name)
    assert (found.rows is None) == (twin.rows is None)
    if found.rows is not None and twin.rows is not None:
        assert_close(found.rows, twin.rows)
    for mine, other in zip(found.per_sample or (), twin.per_sample or (), strict=True):
        np.testing.assert_array_equal(mine.n, other.n)
        spread = np.sqrt(other.m2 / np.maximum(other.n, 1)) + np.abs(other.mean)
        assert np.all(np.abs(mine.mean - other.mean) <= 1e-6 * spread)
        assert np.all(np.abs(mine.m2 - other.m2) <= 1e-5 * spread**2 * other.n)
    assert_same_images(found, twin)


def both(x: Tensor, **asked: object) -> tuple[Reading, Reading]:
    assert engine.can_read(x)
    return engine.read(x, ReadRequest(**asked)), reference.read(x, ReadRequest(**asked))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_number_of_a_read(shape, layout):
    """Fails if a stride, a tail or a lane is lost: every part of a reading, in every layout."""
    x = there(values(shape), layout)
    n, c, _ = shape
    origin = np.linspace(0, 3, c)
    assert_same(
        *both(x, origin=origin, gate=a_map(c), bins=a_map(c, seed=4), per_sample=PerSample(1e-3, True))
    )
    each = {"gate": a_map(c, n), "bins": a_map(c, n, seed=4), "share": Share(3, 2)}
    assert_same(*both(x, keep_rows=True, per_sample=PerSample(1e-3, False), **each))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 70), (2, 5, 700), (1, 2, 3000)], ids=str)
def test_types(shape, dtype, layout):
    """Fails if a type is read as another, or summed in its own narrow one; one, two and several tiles."""
    x, c = there(values(shape, dtype), layout), shape[1]
    assert_same(*both(x, origin=np.zeros(c), gate=a_map(c), bins=a_map(c, seed=4)))


@on_gpu
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 130, 150), (2, 3, 9001), (16, 256, 196), (300, 7, 1)], ids=str)
def test_larger_shapes(shape, dtype, layout):
    """As `test_every_number_of_a_read`, in shapes that take the interpreter too long."""
    x, (n, c, _) = there(values(shape, dtype), layout), shape
    assert_same(*both(x, origin=np.linspace(0, 3, c), gate=a_map(c), bins=a_map(c, seed=4)))
    assert_same(
        *both(x, keep_rows=True, gate=a_map(c, n), per_sample=PerSample(1e-3, True), bins=a_map(c, n, seed=4))
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(5, 3, 50), (6, 3, 1)], ids=str)
@pytest.mark.parametrize("per_sample", [False, True], ids=["one map", "a map per sample"])
def test_counts_alone(shape, layout, per_sample):
    """Fails if `count` mistakes a layout or a map: gates that are known late have a kernel of their own."""
    n, c, _ = shape
    x = there(values(shape), layout)
    x[0, 0, 0], x[1, 1, 0], x[1, 2, 0] = torch.nan, torch.inf, -torch.inf
    gate, bins = (a_map(c, n if per_sample else None, seed) for seed in (1, 2))
    for asked in ((gate, None), (None, bins), (gate, bins)):
        found, twin = engine.count(x, *asked, Share(2, 1)), reference.count(x, *asked, Share(2, 1))
        np.testing.assert_array_equal(found.n_positive, twin.n_positive)
        np.testing.assert_array_equal(found.histogram, twin.histogram)
    assert engine.count(x, None, None) == reference.Counts()


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_that_are_not_finite(dtype, layout):
    """Fails if a NaN or an infinity enters a sum, hides in an extreme, or is not counted."""
    x = there(values((3, 70, 40), dtype), layout)
    x[0, 0, 1], x[1, 2, 3], x[0, 2, 0], x[2, 37, 39] = torch.nan, torch.inf, -torch.inf, torch.nan
    x[1, 1], x[:, 5], x[:, 69, 0] = torch.nan, torch.inf, torch.nan
    found, twin = both(
        x, gate=a_map(70), bins=a_map(70, seed=4), keep_rows=True, per_sample=PerSample(1e-3, True)
    )
    assert_same(found, twin)
    assert found.n_nonfinite[[0, 1, 2, 5, 37]].tolist() == [1, 40, 2, 120, 1]


@pytest.mark.parametrize("n_positions", [300, 1500])
@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("far", [1e6, -3e5, 1e8])
def test_far_from_zero(far, layout, n_positions):
    """Fails if rows are summed about 0 or far from their mean: at 1e6 no digit of the variance is left."""
    x = there(values((2, 6, n_positions)) * 30 + far, layout)
    assert_same(*both(x, origin=np.full(6, far), keep_rows=True))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_a_pilot_that_misses(layout):
    """Fails if a row is not summed again when the values that were to tell its mean lie far from it.

    Every 62nd of 2000 values, those the pilot sees, is 1000; the others are noise of size 1 about 0.
    """
    x = values((2, 3, 2000)) % 1
    x[:, :, : 32 * 62 : 62] = 1000.0
    x[1] = values((1, 3, 2000)) % 1
    assert_same(*both(there(x, layout), keep_rows=True))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e-9, 1e12, 1e25, 1e37])
def test_very_small_and_very_large(size, layout):
    """Fails if float32 runs out of range: the fourth power of 1e-10 is below it, that of 1e10 above."""
    x = there(values((3, 5, 200)) * size, layout)
    assert_same(*both(x, keep_rows=True))


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6 - 0.1, 3e38])
@pytest.mark.parametrize("n_positions", [50, 1300])
def test_constant_rows_have_no_variance(value, layout, n_positions):
    """Fails if rounding makes a variance where there is none, or a constant image moves its neighbours."""
    x = values((3, 4, n_positions))
    x[:, 1], x[1, 2] = value, value
    found, twin = both(there(x, layout), keep_rows=True)
    assert_close(found.rows, twin.rows)
    assert found.moments.m2[1] == found.rows.m2[1, 2] == 0
    assert found.moments.mean[1] == torch.tensor(value).item()


@pytest.mark.parametrize("layout", LAYOUTS[:2])
@pytest.mark.parametrize("n_positions", [2, 3, 100, 1100])
def test_two_valued_rows_stay_possible(n_positions, layout):
    """Fails if rounding breaks a law: two values reach the bounds of Popoviciu and Pearson exactly."""
    rng = np.random.default_rng(2)
    coin = rng.random((4, 6, n_positions)) < np.array([0.5, 0.01, 0.99, 0.1, 0.5, 0.7])[:, None]
    x = there(torch.tensor(np.where(coin, 0.7, 0.1), dtype=torch.float32), layout)
    found = engine.read(x, ReadRequest(keep_rows=True))
    found.moments.check_sane()
    found.rows.check_sane()


def test_float16_near_its_end():
    """Fails if sums run in float16, which ends at 65504."""
    x = torch.full((2, 3, 100), 65504.0, dtype=torch.float16)
    x[:, 1] = -65504.0
    x[0, 2, 0] = 6e-8
    assert_same(*both(there(x), bins=a_map(3), gate=a_map(3)))


def test_maps_that_are_not_finite_or_flat():
    """Fails if a gate with scale 0, NaN or an infinite scale is compared as if it had a threshold."""
    x = values((3, 8, 40))
    x[0, :, 0], x[1, :, 1] = torch.inf, torch.nan
    one, zero = np.ones(8), np.zeros(8)
    scale = np.array([0, 0, np.nan, np.inf, -np.inf, 1, -1, 1e-300])
    offset = np.array([1, -1, 1, 0.5, 0.5, np.nan, np.inf, 3])
    gate = Affine(x[2, :, 3].double().numpy(), scale, offset)
    assert_same(*both(there(x), gate=gate, bins=Affine(one, one, zero)))


@pytest.mark.parametrize("at", [0.1, 1e-45, 0.0, -0.1])
def test_gates_are_exact_at_the_edge(at):
    """Fails if the threshold is rounded to nearest: values just at, above and below it must fall right."""
    edge = np.float32(at)
    near = np.array([np.nextafter(edge, -1, dtype=np.float32), edge, np.nextafter(edge, 1, dtype=np.float32)])
    x = there(torch.tensor(near).repeat(2, 2, 5))
    for exactly in (at, float(edge), np.nextafter(float(edge), 1), np.nextafter(float(edge), -1)):
        for sign in (1.0, -1.0):
            gate = Affine(np.full(2, exactly), np.full(2, sign), np.zeros(2))
            expected = reference.count(x, gate, None).n_positive.tolist()
            assert engine.count(x, gate, None).n_positive.tolist() == expected
            assert engine.read(x, ReadRequest(gate=gate)).counts.n_positive.tolist() == expected


def test_bins_are_exact_at_every_edge():
    """Fails if a bin comes from rounded arithmetic: values on, just below and just above each edge."""
    edges = np.concatenate([Z_EDGES, [0.0, -0.0, 1e30, -1e30, 63.0, 64.0]])
    z = np.concatenate([edges, np.nextafter(edges, 1e9), np.nextafter(edges, -1e9)])
    x = there(torch.tensor(z).repeat(1, 2, 1))
    unit = Affine(np.zeros(2), np.ones(2), np.zeros(2))
    found, twin = engine.count(x, None, unit).histogram, reference.count(x, None, unit).histogram
    np.testing.assert_array_equal(found, twin)


def test_many_values_of_a_channel_are_binned_by_several_programs(monkeypatch):
    """Fails if a piece of a channel's values is binned twice, or by nobody."""
    monkeypatch.setattr(engine, "CHUNK", 128)
    x, bins = there(values((7, 3, 90))), a_map(3)
    for share in (Share(), Share(2, 1), Share(4, 2), Share(20, 3)):
        found = engine.count(x, None, bins, share).histogram
        np.testing.assert_array_equal(found, reference.count(x, None, bins, share).histogram)


def test_constants_of_the_kernels_are_those_of_the_statistics():
    """Fails if a bin moves on one side only: kernels can see no value from outside."""
    from bnprobe.reductions.gpu import tally

    assert (tally.N_BINS.value, tally.SIDE.value) == (N_BINS, SIDE)


def test_totals_add_as_the_statistics_merge():
    """Fails if the sum of readings on the device is not that of `Moments.merge` and `ImageMoments.merge`."""
    parts = [values((n, 5, p), seed=n) for n, p in ((1, 3), (4, 50), (2, 1), (3, 70))]
    parts[1][0, 2] = torch.nan
    parts[2][:, 3] = torch.nan
    readings = [
        reference.read(x, ReadRequest(origin=np.full(5, i / 2), gate=a_map(5))) for i, x in enumerate(parts)
    ]
    empty = reference.read(torch.zeros(0, 5, 3), ReadRequest(origin=np.zeros(5)))
    total = torch.tensor(empty.packed, device=DEVICE)
    for reading in [*readings, empty]:
        engine.add(total, torch.tensor(reading.packed, device=DEVICE))
    moments, images, bad = empty.moments, empty.images, np.zeros(5)
    for reading in readings:
        moments, images = moments.merge(reading.moments), images.merge(reading.images)
        bad = bad + reading.n_nonfinite
    found = Reading(total.cpu().numpy(), reference.Counts())
    for mine, other in ((found.moments, moments), (found.images, images)):
        for name, value in vars(other).items():
            np.testing.assert_allclose(getattr(mine, name), value, rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_array_equal(found.n_nonfinite, bad)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_are_not_modified(layout):
    """Fails if a kernel writes where it reads."""
    x = there(values((3, 5, 40)), layout)
    before = x.clone()
    engine.read(
        x, ReadRequest(gate=a_map(5), bins=a_map(5), per_sample=PerSample(1e-5, True), keep_rows=True)
    )
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def test_what_cannot_be_walked_goes_to_the_twin():
    """Fails if memory is read as what it is not: integers, complex parts, subclasses, no memory at all."""

    class Own_(Tensor):
        pass

    negative = torch.complex(torch.ones(2, 3, 4), torch.ones(2, 3, 4)).to(DEVICE).conj().imag
    zeros = torch.zeros(2, 3, 4, device=DEVICE)
    odd = [zeros.int(), negative, zeros.as_subclass(Own_), zeros[:0], torch.zeros(2, 3, 4, device="meta")]
    assert not any(engine.can_read(x) for x in odd)


def test_the_dispatch_picks_the_kernels(monkeypatch):
    """Fails if a tensor on the device goes elsewhere, or what the kernels cannot read goes to them."""
    monkeypatch.setitem(reductions.ENGINES, DEVICE, reductions.fused)
    monkeypatch.setattr(engine, "read", lambda x, request: "the kernels")
    x = there(values((2, 3, 4)))
    assert reductions.read(x) == "the kernels"
    assert reductions.read(x[:0]).moments.n.tolist() == [0, 0, 0]


def test_without_triton(monkeypatch):
    """Fails if a GPU needs triton: the twin takes over, and where triton fails it says why."""
    monkeypatch.setitem(reductions.ENGINES, DEVICE, reductions.fused.__wrapped__)
    x = there(values((2, 3, 4)))

    def no_compiler() -> None:
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(engine, "rehearse", no_compiler)
    with pytest.warns(RuntimeWarning, match="no C compiler.*plain torch"):
        found = reductions.read(x)
    np.testing.assert_allclose(found.moments.mean, x.double().mean((0, 2)).cpu())
    monkeypatch.setitem(__import__("sys").modules, "bnprobe.reductions.gpu.engine", None)
    monkeypatch.delattr(reductions.gpu, "engine")
    np.testing.assert_allclose(reductions.read(x).moments.mean, x.double().mean((0, 2)).cpu())


def test_every_kernel_compiles_for_a_gpu(tmp_path):
    """Fails if a kernel says what the interpreter understands and the compiler does not. Needs no GPU."""
    program = Path(__file__).with_name("compile_kernels.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(reductions.__file__).parents[2])}
    environment.pop("TRITON_INTERPRET", None)
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["sum_rows"] * 5 + ["join_rows"] * 2 + [
        "bin_values",
        "count_positive",
        "add_packed",
    ]


@on_gpu
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_no_pass_waits_for_the_gpu(layout, autocast):
    """Fails if a pass after the first makes the host wait: torch raises wherever one would."""
    model = torch.nn.Sequential(
        *(
            torch.nn.Conv2d(3, 64, 3),
            torch.nn.BatchNorm2d(64),
            torch.nn.ReLU(inplace=True),
            torch.nn.Conv2d(64, 32, 3),
        ),
        *(
            torch.nn.BatchNorm2d(32),
            torch.nn.Flatten(2),
            torch.nn.LayerNorm(36 * 36),
            torch.nn.RMSNorm(36 * 36),
        ),
    )
    model = model.eval().to(DEVICE, memory_format=layout)
    x = torch.randn(8, 3, 40, 40, device=DEVICE).to(memory_format=layout)
    with bnprobe.attach(model) as probe, torch.no_grad(), torch.autocast("cuda", enabled=autocast):
        model(x)
        model(x)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(5):
                model(x)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    recording = probe.recording
    assert [record.n_calls for record in recording.layers] == [7] * 4
    for record in recording.layers:
        record.pre.check_sane()
        assert record.pre_histogram.n.max() > 0
