"""Tensors of GGUF files whose numbers share scales in blocks of 32 or 256, unpacked row by row when they are read.

The layouts are those of ggml: nibbles of the first half of a block are low, those of the second half high.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bnprobe.files.gguf import TYPES, Packed
from bnprobe.weights.stored import Source
from bnprobe.weights.tensor import Array, Tensor

SIZES = {name: (per_block, n_bytes) for name, per_block, n_bytes in TYPES.values()}


def _halves(blocks: Array, begin: int) -> Array:
    """One half-precision number per block, shape (n, 1)."""
    return blocks[:, begin : begin + 2].copy().view("<f2").astype(np.float32)


def _nibbles(packed: Array) -> Array:
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _fifth_bits(blocks: Array, begin: int) -> Array:
    bits = blocks[:, begin : begin + 4].copy().view("<u4")
    return np.asarray((bits >> np.arange(32, dtype=np.uint32)) & 1).astype(np.uint8)


def _q4_0(b: Array) -> Array:
    return _halves(b, 0) * (_nibbles(b[:, 2:]).astype(np.float32) - 8)


def _q4_1(b: Array) -> Array:
    return np.asarray(_halves(b, 0) * _nibbles(b[:, 4:]) + _halves(b, 2))


def _q5_0(b: Array) -> Array:
    values = _nibbles(b[:, 6:]) | (_fifth_bits(b, 2) << 4)
    return np.asarray(_halves(b, 0) * (values.astype(np.float32) - 16))


def _q5_1(b: Array) -> Array:
    values = _nibbles(b[:, 8:]) | (_fifth_bits(b, 4) << 4)
    return np.asarray(_halves(b, 0) * values + _halves(b, 2))


def _q8_0(b: Array) -> Array:
    return _halves(b, 0) * b[:, 2:].view(np.int8)


def _scales(b: Array) -> tuple[Array, Array]:
    """Of eight parts of a block their scales and offsets, 6 bits each, shape (n, 8, 1)."""
    low, middle, high = b[:, 4:8], b[:, 8:12], b[:, 12:16]
    scale = np.concatenate([low & 63, (high & 15) | ((low >> 6) << 4)], axis=1)
    offset = np.concatenate([middle & 63, (high >> 4) | ((middle >> 6) << 4)], axis=1)
    return (_halves(b, 0) * scale)[..., None], (_halves(b, 2) * offset)[..., None]


def _q4_k(b: Array) -> Array:
    scale, offset = _scales(b)
    return np.asarray(scale * _halves_of_64(b[:, 16:]) - offset)


def _q5_k(b: Array) -> Array:
    scale, offset = _scales(b)
    fifth = (b[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    return np.asarray(scale * (_halves_of_64(b[:, 48:]) | (fifth << 4)) - offset)


def _halves_of_64(packed: Array) -> Array:
    """Bytes (n, 128) as eight parts of 32 numbers: of each 32 bytes the low nibbles, then the high ones."""
    parts = packed.reshape(-1, 4, 1, 32)
    return np.concatenate([parts & 15, parts >> 4], axis=2).reshape(-1, 8, 32)


def _q6_k(b: Array) -> Array:
    low, high = b[:, :128].reshape(-1, 2, 1, 64), b[:, 128:192].reshape(-1, 2, 1, 32)
    nibbles = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    bits = (high >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
    values = (nibbles | (bits << 4)).astype(np.float32).reshape(-1, 16, 16) - 32
    scale = _halves(b, 208) * b[:, 192:208].view(np.int8)
    return np.asarray(scale[..., None] * values)


UNPACK: dict[str, Callable[[Array], Array]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}


class Quantized(Tensor):
    """Blocks of a file; the others of ggml's types have a shape, and no numbers here."""

    __slots__ = ("entry", "source")

    def __init__(self, source: Source, entry: Packed) -> None:
        self.source, self.entry = source, entry
        self.dtype, self.shape = entry.dtype.lower(), entry.shape
        self.dim, self.numel = len(entry.shape), math.prod(entry.shape)
        self.foreign = "" if entry.dtype in UNPACK else f"a tensor of ggml's type {entry.dtype}"
        self.is_number, self.itemsize = not self.foreign, 0
        self.storage = ((id(source), entry.start), entry.n_bytes)

    @property
    def far(self) -> bool:
        """As of any tensor."""
        return self.source.remote is not None

    def array(self) -> Array:
        """As of any tensor."""
        return self.rows(0, self.shape[0])

    def rows(self, begin: int, end: int) -> Array:
        """As of any tensor; nothing else of it is read."""
        per_block, n_bytes = SIZES[self.entry.dtype]
        row = math.prod(self.shape[1:]) // per_block * n_bytes if self.dim > 1 else 0
        if not row:  # a vector, whose parts are no whole blocks
            return self._unpacked(self.entry.start, self.entry.n_bytes).reshape(-1)[begin:end]
        held = self._unpacked(self.entry.start + begin * row, (end - begin) * row)
        return held.reshape(end - begin, *self.shape[1:])

    def _unpacked(self, start: int, n_bytes: int) -> Array:
        blocks = self.source.read(start, n_bytes).reshape(-1, SIZES[self.entry.dtype][1])
        return UNPACK[self.entry.dtype](blocks).astype(np.float32)

    def __repr__(self) -> str:
        return f"Quantized({self.shape}, {self.dtype}, in {self.source.path.name})"
