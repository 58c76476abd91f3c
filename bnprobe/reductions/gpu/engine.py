"""The fast way on a GPU: triton kernels over the tensor's own memory, one read, no copy, no waiting.

`read` and `count` say the same as those of `reference`, to the digits that float32 has (see `cpu.engine`).
What `read` returns stays on the device until someone looks (see `device_reading`). So a norm that uses stored
statistics, and one over channels, are recorded without waiting once their first call has settled how:
`totals` adds their readings up where they are. Not so where the map depends on the batch (training mode,
instance and group norm), where a map no longer turns the histogram of the input into that of the output,
or where a gradient will be recorded: there the numbers of each call are needed on the host, by a transfer.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from bnprobe.reductions import reference
from bnprobe.reductions.device_reading import DeviceReading, FoldRows, fetched
from bnprobe.reductions.gpu.channels import join_rows
from bnprobe.reductions.gpu.rows import sum_rows
from bnprobe.reductions.gpu.tally import bin_values, count_positive
from bnprobe.reductions.gpu.totals import add_packed
from bnprobe.reductions.reading import Counts, Tokens
from bnprobe.reductions.request import BASIC, WHOLE, Affine, PerSample, ReadRequest, Share
from bnprobe.stats import N_BINS
from bnprobe.stats.fields import FIELDS, OF_MOMENTS, TERMS
from bnprobe.stats.moments import Array

WIDE = {
    torch.float32: tl.float32,
    torch.float16: tl.float32,
    torch.bfloat16: tl.float32,
    torch.float64: tl.float64,
}
"""Types of memory that the kernels read, and the type in which its values are computed."""

WIDE_TYPES = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
"""The same for torch."""

AT_ONCE = 1 << 26
"""Values divided at a time, so that memory does not follow the batch size."""

LANES = 1 << 9
"""Values of a tile: four for each of the 128 threads of a program, so that many programs fit on a chip."""

WARP_LANES = 1 << 8
"""Values of a tile for a program of one warp, which adds up short rows without a word to others."""

SHORT = 1 << 10
"""Rows that one tile holds whole, so that their own mean is where they are summed about."""

SIDE_BY_SIDE = 32
"""Channels of a tile where channels are neighbors: one or two full lines of memory."""

FUSED = {"enable_fp_fusion": True}
"""Products and sums may be one instruction: more exact, and half the work."""

APART = {"enable_fp_fusion": False}
"""They may not: a bin's edge must lie where float64 arithmetic puts it everywhere else."""

CHUNK = 1 << 13
"""Values of one channel that one program puts in bins."""

N_ROW = 8 + len(TERMS)
"""Planes that `sum_rows` writes."""

FAR = 1 << 31
"""Programs, and values per channel, are numbered in 32 bits."""

products = reference.products


def can_read(x: Tensor) -> bool:
    """Whether the kernels can walk over this tensor's memory."""
    plain = type(x) in (Tensor, torch.nn.Parameter) and x.layout == torch.strided
    there = x.is_cuda or (interpreted() and x.device.type == "cpu")
    return plain and there and x.dtype in WIDE and 0 < x.numel() < FAR and not x.is_neg()


def interpreted() -> bool:
    """Whether triton runs kernels on CPU tensors: TRITON_INTERPRET was 1 when it made them."""
    return not isinstance(add_packed, triton.JITFunction)


def rehearse() -> None:
    """Start the smallest kernel, so that what keeps triton from running is known before it matters."""
    nothing = torch.zeros((len(FIELDS), 1), dtype=torch.float64, device="cpu" if interpreted() else "cuda")
    add(nothing, nothing.clone())


def read(x: Tensor, request: ReadRequest = BASIC) -> DeviceReading:
    """As `reference.read`; the answer stays on the device until someone looks."""
    origin, bins = request.origin, request.bins
    maps = on_device(bins, x.device)
    about = None
    if origin is not None:
        # mostly the centre of the bins, which is there already
        about = maps[0] if bins is not None and bins.origin is origin else _to(origin, x.device)
    return _read(x, request, about, on_device(request.gate, x.device), maps)


