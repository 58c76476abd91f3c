"""Every engine against the reference and against numpy: layouts, types, and the values that break sums.

What only one engine can get wrong (threads, files of compiled code, waiting for a GPU) is asked in its own file.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bnprobe import reductions
from bnprobe.reductions import Affine, PerSample, Reading, ReadRequest, Share, packing, reference
from bnprobe.stats.fields import FIELDS, NONFINITE, SUMS
from bnprobe.stats.histogram import Z_EDGES

from .contract import (
    COMPILED,
    DTYPES,
    ENGINES,
    LAYOUTS,
    LONG,
    NEXT,
    Engine,
    a_map,
    assert_close,
    laid_out,
    reads,
    values,
)

# the interpreter takes the extremes of NaN alone with numpy, which warns
pytestmark = pytest.mark.filterwarnings("ignore:All-NaN")
every_engine = pytest.mark.parametrize("engine", ENGINES)
compiled_engines = pytest.mark.parametrize("engine", COMPILED)
next_layouts = pytest.mark.parametrize("layout", NEXT)
UNIT = Affine(np.zeros(2), np.ones(2), np.zeros(2))


@pytest.mark.parametrize(("engine", "shape", "dtype", "layout"), reads())
def test_every_number_of_a_read(engine: Engine, shape, dtype, layout):
    """Fails if a stride, a type, a tail, a lane or a sum of `stats.fields` is lost: every part of a reading."""
    x, (n, c, _) = values(shape, dtype), shape
    one = {"gate": a_map(c), "bins": a_map(c, seed=4), "per_sample": PerSample(1e-3, True)}
    engine.check(x, layout, origin=np.linspace(0, 3, c), **one)
    each = {"gate": a_map(c, n), "bins": a_map(c, n, seed=4), "share": Share(3, 2)}
    engine.check(x, layout, keep_rows=True, per_sample=PerSample(1e-3, False), **each)


@every_engine
@next_layouts
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", LONG, ids=str)
def test_types(engine: Engine, shape, dtype, layout):
    """Fails if a type is read as another, or summed in its own narrow one; one, two and several tiles."""
    x, c = values(shape, dtype), shape[1]
    engine.check(x, layout, origin=np.zeros(c), gate=a_map(c), bins=a_map(c, seed=4))


@every_engine
def test_nothing_adds_nothing(engine: Engine):
    """Fails if a batch without images adds to a sum, or goes to loops that read memory which is not there."""
    x = torch.zeros(0, 3, 5, device=engine.device)
    assert engine.module.can_read(x) == (engine.module is reference)
    found = reference.read(x, ReadRequest(gate=a_map(3), bins=a_map(3)))
    engine.assert_sums(found, x, a_map(3))
    assert not found.packed[NONFINITE:].any()


@pytest.mark.parametrize(("engine", "shape", "dtype", "layout"), reads((3, 70, 40)))
def test_values_that_are_not_finite(engine: Engine, shape, dtype, layout):
    """Fails if a NaN or an infinity enters a sum, hides in an extreme, or is not counted."""
    x = values(shape, dtype)
    x[0, 0, 1], x[1, 2, 3], x[0, 2, 0], x[2, 37, 39] = torch.nan, torch.inf, -torch.inf, torch.nan
    x[1, 1], x[:, 5], x[:, 69, 0] = torch.nan, torch.inf, torch.nan
    asked = {"gate": a_map(70), "bins": a_map(70, seed=4), "per_sample": PerSample(1e-3, True)}
    found = engine.check(x, layout, keep_rows=True, **asked)
    assert found.n_nonfinite[[0, 1, 2, 5, 37]].tolist() == [1, 40, 2, 120, 1]


@every_engine
@next_layouts
def test_a_channel_without_values_in_one_image(engine: Engine, layout):
    """Fails if an image of which nothing is finite counts as one with mean 0, or sets the first point."""
    x = values((4, 5, 30)) + 1e4
    x[0, 1], x[2, 3], x[:, 4] = torch.nan, torch.inf, torch.nan
    found = engine.check(x, layout, origin=np.full(5, 1e4))
    assert found.images.n.tolist() == [4, 3, 4, 3, 0]


@compiled_engines
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(5, 3, 50), (6, 3, 1), (2, 70, 20)], ids=str)
@pytest.mark.parametrize("per_sample", [False, True], ids=["one map", "a map per sample"])
def test_counts_alone(engine: Engine, shape, layout, per_sample):
    """Fails if `count` mistakes a layout or a map: it has loops of its own, for gates known late."""
    n, c, _ = shape
    x = laid_out(values(shape).to(engine.device), layout)
    x[0, 0, 0], x[1, 1, 0], x[1, 2, 0] = torch.nan, torch.inf, -torch.inf
    gate, bins = (a_map(c, n if per_sample else None, seed) for seed in (1, 2))
    with engine.quiet():
        for asked in ((gate, None), (None, bins), (gate, bins)):
            found = engine.module.count(x, *asked, Share(2, 1))
            expected = reference.count(x, *asked, Share(2, 1))
            np.testing.assert_array_equal(found.n_positive, expected.n_positive)
            np.testing.assert_array_equal(found.histogram, expected.histogram)
    assert engine.module.count(x, None, None) == reference.Counts()


@compiled_engines
@next_layouts
@pytest.mark.parametrize("n_positions", [300, 1500])
@pytest.mark.parametrize("far", [1e6, -3e5, 1e8])
def test_far_from_zero(engine: Engine, far, layout, n_positions):
    """Fails if rows are summed about 0 or far from their mean: at 1e6 no digit of the variance is left."""
    engine.check(values((3, 6, n_positions)) * 30 + far, layout, origin=np.full(6, far), keep_rows=True)


@compiled_engines
@next_layouts
def test_rows_far_from_each_other(engine: Engine, layout):
    """Fails if the point of one image serves the next unchecked: rows at 0, 1e4, -1e4, with spread 1."""
    places = torch.tensor([0, 1e4, -1e4, 1e4, 0, 5])[:, None, None]
    engine.check(values((6, 3, 700)) + places, layout, keep_rows=True)


@compiled_engines
@next_layouts
def test_a_pilot_that_misses(engine: Engine, layout):
    """Fails if a row is not summed again when the values that should give its mean lie far from it.

    Every 62nd of 2000 values, those a pilot of 32 sees, is 1000; the others are noise of size 1 about 0.
    """
    x = values((2, 3, 2000)) % 1
    x[:, :, : 32 * 62 : 62] = 1000.0
    x[1] = values((1, 3, 2000)) % 1
    engine.check(x, layout, keep_rows=True)


@compiled_engines
@next_layouts
@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e-9, 1e12, 1e25, 1e37])
def test_very_small_and_very_large(engine: Engine, size, layout):
    """Fails if float32 runs out of range: the fourth power of 1e-10 is below it, that of 1e10 above."""
    engine.check(values((3, 5, 200)) * size, layout, keep_rows=True)


@compiled_engines
@next_layouts
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6 - 0.1, 3e38])
@pytest.mark.parametrize("n_positions", [50, 1300])
def test_constant_rows_have_no_variance(engine: Engine, value, layout, n_positions):
    """Fails if rounding makes a variance where there is none, or a constant image moves its neighbours."""
    x = values((3, 4, n_positions))
    x[:, 1], x[1, 2] = value, value
    found = engine.read(laid_out(x.to(engine.device), layout), keep_rows=True)
    expected = reference.read(x, ReadRequest(keep_rows=True))
    assert_close(found.rows, expected.rows)
    engine.assert_sums(found, x, None)
    assert found.moments.m2[1] == found.rows.m2[1, 2] == 0
    assert found.moments.mean[1] == torch.tensor(value).item()


@compiled_engines
@next_layouts
@pytest.mark.parametrize("n_positions", [2, 3, 100, 5000])
def test_two_valued_rows_stay_possible(engine: Engine, n_positions, layout):
    """Fails if rounding breaks a law: two values reach the bounds of Popoviciu and Pearson exactly."""
    rng = np.random.default_rng(2)
    coin = rng.random((4, 6, n_positions)) < np.array([0.5, 0.01, 0.99, 0.1, 0.5, 0.7])[:, None]
    x = torch.tensor(np.where(coin, 0.7, 0.1), dtype=torch.float32, device=engine.device)
    found = engine.read(laid_out(x, layout), keep_rows=True)
    found.moments.check_sane()
    found.rows.check_sane()


@compiled_engines
def test_float16_near_its_end(engine: Engine):
    """Fails if sums run in float16, which ends at 65504."""
    x = torch.full((2, 3, 100), 65504.0, dtype=torch.float16)
    x[:, 1] = -65504.0
    x[0, 2, 0] = 6e-8
    engine.check(x, bins=a_map(3), gate=a_map(3))


@compiled_engines
def test_an_origin_that_cannot_be_written(engine: Engine):
    """Fails if read-only arrays, which recordings are made of, cannot be handed over."""
    origin = np.ones(3)
    origin.flags.writeable = False
    engine.check(values((2, 3, 40)), origin=origin)


@every_engine
def test_maps_that_are_not_finite_or_flat(engine: Engine):
    """Fails if a gate with scale 0, NaN or an infinite scale is compared as if it had a threshold."""
    x = values((3, 8, 40))
    x[0, :, 0], x[1, :, 1] = torch.inf, torch.nan
    one, zero = np.ones(8), np.zeros(8)
    scale = np.array([0, 0, np.nan, np.inf, -np.inf, 1, -1, 1e-300])
    offset = np.array([1, -1, 1, 0.5, 0.5, np.nan, np.inf, 3])
    gate = Affine(x[2, :, 3].double().numpy(), scale, offset)
    with np.errstate(all="ignore"):
        engine.check(x, gate=gate, bins=Affine(one, one, zero))


@compiled_engines
@pytest.mark.parametrize("at", [0.1, 1e-45, 0.0, -0.1])
def test_gates_are_exact_at_the_edge(engine: Engine, at):
    """Fails if the threshold is rounded to nearest: values just at, above and below it must fall right."""
    edge = np.float32(at)
    near = np.array([np.nextafter(edge, -1, dtype=np.float32), edge, np.nextafter(edge, 1, dtype=np.float32)])
    x = torch.tensor(near, device=engine.device).repeat(2, 2, 5)
    for exactly in (at, float(edge), np.nextafter(float(edge), 1), np.nextafter(float(edge), -1)):
        for sign in (1.0, -1.0):
            gate = Affine(np.full(2, exactly), np.full(2, sign), np.zeros(2))
            expected = reference.count(x, gate, None).n_positive.tolist()
            with engine.quiet():
                assert engine.module.count(x, gate, None).n_positive.tolist() == expected
            assert engine.read(x, gate=gate).counts.n_positive.tolist() == expected


@compiled_engines
@next_layouts
def test_bins_are_exact_at_every_edge(engine: Engine, layout):
    """Fails if a bin comes from rounded arithmetic: values on, just below and just above each edge."""
    edges = np.concatenate([Z_EDGES, [0.0, -0.0, 1e30, -1e30, 63.0, 64.0]])
    z = np.concatenate(
        [edges, np.nextafter(edges, 1e9), np.nextafter(edges, -1e9), [np.nan, np.inf, -np.inf]]
    )
    x = laid_out(torch.tensor(z, device=engine.device).repeat(1, 2, 1), layout)
    with engine.quiet():
        found = engine.module.count(x, None, UNIT).histogram
    np.testing.assert_array_equal(found, reference.count(x, None, UNIT).histogram)
    assert found.sum() == 2 * 3 * len(edges)


@compiled_engines
def test_the_rotating_share_counts_every_image_in_turn(engine: Engine):
    """Fails if the offset stands still, so that some images never count: four calls count all of them."""
    x = values((6, 2, 50)).to(engine.device)
    total = sum(engine.module.count(x, None, UNIT, Share(4, first)).histogram for first in range(4))
    np.testing.assert_array_equal(total, reference.count(x, None, UNIT).histogram)
    assert engine.read(x, bins=UNIT, share=Share(4, 1)).counts.histogram.sum() == 50 * 2


@every_engine
def test_totals_add_as_the_statistics_merge(engine: Engine):
    """Fails if the sum of readings is not that of `Moments.merge` and `ImageMoments.merge`, or a sum does not add."""
    parts = [values((n, 5, p), seed=n) for n, p in ((1, 3), (4, 50), (2, 1), (3, 70))]
    parts[1][0, 2] = torch.nan
    parts[2][:, 3] = torch.nan
    readings = [
        reference.read(x, ReadRequest(origin=np.full(5, i / 2), gate=a_map(5))) for i, x in enumerate(parts)
    ]
    empty = reference.read(torch.zeros(0, 5, 3), ReadRequest(origin=np.zeros(5)))
    moments, images = empty.moments, empty.images
    for reading in readings:
        moments, images = moments.merge(reading.moments), images.merge(reading.images)
    found = Reading(added(engine, [empty, *readings, empty]), reference.Counts())
    for mine, other in ((found.moments, moments), (found.images, images)):
        for name, value in vars(other).items():
            np.testing.assert_allclose(getattr(mine, name), value, rtol=1e-9, atol=1e-9, err_msg=name)
    for sum_ in SUMS:
        at = FIELDS.index(sum_.name)
        expected = sum(reading.packed[at] for reading in readings)
        np.testing.assert_allclose(found.packed[at], expected, rtol=1e-12, err_msg=sum_.name)


def added(engine: Engine, readings: list[Reading]) -> np.ndarray:
    """The packed readings added up where this engine keeps them, the first of them untouched."""
    if engine.name == "gpu":
        total = torch.tensor(readings[0].packed, device=engine.device)
        for reading in readings[1:]:
            engine.module.add(total, torch.tensor(reading.packed, device=engine.device))
        return total.cpu().numpy()
    array = readings[0].packed.copy()
    add = packing.add if engine.module is reference else engine.module.add
    for reading in readings[1:]:
        add(array, reading.packed)
    return array


@compiled_engines
@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_are_not_modified(engine: Engine, layout):
    """Fails if a loop writes where it reads."""
    x = laid_out(values((3, 5, 40)).to(engine.device), layout)
    before = x.clone()
    engine.read(x, gate=a_map(5), bins=a_map(5), per_sample=PerSample(1e-5, True), keep_rows=True)
    torch.testing.assert_close(x, before, rtol=0, atol=0)


@compiled_engines
def test_what_cannot_be_walked_goes_to_the_reference(engine: Engine):
    """Fails if memory is read as what it is not: integers, complex parts, subclasses, no memory at all."""

    class Own_(Tensor):
        pass

    zeros = torch.zeros(2, 3, 4, device=engine.device)
    negative = torch.complex(zeros + 1, zeros + 1).conj().imag
    odd = [zeros.int(), negative, zeros.as_subclass(Own_), zeros[:0], torch.zeros(2, 3, 4, device="meta")]
    assert not any(engine.module.can_read(x) for x in odd)
    assert reductions.read(negative).moments.mean.tolist() == [-1, -1, -1]
