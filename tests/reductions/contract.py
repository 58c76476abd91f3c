"""What every engine owes for one read: the numbers of the reference, and every sum of `stats.fields` by numpy.

`ENGINES` are the reference, the compiled loops and the triton kernels: on a GPU where there is one, else interpreted
on the CPU. `Engine.check` reads with one of them and holds every number of the reading. A sum that `stats.fields`
declares is asked of all three from then on; what one value adds to it is said in `support.oracles.ADDS`.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from support.oracles import ADDS
from torch import Tensor

from bnprobe.reductions import Affine, Reading, ReadRequest, compiled, reference
from bnprobe.stats import Moments
from bnprobe.stats.fields import FIELDS, SUMS, Sum

try:
    from bnprobe.reductions.gpu import engine as kernels
except ImportError:
    kernels = None

GPU_DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
"""Where the kernels run."""

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LAYOUTS = ["positions next", "channels next", "samples next", "gaps", "reversed axes"]
NEXT = LAYOUTS[:2]
"""The layouts that engines have loops of their own for."""

SHAPES = [(2, 3, 5), (5, 7, 49), (7, 5, 1), (1, 70, 33), (2, 1, 64), (9, 3, 2), (2, 3, 300)]
"""Tails, tiles that are not full, one channel, one value per image; rows in one tile of one warp and of four."""

LONG = [(2, 3, 70), (2, 5, 700), (1, 2, 3000)]
"""Rows of one, two and several tiles."""

LARGE = [(3, 130, 150), (2, 3, 9001)]
MANY = [(16, 256, 196), (300, 7, 1)]
"""Shapes that take an interpreter too long, and those that take a CPU long."""

LARGEST_SUM = 1e35
"""Up to here sums are asked for: blocks of terms add up in float32."""


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
    """Skewed, at a place and scale per channel, another per sample; some are exactly 0, and some below."""
    rng = np.random.default_rng(seed)
    x = rng.gamma(0.7, size=shape) * (1 + rng.gamma(2.0, size=(shape[0], 1, 1)))
    channel = np.arange(shape[1])[:, None]
    x = x * 2.0 ** (channel % 5 - 2) + channel % 7 - 1.5 * (channel % 2)
    x[(rng.random(shape) < 0.05)] = 0.0
    return torch.tensor(x, dtype=dtype)


def a_map(n_channels: int, per_sample: int | None = None, seed: int = 3) -> Affine:
    """A map per channel, or per sample and channel, that is positive for some values and not for others."""
    shape = (n_channels,) if per_sample is None else (per_sample, n_channels)
    rng = np.random.default_rng(seed)
    return Affine(rng.normal(size=shape) + 2, rng.normal(size=shape), rng.normal(size=shape))


@dataclass(frozen=True)
class Engine:
    """One way to read a tensor; `digits` is how far a norm's own statistics may be off, in units of their spread."""

    name: str
    module: Any
    device: str
    digits: float
    shapes: list[tuple[int, int, int]]

    def __repr__(self) -> str:
        return self.name

    @property
    def interpreted(self) -> bool:
        """Whether kernels run one program after the other, so that tensors have to be small."""
        return self.name == "gpu" and self.device == "cpu"

    def quiet(self) -> AbstractContextManager[None]:
        """A GPU says nothing about NaN and infinity; numpy, by which kernels are interpreted, must be told not to."""
        return np.errstate(all="ignore") if self.interpreted else nullcontext()

    def read(self, x: Tensor, **asked: Any) -> Reading:
        """One read by this engine, and by no other."""
        assert self.module.can_read(x)
        try:
            with self.quiet():
                found: Reading = self.module.read(x, ReadRequest(**asked))
        except Exception as fault:
            fault.add_note(
                f"While the {self} engine read; it owes the sums {', '.join(s.name for s in SUMS)}."
            )
            raise
        return found

    def check(self, x: Tensor, layout: str = NEXT[0], **asked: Any) -> Reading:
        """Read x in a layout, and hold every number of the reading."""
        x = laid_out(x.to(self.device), layout)
        found = self.read(x, **asked)
        self.assert_sums(found, x, asked.get("gate"))
        self.assert_same(found, reference.read(x, ReadRequest(**asked)))
        return found

    def assert_sums(self, found: Reading, x: Tensor, gate: Affine | None) -> None:
        """Every sum of `stats.fields` is what numpy makes of the values, or of gate(values)."""
        rows = x.double().cpu().numpy()
        for sum_ in SUMS:
            of = rows if "gate" not in sum_.record else None if gate is None else _mapped(rows, gate)
            terms = np.zeros_like(rows) if of is None else added_by(sum_, of)
            true, mine = terms.sum((0, 2)), found.packed[FIELDS.index(sum_.name)]
            size = np.abs(terms).sum((0, 2))
            asked = size < LARGEST_SUM
            close = mine == true if sum_.whole else np.abs(mine - true) <= 2e-6 * size
            for c in np.flatnonzero(~close & asked)[:1]:
                pytest.fail(
                    f"the {self} engine says {mine[c]} for `{sum_.name}` of stats.fields in channel {c}, numpy "
                    f"{true[c]}. CONTRIBUTING.md says where each engine adds it up."
                )

    def assert_same(self, found: Reading, expected: Reading) -> None:
        """Every part of two readings."""
        assert_close(found.moments, expected.moments)
        for name in ("n_positive", "histogram"):
            mine, other = getattr(found.counts, name), getattr(expected.counts, name)
            np.testing.assert_array_equal(mine, other, err_msg=name)
        assert (found.rows is None) == (expected.rows is None)
        if found.rows is not None and expected.rows is not None:
            assert_close(found.rows, expected.rows)
        for mine, other in zip(found.per_sample or (), expected.per_sample or (), strict=True):
            np.testing.assert_array_equal(mine.n, other.n)
            spread = np.sqrt(other.m2 / np.maximum(other.n, 1)) + np.abs(other.mean)
            assert np.all(np.abs(mine.mean - other.mean) <= self.digits * spread)
            assert np.all(np.abs(mine.m2 - other.m2) <= 10 * self.digits * spread**2 * other.n)
        assert_same_images(found, expected)


