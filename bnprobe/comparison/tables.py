"""The tables of a comparison: a row per common site and a row per channel of it, both sides and their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bnprobe.comparison import stored
from bnprobe.comparison.columns import COLUMNS, LAYER_SIDES, SIDE_BY_SIDE
from bnprobe.comparison.folds import folds
from bnprobe.comparison.lineage import trained_apart
from bnprobe.comparison.misplaced import COLUMNS as MISPLACED
from bnprobe.comparison.pairing import are_paired, can_pair
from bnprobe.comparison.pairs import Alone, Pair, Pairs
from bnprobe.comparison.per_sample import own_columns
from bnprobe.comparison.shapes import distances
from bnprobe.comparison.significance import ROUNDING, mean_test, scale_test
from bnprobe.comparison.spread import ASPECTS, WITH_DATA, Spread, distribution_gap, spread, unit
from bnprobe.comparison.upstream import Upstream
from bnprobe.measures import Column, activity, call_log, dependence, parameters, per_sample, shape
from bnprobe.measures import glossary as of_one_side
from bnprobe.measures.shape import median
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array
from bnprobe.stats.significance import SIGNIFICANT, adjusted


@dataclass(frozen=True)
class Differences:
    """What the rules and the page read.

    `unread` names sites that only one side has, and why; `tensors` what differs beside the norms. `apart` holds the
    correlations across channels where these say that the channels of the sides do not correspond, else nothing;
    `misplaced` the norms of B whose vectors A holds elsewhere, `folds` those that B holds in the weights before them.
    """

    layers: pd.DataFrame
    channels: pd.DataFrame
    unread: pd.DataFrame
    tensors: pd.DataFrame
    apart: Mapping[str, float]
    misplaced: pd.DataFrame
    folds: pd.DataFrame

    @property
    def causes(self) -> pd.DataFrame:
        """Nor any other cause of what one side measures."""
        return pd.DataFrame()


def differences(
    found: Pairs, upstream: Upstream | None = None, misplaced: pd.DataFrame | None = None
) -> Differences:
    """Compare everything common, once."""
    upstream = upstream or Upstream()
    misplaced = pd.DataFrame(columns=list(MISPLACED)) if misplaced is None else misplaced
    # numbers that are in another place are the same numbers, and no other training's
    elsewhere = set(misplaced["layer"])
    apart = trained_apart(pair for pair in found.common if pair.a.layer not in elsewhere)
    paired = are_paired(found.common)
    parts = [_channels(pair, paired) for pair in found.common]
    if apart:
        parts = [_unpaired(part) for part in parts]
    for aspect in WITH_DATA:
        _adjust(parts, aspect)
    rows = [
        {**_layer(pair, channels, bool(apart), paired), **facts}
        for pair, channels, facts in zip(found.common, parts, upstream.facts(found.common), strict=True)
    ]
    channels = [pd.DataFrame(part) for part in parts]
    return Differences(
        pd.DataFrame(rows),
        pd.concat(channels, ignore_index=True) if channels else pd.DataFrame(),
        pd.DataFrame(found.alone, columns=list(Alone._fields)),
        upstream.tensors,
        apart,
        misplaced,
        folds(found.common),
    )


def _unpaired(part: dict[str, Any]) -> dict[str, Any]:
    """A layer whose channels do not correspond: no difference of one channel to another of its number."""
    paired = ("_shift", "_ratio", "_gap", "_se", "_q", "_w1", "_ks", "_change")
    return {
        name: np.full_like(values, np.nan) if name.endswith(paired) else values
        for name, values in part.items()
    }


def glossary() -> tuple[Column, ...]:
    """Every column, those of each side included."""
    known = {column.name: column for column in of_one_side()}
    sides = [
        Column(
            f"{name}_{side.lower()}",
            f"On side {side}: {known[name].meaning}",
            known[name].formula,
            known[name].unit,
            known[name].source,
            table,
        )
        for table, names in (("channels", SIDE_BY_SIDE), ("layers", LAYER_SIDES))
        for name in names
        for side in "AB"
    ]
    return (*COLUMNS, *sides)


def _channels(pair: Pair, paired: bool) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "layer": pair.a.layer,
        "call": pair.a.call,
        "channel": np.arange(pair.a.n_channels),
        **_both(_one_side(pair.a), _one_side(pair.b), SIDE_BY_SIDE),
        **stored.channel_columns(pair),
    }
    columns["fires_change"] = columns["fires_b"] - columns["fires_a"]
    for aspect in ASPECTS:
        a, b = spread(pair.a, aspect), spread(pair.b, aspect)
        columns |= _gaps(a, b, aspect)
        if aspect in WITH_DATA:
            columns |= _tests(a, b, aspect, paired)
    w1, columns["pre_ks"] = distances(pair.a.pre_histogram, pair.b.pre_histogram, pair.a.n_channels)
    columns["pre_w1"] = w1 / unit(spread(pair.a, "pre"), spread(pair.b, "pre"), "pre")
    return columns


def _one_side(record: LayerRecord) -> dict[str, Array]:
    return {
        name: values
        for family in (parameters, shape, activity)
        for name, values in family.channel_columns(record).items()
    }


def _both(a: dict[str, Any], b: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {f"{name}_{side}": values[name] for name in names for side, values in (("a", a), ("b", b))}


def _gaps(a: Spread, b: Spread, aspect: str) -> dict[str, Array]:
    """Differences of one aspect; 0 where both sides are the same, whatever the unit."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        common = unit(a, b, aspect)
        same = (a.mean == b.mean) & (a.sd == b.sd)
        shift = np.where(a.mean == b.mean, 0.0, (b.mean - a.mean) / common)
        width = np.where(a.sd == b.sd, 0.0, (b.sd - a.sd) / common)
        ratio = np.where(same, 1.0, b.sd / a.sd)
        return {
            f"{aspect}_shift": shift,
            f"{aspect}_ratio": ratio,
            f"{aspect}_gap": np.where(same, 0.0, np.hypot(shift, width)),
        }


