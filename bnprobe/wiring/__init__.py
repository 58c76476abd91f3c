"""Who feeds a norm and what follows it, from the operations that were really executed, never from names.

The first forward pass of the whole model is watched (`watch_this_call`), later ones only when a norm was
met for the first time. When the pass has ended, `wirings` answers for each norm, and what needs a
neighbour's weights is reduced to a few numbers per channel. Nothing of the pass is kept.
"""

from __future__ import annotations

from bnprobe.wiring.answer import UNKNOWN, wirings
from bnprobe.wiring.feed import Known
from bnprobe.wiring.trace import Trace, watch_this_call

__all__ = ["UNKNOWN", "Known", "Trace", "watch_this_call", "wirings"]
