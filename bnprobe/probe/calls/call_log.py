"""The circumstances of a norm's calls: modes, gradients, the smallest call, updates of its running statistics.

No distribution shows them, yet they explain some: a norm in train mode while nothing was learned, running statistics
that moved although the parameters were frozen, a last batch of two samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnprobe.norms import NormLayer
from bnprobe.probe.calls import CallStats, Vectors
from bnprobe.probe.ranks import n_ranks
from bnprobe.recording import CallLog
from bnprobe.reductions import DeviceReading, Reading


@dataclass(frozen=True)
class PassContext:
    """The circumstances of a pass of the whole model: gradients enabled, train mode, number of processes, how many passes in
    train mode before it were not recorded, and whether its sequences began in an earlier pass."""

    learning: bool
    training: bool
    n_ranks: int
    n_skipped_training: int = 0
    continues: bool = False

    @classmethod
    def of(cls, model: nn.Module | None, n_skipped_training: int) -> PassContext:
        """As they are now, at the start of the pass; a model that is gone trains no longer."""
        training = model is not None and bool(model.training)
        return cls(torch.is_grad_enabled(), training, n_ranks(), n_skipped_training)


NO_PASS = PassContext(False, False, 1)
"""Where no pass is under way."""


@dataclass
class CallLogTotals:
    """The call log of a site so far: `add` a call, and `finished` for its record."""

    n_calls_learning: int = 0
    n_calls_model_training: int = 0
    n_ranks: int = 1
    n_calls_labeled: int = 0
    n_calls_one_class: int = 0
    n_calls_in_order: int = 0
    n_learned_in_eval: int = 0
    smallest: tuple[float, int] | None = None
    """Of the smallest call: values per mean and variance, and samples."""
    first_nonfinite: int | None = None
    _smallest_call: int | None = None
    _largest_label: float | None = None
    """Of the previous call with labels."""
    _n_calls: int = 0
    _versions: tuple[int, ...] = ()
    _learns_in_eval: bool = False
    """Whether the previous call was in a pass that computes gradients of a model in eval mode."""
    _n_skipped_training: int = 0

    def add(self, seen: CallStats, context: PassContext) -> None:
        """Add one call, made in this context."""
        self.n_calls_learning += context.learning
        self.n_calls_model_training += context.training
        self.n_ranks = max(self.n_ranks, context.n_ranks)
        classes = seen.before.classes
        if classes is not None and classes.n_images > 1:
            self.n_calls_labeled += 1
            self.n_calls_one_class += len(classes.labels) == 1
            before, self._largest_label = self._largest_label, classes.labels.max()
            self.n_calls_in_order += before is not None and bool(classes.labels.min() >= before)
        if self.first_nonfinite is None and _brings_nonfinite(seen.before.reading):
            self.first_nonfinite = self._n_calls
        plan = seen.before.plan
        versions = _versions(plan)
        # a pass between the two that was not recorded may have been the one to learn from
        between = context.n_skipped_training != self._n_skipped_training
        self.n_learned_in_eval += self._learns_in_eval and not between and versions != self._versions
        self._n_skipped_training = context.n_skipped_training
        self._versions, self._learns_in_eval = versions, context.learning and not context.training
        if not plan.uses_running:
            together = plan.n_channels // plan.n_groups
            used = seen.before.seen_by_norm
            n = plan.pool.values_per_statistic(used.n_values, used.n_images, together)
            size = n, used.n_images
            if n > 0 and (self.smallest is None or size < self.smallest):
                self.smallest, self._smallest_call = size, self._n_calls
        self._n_calls += 1

    def finished(self, plan: NormLayer, now: Vectors, counted_at_first: int | None) -> CallLog:
        """A snapshot; `now` are the vectors of the layer as they are now."""
        counted = count_of(plan)
        values, images = self.smallest or (None, None)
        return CallLog(
            n_calls_learning=self.n_calls_learning,
            n_calls_model_training=self.n_calls_model_training,
            n_ranks=self.n_ranks,
            fewest_values=values,
            fewest_call=self._smallest_call,
            fewest_images=images,
            gamma_learns=_learns(plan.weight),
            beta_learns=_learns(plan.bias),
            n_updates=None if counted is None or counted_at_first is None else counted - counted_at_first,
            running_mean_after=now.running_mean,
            running_var_after=now.running_var,
            n_calls_labeled=self.n_calls_labeled,
            n_calls_one_class=self.n_calls_one_class,
            n_calls_in_order=self.n_calls_in_order,
            n_learned_in_eval=self.n_learned_in_eval,
            first_nonfinite=self.first_nonfinite,
        )


def _brings_nonfinite(reading: Reading) -> bool:
    """Whether a value was not finite; nobody waits for a reading that is still on its device."""
    there = isinstance(reading, DeviceReading) and not reading.fetched
    return not there and bool(reading.n_nonfinite.any())


def _versions(plan: NormLayer) -> tuple[int, ...]:
    """How often gamma and beta were written to, as torch counts it; nothing of tensors of inference mode."""
    there = (
        tensor for tensor in (plan.weight, plan.bias) if tensor is not None and not tensor.is_inference()
    )
    return tuple(tensor._version for tensor in there)


def count_of(plan: NormLayer) -> int | None:
    """num_batches_tracked now; None where it is not kept, or is no number."""
    if plan.n_batches_tracked is None:
        return None
    try:
        return int(plan.n_batches_tracked)
    except (RuntimeError, TypeError, ValueError, OverflowError):
        return None  # on the meta device, of several numbers, not finite


def _learns(parameter: Tensor | None) -> bool | None:
    return None if parameter is None else bool(parameter.requires_grad)
