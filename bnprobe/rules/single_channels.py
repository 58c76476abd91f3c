"""A rule about single channels whose running statistics are off, which the medians of a norm hide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from bnprobe.recording.names import SHIFTED, said
from bnprobe.rules.edits import RENEWED, remedy
from bnprobe.rules.newness import beyond_start, fresh
from bnprobe.rules.preprocessing import reported_at
from bnprobe.rules.remedies import recalibrate, recalibration
from bnprobe.rules.rule import Evidence, Finding, Rule, indices, takes_inputs
from bnprobe.rules.thresholds import DEFAULT, Limits
from bnprobe.rules.wording import count, first_few, out_of
from bnprobe.stats.significance import SIGNIFICANT

FEWEST_CHANNELS = 8
"""Channels of a norm from which a few can stand out among them."""

MOST_APART = 0.05
"""Share of a norm's channels up to which they are single ones; but one of any number may stand out."""


MANY_NORMS = 3
"""Norms with such channels from which these speak for other data, as gray images are to a network of color filters."""

OTHER_DATA = (
    "A few channels in each of several norms speak for data of another kind, as gray images are for filters of color: see "
    "what these samples lack first. "
)


def ruined(evidence: Evidence) -> Iterator[Finding]:
    """A few channels far from their running statistics, in a norm whose other channels match.

    Not where the model's inputs are wrong, which upsets single channels of many norms. Several norms are one finding, at
    the first: what is off there runs on.
    """
    found = [] if reported_at(evidence) else list(_each_ruined(evidence))
    if not found:
        return
    first, *others = found
    named = first_few([said(other.layer, other.call) for other in others])
    yield replace(
        first,
        because=first.because
        + (f" So it is in {count(len(others), 'following norm')}: {named}." if others else ""),
        do=(OTHER_DATA if len(found) >= MANY_NORMS else "") + first.do,
    )


_OF_WEIGHTS = (
    "a filter that was edited, pruned or loaded into another channel, or running statistics that were overwritten. If the "
    "weights are as intended,"
)

_OF_INPUTS = (
    "no weights were seen before this norm, so that these inputs differ, as a category, feature or sensor does that was "
    "rare in training, or running statistics were overwritten. If the inputs are as intended,"
)


def _each_ruined(evidence: Evidence) -> Iterator[Finding]:
    """The same for every norm by itself."""
    limits, upset = evidence.limits, ""
    for row, channels in evidence.sites:
        n, earlier = len(channels), upset
        if row["verdict"] in SHIFTED and not upset and _is_far(row, limits):
            upset = str(row["layer"])
        if n < FEWEST_CHANNELS or row["normalized_by"] != "running" or fresh(row, channels):
            continue
        away = _away(row, channels, limits, evidence.is_new)
        largest = away.to_numpy().max(axis=1)
        beyond = largest > 1
        if not 0 < beyond.sum() <= max(1, MOST_APART * n):
            continue
        found = channels[["channel"]][beyond]
        if not _others_match(channels[["shift", "scale_ratio"]][~beyond], limits, evidence.is_new):
            continue
        farthest = int(largest.argmax())
        worst = channels.iloc[farthest]
        one = len(found) == 1
        yield Finding(
            "info" if evidence.is_new else "warning",  # in the first steps weights outrun single channels
            row["layer"],
            f"{count(len(found), 'channel')} of this norm {'does' if one else 'do'} not match {'its' if one else 'their'} "
            f"running statistics, while the other {n - len(found)} do.",
            f"{_number(worst, away.iloc[farthest], limits)} in channel {int(worst['channel'])}"
            f"{'' if one else ', the farthest'}; out of bounds in {out_of(found, channels)}.",
            (
                f"Inputs already differ at {said(earlier)}: look there first. If these channels still stand out then, look "
                if earlier
                else "The data suit the other channels, so look "
            )
            + f"for what changed here alone: {_OF_INPUTS if takes_inputs(evidence, row) else _OF_WEIGHTS} "
            f"compare the accuracy before and after re-estimating the running statistics: {recalibrate(row, 'batches')}.",
            indices(found),
            row["call"],
            remedy(recalibration(row)),
        )


def _is_far(row: pd.Series, limits: Limits) -> bool:
    """Whether a whole norm is so far from its running statistics that it may upset single channels of others."""
    top = limits.variance_ratio
    return bool(row["shift_rms"] > limits.shift or not 1 / top <= row["var_ratio_median"] <= top)


def _away(row: pd.Series, channels: pd.DataFrame, limits: Limits, new: bool) -> pd.DataFrame:
    """How far the mean and the scale of each channel are, 1 at the limit; 0 where that is not significant.

    The q-values are adjusted for all channels of the network, so that the largest of many is not taken for an exception.
    Of a `new` network only means tell, as its variances still hold their initial 1.
    """
    with np.errstate(all="ignore"):
        shift = beyond_start(row, channels).to_numpy() if new else np.abs(channels["shift"].to_numpy())
        scale = np.abs(np.log(channels["scale_ratio"].to_numpy())) / np.log(limits.channel_scale)
    known = (channels["shift_q"].to_numpy() < SIGNIFICANT) & ~np.isnan(shift)
    scaled = (channels["scale_q"].to_numpy() < SIGNIFICANT) & np.isfinite(scale) & (not new)
    return pd.DataFrame(
        {
            "shift": np.where(known, shift / limits.channel_shift, 0.0),
            "scale": np.where(scaled, scale, 0.0),
        }
    )


def _others_match(others: pd.DataFrame, limits: Limits, new: bool) -> bool:
    """Whether the rest is so near that the few are exceptions, not the tail of a shift of all."""
    with np.errstate(all="ignore"):
        shift = float(others["shift"].abs().median())
        scale = float(np.exp(np.log(others["scale_ratio"]).abs().median()))
    return shift < limits.shift / 2 and (new or scale < np.sqrt(limits.variance_ratio))


def _number(worst: pd.Series, away: pd.Series, limits: Limits) -> str:
    """The statistic that is farther off, with its threshold."""
    if away["shift"] >= away["scale"]:
        return (
            f"mean {worst['shift']:+.2f} running σ from the running mean (threshold {limits.channel_shift:g})"
        )
    low, top = 1 / limits.channel_scale, limits.channel_scale
    return f"std {worst['scale_ratio']:.3g} times the running one (thresholds {low:.3g} and {top:g})"


RULES = (
    Rule(
        "channels-shifted",
        "Does every single channel match its running statistics?",
        "https://github.com/slothkong/DNN-Pruning/issues/8, https://github.com/violet17/yolov3-channel-pruning/issues/9",
        f"at most {DEFAULT.channel_shift:g} running σ, and a std between 1/{DEFAULT.channel_scale:g} and "
        f"{DEFAULT.channel_scale:g} times the running one, in every channel; or more than a few channels beyond, which "
        "other rules judge",
        ruined,
        edits=RENEWED,
        of_calls=True,
    ),
)
