"""Recording what the norms of a running model compute: the only package that registers hooks.

A probe reads each norm's input in a forward pre-hook and completes the call in the forward hook (`forward`); what was
read is added to the totals of its sites (`sites`) when the forward pass has ended without an exception. Nothing is
written to the user's modules, and no tensor is kept.
"""

from bnprobe.probe.attach import attach
from bnprobe.probe.probe import Probe

__all__ = ["Probe", "attach"]
