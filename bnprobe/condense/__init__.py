"""Tensors in, statistics out: the only place where every value of an activation is touched.

All functions take x as (N samples, C channels, P positions) and return numpy values of `bnprobe.stats`,
in float64. Non-finite values are counted and left out of everything else. Nothing is kept of x.
"""

from bnprobe.condense.plain import Affine, Counts, Own, Reading, count, read

__all__ = ["Affine", "Counts", "Own", "Reading", "count", "read"]
