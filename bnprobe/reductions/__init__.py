"""Tensors in, statistics out: the only place where every value of an activation is touched.

All functions take x as (N samples, C channels, P positions) and return numpy values of `bnprobe.stats`,
in float64; on a GPU what `read` returns stays there until someone looks at it (see `device_reading`).
Non-finite values are counted and left out of everything else. Nothing is kept of x.

What is asked of a read is a `ReadRequest`, what comes back a `Reading`; `dispatch` chooses the engine. To add
a statistic see `bnprobe.stats.fields`, which declares all of them.
"""

from bnprobe.reductions.device_reading import FOLD_ROWS, DeviceReading, FoldRows, new_folds
from bnprobe.reductions.dispatch import ENGINES, add, add_mapped, compiled, count, fused, join, products, read
from bnprobe.reductions.packing import images_of, moments_of, packed
from bnprobe.reductions.reading import Counts, Reading, Tokens, float64_copy
from bnprobe.reductions.request import BASIC, WHOLE, Affine, PerSample, ReadRequest, Share
from bnprobe.reductions.valid import Packed, Valid, count_valid, read_valid

__all__ = [
    "BASIC",
    "ENGINES",
    "FOLD_ROWS",
    "WHOLE",
    "Affine",
    "Counts",
    "DeviceReading",
    "FoldRows",
    "Packed",
    "PerSample",
    "ReadRequest",
    "Reading",
    "Share",
    "Tokens",
    "Valid",
    "add",
    "add_mapped",
    "compiled",
    "count",
    "count_valid",
    "float64_copy",
    "fused",
    "images_of",
    "join",
    "moments_of",
    "new_folds",
    "packed",
    "products",
    "read",
    "read_valid",
]
