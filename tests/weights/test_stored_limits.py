"""Which tensors of a file can be read: as many dimensions as numpy has, and the types that are known."""

from __future__ import annotations

import pytest

from bnprobe.weights.stored import BYTES, MOST_DIMENSIONS, _foreign


@pytest.mark.parametrize(
    ("dtype", "n_dimensions", "says"),
    [
        (next(iter(BYTES)), MOST_DIMENSIONS, ""),
        (next(iter(BYTES)), MOST_DIMENSIONS + 1, f"a tensor of {MOST_DIMENSIONS + 1} dimensions"),
        ("no type", 1, "a tensor of the type no type"),
        ("no type", MOST_DIMENSIONS + 1, f"a tensor of {MOST_DIMENSIONS + 1} dimensions"),
    ],
)
def test_tensors_that_cannot_be_read(dtype: str, n_dimensions: int, says: str) -> None:
    """Fails if the largest number of dimensions is one too many, or a type is not asked for."""
    found = _foreign(dtype, n_dimensions)
    assert found.startswith(says)
    assert bool(found) is bool(says)
