"""Hooks in, hooks out: the only room that touches torch's hook machinery.

A probe reads each norm's input in a forward pre-hook and finishes in the forward hook (`forward`); what
a pass saw is added to the totals of its sites (`sites`) when the pass has ended well. Nothing is written
on the user's modules, and no tensor is kept.
"""

from bnprobe.probe.attach import Probe, attach

__all__ = ["Probe", "attach"]
