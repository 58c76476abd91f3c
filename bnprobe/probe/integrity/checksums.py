"""Checksums of tensors, at the speed of reading them once.

A tensor on the CPU has the checksum of its bytes. One on a device is summed there along rows and columns,
and all of them come to the host in one transfer.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

COLUMNS = 4096
WHOLE_NUMBERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Digest = tuple[str, tuple[int, ...], int]
"""Type, shape and checksum; 0 for a tensor whose bytes cannot be read (meta, lazy, nested, freed)."""


def digests(tensors: Iterable[Tensor]) -> list[Digest]:
    """One per tensor: equal if every bit is, and different otherwise, except by a chance of one in four billion."""
    found: list[tuple[Tensor, int | Tensor]] = []
    for tensor in tensors:
        local = readable(tensor)
        found.append((tensor, 0 if local is None else _checksum(local)))
    on_device = [sums for _, sums in found if isinstance(sums, Tensor)]
    fetched = iter(_fetched(on_device))
    return [
        (str(t.dtype), _shape(t), next(fetched) if isinstance(sums, Tensor) else sums) for t, sums in found
    ]


def _shape(tensor: Tensor) -> tuple[int, ...]:
    try:
        return tuple(tensor.shape)
    except RuntimeError:  # lazy tensors, and some nested ones
        return ()


def readable(tensor: Tensor) -> Tensor | None:
    """The part of a tensor that this process holds; None if there is nothing to read."""
    tensor = getattr(tensor, "_local_tensor", tensor)
    if type(tensor) not in (Tensor, torch.nn.Parameter, torch.nn.Buffer) or tensor.is_meta:
        return None
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        return None
    tensor = tensor.detach()
    needed = tensor.numel() * tensor.element_size()
    return tensor if tensor.untyped_storage().nbytes() >= needed > 0 else None


def _checksum(tensor: Tensor) -> int | Tensor:
    """A number; for a tensor on a device, sums that are still there."""
    dense = tensor if tensor.is_contiguous() else tensor.contiguous()
    if dense.device.type == "cpu":
        # not through numpy: the storage of a tensor that was once exposed as an array cannot be resized any more
        return zlib.crc32((ctypes.c_char * dense.nbytes).from_address(dense.data_ptr()))
    return sums_of(dense)


def sums_of(dense: Tensor) -> Tensor:
    """Three sums of a tensor's bits, as integers that wrap: all, weighted by row, weighted by column."""
    flat = torch.view_as_real(dense) if dense.is_complex() else dense
    bits = flat.reshape(-1).view(WHOLE_NUMBERS[flat.element_size()])
    n_whole = bits.numel() // COLUMNS * COLUMNS
    table, rest = bits[:n_whole].view(-1, COLUMNS), bits[n_whole:].to(torch.int64)
    rows, columns = table.sum(1, dtype=torch.int64), table.sum(0, dtype=torch.int64)
    columns[: rest.numel()] += rest * 3
    return torch.stack([columns.sum(), _weighted(rows), _weighted(columns)])


def _weighted(sums: Tensor) -> Tensor:
    return (sums * (2 * torch.arange(sums.numel(), device=sums.device) + 1)).sum()


def _fetched(on_device: Sequence[Tensor]) -> list[int]:
    """The sums of all tensors on devices, one number each."""
    by_device: dict[torch.device, list[int]] = {}
    for i, sums in enumerate(on_device):
        by_device.setdefault(sums.device, []).append(i)
    found = [0] * len(on_device)
    for places in by_device.values():
        fetched = torch.stack([on_device[i] for i in places]).cpu().tolist()
        for i, row in zip(places, fetched, strict=True):
            found[i] = hash(tuple(row))
    return found
