"""Models run under a probe."""

from __future__ import annotations

from torch import Tensor, nn

import bnprobe
from bnprobe.recording import Recording
from support.models import CASES, EVAL_ONLY, Case

BOTH_MODES = [(case, False) for case in CASES + EVAL_ONLY] + [(case, True) for case in CASES]
"""Every case in each mode in which it runs."""


def case_and_mode(value: object) -> str:
    """The name of a case, or of a mode, in the id of a test."""
    return value.name if isinstance(value, Case) else ("train" if value else "eval")


def recorded(model: nn.Module, *batches: Tensor) -> Recording:
    """One forward pass per batch."""
    with bnprobe.attach(model) as probe:
        for x in batches:
            model(x)
    return probe.recording
