"""A plan of recalibration: new running statistics beside the old ones, to look at, to try, to apply and to undo."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
from torch import Tensor, nn

from bnprobe.errors import BnprobeError
from bnprobe.experiments.effect import Effect
from bnprobe.experiments.outputs import Metric
from bnprobe.experiments.preview import Version, preview
from bnprobe.experiments.put_back import put_back, write
from bnprobe.experiments.run import Call
from bnprobe.experiments.stored_norms import Pair, StoredNorm, statistics_of
from bnprobe.notebook import facts
from bnprobe.probe.integrity.checksums import Digest
from bnprobe.stats.moments import Array

PRECISE = 0.1
"""Running σ: to this a new mean should be known (95%) before it replaces an old one."""


@dataclass(frozen=True)
class Renewal:
    """New statistics of one norm: from how many samples and values, and the standard error of the new mean, shape (C,)."""

    norm: StoredNorm
    new: Pair
    n_samples: float
    n_values: float
    mean_error: Array

    @property
    def old(self) -> Pair:
        """What the norm held before."""
        return self.norm.before

    @property
    def error_in_sigmas(self) -> Array:
        """Standard error of the new means in units of the old running σ, shape (C,)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.mean_error / self.norm.sigma)

    @property
    def typical_error(self) -> float:
        """Its median over channels; NaN where it is known of none."""
        errors = self.error_in_sigmas
        return float(np.nanmedian(errors)) if np.isfinite(errors).any() else float("nan")


