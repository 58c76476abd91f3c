"""Adding one packed reading to another on the device, in place: the formulas of `cpu.totals`."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_moments(total: tl.tensor, new: tl.tensor, C: tl.tensor, ok: tl.tensor) -> None:
    """Moments of some channels; an empty side changes nothing."""
    n1 = tl.load(total, mask=ok, other=0.0)
    n2 = tl.load(new, mask=ok, other=0.0)
    mean = tl.load(total + C, mask=ok, other=0.0)
    d = tl.load(new + C, mask=ok, other=0.0) - mean
    p2 = tl.load(total + 2 * C, mask=ok, other=0.0)
    q2 = tl.load(new + 2 * C, mask=ok, other=0.0)
    p3 = tl.load(total + 3 * C, mask=ok, other=0.0)
    q3 = tl.load(new + 3 * C, mask=ok, other=0.0)
    p4 = tl.load(total + 4 * C, mask=ok, other=0.0)
    q4 = tl.load(new + 4 * C, mask=ok, other=0.0)
    n = n1 + n2
    share = n2 / tl.maximum(n, 1.0)
    e = d * (1.0 - share)  # the first part lies -f from the common mean, the second e
    f = d * share
    d2 = d * d
    both = n1 * share
    tl.store(total, n, mask=ok)
    tl.store(total + C, mean + f, mask=ok)
    tl.store(total + 2 * C, p2 + q2 + d2 * both, mask=ok)
    tl.store(total + 3 * C, p3 + q3 + 3 * (e * q2 - f * p2) + d2 * both * (e - f), mask=ok)
    fourth = p4 + q4 + 4 * (e * q3 - f * p3) + 6 * (e * e * q2 + f * f * p2)
    tl.store(total + 4 * C, fourth + d2 * both * (e * e - e * f + f * f), mask=ok)
    low, low_ = tl.load(total + 5 * C, mask=ok, other=0.0), tl.load(new + 5 * C, mask=ok, other=0.0)
    tl.store(total + 5 * C, tl.minimum(low, low_), mask=ok)
    high, high_ = tl.load(total + 6 * C, mask=ok, other=0.0), tl.load(new + 6 * C, mask=ok, other=0.0)
    tl.store(total + 6 * C, tl.maximum(high, high_), mask=ok)


@triton.jit
def add_images(total: tl.tensor, new: tl.tensor, C: tl.tensor, ok: tl.tensor) -> None:
    """Image moments of some channels, about the origin of the total."""
    t = tl.load(total + 7 * C, mask=ok, other=0.0) - tl.load(new + 7 * C, mask=ok, other=0.0)
    n1 = tl.load(total + 8 * C, mask=ok, other=0.0)
    n2 = tl.load(new + 8 * C, mask=ok, other=0.0)
    a1 = tl.load(total + 9 * C, mask=ok, other=0.0)
    b1 = tl.load(total + 10 * C, mask=ok, other=0.0)
    a = tl.load(new + 9 * C, mask=ok, other=0.0)
    b = tl.load(new + 10 * C, mask=ok, other=0.0) - 2 * t * a + t * t
    aa = tl.load(new + 11 * C, mask=ok, other=0.0)
    ab = tl.load(new + 13 * C, mask=ok, other=0.0)
    bb = tl.maximum(tl.load(new + 12 * C, mask=ok, other=0.0) - 4 * t * ab + 4 * t * t * aa, 0.0)
    share = n2 / tl.maximum(n1 + n2, 1.0)
    both = n1 * share
    da = a - t - a1
    db = b - b1
    tl.store(total + 8 * C, n1 + n2, mask=ok)
    tl.store(total + 9 * C, a1 + da * share, mask=ok)
    tl.store(total + 10 * C, b1 + db * share, mask=ok)
    tl.store(total + 11 * C, tl.load(total + 11 * C, mask=ok, other=0.0) + aa + da * da * both, mask=ok)
    tl.store(total + 12 * C, tl.load(total + 12 * C, mask=ok, other=0.0) + bb + db * db * both, mask=ok)
    cross = ab - 2 * t * aa + da * db * both
    tl.store(total + 13 * C, tl.load(total + 13 * C, mask=ok, other=0.0) + cross, mask=ok)


@triton.jit
def add_fold(folds: tl.tensor, new: tl.tensor, row: tl.tensor, C: tl.tensor, ok: tl.tensor) -> None:
    """The images of some channels, about the origin of the folds, to the three rows of a fold: see `folds`."""
    t = tl.load(folds, mask=ok, other=0.0) - tl.load(new + 7 * C, mask=ok, other=0.0)
    n = tl.load(new + 8 * C, mask=ok, other=0.0)
    a = tl.load(new + 9 * C, mask=ok, other=0.0)
    b = tl.load(new + 10 * C, mask=ok, other=0.0) - 2 * t * a + t * t
    within = tl.load(folds + C, mask=ok, other=0.0) + tl.load(new + 11 * C, mask=ok, other=0.0)
    tl.store(folds + C, within, mask=ok)
    there = folds + row * C
    tl.store(there, tl.load(there, mask=ok, other=0.0) + n, mask=ok)
    tl.store(there + C, tl.load(there + C, mask=ok, other=0.0) + n * (a - t), mask=ok)
    tl.store(there + 2 * C, tl.load(there + 2 * C, mask=ok, other=0.0) + n * b, mask=ok)


@triton.jit(do_not_specialize=["ROW", "C"])
def add_packed(
    total: tl.tensor,
    new: tl.tensor,
    folds: tl.tensor,
    ROW: tl.tensor,
    C: tl.tensor,
    N_FIELDS: tl.constexpr,
    BC: tl.constexpr,
) -> None:
    """Merge `new` into `total`, both of shape (N_FIELDS, C), and into row ROW of `folds`; grid: tiles of channels.

    Either of the two that are written to may be None.
    """
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    ok = c < C
    if folds is not None:
        add_fold(folds + c, new + c, ROW, C, ok)
    if total is not None:
        add_moments(total + c, new + c, C, ok)
        add_images(total + c, new + c, C, ok)
        for field in tl.static_range(14, N_FIELDS):
            here = total + field * C + c
            both = tl.load(here, mask=ok, other=0.0) + tl.load(new + field * C + c, mask=ok, other=0.0)
            tl.store(here, both, mask=ok)