def added_by(sum_: Sum, rows: np.ndarray) -> np.ndarray:
    """What each value adds to a sum of `stats.fields`, by numpy."""
    if sum_.name not in ADDS:
        pytest.fail(
            f"stats.fields declares the sum `{sum_.name}`; say in ADDS of tests/support/oracles.py what a value adds."
        )
    return np.asarray(ADDS[sum_.name](rows), dtype=np.float64)


def _mapped(rows: np.ndarray, map_: Affine) -> np.ndarray:
    origin, scale, offset = (
        np.broadcast_to(v, rows.shape[:2])[..., None] for v in (map_.origin, map_.scale, map_.offset)
    )
    with np.errstate(all="ignore"):
        return scale * (rows - origin) + offset


def assert_close(found: Moments, expected: Moments) -> None:
    """Mean and variance to 1e-6 of the spread, the shape to 1e-4, extremes exactly."""
    for name in ("n", "low", "high"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    n = np.maximum(expected.n, 1)
    sd = np.sqrt(expected.m2 / n)
    unit = np.where(sd > 0, sd, 1.0)
    apart = np.abs(found.mean - expected.mean)
    assert np.all(apart <= 1e-6 * sd + 1e-12 * np.abs(expected.mean)), "mean"
    np.testing.assert_allclose(found.m2, expected.m2, rtol=2e-6, atol=1e-300, err_msg="m2")
    np.testing.assert_allclose(found.m3 / n / unit**3, expected.m3 / n / unit**3, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.m4 / n / unit**4, expected.m4 / n / unit**4, rtol=1e-4)


def assert_same_images(found: Reading, expected: Reading) -> None:
    """Image means to 1e-6 of the spread of values, and their sums likewise."""
    mine, other = found.images, expected.images
    np.testing.assert_allclose(mine.origin, other.origin, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(mine.n, other.n)
    sd = np.sqrt(expected.moments.m2 / np.maximum(expected.moments.n, 1))
    a, b = sd + np.abs(other.a), sd**2 + np.abs(other.b)
    for name, size in (("a", a), ("b", b), ("aa", a * a), ("bb", b * b), ("ab", a * b)):
        apart = np.abs(getattr(mine, name) - getattr(other, name))
        assert np.all(apart <= 2e-5 * size * np.maximum(other.n, 1) + 1e-12), name


REFERENCE = Engine("reference", reference, "cpu", 0.0, SHAPES)
CPU = Engine("cpu", compiled(), "cpu", 1e-9, SHAPES + LARGE)
GPU = Engine("gpu", kernels, GPU_DEVICE, 1e-6, SHAPES + (LARGE + MANY if GPU_DEVICE == "cuda" else []))
ENGINES = [
    pytest.param(
        engine, id=engine.name, marks=pytest.mark.skipif(engine.module is None, reason=f"{needs} is missing")
    )
    for engine, needs in ((REFERENCE, "torch"), (CPU, "numba"), (GPU, "triton"))
]
COMPILED = ENGINES[1:]
"""Those that may differ from the reference."""


def reads(shape: tuple[int, int, int] | None = None) -> list[Any]:
    """Every engine with its shapes, or with one, in every type and layout.

    The interpreter, which takes a second for each, goes through the layouts in float32; and through the types in the
    first layout where it has one shape only.
    """
    return [
        pytest.param(
            *param.values, one, dtype, layout, id=f"{param.id}-{one}-{dtype}-{layout}", marks=param.marks
        )
        for param in ENGINES
        for one in ([shape] if shape else param.values[0].shapes)
        for dtype in DTYPES
        for layout in LAYOUTS
        if not param.values[0].interpreted or dtype == torch.float32 or (shape and layout == LAYOUTS[0])
    ]
