"""Rules about the updates of running statistics: how many, how much each takes in, and what is left of the start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from bnprobe.recording.names import NOT_JUDGED, SHIFTED, said
from bnprobe.rules.causes import cause_of
from bnprobe.rules.edits import RENEWED, Recalibrate, Remedy, SetAttribute, TakeOutInitial, UpdateOnce, remedy
from bnprobe.rules.preprocessing import reported_at
from bnprobe.rules.remedies import RECALIBRATE, module
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.thresholds import DEFAULT
from bnprobe.rules.wording import count, first_few
from bnprobe.stats.moments import Array

SURE = 3.0
"""Standard errors that the running means must fall short of the measured ones to be called young."""

TORCH_MOMENTUM = 0.1
"""What torch's norms have by default."""

UPDATES_PER_CALL = 1.5
"""Updates per call from which a norm is updated more than it is called: of whole numbers, 2 is the next after 1."""


def updated_twice(evidence: Evidence) -> Iterator[Finding]:
    """More updates of the running statistics than calls."""
    layers = evidence.layers
    counted = layers["layer"].isin(layers["layer"][layers["n_updates"] > 0])
    for layer, group in layers[counted].groupby("layer", sort=False):
        calls, updates = int(group["n_calls"].sum()), group["n_updates"].max()
        if not (group["mode"] == "train").all() or not updates >= UPDATES_PER_CALL * calls:
            continue
        times = updates / calls
        m = group["momentum"].iloc[0]
        acts = f", so momentum {m:g} acts as {1 - (1 - m) ** times:.3g}" if 0 < m < 1 else ""
        yield Finding(
            "warning",
            str(layer),
            "The running statistics are updated more than once per call, probably because gradient checkpointing "
            "reruns the norm.",
            f"num_batches_tracked grew by {updates:g}, {times:.3g} per call (threshold "
            f"{UPDATES_PER_CALL:g}){acts}.",
            "Leave the norm out of the checkpointed part, or keep the second run from updating it: "
            f"`{module(str(layer))}.register_forward_pre_hook(lambda m, x: torch._C._current_graph_task_id() == -1 and "
            f'setattr(m, "momentum", {m:g}) or torch._C._current_graph_task_id() != -1 and (setattr(m, "momentum", 0.0), '
            "m.num_batches_tracked.sub_(1)) and None or None)`.",
            remedy=remedy(UpdateOnce(str(layer))),
        )


def odd_momentum(evidence: Evidence) -> Iterator[Finding]:
    """Running statistics that take in nothing, everything, or too slowly: norms of which the same is said in one finding."""
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in _each_momentum(evidence):
        alike.setdefault((finding.says, finding.because), []).append(finding)
    yield from (_of_all(findings) for findings in alike.values())


def _of_all(findings: list[Finding]) -> Finding:
    """The first of findings that differ by their norm only, with the code and the edits for all of them."""
    first = findings[0]
    if len(findings) == 1:
        return first
    layers = [one.layer for one in findings]
    others = [said(layer) for layer in layers[1:]]
    edits = (edit for one in findings if one.remedy for edit in one.remedy.edits)
    return replace(
        first,
        because=f"{first.because.rstrip('.')}; the same at {first_few(others)}.",
        do=first.do.replace(module(first.layer), "model.get_submodule(name)").replace(
            "`model.get_submodule(name)", f"`for name in {layers}: model.get_submodule(name)"
        ),
        remedy=remedy(*sorted(dict.fromkeys(edits), key=lambda edit: isinstance(edit, Recalibrate))),
    )


