"""Rules about what the running statistics hold, and whether the data agree with them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bnprobe.rules.merge_runs import merge_consecutive
from bnprobe.rules.remedies import recalibrate
from bnprobe.rules.rule import Evidence, Finding, Rule, fresh
from bnprobe.rules.thresholds import DEFAULT, Limits
from bnprobe.stats.significance import SIGNIFICANT

MEASURE_FIRST = (
    "Check the preprocessing first (range, mean, deviation, colour order, size). If these data are what the model will "
    "meet, compare its accuracy before and after re-estimation on them, which may make it worse: "
)


def never_updated(evidence: Evidence) -> Iterator[Finding]:
    """Running mean exactly 0 and variance exactly 1 in every channel, at the end of the recording as well."""
    for row, channels in evidence.sites:
        if not fresh(row, channels):
            continue
        trained = not ((channels["gamma"].fillna(1) == 1) & (channels["beta"].fillna(0) == 0)).all()
        stored = row["normalized_by"] != "batch"
        counted = row["n_batches_tracked"]
        numbers = f"running_mean is 0 and running_var is 1 in all {len(channels)} channels" + (
            "" if np.isnan(counted) else f" after {counted:g} batches"
        )
        if trained:
            yield Finding(
                "critical" if stored else "warning",
                row["layer"],
                "γ and β were trained, but the running statistics were never updated or were reset.",
                f"{numbers}, while γ has mean {channels['gamma'].mean():.3g}.",
                "Load a checkpoint that holds the buffers (load_state_dict with strict=True fails where they are missing), "
                f"or re-estimate them: {recalibrate(row)}.",
                call=row["call"],
            )
        else:
            yield Finding(
                "info",
                row["layer"],
                "This layer is as it was created: nothing was learned, and nothing is remembered.",
                f"{numbers}, γ is 1 and β is 0.",
                "Load trained weights: bnprobe report MODEL --weights DEFAULT, or --checkpoint FILE.",
                call=row["call"],
            )


def poisoned(evidence: Evidence) -> Iterator[Finding]:
    """Running statistics that are not finite, or a negative variance."""
    for row, channels in evidence.sites:
        if row["kind"] != "batch_norm" and channels["running_var"].isna().all():
            continue
        mean, var = channels["running_mean"], channels["running_var"]
        if mean.isna().all() and var.isna().all() and row["normalized_by"] == "batch":
            continue  # no running statistics at all
        bad = channels[~np.isfinite(mean) | ~np.isfinite(var) | (var < 0)]
        if len(bad):
            yield Finding(
                "critical",
                row["layer"],
                "The running statistics are poisoned: in eval mode these channels put out NaN.",
                f"{len(bad)} of {len(channels)} channels have a NaN, infinite or negative running statistic.",
                "Find the batch that did it (half precision overflow is the usual cause), then re-estimate the "
                f"statistics: {recalibrate(row)}.",
                tuple(int(c) for c in bad["channel"]),
                row["call"],
            )


def shifted(evidence: Evidence) -> Iterator[Finding]:
    """Inputs that lie elsewhere, or vary otherwise, than the running statistics remember; told where it enters."""
    return merge_consecutive(evidence, _each_shift(evidence))


def _each_shift(evidence: Evidence) -> Iterator[Finding]:
    """The same for every norm by itself."""
    limits = evidence.limits
    top = limits.variance_ratio
    for row, channels in evidence.sites:
        rms, ratio, sure = row["shift_rms"], row["var_ratio_median"], row["shifted_share"]
        remembered = not ((channels["running_mean"] == 0) & (channels["running_var"] == 1)).all()
        low = 1 / (top * _lacking(int(row["n_images"]), limits))
        moved, scaled = rms > limits.shift, ratio > top or ratio < low
        if not remembered or not ((moved and sure > limits.surely_shifted) or scaled):
            continue
        what = "mean and scale" if moved and scaled else "mean" if moved else "scale"
        certain = "" if np.isnan(sure) else f", {sure:.0%} of channels surely shifted (q < {SIGNIFICANT})"
        distance = (
            ""
            if np.isnan(rms)
            else f"typical shift {rms:{'.2f' if rms < 1e4 else '.3g'}} remembered σ (threshold {limits.shift:g}){certain}, "
        )
        yield Finding(
            "warning",
            row["layer"],
            f"The data do not look like what this layer remembers: the {what} moved.",
            f"{distance}typical variance {ratio:.3g} of the remembered one (thresholds {low:.3g}, {top:g}).",
            f"{MEASURE_FIRST}{recalibrate(row, 'batches')}.",
            tuple(
                int(c)
                for c in channels["channel"][
                    (channels["shift_q"] < SIGNIFICANT) & (channels["shift"].abs() > limits.shift)
                ]
            ),
            row["call"],
        )


def _lacking(n_images: int, limits: Limits) -> float:
    """Factor by which few images may vary less than all do: one image has no variance between images.

    By chance as well: at two standard errors, of √(2/n) in the logarithm. 1 for as many as standard errors need.
    """
    return float(np.exp(2 * np.sqrt(2 / n_images))) if 0 < n_images < limits.few_images else 1.0


def batch_normalized(evidence: Evidence) -> Iterator[Finding]:
    """Train mode: the batch normalized itself, and running statistics were updated."""
    for row, _ in evidence.sites:
        if row["kind"] != "batch_norm" or row["normalized_by"] not in ("batch", "both"):
            continue
        trains = row["mode"] != "eval"
        calls = f"{row['n_calls']} call{'s' if row['n_calls'] > 1 else ''}"
        yield Finding(
            "info",
            row["layer"],
            "Batches were normalized by their own statistics, so outputs depend on batch mates.",
            f"the layer was in {row['mode']} mode during {calls}"
            + ("." if trains else ", and keeps no running statistics (track_running_stats=False)."),
            "To see what the model does in use: `model.eval()` before recording."
            if trains
            else "Nothing, if this is meant: then results depend on how the data are batched, in use as well.",
            call=row["call"],
        )


RULES = (
    Rule(
        "statistics-never-updated",
        "Do the running statistics still hold their initial values?",
        "https://github.com/pytorch/ignite/issues/2590, https://github.com/pytorch/pytorch/issues/110361",
        "any channel with a running mean other than 0 or a running variance other than 1, or updates during the recording",
        never_updated,
    ),
    Rule(
        "statistics-poisoned",
        "Are the running statistics finite, and the variances not negative?",
        "https://github.com/pytorch/pytorch/issues/88474, https://github.com/pytorch/pytorch/issues/106605",
        "finite running statistics and variances of at least 0",
        poisoned,
    ),
    Rule(
        "data-shifted",
        "Do the data look like what the layer remembers?",
        "Li et al. 2016, arXiv:1603.04779; Schneider et al. 2020, arXiv:2006.16971",
        f"a typical shift below {DEFAULT.shift} remembered σ, or not sure in half of the channels, and a typical "
        f"variance within {1 / DEFAULT.variance_ratio} and {DEFAULT.variance_ratio:g} of the remembered one",
        shifted,
    ),
    Rule(
        "batch-normalized",
        "Did the layer normalize with the batch rather than with its memory?",
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.1",
        "eval mode",
        batch_normalized,
    ),
)
