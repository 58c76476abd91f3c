"""Random numbers that the user's loop draws between forward passes: no change of the probe's, nor of the model's."""

from __future__ import annotations

from collections.abc import Mapping

from bnprobe.probe.integrity.fingerprint import random_states
from bnprobe.probe.tensors import is_transformed

MOST_LOOKS = 8
"""Stretches between passes that are looked at: a loop that draws does so early, and a look takes microseconds."""


class DrawnOutside:
    """The generators whose state changed while no forward pass ran."""

    def __init__(self) -> None:
        self.generators: set[str] = set()
        self._looks = 0
        self._before: Mapping[str, object] | None = None
        self.begins()

    def begins(self) -> None:
        """A stretch without a forward pass begins: the probe was attached, or a pass has ended."""
        # inside a transform of torch.func the states are no plain tensors
        looks = self._looks < MOST_LOOKS and not is_transformed()
        self._before = random_states() if looks else None

    def ends(self) -> None:
        """It ends: a pass begins, or the probe is detached."""
        before, self._before = self._before, None
        if before is None or is_transformed():
            return
        now = random_states()
        self._looks += 1
        self.generators |= {name for name, state in now.items() if name in before and before[name] != state}
