"""What one value adds to its row beside the power sums: `stats.fields.TERMS`, one line each, in that order.

Every loop over values adds these up: `rows`, `columns` and `fallback` call `terms`, `vector_sums` writes what
`vector_terms` says for many values at a time. Both must say the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from bnprobe.reductions.cpu.llvm import njit_fast
from bnprobe.reductions.cpu.vectors import Vectors
from bnprobe.stats.fields import TERMS

N_TERMS = len(TERMS)


@njit_fast
def terms(v: Any, finite: bool, turn: Any, bar: Any) -> Any:
    """The terms of v; counts are int32, sums of the type of v.

    Where a row holds values that are not finite it is read a second time, and only then `finite` may be False:
    a term that such a value must not enter is `np.float32(0)` there, which is a float64 beside one.
    """
    return (np.int32(turn * v > bar),)


def vector_terms(vectors: Vectors, v: ir.Value, turn: ir.Value, bar: ir.Value) -> list[ir.Value]:
    """The same for a vector of values: for a count which lanes count, for a sum a vector like v.

    `vectors` adds, multiplies and compares: |v| is `vectors.larger(v, builder.fneg(v))`.
    """
    builder = vectors.builder
    return [builder.fcmp_ordered(">", builder.fmul(turn, v), bar)]
