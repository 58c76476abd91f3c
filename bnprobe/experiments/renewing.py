"""Statistics of several norms for the replacement "data": renewed together, in one pass for each group of norms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape
from time import monotonic
from typing import Any

from torch import Tensor, nn

from bnprobe.errors import BnprobeError
from bnprobe.experiments.held_vectors import HeldNorm
from bnprobe.experiments.measure_variants import Deadline
from bnprobe.experiments.recalibrate import recalibrate
from bnprobe.experiments.replacements import Variant
from bnprobe.experiments.run import Call

RENEWING = 0.1
"""Part of a budget in which statistics of several layers are renewed together, a pass each."""


@dataclass
class Renewing:
    """New statistics of several norms, renewed together in one pass; each group once."""

    model: nn.Module
    batches: Iterable[Any]
    call: Call | None
    expected: float = 0.0
    """Seconds that a pass takes, as far as that is known."""
    took: float = 0.0
    """Seconds, for all groups."""
    found: dict[tuple[str, ...], dict[str, dict[str, Tensor]]] = field(default_factory=dict)

    def __call__(self, members: Sequence[HeldNorm]) -> Mapping[str, Mapping[str, Tensor]]:
        """New tensors for "mean" and "var" of these norms, by path."""
        paths = tuple(norm.path for norm in members)
        if paths not in self.found:
            began = monotonic()
            self.found[paths] = self._renewed(members)
            self.took += monotonic() - began
        return self.found[paths]

    def ready(self, variant: Variant, deadline: Deadline) -> bool:
        """Whether a variant can be written: with a budget, a part of it is for statistics that are renewed together."""
        together = variant.replacement == "data" and len(variant.members) > 1
        known = tuple(norm.path for norm in variant.members) in self.found
        late = deadline.budget_s is not None and self.took + self.expected > RENEWING * deadline.budget_s
        if together and not known and late:
            return False
        _ = variant.changes  # makes them, before a batch is half way
        return True

    def _renewed(self, members: Sequence[HeldNorm]) -> dict[str, dict[str, Tensor]]:
        """As `recalibrate` plans them; norms that it leaves alone get what the unchanged model gives them."""
        try:
            plan = recalibrate(
                self.model, self.batches, layers=[escape(norm.path) for norm in members], call=self.call
            )
            new = {path: renewal.new for path, renewal in plan.renewals.items()}
        except BnprobeError:  # frozen norms, or batches that are too small
            new = {}
        return {
            norm.path: dict(zip(("mean", "var"), new[norm.path], strict=True))
            if norm.path in new
            else {
                name: norm.as_tensor(name, getattr(norm.seen, name))
                for name in ("mean", "var")
                if name in norm.tensors
            }
            for norm in members
        }