def _tests(a: Spread, b: Spread, aspect: str, paired: bool) -> dict[str, Array]:
    """Errors and p of means and standard deviations; `_adjust` turns p into q. `_se` is what the gap has of noise."""
    common = unit(a, b, aspect)
    shift_se, shift_p = mean_test(a, b, common, paired)
    ratio_se, ratio_p = scale_test(a, b, paired)
    with np.errstate(invalid="ignore"):
        # of a channel that hardly varies beside what it is divided by, rounding is no change
        ratio_p = np.where(np.abs(b.sd - a.sd) > ROUNDING * common, ratio_p, np.nan)
    return {
        f"{aspect}_shift_se": shift_se,
        f"{aspect}_shift_q": shift_p,
        f"{aspect}_ratio_se": ratio_se,
        f"{aspect}_ratio_q": ratio_p,
    }


def _adjust(parts: list[dict[str, Any]], aspect: str) -> None:
    """Over all channels of all layers at once, means and standard deviations together, as one family of tests.

    So of all that is called different at most a share q is noise on average, if tests are independent or positively
    dependent.
    """
    names = (f"{aspect}_shift_q", f"{aspect}_ratio_q")
    if not parts:
        return
    q = adjusted(np.concatenate([part[name] for part in parts for name in names]))
    ends = np.cumsum([len(part[name]) for part in parts for name in names])[:-1]
    split = iter(np.split(q, ends))
    for part in parts:
        for name in names:
            part[name] = next(split)
        part[f"{aspect}_changed"] = (part[names[0]] < SIGNIFICANT) | (part[names[1]] < SIGNIFICANT)