def count(x: Tensor, gate: Affine | None, bins: Affine | None, share: Share = WHOLE) -> Counts:
    """As `reference.count`."""
    positive, histogram = None, None
    if gate is not None:
        positive = positive_values(x, on_device(gate, x.device))
    if bins is not None:
        histogram = _histogram(x, on_device(bins, x.device), share)
    return Counts(*fetched(positive, histogram))


def _read(
    x: Tensor, request: ReadRequest, origin: Tensor | None, gate: Tensor | None, bins: Tensor | None
) -> DeviceReading:
    """As `read`, with what is on the device: `origin` (C,), and maps as `on_device` gives them."""
    keep_rows, per_sample = request.keep_rows, request.per_sample
    n, c, p = x.shape
    # one value per image: take the images for positions, so that there are rows to walk along
    lone = p == 1 and not keep_rows and (gate is None or gate.dim() == 2)
    sums = _rows(x.transpose(0, 2) if lone else x, gate)
    out = x.new_empty((len(FIELDS), c), dtype=torch.float64)
    kept = x.new_empty((len(OF_MOMENTS), n, c), dtype=torch.float64) if keep_rows else None
    n_rows = sums.shape[1]
    wide = min(triton.next_power_of_2(n_rows), 64)
    tiles = 256 // wide
    with _device(x):
        join_rows[(triton.cdiv(c, tiles),)](
            sums,
            out,
            kept,
            origin,
            n_rows,
            c,
            n * p // n_rows,
            n_rows * c,
            len(TERMS),
            lone,
            wide,
            tiles,
            **FUSED,
        )
    seen = None if per_sample is None else _tokens(x, per_sample)
    return DeviceReading(
        out,
        gate is not None,
        None if bins is None else _histogram(x, bins, request.share),
        kept,
        None if seen is None else _positions(seen),
        (n, p),
        seen,
    )


def _rows(x: Tensor, gate: Tensor | None = None) -> Tensor:
    """What `sum_rows` writes, shape (N_ROW, N, C)."""
    n, c, p = x.shape
    out = x.new_empty((N_ROW, n, c), dtype=torch.float64)
    side, long, warps = _tile(x)
    with _device(x):
        sum_rows[(n * triton.cdiv(c, side),)](
            x,
            out,
            gate,
            c,
            p,
            *x.stride(),
            *_steps(gate),
            n * c,
            side,
            long,
            p <= long,
            WIDE[x.dtype],
            num_warps=warps,
            **FUSED,
        )
    return out


