"""The tensors of a model or of a file as plain data, so that two recordings can tell what else differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from bnprobe.probe.integrity.checksums import Digest, digests, readable
from bnprobe.recording.tensors import SUMMED_ON_DEVICE, TensorTable

BITS = 2**32


def tensor_table(tensors: Mapping[str, Tensor], known: Sequence[Digest] | None = None) -> TensorTable:
    """A row per tensor; `known` are their digests, where they were made already."""
    found = digests(tensors.values()) if known is None else known
    checksums = [_checksum(t, digest) for t, digest in zip(tensors.values(), found, strict=True)]
    return TensorTable(
        names=tuple(tensors),
        types=tuple(dtype.removeprefix("torch.") for dtype, _, _ in found),
        shapes=tuple("×".join(map(str, shape)) for _, shape, _ in found),
        checksums=np.array(checksums, dtype=np.float64),
        rms=_sizes(list(tensors.values())),
    )


def _checksum(tensor: Tensor, digest: Digest) -> float:
    local = readable(tensor)
    if local is None:
        return float("nan")
    return float(digest[2] % BITS) + (0.0 if local.device.type == "cpu" else SUMMED_ON_DEVICE)


def _sizes(tensors: Sequence[Tensor]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Root mean squares, NaN for what holds no floats; from each device in one transfer."""
    sizes = np.full(len(tensors), np.nan)
    by_device: dict[torch.device, list[tuple[int, Tensor]]] = {}
    for i, tensor in enumerate(tensors):
        local = readable(tensor)
        if local is not None and local.is_floating_point() and local.element_size() > 1:
            wide = local.dtype if local.dtype == torch.float64 else torch.float32
            norm = torch.linalg.vector_norm(local, dtype=wide) / local.numel() ** 0.5
            by_device.setdefault(local.device, []).append((i, norm.float()))
    for found in by_device.values():
        places, norms = zip(*found, strict=True)
        sizes[list(places)] = torch.stack(norms).cpu().numpy()
    return sizes
