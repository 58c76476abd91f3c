"""Two models of one task as one, so that the same samples run through both and the outputs are compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from bnprobe.experiments.effect import Effect
from bnprobe.experiments.outputs import Metric
from bnprobe.experiments.preview import Version, preview
from bnprobe.experiments.run import Call, run


class Either(nn.Module):
    """The old model or the new one, whichever was chosen last."""

    def __init__(self, old: nn.Module, new: nn.Module) -> None:
        super().__init__()
        self.old, self.new = old, new
        self.chosen = old

    def choose(self, version: Version) -> None:
        """Have the next batch run through this one."""
        self.chosen = self.old if version == "old" else self.new


def compare(
    old: nn.Module, new: nn.Module, batches: Iterable[Any], metric: Metric | None, call: Call | None
) -> Effect:
    """Both models on the same samples, in the modes they are in, from the same random states; both are as they were."""
    either = Either(old, new)
    return preview(
        either,
        either.choose,
        batches,
        metric,
        lambda model, batch: run(either.chosen, batch, call),
        set_modes=lambda model: None,
    )
