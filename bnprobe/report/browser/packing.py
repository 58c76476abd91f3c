"""Columns of numbers as short text: rounded, split into byte planes, deflated, base64.

A browser turns the text back into a Float32Array in a few lines and without a library (`store.js`).
Why not JSON: a number costs about 8 bytes there, here 2 to 3, and nothing has to be parsed. Why the
planes: the upper bytes of neighboring numbers are alike, so that deflate finds them next to each other.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

KEPT_BITS = 13
"""Bits of a float32's fraction that are kept: a number is off by at most 1 part in 16,384, and tables show 3 digits."""

ROUGH_BITS = 7
"""The same for errors, probabilities and predictions, of which nobody reads a third digit: off by at most 1 part in 256."""

LEVEL = 6


def pack_floats(values: Array, kept_bits: int = KEPT_BITS) -> str:
    """Float32 numbers with `kept_bits` bits of fraction, as their three upper byte planes, the highest first.

    NaN and infinities stay what they are; what is too large for float32 becomes infinite.
    """
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(values, dtype="<f4")
    bits = single.view("<u4")
    dropped = 23 - kept_bits
    # round to nearest: half of the last kept bit is added, and carries into the exponent where it must
    rounded = bits + np.uint32(1 << (dropped - 1))
    finite = np.isfinite(single)
    kept = np.where(finite, rounded, bits) & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    kept = np.where(np.isnan(single), np.uint32(0x7FC00000), kept).astype("<u4")
    planes = kept.view(np.uint8).reshape(-1, 4).T[:0:-1]
    return pack_bytes(planes)


def pack_bytes(values: Array) -> str:
    """Bytes, in the order of the array."""
    deflated = zlib.compress(np.ascontiguousarray(values, dtype=np.uint8).tobytes(), LEVEL)
    return base64.b64encode(deflated).decode("ascii")
