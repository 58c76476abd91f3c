"""Rules about what the running statistics hold, and whether the data match them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from bnprobe.rules.alternatives import never_trained, other_was_trained
from bnprobe.rules.causes import GROUPS, because, cause_of, do, says, undone_by, upstream
from bnprobe.rules.common_factor import scaled
from bnprobe.rules.edits import RENEWED, DivideStatistics, SetMode, remedy
from bnprobe.rules.frozen_parts import fed_by_training
from bnprobe.rules.merge_runs import merge_consecutive
from bnprobe.rules.newness import affine_at_start, at_start, breaks, fresh
from bnprobe.rules.of_all_norms import once
from bnprobe.rules.preprocessing import LOAD_LAST, NEW_BESIDE_OLD, reported_at
from bnprobe.rules.remedies import recalibrate, recalibration
from bnprobe.rules.rule import (
    Evidence,
    Finding,
    Rule,
    follows_batches,
    frozen,
    indices,
    numbers_where,
    settled,
    unsound,
    while_training,
)
from bnprobe.rules.slight_shifts import slightly
from bnprobe.rules.standardized import ADVICE, each_by_itself
from bnprobe.rules.structure import calls_differ
from bnprobe.rules.swapped import STATISTICS, swapped_norms
from bnprobe.rules.thresholds import DEFAULT, Limits
from bnprobe.rules.updates import lagging, plain_average, young
from bnprobe.rules.wording import count, in_all, number, out_of, sigmas
from bnprobe.stats.significance import SIGNIFICANT

OF_FROZEN = (
    "Nothing, if the network was trained with this norm frozen: it learned with the mismatch, and new running statistics "
    "would make it worse. Otherwise, and only if the accuracy is better afterwards:"
)
"""Before advice on a norm that was kept as it is on purpose."""

NONE_LEFT = 1e-9
"""Of the running variance: what is rounding, where all values of a channel are the same."""

MEASURE_FIRST = (
    "Check the preprocessing first (range, mean, std; of images size and color order). If the model will be used on such "
    "data, compare its accuracy before and after re-estimating the running statistics on them; it may drop: "
)


def never_updated(evidence: Evidence) -> Iterator[Finding]:
    """Running mean exactly 0 and variance exactly 1 in every channel, at the end of the recording as well."""
    beside = never_trained(evidence)
    yield from other_was_trained(evidence)
    found = [finding for finding in _each_never_updated(evidence) if finding.layer not in beside]
    if any(finding.severity != "info" for finding in found):
        yield from found
        return
    yield from once(
        found,
        len(evidence.layers),
        "This network is untrained: γ, β and the running statistics of every norm have their initial values.",
    )


def _each_never_updated(evidence: Evidence) -> Iterator[Finding]:
    """The same for every norm by itself."""
    for row, channels in evidence.sites_with(evidence.channels["running_var"] == 1):
        if not fresh(row, channels):
            continue
        trained = not (evidence.is_new or affine_at_start(channels))
        stored = row["normalized_by"] != "batch"
        counted = row["n_batches_tracked"]
        by_hand = (channels["running_mean"] != 0).any()
        numbers = (
            ("running_var is 1" if by_hand else "running_mean is 0 and running_var is 1")
            + f" {in_all(channels)}"
            + ("" if np.isnan(counted) else f" after {count(counted, 'batch')}")
            + (": only the running means were set, as by moving a bias into them" if by_hand else "")
        )
        if trained:
            yield Finding(
                "critical" if stored else "warning",
                row["layer"],
                f"{_trained(channels)} trained, but the running statistics were never updated or were reset: eval mode does "
                "not normalize.",
                f"{numbers}, while {_by_mean(channels)}.",
                "Load a checkpoint that includes the buffers (load_state_dict with strict=True fails where they are "
                f"missing), or re-estimate them: {recalibrate(row)}.",
                call=row["call"],
                remedy=remedy(recalibration(row)),
            )
        else:
            yield Finding(
                "info",
                row["layer"],
                "This norm is untrained: γ, β and the running statistics have their initial values.",
                f"{numbers}, {_initial(channels, 'γ', 'gamma')} and {_initial(channels, 'β', 'beta')}.",
                "Load trained weights: bnprobe report MODEL --weights DEFAULT, or --checkpoint FILE. If the network was "
                "trained, its norms may have been folded into the weights before them (fused) and built again: load a file "
                "from before that.",
                call=row["call"],
            )


def _initial(channels: pd.DataFrame, letter: str, column: str) -> str:
    """What a vector of a new norm is."""
    values = channels[column].dropna().unique()
    if not len(values):
        return f"{letter} is missing"
    return f"{letter} is {values[0]:g}" if len(values) == 1 else f"{letter} is near {values.mean():z.0f}"


def _moved(channels: pd.DataFrame) -> dict[str, str]:
    """The columns of γ and β that are not at their initial values, by their letters."""
    initial = {"γ": ("gamma", 1.0), "β": ("beta", 0.0)}
    return {
        name: column for name, (column, at) in initial.items() if (channels[column].fillna(at) != at).any()
    }


def _trained(channels: pd.DataFrame) -> str:
    names = list(_moved(channels))
    return f"{' and '.join(names)} {'were' if len(names) > 1 else 'was'}"


def _by_mean(channels: pd.DataFrame) -> str:
    return " and ".join(
        f"{name} has mean {channels[column].mean():.3g}" for name, column in _moved(channels).items()
    )


def poisoned(evidence: Evidence) -> Iterator[Finding]:
    """Running statistics that are not finite, or a negative variance."""
    exchanged = {layer for layer, *_ in swapped_norms(evidence, STATISTICS)}
    table = evidence.channels
    for row, channels in evidence.sites_with(
        unsound(table, "running_mean", "running_var") | (table["running_var"] < 0)
    ):
        if row["layer"] in exchanged:
            continue  # negative, because they are means
        stored = [name for name in ("running_mean", "running_var") if name in row["stores"]]
        bad = channels[unsound(channels, *stored) | (channels["running_var"] < 0)]
        if bad.empty:
            continue  # it stores none, or no other
        yield Finding(
            "critical",
            row["layer"],
            "A running statistic is not finite, or a running variance is negative: eval mode outputs NaN or nonsense.",
            f"not finite, or a negative variance, in {out_of(bad, channels)}.",
            "Find the batch that caused it (usually overflow in half precision), then re-estimate the running "
            f"statistics: {recalibrate(row)}.",
            indices(bad),
            row["call"],
            remedy(recalibration(row)),
        )


def shifted(evidence: Evidence) -> Iterator[Finding]:
    """Inputs whose mean or scale does not match the running statistics, reported where the shift enters."""
    kept = {(row["layer"], row["call"]): row for row in evidence.rows if frozen(row)}
    elsewhere = _reported_otherwise(evidence)
    found = list(merge_consecutive(evidence, _each_shift(evidence), elsewhere))
    for finding in found or slightly(evidence, elsewhere):
        row = kept.get((finding.layer, finding.call))
        yield finding if row is None else _of_frozen(finding, row)


def _of_frozen(finding: Finding, row: pd.Series) -> Finding:
    """What is told of a norm that was frozen on purpose: a network that was trained so works with the mismatch.

    While it is trained, this is seen to be so; afterwards, statistics that went astray look the same.
    """
    return replace(
        finding,
        severity="info" if while_training(row) or finding.severity == "info" else "warning",
        says=finding.says.replace(
            "The inputs do not match the", "This norm is frozen, and its inputs do not match its", 1
        ),
        do=f"{OF_FROZEN} {finding.do}",
        remedy=None,
    )


def _each_shift(evidence: Evidence) -> Iterator[Finding]:
    """The same for every norm by itself."""
    groups_are_shown = _groups_are_shown(evidence)
    for i, (row, channels) in enumerate(evidence.sites):
        # in a new network the weights outrun the statistics of all norms but the first, which sees the inputs
        sees_inputs = i == 0 and settled(row, evidence.limits)
        too_early = evidence.is_new and not (sees_inputs or breaks(evidence.sites, i, evidence.limits))
        if too_early or at_start(row, channels) or follows_batches(row):
            continue
        cause, what = cause_of(evidence, row), _what_differs(row, evidence.limits)
        if cause is not None and cause["cause"] in GROUPS and not groups_are_shown:
            cause = None
        if cause is not None and cause["cause"] == "young":
            continue  # a rule of its own speaks of these
        # means lie elsewhere for many reasons, weights that went on moving among them; variances that lack what lies
        # between samples have few
        of_groups = cause is not None and cause["cause"] == "groups"
        if not what and not (of_groups and row["discrepancy"] > evidence.limits.groups):
            continue
        if cause is None and (channels["pre_var"] <= NONE_LEFT * channels["running_var"]).all():
            what = "channels hold one constant each"
        yield _shift(evidence, row, channels, what or "scale differs", cause)


def _groups_are_shown(evidence: Evidence) -> bool:
    """Whether groups of samples may be a cause: at half or more of the norms that do not match, which all have the same
    samples, and at the first of them, whose inputs no other norm has changed; and not behind inputs that are wrong, whose
    trace differs from channel to channel as that of groups does."""
    found = evidence.causes
    if found.empty or reported_at(evidence):
        return False
    first = found[found["certain"].astype(bool)].drop_duplicates(["layer", "call"])
    in_groups = first.loc[first["cause"].isin(GROUPS), "layer"]
    away = evidence.layers.loc[evidence.layers["discrepancy"] > evidence.limits.groups, "layer"]
    return 2 * len(in_groups) >= len(away) and bool(away.head(1).isin(in_groups).all())


def _reported_otherwise(evidence: Evidence) -> set[str]:
    """Norms whose shift other rules report: a factor in all running statistics, too few updates, calls that differ, and
    plain averages that lag."""
    found = evidence.causes
    shared = {finding.layer for finding in calls_differ(evidence)} | lagging(evidence)
    if found.empty:
        return shared
    factored, too_few = (set(found.loc[found["cause"] == cause, "layer"]) for cause in ("factor", "young"))
    reported = shared | (factored if any(scaled(evidence)) else set())
    if any(finding.layer in too_few for finding in young(evidence)):
        layers = evidence.layers
        reported |= set(layers.loc[layers["initial_weight"] >= evidence.limits.initial_weight, "layer"])
    return reported


def _what_differs(row: pd.Series, limits: Limits) -> str:
    """Which statistics are beyond their thresholds, in words; empty where none is."""
    low, top = _thresholds(row, limits)
    moved = row["shift_rms"] > limits.shift
    beyond = row["var_ratio_median"] > top or row["var_ratio_median"] < low
    # of few samples the threshold allows for chance instead, and files without what errors need have no share
    by_chance = row["n_images"] >= limits.few_images and row["scaled_share"] <= limits.surely_shifted
    scaled = beyond and not by_chance
    if not ((moved and row["shifted_share"] > limits.surely_shifted) or scaled):
        return ""
    return "mean and scale differ" if moved and scaled else "mean differs" if moved else "scale differs"


def _thresholds(row: pd.Series, limits: Limits) -> tuple[float, float]:
    top = limits.variance_ratio
    return 1 / (top * _allowance(int(row["n_images"]), limits)), top


def _shift(
    evidence: Evidence, row: pd.Series, channels: pd.DataFrame, what: str, cause: pd.Series | None
) -> Finding:
    limits = evidence.limits
    rms = row["shift_rms"]
    low, top = _thresholds(row, limits)
    distance = (
        ""
        if np.isnan(rms)
        else f"typical shift {sigmas(rms)} running σ (threshold {limits.shift:g}){_significant(row['shifted_share'])}; "
    )
    # a norm that keeps its statistics while the model trains meets augmented samples, on purpose
    severity = "info" if fed_by_training(evidence, row) else "warning"
    more = upstream(evidence, row) + plain_average(row) if cause is None else because(cause)
    advice = f"{MEASURE_FIRST}{recalibrate(row, 'batches')}." if cause is None else do(cause, row)
    # samples of one kind are so where they enter; farther on weights that changed look alike
    first = row["layer"] == evidence.layers["layer"].iloc[0]
    if cause is None and each_by_itself(evidence):
        advice = f"{ADVICE} {advice}"
    elif cause is None and first and one_kind(channels, limits):
        advice = f"{OF_ONE_KIND} {advice}"
    if cause is None and evidence.begun_again:
        more += f" The weights may have been initialized again after loading: {NEW_BESIDE_OLD}."
        advice = f"{LOAD_LAST} If γ and β were kept fixed in training: {advice[0].lower()}{advice[1:]}"
    return Finding(
        severity,
        row["layer"],
        f"The inputs do not match the running statistics: {f'their {what}' if cause is None else says(cause)}.",
        f"{distance}typical variance {number(row['var_ratio_median'])} times the running variance (thresholds {low:.3g} and "
        f"{top:g}){_significant(row['scaled_share'])}.{more}",
        advice,
        numbers_where(
            channels, (channels["shift_q"] < SIGNIFICANT) & (channels["shift"].abs() > limits.shift)
        ),
        row["call"],
        remedy(None if evidence.begun_again else recalibration(row))
        if cause is None
        else undone_by(cause, row),
    )


OF_ONE_KIND = (
    "Every channel varies less than in training, about a mean that training held as well. Samples of one kind do that: one "
    "film, one scene, one class. If they are, record as mixed samples as in training before anything is changed."
)


def one_kind(channels: pd.DataFrame, limits: Limits) -> bool:
    """Whether these samples may be a part of those of training: one of the groups whose mixture has the running statistics.

    By the law of total variance the variance within groups is smaller, in every channel, by that of their means; so the
    squared shift of one of them is of the size of what is missing.
    """
    ratio, shift = channels["scale_ratio"] ** 2, channels["shift"]
    known = np.isfinite(ratio) & np.isfinite(shift)
    if not known.any() or not float(ratio[known].median()) < 1 / limits.variance_ratio:
        return False
    if one_factor(channels):
        return False
    missing, moved = 1 - ratio[known], float((shift[known] ** 2).mean())
    less = bool((missing > 0).mean() >= MOST_LESS)
    return less and MOVED_LEAST * float(missing.mean()) < moved < MOVED_MOST * float(missing.mean())


def one_factor(channels: pd.DataFrame) -> bool:
    """Whether the std is the same part of the running one in all channels, as that of inputs in another unit is."""
    var, stored = (channels[name].to_numpy(float) for name in ("pre_var", "running_var"))
    vary = (var > 0) & (stored > 0) & np.isfinite(var) & np.isfinite(stored)
    # a difference of logs: a ratio may be smaller than any number
    return bool(vary.any() and np.std(np.log(var[vary]) - np.log(stored[vary])) / 2 < ONE_FACTOR)


MOST_LESS = 0.9
"""Share of the channels that vary less than in training, where samples are of one kind."""

ONE_FACTOR = 0.05
"""Of the log of the std: what its ratio differs by between channels where one factor is in all, as of another unit."""

MOVED_LEAST, MOVED_MOST = 0.02, 3.0
"""Squared shift of one kind, relative to the variance that is missing: 1 on average over kinds, and for one in a hundred
farther off; without any shift, another contrast does the same."""


def _significant(share: float) -> str:
    """In how many channels a difference is significant, as a part of a sentence; empty where nothing was tested."""
    return (
        ""
        if np.isnan(share)
        else f", beyond sampling error in {share:.0%} of channels (false discovery rate {SIGNIFICANT:.0%})"
    )


def _allowance(n_images: int, limits: Limits) -> float:
    """Factor by which few samples may vary less than all do: one sample has no variance between samples.

    By chance as well: at two standard errors, of √(2/n) in the logarithm. 1 for as many as standard errors need.
    """
    return float(np.exp(2 * np.sqrt(2 / n_images))) if 0 < n_images < limits.few_images else 1.0


def batch_normalized(evidence: Evidence) -> Iterator[Finding]:
    """Batch statistics normalized: train mode, or a norm that keeps no others."""
    yield from once(
        list(_each_batch_normalized(evidence)),
        int((evidence.layers["kind"] == "batch_norm").sum()),
        "Every batch norm used batch statistics: each output depends on the rest of its batch.",
    )


def _each_batch_normalized(evidence: Evidence) -> Iterator[Finding]:
    """The same for every norm by itself."""
    for row, _ in evidence.sites:
        if row["kind"] != "batch_norm" or row["normalized_by"] not in ("batch", "both"):
            continue
        trains = row["mode"] != "eval"
        yield Finding(
            "info",
            row["layer"],
            "This norm used batch statistics: each output depends on the rest of its batch.",
            f"the norm was in {_in_mode(row)}"
            + ("." if trains else ", and keeps no running statistics (track_running_stats=False)."),
            "To measure the model as it is used for inference, call `model.eval()` before recording."
            if trains
            else "Nothing, if this is intended: outputs depend on how samples are batched in inference, too.",
            call=row["call"],
            remedy=remedy(SetMode("", training=False) if trains else None),
        )


def _in_mode(row: pd.Series) -> str:
    """The mode of the calls, and how many there were."""
    if row["mode"] == "mixed":
        return f"train mode in some of {count(row['n_calls'], 'call')}"
    return f"{row['mode']} mode during {count(row['n_calls'], 'call')}"


RULES = (
    Rule(
        "statistics-never-updated",
        "Were the running statistics ever updated?",
        "https://github.com/pytorch/ignite/issues/2590, https://github.com/pytorch/pytorch/issues/110361",
        "any channel with a running mean other than 0 or a running variance other than 1, or updates during the recording",
        never_updated,
        edits=RENEWED,
    ),
    Rule(
        "statistics-poisoned",
        "Are the running statistics finite, and the variances not negative?",
        "https://github.com/pytorch/pytorch/issues/88474, https://github.com/pytorch/pytorch/issues/106605",
        "finite running statistics and variances of at least 0",
        poisoned,
        edits=RENEWED,
    ),
    Rule(
        "data-shifted",
        "Do the inputs match the running statistics?",
        "Li et al. 2016, arXiv:1603.04779; Schneider et al. 2020, arXiv:2006.16971",
        f"a typical shift below {DEFAULT.shift} running σ, or beyond sampling error in at most half of the channels; and a "
        f"typical variance between {1 / DEFAULT.variance_ratio} and {DEFAULT.variance_ratio:g} times the running variance, "
        "or beyond sampling error in at most half of them",
        shifted,
        edits=(*RENEWED, DivideStatistics),
        of_calls=True,
    ),
    Rule(
        "batch-normalized",
        "Did the norm use its running statistics, and not those of the batch?",
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.1",
        "eval mode",
        batch_normalized,
        edits=(SetMode,),
        of_calls=True,
    ),
)
