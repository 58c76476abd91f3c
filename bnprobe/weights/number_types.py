"""Bytes to numbers: torch's types of numbers as arrays, those that numpy lacks as float32, which holds each of theirs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bnprobe.weights.tensor import Array

NARROW = "narrower than a byte"

_EIGHT_BITS = {
    # bits of the exponent and of the fraction, the bias, and whether there is an infinity or a negative zero
    "float8_e4m3fn": (4, 3, 7, "nan at the end"),
    "float8_e5m2": (5, 2, 15, "infinities"),
    "float8_e4m3fnuz": (4, 3, 8, "nan for -0"),
    "float8_e5m2fnuz": (5, 2, 16, "nan for -0"),
}
_SCALE = "float8_e8m0fnu"
"""Powers of two alone: what groups of narrower numbers share."""

_AS_IN_NUMPY = {
    **{name: f"<{name[0]}{int(name.lstrip('floatuin')) // 8}" for name in ("float16", "float32", "float64")},
    **{f"int{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    "complex64": "<c8",
    "complex128": "<c16",
    "bool": "?",
}

REAL = {"float64", "float32", "float16", "bfloat16", *_EIGHT_BITS, _SCALE}
"""Types of real numbers; what is of another type, a counter, a mask, is no vector of a norm."""

WHOLE = {"int64", "int32", "int16", "int8", "uint8"}
"""Types of counters."""


def decoded(held: Array, dtype: str) -> Array:
    """Bytes, shape (n,), as numbers; `dtype` as torch calls it."""
    if dtype == "bfloat16":  # the upper half of a float32
        return (held.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype in _EIGHT_BITS or dtype == _SCALE:
        return _values(dtype)[held]
    return held.view(_AS_IN_NUMPY[dtype])


@lru_cache
def _values(dtype: str) -> Array:
    """What each of the 256 bytes stands for."""
    byte = np.arange(256)
    if dtype == _SCALE:
        return np.where(byte == 255, np.nan, np.ldexp(1.0, byte % 255 - 127)).astype(np.float32)
    n_exponent, n_fraction, bias, ends = _EIGHT_BITS[dtype]
    fraction, exponent = byte % 2**n_fraction, byte // 2**n_fraction % 2**n_exponent
    size = np.where(
        exponent > 0,
        np.ldexp(1 + fraction / 2**n_fraction, exponent - bias),
        np.ldexp(fraction / 2**n_fraction, 1 - bias),
    )
    if ends == "infinities":
        size = np.where(exponent == 2**n_exponent - 1, np.where(fraction > 0, np.nan, np.inf), size)
    elif ends == "nan at the end":
        size = np.where(byte % 128 == 127, np.nan, size)
    else:
        size = np.where(byte == 128, np.nan, size)
    return np.where(byte < 128, size, -size).astype(np.float32)
