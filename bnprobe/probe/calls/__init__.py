"""One call of a norm, condensed: the plan of the layer applied to the tensors of the call.

`observe` has the two looks at a call, `call` what they find, `vectors` what the layer holds, `maps` the affine
map that it is, `reference` where its values are counted, `check` whether all that is so.
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
