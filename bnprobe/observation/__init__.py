"""One call of a norm, condensed: the plan of the layer applied to the tensors of the call.

`observe` has the two looks at a call, `call` what they find, `vectors` what the layer holds, `maps` the affine
map that it is, `reference` where its values are counted, `check` whether all that is so.
"""

from __future__ import annotations

from bnprobe.observation.call import Before, Seen, halves, last_of
from bnprobe.observation.maps import Last, turned
from bnprobe.observation.observe import observe_after, observe_before
from bnprobe.observation.reference import Reference, share_of, unit
from bnprobe.observation.vectors import Vectors, vector_of, vectors_of

__all__ = [
    "Before",
    "Last",
    "Reference",
    "Seen",
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