def _tile(x: Tensor) -> tuple[int, int, int]:
    """Channels and positions of one tile, neighbors in memory on the long side, and its warps."""
    _, c, p = x.shape
    if x.stride(1) < x.stride(2) and c > 1:
        side = min(SIDE_BY_SIDE, triton.next_power_of_2(c))
        return side, LANES // side, 4
    long = max(triton.next_power_of_2(p), 16)
    if long <= WARP_LANES:
        return min(WARP_LANES // long, triton.next_power_of_2(c)), long, 1
    return 1, long if long <= SHORT else LANES, 4


def positive_values(x: Tensor, gate: Tensor) -> Tensor:
    """For how many values per channel the gate is positive, shape (C,) float64."""
    n, c, p = x.shape
    out = x.new_zeros(c, dtype=torch.float64)
    side, long, warps = _tile(x)
    with _device(x):
        count_positive[(n * triton.cdiv(c, side),)](
            x,
            out,
            gate,
            c,
            p,
            *x.stride(),
            *_steps(gate),
            side,
            long,
            WIDE[x.dtype],
            num_warps=warps,
            **APART,
        )
    return out


def _histogram(x: Tensor, bins: Tensor, share: Share) -> Tensor:
    """Values per bin, shape (C, N_BINS) float64."""
    n, c, p = x.shape
    counts = x.new_zeros((c, N_BINS), dtype=torch.float64)
    first = -share.first % share.every
    size = max(-(-(n - first) // share.every), 0) * p
    if size:
        block = min(SHORT, CHUNK, max(triton.next_power_of_2(size), 128))
        with _device(x):
            bin_values[(c * triton.cdiv(size, CHUNK),)](
                x,
                counts,
                bins,
                c,
                p,
                *x.stride(),
                *_steps(bins),
                share.every,
                first,
                size,
                CHUNK,
                block,
                **APART,
            )
    return counts


def _tokens(x: Tensor, asked: PerSample) -> Tokens:
    """As `reference.tokens`.

    A position is a row whose values are the channels; one that is not finite has no statistics.
    """
    point, n, s1, s2 = _rows(x.transpose(1, 2))[:4]
    whole = torch.where(n == x.shape[1], n, torch.nan)
    mean = s1 / whole
    square = torch.clamp(s2 / whole - mean * mean, min=0.0)
    if not asked.centred:
        square = square + (point + mean) ** 2
    seen = Tokens(point + mean, torch.log(square + asked.eps), square.new_zeros((2, x.shape[1])))
    step = max(AT_ONCE // max(x[0].numel(), 1), 1)
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        _add_divided(x[part], seen.mean[part], seen.log_square[part], asked, seen.sums)
    return seen


def _add_divided(x: Tensor, mean: Tensor, log_square: Tensor, asked: PerSample, sums: Tensor) -> None:
    """Add what the norm divides, and its square, to the sums of each channel."""
    wide = WIDE_TYPES.get(x.dtype, x.dtype)
    d = x.to(wide) - mean[:, None].to(wide) if asked.centred else x.to(wide)
    z = d * torch.exp(-log_square / 2)[:, None].to(wide)
    z = torch.where(torch.isfinite(log_square)[:, None], z, 0.0)
    sums[0] += z.sum((0, 2), dtype=torch.float64)
    sums[1] += (z * z).sum((0, 2), dtype=torch.float64)


def _positions(seen: Tokens) -> Tensor:
    """As `reference.positions`, packed: the mean and the log variance as two channels."""
    both = torch.stack([seen.mean, seen.log_square]).reshape(1, 2, -1)
    return _read(both, BASIC, both.new_zeros(2), None, None).there[0]


def add(total: Tensor | None, new: Tensor, fold: FoldRows | None = None) -> None:
    """As `packing.add`, on the device; and to a fold, if one is given, with or without a total."""
    c = new.shape[1]
    sums, row = fold or (None, 0)
    with _device(new):
        add_packed[(triton.cdiv(c, 128),)](total, new, sums, row, c, len(FIELDS), 128, **FUSED)


def join(total: DeviceReading | None, new: DeviceReading, fold: FoldRows | None = None) -> None:
    """Add a reading to another one like it, and its images to a fold, in place, where they are.

    On the current stream: whoever runs one layer on several streams has to order them.
    """
    packed, histogram, _, per_sample = total.there if total is not None else (None, None, None, None)
    more, counts, _, more_per_sample = new.there
    add(packed, more, fold)
    if histogram is not None and counts is not None:
        histogram += counts
    if per_sample is not None and more_per_sample is not None:
        add(per_sample, more_per_sample)


def on_device(map_: Affine | None, device: torch.device) -> Any:
    """A map for the kernels: origin, scale and offset as (3, C) or (3, N, C) float64; None for None.

    Sent once for as long as the map lives, because a map is mostly used again and again.
    """
    if map_ is None:
        return None
    sent: dict[torch.device, Tensor] = map_.__dict__.setdefault("_sent", {})
    if device not in sent:
        parts = np.broadcast_arrays(map_.origin, map_.scale, map_.offset)
        sent[device] = _to(np.array(parts), device)
    return sent[device]


def _to(array: Array, device: torch.device) -> Tensor:
    # not waiting is safe: memory that is not pinned has been read when the call returns
    return torch.from_numpy(np.array(array, dtype=np.float64)).to(device, non_blocking=True)


def _steps(maps: Tensor | None) -> tuple[int, int]:
    """Distance of the planes of a map, and of one sample's to the next (0: one for all)."""
    if maps is None:
        return 0, 0
    return maps[0].numel(), 0 if maps.dim() == 2 else maps.shape[2]


def _device(x: Tensor) -> Any:
    # triton starts a kernel on the current device
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
