"""The rule about eps: whether the data set the scale of a norm, or the small number beside their variance does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.recording.names import said
from bnprobe.recording.terms import MANY_EPS, NO_VARIANCE, TORCH_EPS
from bnprobe.rules.edits import RENEWED, Rescale, SetAttribute, remedy
from bnprobe.rules.newness import beyond_first_steps
from bnprobe.rules.remedies import CARRY_BETA, module, path, recalibrate, recalibration, rescaled
from bnprobe.rules.rule import Evidence, Finding, Rule, indices, share_severity, takes_inputs
from bnprobe.rules.thresholds import Limits
from bnprobe.rules.wording import eps_of, if_assumed, number, out_of, some


def below_eps(evidence: Evidence) -> Iterator[Finding]:
    """Live channels whose running variance is smaller than eps, and per-sample norms that divide by little but eps."""
    layers = evidence.layers
    small_var = evidence.channels["running_var"] < max(NO_VARIANCE, float(layers["eps"].max()))
    divided_by_eps = layers["own_sd"] ** 2 < 2 * layers["eps"]
    for row, channels in evidence.sites_with(small_var, divided_by_eps):
        live = channels["gamma"].fillna(1).abs() >= evidence.limits.constant_gamma
        var = channels["running_var"]
        # all 0 were set so; of a few that are 0, the inputs were constant, or half precision rounded their variance
        flat = (var >= 0) & (var < NO_VARIANCE) & (var.max() > 0) & ~(channels["pre_var"] > 0)
        # pruned to 0 and trained on: the variance is on its way to 0
        pruned = live & (channels["filter_norm"] == 0) & ~(channels["pre_var"] > 0) & ~flat
        small = live & (var >= 0) & (var < row["eps"]) & ~flat & ~pruned
        if (var == 0).all() and channels["pre_var"].isna().all():
            continue  # a buffer of zeros, which says nothing of inputs: `weights.alike` reports it
        varies = channels["pre_var"] > MANY_EPS * row["eps"]
        if (small & varies).any():
            found = channels[small & varies]
            yield (
                _new_inputs(row, found, channels)
                if takes_inputs(evidence, row)
                else _lost_variance(row, found, channels, evidence.limits)
            )
        if (small & ~varies).any():
            yield _hardly_varies(evidence, row, channels[small & ~varies], channels)
        if flat.any():
            yield _never_varied(row, channels[flat], channels, _long_constant(row, channels[flat], channels))
        if (pruned & (var < row["eps"])).any():
            found = channels[pruned & (var < row["eps"])]
            zeros = f"the filters in {said(row['feeder'])} are all 0 for {out_of(found, channels)}"
            yield _never_varied(row, found, channels, zeros)
        if divided_by_eps.at[row.name]:
            yield _divides_by_eps(row, evidence.is_new or _in_first_steps(row, channels))


def _never_varied(row: pd.Series, found: pd.DataFrame, channels: pd.DataFrame, reason: str) -> Finding:
    """Constant inputs, as the reason says: nothing that eps or γ could change."""
    has_beta = bool(channels["beta"].notna().any())
    return Finding(
        "info",
        row["layer"],
        f"The inputs of {some(found, channels).lower()} were constant in training: on such inputs the output is "
        f"{'β' if has_beta else '0'}.",
        f"{reason}.",
        "On data like the training data they carry no information. "
        + (
            CARRY_BETA
            if has_beta
            else "Remove them with the filters before them and the weights that read them."
        )
        + " An input that does vary, as other data may have, is amplified there by up to "
        f"|γ| / √eps{'' if has_beta else ', γ being 1'}.",
        indices(found),
        row["call"],
    )


def _long_constant(row: pd.Series, found: pd.DataFrame, channels: pd.DataFrame) -> str:
    """How small the variance is, and what that takes."""
    most = float(found["running_var"].max())
    is_it = f"running_var is {'at most ' * (len(found) > 1)}{most:.2g} in {out_of(found, channels)}"
    m = row["momentum"] if 0 < row["momentum"] < 1 else 0.1
    if most == 0:
        return (
            f"running_var is exactly 0 in {out_of(found, channels)}: no variance in any of the last batches of training, "
            "or one below 6e-8 that was once stored in half precision"
        )
    batches = np.log(1 / most) / -np.log1p(-m)
    return (
        f"{is_it}: with momentum {m:g} it takes about {float(f'{batches:.1g}'):,.0f} batches without any variance to get "
        "there from 1"
    )


def _next_is_off(evidence: Evidence, row: pd.Series) -> bool:
    """Whether a norm gets what it got in training, and the next one does not: eps, or weights, changed in between."""
    layers, limit = evidence.layers, evidence.limits.shift
    after = layers["discrepancy"][(layers["layer"] == row["layer"]).cummax()].iloc[1:2]
    return bool(row["discrepancy"] < limit and (after > limit).any())


def _hardly_varies(
    evidence: Evidence, row: pd.Series, found: pd.DataFrame, channels: pd.DataFrame
) -> Finding:
    """A fact about a network that was trained so, which real ones were: only the usual eps, and some channels, say so."""
    limits = evidence.limits
    advice, edit = _more_than_eps(row, found, channels)
    some_only = len(found) < len(channels) and not _next_is_off(evidence, row)
    as_trained = row["eps"] <= TORCH_EPS and some_only
    return Finding(
        "info" if as_trained else share_severity(found, channels, limits),
        row["layer"],
        f"eps, more than the data, sets the scale of {some(found, channels).lower()}{if_assumed(row)}.",
        f"running_var < {eps_of(row)} in {out_of(found, channels)} "
        f"(smallest {float(found['running_var'].min()):.2g}), and |γ| ≥ {limits.constant_gamma:g}.",
        "Their inputs hardly vary, or are scaled too small. Keep eps as it is when the model is converted: another value "
        f"changes the outputs of these channels. {advice}",
        indices(found),
        row["call"],
        remedy(edit),
    )


def _lost_variance(row: pd.Series, found: pd.DataFrame, channels: pd.DataFrame, limits: Limits) -> Finding:
    """The inputs do vary, so that the preceding layer is not at fault."""
    return Finding(
        share_severity(found, channels, limits),
        row["layer"],
        f"eps sets the scale of {some(found, channels).lower()}: their running variance is almost 0, while these data vary.",
        f"running_var < {eps_of(row)} in {out_of(found, channels)} "
        f"(smallest {float(found['running_var'].min()):.2g}), and their inputs have a typical variance of "
        f"{number(float(found['pre_var'].median()), 2)}.",
        "The buffer was set to 0, or rounded to it (half precision ends at 6e-8): take it from the original file. "
        f"Unless the preceding weights were shrunk or the inputs enlarged, re-estimate it: {recalibrate(row)}.",
        indices(found),
        row["call"],
        remedy(recalibration(row)),
    )


def _in_first_steps(row: pd.Series, channels: pd.DataFrame) -> bool:
    """Whether a norm was recorded while it learned, and has not left its start: most of what it saw is of small weights."""
    return bool(row["n_calls_learning"] > 0) and not beyond_first_steps(channels)


def _new_inputs(row: pd.Series, found: pd.DataFrame, channels: pd.DataFrame) -> Finding:
    """Channels that no weights make: a feature, a category or a sensor that was constant in training."""
    gain = float((1 / np.sqrt(found["running_var"] + row["eps"])).max())
    return Finding(
        "warning",
        row["layer"],
        f"Inputs that were constant in training vary here, in {some(found, channels).lower()}: as from a category or a "
        "feature that training did not hold.",
        f"running_var < {eps_of(row)} in {out_of(found, channels)}, and their inputs have a typical variance of "
        f"{number(float(found['pre_var'].median()), 2)}: what differs from the running mean is multiplied by up "
        f"to {number(gain, 2)}, and by γ.",
        "No weights were seen before this norm, so look at these inputs: map categories that training did not hold to one "
        "that it did, or train on samples with them. If training did hold them, the buffer was overwritten: take it from "
        f"the original file, or re-estimate it: {recalibrate(row)}.",
        indices(found),
        row["call"],
        remedy(recalibration(row)),
    )


def _divides_by_eps(row: pd.Series, is_new: bool) -> Finding:
    """Of norms that normalize each sample by itself; what a new network feeds them may be as small as its weights."""
    usual = f" If training used {TORCH_EPS:g}, as is usual: `{module(row['layer'])}.eps = {TORCH_EPS:g}`."
    return Finding(
        "info" if is_new and row["eps"] <= TORCH_EPS else "warning",
        row["layer"],
        "eps, more than the data, sets what this norm divides by: it hardly normalizes.",
        f"it typically divides by {number(row['own_sd'])}, and by √eps = {row['eps'] ** 0.5:.3g} for inputs of 0 "
        f"(eps = {row['eps']:g}, threshold: half of the squared divisor).",
        "If it was trained like this, keep eps when the model is converted. Otherwise its inputs are scaled too "
        f"small, or eps is not the one of training.{usual if row['eps'] > TORCH_EPS else ' Check the preceding weights.'}",
        call=row["call"],
        remedy=remedy(_usual_eps(row) if row["eps"] > TORCH_EPS else None),
    )


def _usual_eps(row: pd.Series) -> SetAttribute:
    return SetAttribute(row["layer"], "eps", TORCH_EPS)


def _more_than_eps(
    row: pd.Series, found: pd.DataFrame, channels: pd.DataFrame
) -> tuple[str, SetAttribute | Rescale | None]:
    """Another eps where this one is larger than usual, else larger weights before the norm: in words, and as an edit."""
    if row["eps"] > TORCH_EPS:
        code = f"`{module(row['layer'])}.eps = {TORCH_EPS:g}`"
        return f"Only if training used {TORCH_EPS:g}, as is usual: {code}.", _usual_eps(row)
    typical = float(channels["running_var"].median())
    if not row["feeder"] or not typical > 0 or channels["gamma"].isna().any():
        return "Check the preceding weights.", None
    least = float(found["running_var"].min())
    if not least > MANY_EPS * row["eps"] * typical:
        return (
            "Scaling the weights up cannot help all of them: some variances are practically 0.",
            None,
        )
    larger = Rescale(path(str(row["feeder"])), row["layer"], typical**-0.5, with_gamma=True)
    assumed = " (assumed here)" if row["eps_assumed"] else ""
    return (
        f"Larger weights, with γ corrected for eps{assumed}, give the same output in eval mode, well clear of eps: "
        f"{rescaled(larger)}.",
        larger,
    )


RULES = (
    Rule(
        "variance-below-eps",
        "Do the data, and not eps, set the scale?",
        "Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1; https://github.com/Xilinx/brevitas/issues/388",
        "every running variance of a live channel, and what a per-sample norm divides by, clear of eps",
        below_eps,
        edits=(SetAttribute, Rescale, *RENEWED),
    ),
)