def _each_momentum(evidence: Evidence) -> Iterator[Finding]:
    """The same for every norm by itself."""
    behind = lagging(evidence)
    for row in evidence.rows:
        m, calls = row["momentum"], row["n_calls"]
        if not _in_use(row):
            continue
        learning = row["normalized_by"] in ("batch", "both") and row["n_calls_learning"] > 0
        set_it = f"`{module(row['layer'])}.momentum = {TORCH_MOMENTUM:g}`"
        if m == 0 and row["normalized_by"] in ("batch", "both"):
            yield Finding(
                "warning",
                row["layer"],
                "Momentum is 0: the norm uses batch statistics but never updates its running statistics.",
                f"momentum 0 in train mode, in {count(calls, 'call')}: eval mode will use the old running statistics.",
                f"To update them: {set_it}. To freeze the norm instead, use eval mode.",
                remedy=remedy(SetAttribute(row["layer"], "momentum", TORCH_MOMENTUM)),
            )
        elif m >= evidence.limits.high_momentum:
            # what is meant where the other convention was followed
            other = round(1 - m, 6) if m >= 0.8 else 0.0
            yield Finding(
                "warning",
                row["layer"],
                "Momentum is so high that the running statistics hold little more than the last batch.",
                f"momentum is {m:g}: an average over (2 − m)/m = {count(round((2 - m) / m, 2), 'batch')} (threshold "
                f"{evidence.limits.high_momentum:g}). In torch, momentum is the weight of the new batch; in Keras and "
                f"TensorFlow it is 1 minus that{f', so their {m:g} is {other:g} here' if other else ''}.",
                f"Set `{module(row['layer'])}.momentum = {other or TORCH_MOMENTUM:g}`, then re-estimate the running "
                f"statistics: {RECALIBRATE}.",
                remedy=remedy(SetAttribute(row["layer"], "momentum", other or TORCH_MOMENTUM), Recalibrate()),
            )
        elif np.isnan(m) and (learning or row["layer"] in behind):
            yield Finding(
                "warning",
                row["layer"],
                "The running statistics average over all of training, so they lag when weights change.",
                f"momentum is None (a plain average over {count(row['n_batches_tracked'], 'batch')}), and "
                + (
                    "the norm is being trained."
                    if learning
                    else f"the verdict on these data is “{row['verdict']}”."
                ),
                f"For training set {set_it}, then {RECALIBRATE}; a plain average is right only while weights are fixed.",
                remedy=remedy(SetAttribute(row["layer"], "momentum", TORCH_MOMENTUM), Recalibrate()),
            )


def _in_use(row: pd.Series) -> bool:
    """Whether the norm has a momentum of its own that counts: it was called, and keeps running statistics."""
    return bool(
        not row["call"]
        and row["n_calls"]
        and row["affine_by"] == "running"
        and not np.isnan(row["n_batches_tracked"])
    )


def lagging(evidence: Evidence) -> set[str]:
    """Norms with a plain average that inputs no longer match, where it is not the model's own inputs that may be wrong."""
    layers, limits = evidence.layers, evidence.limits
    plain = layers[layers["momentum"].isna() & layers["verdict"].isin(SHIFTED)]
    judged = layers[~layers["verdict"].isin(NOT_JUDGED)]
    if plain.empty or reported_at(evidence):
        return set()
    first, top = judged.iloc[0], limits.variance_ratio
    if first["shift_rms"] > limits.shift or not 1 / top <= first["var_ratio_median"] <= top:
        return set()  # `data-shifted` speaks of it, and of momentum
    return {str(row["layer"]) for _, row in plain.iterrows() if _in_use(row)}


def plain_average(row: pd.Series) -> str:
    """That the running statistics of a norm that does not match are a plain average, which lags; else empty."""
    if not (np.isnan(row["momentum"]) and _in_use(row)):
        return ""
    return (
        f" momentum is None: they average over all {count(row['n_batches_tracked'], 'batch')}, those of the beginning of "
        "training included, and may lag."
    )


def young(evidence: Evidence) -> Iterator[Finding]:
    """Running statistics that are still in good part their initial 0 and 1; of a new network in one note."""
    found = list(_each_young(evidence))
    if not (evidence.is_new and found):
        yield from found
        return
    yield Finding(
        "info",
        found[0].layer,
        "This network has only begun to train: its running statistics are still in good part their initial 0 and 1, so "
        "outputs in eval mode say little.",
        f"in {count(len(found), 'norm')}; here, {found[0].because}",
        f"Train on before you evaluate. To evaluate now, re-estimate them as a plain average: {RECALIBRATE}.",
        remedy=remedy(Recalibrate()),
    )