@dataclass(repr=False)
class Plan:
    """What `recalibrate` returns. The model is unchanged until `apply`, or inside a `with` block of the plan.

    Attributes:
        how: In words, how the new statistics were made.
        n_samples: Number of samples they were made from.
        notes: What speaks against applying them, in sentences; empty if nothing was found.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)).eval()
        >>> batches = [(torch.randn(50, 6), torch.randint(3, (50,))) for _ in range(4)]
        >>> plan = bnprobe.recalibrate(model, batches[:2])
        >>> plan.layers[["layer", "n_samples"]].values.tolist()
        [['1', 100.0]]
        >>> effect = plan.preview(batches[2:])
        >>> effect.metric, effect.n
        ('accuracy', 100)
        >>> with plan:
        ...     output = model(batches[0][0])
    """

    model: nn.Module
    renewals: Mapping[str, Renewal]
    how: str
    n_samples: int
    call: Call | None = None
    notes: tuple[str, ...] = ()
    fitted: frozenset[Digest] = frozenset()
    _applied: bool = field(default=False, init=False)
    _inside: list[ExitStack] = field(default_factory=list, init=False)

    @cached_property
    def channels(self) -> pd.DataFrame:
        """A row per channel: old and new statistics, and how far they are apart.

        `layer`, `channel`; `mean_before`, `mean_after`, `var_before`, `var_after` as stored (divisor n - 1); `shift`,
        the difference of the means in units of the old running σ, `shift_error`, its standard error (counting samples
        as independent), `shift_z`, their ratio; `var_ratio`, after / before.
        """
        return pd.concat(
            [_channel_rows(path, renewal) for path, renewal in self.renewals.items()], ignore_index=True
        )

    @cached_property
    def layers(self) -> pd.DataFrame:
        """A row per norm, in the order of execution.

        `layer`, `kind`, `n_channels`, `n_samples`, `n_values` (per channel); the medians over channels `shift_median`
        (of its size), `shift_error_median` and `var_ratio_median`; `n_needed`, the samples for which the new mean of
        the median channel would be known to ± 0.1 running σ (95%).
        """
        rows = []
        for path, renewal in self.renewals.items():
            channels = self.channels[self.channels["layer"] == path]
            error = renewal.typical_error
            rows.append(
                {
                    "layer": path,
                    "kind": renewal.norm.layer.kind,
                    "n_channels": len(channels),
                    "n_samples": renewal.n_samples,
                    "n_values": renewal.n_values,
                    "shift_median": _median(channels["shift"].abs()),
                    "shift_error_median": error,
                    "var_ratio_median": _median(channels["var_ratio"]),
                    "n_needed": np.ceil(renewal.n_samples * (1.96 * error / PRECISE) ** 2),
                }
            )
        return pd.DataFrame(rows)

    def preview(self, batches: Iterable[Any], metric: Metric | None = None) -> Effect:
        """Measure what the plan does to the model's outputs; the model is as it was.

        Each batch runs twice, in eval mode: with the old statistics and with the new ones, from the same
        random state. Use other samples than the plan was made from; the effect says how many are the same.

        Args:
            batches: As for `bnprobe.record`, with targets where the metric needs them. They are read once.
            metric: Function of (output, target) that returns one number per sample, shape (N,). Default: whether the
                largest score is the target's, where targets are classes; else the agreement with the model as it is.

        Returns:
            The effect, with a 95% interval of the difference (paired bootstrap over samples).

        Raises:
            NothingRecorded: There were no samples.
            BnprobeError: The metric returns another shape, or a number that is not finite.
        """
        return preview(self.model, self._write, batches, metric, self.call, self.fitted)

    def apply(self) -> Self:
        """Write the new statistics into the model, in place, for good; `undo` takes them back.

        Returns:
            The plan.

        Raises:
            BnprobeError: The plan is applied already, or the statistics of the model have changed since it was made.
        """
        if self._applied:
            raise BnprobeError("this plan is applied already. Call undo() first, or make a new plan.")
        self._demand("old", "since the plan was made. Make a new plan.")
        self._write("new")
        self._applied = True
        return self

    def undo(self) -> Self:
        """Write the old statistics back, bit for bit.

        Returns:
            The plan.

        Raises:
            BnprobeError: The plan is not applied, or the statistics have changed since it was.
        """
        if not self._applied:
            raise BnprobeError("this plan is not applied, so there is nothing to undo. Call apply() first.")
        self._demand(
            "new",
            "since the plan was applied, so undoing would lose that change. Restore a copy of your own instead.",
        )
        self._write("old")
        self._applied = False
        return self

    def __enter__(self) -> Self:
        stack = ExitStack()
        stack.enter_context(put_back(self.model, parameters=True))
        try:
            self.apply()
        except BaseException:
            stack.close()
            raise
        self._inside.append(stack)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside.pop().close()
        self._applied = False

    def __repr__(self) -> str:
        n = len(self.renewals)
        state = "applied" if self._applied else "not applied"
        return f"Plan({n:,} norm{'s' * (n != 1)} from {self.n_samples:,} sample{'s' * (self.n_samples != 1)}, {state})"

    def _repr_html_(self) -> str:
        rows = [("how", self.how), *(("note", note) for note in self.notes)]
        return facts(repr(self), rows) + self.layers.to_html(index=False, float_format="{:.3g}".format)

    def _write(self, which: Version) -> None:
        for tensor, values, _ in self._pairs(which):
            write(tensor, values)

    def _demand(self, which: Version, otherwise: str) -> None:
        """Raises BnprobeError unless the model holds these statistics, bit for bit."""
        for tensor, values, path in self._pairs(which):
            if not ((tensor == values) | (tensor.isnan() & values.isnan())).all():
                raise BnprobeError(f"the running statistics of {path} have changed {otherwise}")

    def _pairs(self, which: Version) -> Iterator[tuple[Tensor, Tensor, str]]:
        """Each statistic of the model, what it is in that version, and the path of its norm."""
        for path, renewal in self.renewals.items():
            mean, var = renewal.old if which == "old" else renewal.new
            yield renewal.norm.mean, mean, path
            yield renewal.norm.var, var, path


def _channel_rows(path: str, renewal: Renewal) -> pd.DataFrame:
    (mean, var), (new_mean, new_var) = renewal.norm.statistics, statistics_of(renewal.new)
    error = renewal.error_in_sigmas
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = (new_mean - mean) / renewal.norm.sigma
        return pd.DataFrame(
            {
                "layer": path,
                "channel": np.arange(len(mean)),
                "mean_before": mean,
                "mean_after": new_mean,
                "var_before": var,
                "var_after": new_var,
                "shift": shift,
                "shift_error": error,
                "shift_z": np.where(error > 0, shift / error, np.nan),
                "var_ratio": new_var / var,
            }
        )


def _median(values: pd.Series) -> float:
    return float(values.median()) if values.notna().any() else float("nan")
