"""One pair of batches run: by how much their outputs differ, and what rounding alone may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError, class_name, said
from bnprobe.experiments.invariances.alignment import distance, size
from bnprobe.experiments.invariances.changes import NotTried, Pair
from bnprobe.experiments.invariances.parting import Parting, parting
from bnprobe.experiments.outputs import scores
from bnprobe.experiments.run import Call, run
from bnprobe.norms import ModuleTree

ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Of the largest output: what other shapes of matrices may change, by the type of the output; `HALF` for any other."""

HALF = 0.05

SAME_SHAPE = 0.1
"""Part of it that is left where both passes have the same shapes."""

ON_CARDS = 5e-3
"""The same for float32 on a GPU, whose convolutions round to 10 bits."""

NOISE = 10
"""Times the difference of two passes of one batch, where they are not equal to the last bit."""


@dataclass(frozen=True)
class Moved:
    """What came of a pair: the change of the outputs, and what rounding may change."""

    pair: Pair
    change: float
    allowed: float
    tolerance: float
    """For tensors inside the model, as a part of their largest number."""
    largest_output: float
    n_scores: int
    """How many tokens an output could score."""
    now_at: int | None = None
    """The row of the second output that the first sample has become; None where it has not."""

    @property
    def holds(self) -> bool:
        """Whether it is rounding."""
        return self.change <= self.allowed

    @property
    def is_shift(self) -> bool:
        """Whether outputs move, and other positions of the tokens explain it."""
        return not self.holds and self.pair.shifts

    @property
    def rank(self) -> tuple[bool, float]:
        """By which the worst of several is chosen."""
        return (
            not self.holds and not self.is_shift,
            self.change / self.allowed if self.allowed else self.change,
        )


class Passes:
    """A model and how it is run on a batch and on what is made of it.

    Raises BnprobeError where two passes of the batch as it is differ by more than rounding.
    """

    def __init__(self, model: nn.Module, given: Any, call: Call | None) -> None:
        self._model, self._call = model, call
        first, second = (self._output(given) for _ in range(2))
        self._noise = distance(first, second) if first.shape == second.shape else float("inf")
        if self._noise > _rounding(first) * size(first):
            raise BnprobeError(
                f"two passes of the same batch differ by {self._noise:.3g}, so nothing can be said of other differences: "
                f"{_why_random(model)}."
            )

    def compare(self, pair: Pair) -> Moved:
        """By how much the outputs of a pair differ. Raises NotTried where they cannot be compared, or the model fails."""
        try:
            first, second = self._output(pair.first), self._output(pair.second)
        except BnprobeError:
            raise
        except Exception as error:  # the user's model may raise anything
            reason = said(error)
            raise NotTried(f"the model failed on the changed batch ({reason})") from error
        a, b = pair.outputs(first, second)
        rounding = _rounding(a) * (SAME_SHAPE if pair.same_shape else 1)
        allowed = max(rounding * size(a), NOISE * self._noise)
        moved = distance(a, b)
        return Moved(
            pair,
            moved,
            allowed,
            0.0 if pair.same_shape and not self._noise else rounding,
            size(first),
            max(first.shape[1:], default=0),
            _now_at(a, second, allowed) if moved > allowed else None,
        )

    def parting(self, moved: Moved) -> Parting:
        """Where the two passes of a pair part."""
        pair = moved.pair
        return parting(
            self._model,
            lambda: run(self._model, pair.first, self._call),
            lambda: run(self._model, pair.second, self._call),
            pair.inside,
            moved.tolerance,
        )

    def _output(self, given: Any) -> Tensor:
        found = scores(run(self._model, given, self._call))
        if found is None:
            raise BnprobeError(
                "the model's output holds no tensor of floating-point numbers, so nothing can be compared. Pass call=, a "
                "function of (model, batch) that returns one."
            )
        return found.clone()


def _rounding(output: Tensor) -> float:
    if output.dtype == torch.float32 and output.is_cuda:
        return ON_CARDS
    return HALF if torch.is_autocast_enabled() else ROUNDING.get(output.dtype, HALF)


def _now_at(a: Tensor, whole: Tensor, allowed: float) -> int | None:
    """Which row of an output is the first sample's, where it is not the first."""
    if a.shape[1:] != whole.shape[1:]:
        return None
    return next((i for i in range(1, len(whole)) if distance(a[0], whole[i]) <= allowed), None)


def _why_random(model: nn.Module) -> str:
    modules = ModuleTree.of(model).modules.values()
    n = sum("dropout" in class_name(module).lower() and module.training for module in modules)
    if n:
        return f"dropout is on in {n:,} module{'s' * (n != 1)}. Call model.eval() first"
    return "something in the model is random. Call model.eval() first, or fix the seed inside call="
