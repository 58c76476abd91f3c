"""One call of a norm, reduced to sums: the plan of the layer applied to the tensors of the call.

`observe` reads a call before and after the layer runs; `observation` holds what was read, `vectors` the layer's
parameters and running statistics, `affine_map` the map that the call is, `histogram_scale` where its values are counted;
`formula_check` compares the plan with the real output, and `accumulators` add up the calls of a site.
"""

from __future__ import annotations

from bnprobe.probe.calls.affine_map import Last, turned
from bnprobe.probe.calls.histogram_scale import HistogramScale, share_of, unit
from bnprobe.probe.calls.observation import CallStats, InputReading, Key, halves, last_of
from bnprobe.probe.calls.observe import observe_after, observe_before
from bnprobe.probe.calls.vectors import Vectors, vector_of, vectors_of

__all__ = [
    "CallStats",
    "HistogramScale",
    "InputReading",
    "Key",
    "Last",
    "Vectors",
    "halves",
    "last_of",
    "observe_after",
    "observe_before",
    "share_of",
    "turned",
    "unit",
    "vector_of",
    "vectors_of",
]
