"""Bytes become the numbers that torch makes of them, for every type and every byte."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bnprobe.files.pickles import BYTES
from bnprobe.weights import tensor
from bnprobe.weights.number_types import REAL, decoded
from bnprobe.weights.with_torch.ram import InRam


def types() -> list[str]:
    return [name for name in BYTES if isinstance(getattr(torch, name, None), torch.dtype)]


@pytest.mark.parametrize("name", types())
def test_every_type_is_read_as_torch_reads_it(name):
    """Fails if a type's bits are taken apart wrongly: each byte where there are 256, else all bytes in all places."""
    dtype = getattr(torch, name)
    held = np.arange(256, dtype=np.uint8)
    if name not in ("bool", "uint8", "int8") and dtype.itemsize > 1:
        held = np.tile(held, 8)[: 256 * dtype.itemsize].copy()
        held = np.concatenate([held, np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8)])
    if name == "bool":
        held = held % 2
    expected = torch.frombuffer(held.copy(), dtype=dtype)
    wide = expected.to(torch.float64) if name in REAL else expected
    found = decoded(held, name)
    with np.errstate(invalid="ignore"):  # some bits are signaling NaNs, which warn when they are compared
        np.testing.assert_array_equal(tensor.wide(found) if name in REAL else found, wide.numpy())
    assert InRam(expected).is_number == (name in REAL)
