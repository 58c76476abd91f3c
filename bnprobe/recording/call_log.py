"""The circumstances of a site's calls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Self

from bnprobe.stats.moments import Array


@dataclass(frozen=True)
class CallLog:
    """The circumstances of a site's calls, and what the layer held after the last one.

    `n_calls_learning` calls fell into passes that compute gradients, `n_calls_model_training` into passes of a
    model that was in train mode as a whole. `n_ranks` is the number of processes that train together, 1
    where there is one. `fewest_values` are the values behind one mean and variance in the smallest call that the
    norm normalized by its own statistics, `fewest_call` which of the site's calls that was (from 0) and
    `fewest_images` its samples; None where there was no such call. `gamma_learns` and `beta_learns` say
    whether they require a gradient, None where they are missing. `n_updates` is by how much
    num_batches_tracked grew over all calls of the layer, None where it is not kept. `n_calls_labeled` calls had labels
    on two samples or more, `n_calls_one_class` of them the same label on all, and `n_calls_in_order` no label below the
    largest of such a call before. `n_learned_in_eval` times gamma or beta had
    changed since the site's previous call, which was in a pass that computes gradients of a model in eval mode as a
    whole. These four are None in files that did not count them. `first_nonfinite` is the first of the site's calls (from 0)
    with an input that was not finite, None where none was, or where inputs were added up on a GPU. The running statistics
    as they were after the recording have shape (C,), or are None.
    """

    n_calls_learning: int
    n_calls_model_training: int
    n_ranks: int
    fewest_values: float | None
    fewest_call: int | None
    fewest_images: int | None
    gamma_learns: bool | None
    beta_learns: bool | None
    n_updates: int | None
    running_mean_after: Array | None
    running_var_after: Array | None
    n_calls_labeled: int | None = None
    n_calls_one_class: int | None = None
    n_calls_in_order: int | None = None
    n_learned_in_eval: int | None = None
    first_nonfinite: int | None = None

    def __repr__(self) -> str:
        return f"CallLog({self.n_calls_learning:,} calls with gradients, {self.n_calls_model_training:,} in training)"

    def merge(self, other: Self) -> Self:
        """Both parts together. Calls are numbered within their part; the later memory is taken from `other`."""
        smaller = min(self, other, key=CallLog._size)
        return replace(
            other,
            n_calls_learning=self.n_calls_learning + other.n_calls_learning,
            n_calls_model_training=self.n_calls_model_training + other.n_calls_model_training,
            n_ranks=max(self.n_ranks, other.n_ranks),
            n_calls_labeled=_sum(self.n_calls_labeled, other.n_calls_labeled),
            n_calls_one_class=_sum(self.n_calls_one_class, other.n_calls_one_class),
            n_calls_in_order=_sum(self.n_calls_in_order, other.n_calls_in_order),
            n_learned_in_eval=_sum(self.n_learned_in_eval, other.n_learned_in_eval),
            fewest_values=smaller.fewest_values,
            fewest_call=smaller.fewest_call,
            fewest_images=smaller.fewest_images,
            first_nonfinite=self.first_nonfinite
            if self.first_nonfinite is not None
            else other.first_nonfinite,
            n_updates=_sum(self.n_updates, other.n_updates),
        )

    def _size(self) -> tuple[float, float]:
        """What makes a call the smaller one: fewer values, then fewer samples."""
        values, images = self.fewest_values, self.fewest_images
        return inf if values is None else values, inf if images is None else images


def _sum(mine: int | None, theirs: int | None) -> int | None:
    """Of both parts; None where one of them was not counted."""
    return None if mine is None or theirs is None else mine + theirs
