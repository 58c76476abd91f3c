"""Means of the inputs against those of a reference recording, by bounds that hold however often one looks.

The noise of the reference counts as well: the difference of a stream's mean and a fixed one moves, in time measured
by its information 1/se^2, like a sum of independent steps, so that its bounds are those of a single stream of
n = (variance of a reference sample's mean) / se^2 samples, of which there are never more than the reference has.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from bnprobe.errors import BnprobeError, CannotCompare, NothingRecorded
from bnprobe.measures import dependence
from bnprobe.measures.columns import Column
from bnprobe.measures.standard_errors import by_sample
from bnprobe.recording import LayerRecord, Recording
from bnprobe.stats.anytime import adjusted_evidence, bound, evidence
from bnprobe.stats.moments import Array
from bnprobe.stats.significance import as_normal, as_student

_ROBBINS = "Robbins 1970, doi:10.1214/aoms/1177696786"

COLUMNS = (
    Column("layer", "Path of the module in the model.", table="both"),
    Column("call", "Which call of the layer within one forward pass, counted from 0.", table="both"),
    Column("channel", "Index of the channel."),
    Column("mean", "Mean of the inputs measured now.", unit="input"),
    Column("reference_mean", "Mean of the inputs in the reference.", unit="input"),
    Column(
        "drift",
        "Distance of the mean from that of the reference, in standard deviations of the reference.",
        "(mean − reference_mean) / √(variance of the reference's inputs)",
        "σ",
    ),
    Column(
        "drift_se",
        "Standard error of the drift at this moment, with the noise of the reference.",
        "√(V/n + V_ref/n_ref) / σ, V = variance of a sample's mean; n as for shift_se",
        "σ",
        "right if samples, or with ten batches or more whole batches, are independent",
    ),
    Column(
        "drift_bound",
        "Size of the drift from which on a channel counts as drifted; it holds however often one looks.",
        "drift_se · √((m + 100)/m · ln((m + 100)/(100 a²))), m = V_ref/(σ drift_se)², a = alpha · (channels that drifted, "
        "or 1) / channels; of few samples as far out in Student's t",
        "σ",
        _ROBBINS,
    ),
    Column(
        "drift_q",
        "False discovery rate of the drift at whatever time one stops: of all channels with at most this q, on average "
        "at most this share did not drift.",
        "least of m / (k e) over ranks k, e = how much more likely the data are with a drift than without",
        "0 to 1",
        "e-values: Wang & Ramdas 2022, doi:10.1111/rssb.12489",
    ),
    Column(
        "drifted",
        "Whether the drift is beyond its bound, that is drift_q at most alpha.",
        unit="True or False",
    ),
    Column("n_channels", "Number of channels.", table="layers"),
    Column("n_images", "Samples measured now.", table="layers"),
    Column("n_reference", "Samples of the reference.", table="layers"),
    Column(
        "drift_rms",
        "Typical size of the channels' drift, noise included.",
        "√(mean of drift²)",
        "σ",
        table="layers",
    ),
    Column(
        "drift_noise", "What drift_rms would be by chance alone.", "√(mean of drift_se²)", "σ", table="layers"
    ),
    Column("n_drifted", "Number of channels that drifted.", table="layers"),
)


@dataclass(frozen=True)
class DriftTables:
    """A row per site and a row per channel that both recordings have; `left_out` are sites that only one has."""

    layers: pd.DataFrame
    channels: pd.DataFrame
    left_out: tuple[str, ...]
    same_weights: bool


def drift_tables(now: Recording, reference: Recording, alpha: float) -> DriftTables:
    """Both recordings site by site; all channels of all sites are one family of tests.

    Raises BnprobeError for an `alpha` outside (0, 1), NothingRecorded for a side without samples, CannotCompare
    without a norm in common.
    """
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1:
        raise BnprobeError(
            f"alpha is {alpha!r}: give the chance of a false alarm that you accept, between 0 and 1, such as 0.01."
        )
    for name, recording in (("this recording", now), ("the reference", reference)):
        if not any(record.n_images for record in recording.layers):
            raise NothingRecorded(
                f"{name} has no samples, and so no drift. Run batches through the model first."
            )
    sites, others = ({(r.layer, r.call): r for r in by_sample(side)} for side in (now, reference))
    common = {at: (sites[at], others[at]) for at in sites if at in others and _alike(sites[at], others[at])}
    if not common:
        raise CannotCompare(
            f"{reference.about.model}, the reference, has no norm of the same path, number of channels and kind as "
            f"{now.about.model}. Record the reference with the same model."
        )
    left_out = [r.site for at, r in {**others, **sites}.items() if at not in common]
    channels = _judged(pd.concat([_channels(*pair) for pair in common.values()], ignore_index=True), alpha)
    rows = [_layer(*pair, part) for pair, part in zip(common.values(), _parts(channels, common), strict=True)]
    same = all(_same_weights(*pair) for pair in common.values())
    return DriftTables(pd.DataFrame(rows), channels.drop(columns=["m", "degrees"]), tuple(left_out), same)


def _alike(now: LayerRecord, reference: LayerRecord) -> bool:
    return now.n_channels == reference.n_channels and now.kind == reference.kind


def _parts(
    channels: pd.DataFrame, common: dict[tuple[str, int], tuple[LayerRecord, LayerRecord]]
) -> list[pd.DataFrame]:
    ends = np.cumsum([0, *(now.n_channels for now, _ in common.values())])
    return [channels.iloc[start:end] for start, end in pairwise(ends)]


def _channels(now: LayerRecord, reference: LayerRecord) -> pd.DataFrame:
    """The difference and its error; `m` and `degrees` are what bounds need beside."""
    of_now, of_reference = (dependence.of_mean(record) for record in (now, reference))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        sigma = np.sqrt(reference.pre.var_population)
        varies = reference.pre_images.var_between
        first, second = now.pre_images.var_between / of_now.n, varies / of_reference.n
        square = first + second
        # of shares, since the square of a large variance has no float64
        degrees = 1 / ((first / square) ** 2 / of_now.degrees + (second / square) ** 2 / of_reference.degrees)
        columns = {
            "layer": now.layer,
            "call": now.call,
            "channel": np.arange(now.n_channels),
            "mean": now.pre.mean_seen,
            "reference_mean": reference.pre.mean_seen,
            "drift": (now.pre.mean_seen - reference.pre.mean_seen) / sigma,
            "drift_se": np.sqrt(square) / sigma,
            "m": varies / square,
            "degrees": degrees,
        }
    return pd.DataFrame(columns)


def _judged(channels: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """With q, the bound, and whether it is passed; NaN and False where nothing varies."""
    drift, se, m, degrees = (channels[name].to_numpy(float) for name in ("drift", "drift_se", "m", "degrees"))
    with np.errstate(invalid="ignore", divide="ignore"):
        z = drift / se
    tested = np.isfinite(z) & (degrees > 0)
    q, limit = (np.full(len(channels), np.nan) for _ in range(2))
    if tested.any():
        q[tested] = adjusted_evidence(evidence(as_normal(z[tested], degrees[tested]), m[tested]))
        level = alpha * max(int((q[tested] <= alpha).sum()), 1) / int(tested.sum())
        limit[tested] = se[tested] * as_student(bound(m[tested], level), degrees[tested])
    return channels.assign(drift_bound=limit, drift_q=q, drifted=q <= alpha)


def _layer(now: LayerRecord, reference: LayerRecord, channels: pd.DataFrame) -> dict[str, object]:
    return {
        "layer": now.layer,
        "call": now.call,
        "n_channels": now.n_channels,
        "n_images": now.n_images,
        "n_reference": reference.n_images,
        "drift_rms": _root_mean_square(channels["drift"]),
        "drift_noise": _root_mean_square(channels["drift_se"]),
        "n_drifted": int(channels["drifted"].sum()),
    }


def _root_mean_square(values: pd.Series) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt((known**2).mean())) if len(known) else float("nan")


def _same_weights(now: LayerRecord, reference: LayerRecord) -> bool:
    """Whether the norm holds the same vectors; of the weights before it the filters' lengths tell."""
    pairs: list[tuple[Array | None, Array | None]] = [
        (getattr(now, name), getattr(reference, name))
        for name in ("gamma", "beta", "running_mean", "running_var")
    ]
    folded = [record.neighbours.folded if record.neighbours else None for record in (now, reference)]
    if folded[0] is not None and folded[1] is not None:
        pairs.append((folded[0].norm, folded[1].norm))
    return all(
        mine is theirs if mine is None or theirs is None else np.array_equal(mine, theirs, equal_nan=True)
        for mine, theirs in pairs
    )