def _layer(pair: Pair, channels: dict[str, Any], apart: bool, paired: bool) -> dict[str, Any]:
    gaps = {
        f"{aspect}_gap": distribution_gap(spread(pair.a, aspect), spread(pair.b, aspect))
        if apart
        else _root_mean_square(channels[f"{aspect}_gap"])
        for aspect in ASPECTS
    }
    own = own_columns(pair)
    known = [gap for gap in (*gaps.values(), own["own_gap"]) if not np.isnan(gap)]
    a, b = channels["fires_a"], channels["fires_b"]
    return {
        "layer": pair.a.layer,
        "call": pair.a.call,
        "n_channels": pair.a.n_channels,
        "change": max(known, default=float("nan")),
        **gaps,
        **own,
        **{f"{aspect}_noise": _noise(pair, channels, aspect) for aspect in WITH_DATA},
        "error_from": _error_from(pair, paired),
        **{f"{aspect}_changed_share": _share(channels, aspect) for aspect in WITH_DATA},
        "pre_w1_median": median(channels["pre_w1"]),
        "pre_w1_noise": _w1_noise(pair, channels),
        "fires_change_mean": _mean(np.abs(channels["fires_change"])),
        "went_silent": 0 if apart else int(np.sum((a > 0) & (b == 0))),
        "filters_differ": pair.filters_differ,
        "identical": pair.identical,
        **_both(_facts(pair.a), _facts(pair.b), LAYER_SIDES),
        **stored.layer_columns(pair),
    }


def _facts(record: LayerRecord) -> dict[str, Any]:
    """What one side is, by the names of its own table."""
    return {
        **per_sample.layer_columns(record),
        **call_log.layer_columns(record),
        "kind": record.kind,
        "mode": record.mode,
        "normalized_by": record.normalized_by,
        "n_images": record.n_images,
        "n_nonfinite": int(record.pre_nonfinite.sum()),
        "eps": record.eps,
        "momentum": np.nan if record.momentum is None else record.momentum,
        "n_batches_tracked": np.nan if record.n_batches_tracked is None else record.n_batches_tracked,
    }


def _noise(pair: Pair, channels: dict[str, Any], aspect: str) -> float:
    """Root mean square of what a gap would be if both sides were samples of the same images."""
    return _root_mean_square(_errors(pair, channels, aspect))


def _errors(pair: Pair, channels: dict[str, Any], aspect: str) -> Array:
    """Of each channel's gap."""
    a, b = spread(pair.a, aspect), spread(pair.b, aspect)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        width = np.sqrt((a.sd**2 + b.sd**2) / 2) * channels[f"{aspect}_ratio_se"] / unit(a, b, aspect)
        return np.asarray(np.hypot(channels[f"{aspect}_shift_se"], width))


def _w1_noise(pair: Pair, channels: dict[str, Any]) -> float:
    """What `pre_w1_median` would be likewise: between Gaussians that differ in mean and width by so much.

    That is the mean of |d + e x| over x ~ N(0, 1), with d and e normal: sqrt(2/pi) times the error of the gap, or a little
    less.
    """
    known = ~np.isnan(channels["pre_w1"])
    return median(np.sqrt(2 / np.pi) * np.where(known, _errors(pair, channels, "pre"), np.nan))


def _error_from(pair: Pair, paired: bool) -> str:
    """What the errors of the inputs count."""
    a, b = spread(pair.a, "pre"), spread(pair.b, "pre")
    if paired and can_pair(a, b):
        return "pairs"
    return "folds" if any(map(dependence.counts_folds, pair)) else "samples"


def _share(channels: dict[str, Any], aspect: str) -> float:
    """Of the channels that could be tested."""
    tested = ~np.isnan(channels[f"{aspect}_shift_q"]) | ~np.isnan(channels[f"{aspect}_ratio_q"])
    return float(np.mean(channels[f"{aspect}_changed"][tested])) if tested.any() else float("nan")


def _root_mean_square(values: Array) -> float:
    """Of the finite values; NaN where there are none."""
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else float("nan")


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if known.size else float("nan")