def _each_young(evidence: Evidence) -> Iterator[Finding]:
    """The same for every norm by itself, as the data confirm.

    Whether it is the cause shows at the first: behind it inputs also differ because weights have moved meanwhile.
    """
    rest = _taken_out(evidence)
    for row, channels in evidence.sites:
        k, m = row["n_batches_tracked"], row["momentum"]
        if row["call"] or not (k > 0 and 0 < m < 1) or row["mode"] != "eval":
            continue
        left = (1 - m) ** k
        seen, mean = channels["pre_mean"].to_numpy(float), channels["running_mean"].to_numpy(float)
        var = channels["running_var"].to_numpy(float)
        known = np.isfinite(seen) & np.isfinite(mean) & np.isfinite(var) & (var > 0)
        cause = cause_of(evidence, row)
        explained = cause is not None and cause["cause"] == "young"
        # of a variance far below 1 even a small rest of the initial 1 is a good part
        hidden = explained and row["var_ratio_median"] < 1 / evidence.limits.variance_ratio
        old = left < evidence.limits.initial_weight and not hidden
        if old or not known.any() or (mean == 0).all():
            continue
        slope, error = _slope(
            seen[known], mean[known], var[known], channels["shift_se"].to_numpy(float)[known]
        )
        below = abs(slope - (1 - left)) < abs(slope - 1) and 1 - slope > SURE * error
        if explained or below:
            yield Finding(
                "warning",
                row["layer"],
                "The running statistics were updated too few times: much of their initial 0 and 1 is left.",
                f"after {count(k, 'batch')} with momentum {m:g} the initial values still weigh {left:.0%} (threshold "
                f"{evidence.limits.initial_weight:.0%}), and the running means are {slope:.0%} of the measured ones.",
                f"Train on, or re-estimate the running statistics as a plain average: {RECALIBRATE}.",
                remedy=Remedy((Recalibrate(),), cause=rest),
            )
            rest = ()


def _taken_out(evidence: Evidence) -> tuple[TakeOutInitial, ...]:
    """Of all norms: behind one that still holds its initial values inputs are off, whatever a later one holds."""
    layers = evidence.layers[evidence.layers["call"] == 0]
    left = (1 - layers["momentum"]) ** layers["n_batches_tracked"]
    known = (layers["n_batches_tracked"] > 0) & left.between(0, 1, inclusive="neither")
    return tuple(map(TakeOutInitial, layers.loc[known, "layer"], left[known]))


def _slope(seen: Array, mean: Array, var: Array, error: Array) -> tuple[float, float]:
    """Of the running means on the measured means, through the origin, in running standard deviations; and its error.

    `error` is that of each difference, in the same unit; where it is not known it is left out.
    """
    with np.errstate(all="ignore"):
        x, y = seen / np.sqrt(var), mean / np.sqrt(var)
        return float((x * y).sum() / (x * x).sum()), float(
            np.sqrt(np.nansum((x * error) ** 2)) / (x * x).sum()
        )


RULES = (
    Rule(
        "updated-twice",
        "Are the running statistics updated once per call?",
        "https://github.com/pytorch/pytorch/issues/96136, https://github.com/facebookresearch/fairscale/issues/1035",
        "as many updates as calls",
        updated_twice,
        edits=(UpdateOnce,),
        of_calls=True,
    ),
    Rule(
        "momentum-odd",
        "Do the running statistics take in new batches at a sensible rate?",
        "https://github.com/pytorch/pytorch/issues/19916; Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.1",
        f"a momentum above 0 and below {DEFAULT.high_momentum:g}, or None while weights are fixed",
        odd_momentum,
        edits=(SetAttribute, Recalibrate),
        of_calls=True,
    ),
    Rule(
        "statistics-young",
        "Have the running statistics left their initial values behind?",
        "https://forums.fast.ai/t/momentum-term-in-batch-norm-layer-in-fastai/41000 (2019)",
        f"(1 − m)^k below {DEFAULT.initial_weight:g} after k batches, or running means like the measured ones",
        young,
        edits=RENEWED,
        of_calls=True,
    ),
)
