"""How near to the running statistics the inputs are known to be, and how many samples it takes to know it.

That no difference was found shows nothing by itself: few samples find none. Inputs are the same within a size where
the largest shift that the errors allow is below it (two one-sided tests, Schuirmann 1987).
"""

from __future__ import annotations

import numpy as np

from bnprobe.measures import dependence, shift
from bnprobe.measures.columns import Column, Columns
from bnprobe.measures.shape import median
from bnprobe.measures.standard_errors import n_running
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array
from bnprobe.stats.significance import upper_quantile

NEAR = 0.1
"""Shift in running σ within which inputs are called the same: half of what counts as visible."""

MOST = 2 / 3
"""Share of a layer's channels that are to be as near: a third that moved makes a layer shifted."""

POWER = 1.645 + 1.282
"""Standard errors that a size must be for a match within it to be shown in 80% of recordings, at 5%, where nothing moved:
either of two tests fails in 10%."""

COLUMNS = (
    Column(
        "shift_bound",
        "Largest size of the shift that its error allows, with 95% confidence.",
        "|shift| + t₉₅ · shift_se, Student's t with the degrees of shift_p",
        "running σ",
        "Schuirmann 1987, doi:10.1007/BF01068419",
    ),
    Column(
        "same_within",
        "The means of two thirds of the channels are the same as the running means within this, with 95% confidence.",
        "2/3 quantile of shift_bound",
        "running σ",
        "Schuirmann 1987, doi:10.1007/BF01068419",
        "layers",
    ),
    Column(
        "samples_needed",
        f"Samples that would show a typical channel to be the same within {NEAR} running σ; infinite if none would.",
        f"n = V/(({NEAR} σ/{POWER:.2f})² − V/n_running), times n_images/n; median; 80% power at 5%",
        "samples",
        "Schuirmann 1987, doi:10.1007/BF01068419",
        "layers",
    ),
)


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """The bound, shape (C,); NaN where the shift has no error."""
    columns = shift.channel_columns(record)
    with np.errstate(invalid="ignore"):
        bound = (
            np.abs(columns["shift"])
            + upper_quantile(shift.error_of_mean(record).degrees) * columns["shift_se"]
        )
    return {"shift_bound": bound}


def layer_columns(record: LayerRecord, columns: Columns) -> dict[str, float]:
    """What the layer is known to be near to, and what it takes; NaN where nothing was compared."""
    bound = columns["shift_bound"]
    known = bound[~np.isnan(bound)]
    with np.errstate(invalid="ignore"):  # of infinite bounds
        within = float(np.quantile(known, MOST)) if known.size else float("nan")
    return {
        "same_within": within,
        "samples_needed": median(samples_needed(record)),
    }


def samples_needed(record: LayerRecord, near: float = NEAR) -> Array:
    """Of each channel, shape (C,): infinite where the noise of the running mean alone is too large.

    More where samples are not independent: these are worth fewer, and those to come will be, too.
    """
    if record.running_mean is None or record.running_var is None:
        return np.full(record.n_channels, np.nan)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        spread = record.pre_images.var_between / (record.running_var + record.eps)
        left = (near / POWER) ** 2 - spread * shift.times_in_training(record) / n_running(record)
        each = dependence.of_mean(record).n / record.pre_images.n
        n = np.where(left > 0, spread / left / each, np.inf)
    return np.where(np.isfinite(spread), np.ceil(n), np.nan)
