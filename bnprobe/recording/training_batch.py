"""The size of the batches that running statistics were averaged over, which no checkpoint keeps."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from bnprobe.errors import BnprobeError


def checked(training_batch: Any) -> int | None:
    """A whole number of at least 1, or None for unknown. Raises BnprobeError for anything else."""
    if training_batch is None:
        return None
    whole = isinstance(training_batch, Integral) and not isinstance(training_batch, bool)
    if not whole or training_batch < 1:
        raise BnprobeError(
            f"training_batch={training_batch!r} is not a whole number of at least 1. Pass the samples per batch and device "
            "in training, or None if unknown."
        )
    return int(training_batch)


def merged(mine: int | None, theirs: int | None) -> int | None:
    """Of two parts of one recording: the smaller, whose errors are the cautious ones."""
    return min((batch for batch in (mine, theirs) if batch is not None), default=None)
