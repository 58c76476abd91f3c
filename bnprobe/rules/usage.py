"""Rules about how the norms were used: modes, freezing, updates, momentum, and how much one call saw."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.recording.names import SHIFTED
from bnprobe.rules.causes import cause_of
from bnprobe.rules.frozen_parts import following_batches, unreached
from bnprobe.rules.remedies import RECALIBRATE, module
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.thresholds import DEFAULT
from bnprobe.rules.wording import count
from bnprobe.stats.moments import Array

SURE = 3.0
"""Standard errors that the running means must fall short of the measured ones to be called young."""

UPDATES_PER_CALL = 1.5
"""Updates per call from which a norm is updated more than it is called: of whole numbers, 2 is the next after 1."""


def few_values(evidence: Evidence) -> Iterator[Finding]:
    """A mean and variance made of a handful of values."""
    for _, row in evidence.layers.iterrows():
        by_batch = row["normalized_by"] in ("batch", "both")
        limit = evidence.limits.few_values if by_batch else evidence.limits.no_values
        n = row["fewest_values"]
        # where n <= 2 the output is 0 or +-1; above that a norm of single samples does what it is meant to do
        if not (n < limit or (n == limit and not by_batch)):
            continue
        noise = (
            f", so the variance has a relative error of {np.sqrt(2 / (n - 1)):.0%}"
            if n > 1 and by_batch
            else ""
        )
        yield Finding(
            "warning",
            row["layer"],
            "Batch statistics here come from very few values and are noisy."
            if by_batch
            else "This norm normalizes over so few values that hardly any information is left.",
            f"{count(n, 'value')} per {'channel' if by_batch else 'mean and variance'}{_in_call(row)}{noise} "
            f"(threshold {limit:g}).",
            _enough_values(row, by_batch),
            call=row["call"],
        )
    yield from _one_feature(evidence)


def _one_feature(evidence: Evidence) -> Iterator[Finding]:
    """A norm over features that has one feature, as the shape of its vectors says without data."""
    for row, channels in evidence.sites:
        known = row["kind"] in ("layer_norm", "rms_norm")
        if row["n_calls"] or len(channels) > 1 or not (known or row["kind"] == "unknown_norm"):
            continue
        constant = "±γ" if row["kind"] == "rms_norm" else "β"
        yield Finding(
            "warning",
            row["layer"],
            f"This norm has a single feature: it outputs {constant} whatever the input."
            if known
            else "This norm has a single feature: a layer norm over it outputs β whatever the input, and an RMS norm ±γ.",
            "its vectors have shape (1,), so mean and variance come from 1 value.",
            f"{'' if known else 'If it pools over positions, as instance norm does, nothing is wrong. Otherwise: '}"
            "Normalize over more than one feature, or remove the norm, "
            f'`model.set_submodule("{row["layer"]}", torch.nn.Identity())`, and retrain.',
            call=row["call"],
        )


def _in_call(row: pd.Series) -> str:
    """Which call that was, if any is on record, and how many samples it had."""
    samples = count(row["fewest_images"], "sample")
    if not row["n_calls"]:
        return f" of {samples}"
    return f" in call {int(row['fewest_call']) + 1} of {int(row['n_calls'])}, with {samples}"


def _enough_values(row: pd.Series, by_batch: bool) -> str:
    if not by_batch:
        return (
            f"Let it normalize over more channels, `{module(row['layer'])}.num_groups = 1`, and retrain."
            if row["kind"] == "group_norm"
            else "Remove the norm where only one position is left, "
            f'`model.set_submodule("{row["layer"]}", torch.nn.Identity())`, and retrain.'
        )
    typical = row["n_values"] / row["n_channels"] / row["n_calls"]
    if row["n_calls"] > 1 and typical > 2 * row["fewest_values"]:
        return (
            "The other calls had more: drop the small last batch, "
            "`loader = torch.utils.data.DataLoader(loader.dataset, loader.batch_size, drop_last=True)`."
        )
    return (
        "Use larger batches, SyncBatchNorm over several devices or GroupNorm (gradient accumulation does not help); "
        f"or let it use the running statistics while the rest trains: `{module(row['layer'])}.eval()` after model.train()."
    )


def train_while_evaluating(evidence: Evidence) -> Iterator[Finding]:
    """Batch norms in train mode although nothing is learned."""
    norms = evidence.layers[(evidence.layers["kind"] == "batch_norm") & (evidence.layers["n_calls"] > 0)]
    by_batch = norms["normalized_by"].isin(("batch", "both")) & norms["mode"].isin(("train", "mixed"))
    found = norms[
        by_batch & (norms["n_calls_learning"] == 0) & ~norms["layer"].isin(following_batches(evidence))
    ]
    if found.empty:
        return
    names = list(dict.fromkeys(found["layer"]))
    moved = found["memory_moved"].max()
    yield Finding(
        "warning",
        names[0],
        "The model was evaluated with batch norms in train mode: outputs depend on the rest of the batch"
        + (", and the running statistics changed." if moved > 0 else "."),
        f"{len(names)} of {count(norms['layer'].nunique(), 'batch norm')} used batch statistics while no gradients were "
        "computed" + (f"; running means moved by up to {moved:.2g} running σ." if moved > 0 else "."),
        "Call `model.eval()` before evaluating, and again after every model.train().",
    )


def evaluated_by_batch(evidence: Evidence) -> Iterator[Finding]:
    """Batch norms that use the statistics of the batch while nothing is learned, by their mode or in spite of it."""
    yield from train_while_evaluating(evidence)
    yield from batch_statistics_in_eval_mode(evidence)


def batch_statistics_in_eval_mode(evidence: Evidence) -> Iterator[Finding]:
    """Batch norms in eval mode that have running statistics and use those of the batch all the same."""
    layers = evidence.layers
    found = layers[
        (layers["kind"] == "batch_norm")
        & (layers["mode"] == "eval")
        & (layers["normalized_by"] == "batch")
        & (layers["affine_by"] == "running")
        & (layers["n_calls_learning"] == 0)
    ]
    names = list(dict.fromkeys(found["layer"]))
    if names:
        yield Finding(
            "warning",
            names[0],
            "Batch statistics are used in eval mode although there are running statistics: outputs depend on the rest of "
            "the batch.",
            f"{count(len(names), 'batch norm')} in eval mode used the statistics of the batch in every call, and no "
            "gradients were computed.",
            "Look for F.batch_norm(..., training=True) in its code: pass training=self.training. If it is meant, as in "
            "some meta-learning code, results with other batch sizes cannot be compared.",
        )


def frozen_but_moving(evidence: Evidence) -> Iterator[Finding]:
    """gamma and beta do not learn, but the running statistics follow the batches."""
    of_parts = following_batches(evidence)
    for _, row in evidence.layers.iterrows():
        if row["learns"] != "none" or row["call"] or not row["n_calls_learning"] > 0:
            continue
        # in eval mode nothing is updated: a moving average of another model, or a loaded file, was copied in
        if row["layer"] in of_parts or row["normalized_by"] == "running":
            continue
        if row["memory_moved"] > 0:
            yield Finding(
                "warning",
                row["layer"],
                "This norm is frozen, yet its running statistics are still being updated.",
                f"γ and β require no gradient, but the running means moved by {row['memory_moved']:.2g} running σ"
                + (f" in {count(row['n_updates'], 'update')}" if row["n_updates"] > 0 else "")
                + " (threshold: not at all).",
                f"A frozen norm needs eval mode, too, after every model.train(): `{module(row['layer'])}.eval()`.",
            )


def learning_but_frozen(evidence: Evidence) -> Iterator[Finding]:
    """gamma and beta learn, while the model trains and the running statistics stay fixed."""
    without_gradient = unreached(evidence)
    for _, row in evidence.layers.iterrows():
        trains = row["n_calls_model_training"] == row["n_calls"] and row["n_calls_learning"] > 0
        if (
            trains
            and row["layer"] not in without_gradient
            and row["mode"] == "eval"
            and row["normalized_by"] == "running"
            and row["learns"] in ("both", "γ", "β")
        ):
            both = row["learns"] == "both"
            what, s = ("γ and β", "") if both else (row["learns"], "s")
            yield Finding(
                "warning",
                row["layer"],
                f"The running statistics of this norm are frozen, but {what} learn{s}: "
                f"{'they adapt' if both else 'it adapts'} to statistics that go out of date.",
                f"eval mode in every call while the model was in train mode, and {what} require{s} a gradient.",
                f"Freeze both, `{module(row['layer'])}.requires_grad_(False)`, or neither: leave the norm in train mode.",
                call=row["call"],
            )


def updated_twice(evidence: Evidence) -> Iterator[Finding]:
    """More updates of the running statistics than calls."""
    for layer, group in evidence.layers.groupby("layer", sort=False):
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
        )


def odd_momentum(evidence: Evidence) -> Iterator[Finding]:
    """Running statistics that take in nothing, everything, or too slowly."""
    for _, row in evidence.layers.iterrows():
        m, calls = row["momentum"], row["n_calls"]
        if row["call"] or not calls or row["affine_by"] != "running" or np.isnan(row["n_batches_tracked"]):
            continue
        learning = row["normalized_by"] in ("batch", "both") and row["n_calls_learning"] > 0
        set_it = f"`{module(row['layer'])}.momentum = 0.1`"
        if m == 0 and row["normalized_by"] in ("batch", "both"):
            yield Finding(
                "warning",
                row["layer"],
                "Momentum is 0: the norm uses batch statistics but never updates its running statistics.",
                f"momentum 0 in train mode, in {count(calls, 'call')}: eval mode will use the old running statistics.",
                f"To update them: {set_it}. To freeze the norm instead: {module(row['layer'])}.eval().",
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
                f"Set `{module(row['layer'])}.momentum = {other or 0.1:g}`, then re-estimate the running statistics: "
                f"{RECALIBRATE}.",
            )
        elif np.isnan(m) and (learning or row["verdict"] in SHIFTED):
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
    )


def _each_young(evidence: Evidence) -> Iterator[Finding]:
    """The same for every norm by itself, as the data confirm."""
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
            )


def _slope(seen: Array, mean: Array, var: Array, error: Array) -> tuple[float, float]:
    """Of the running means on the measured means, through the origin, in running standard deviations; and its error.

    `error` is that of each difference, in the same unit; where it is not known it is left out.
    """
    with np.errstate(all="ignore"):
        x, y = seen / np.sqrt(var), mean / np.sqrt(var)
        return float((x * y).sum() / (x * x).sum()), float(
            np.sqrt(np.nansum((x * error) ** 2)) / (x * x).sum()
        )


def unsynchronised(evidence: Evidence) -> Iterator[Finding]:
    """SyncBatchNorm alone with itself."""
    for _, row in evidence.layers.iterrows():
        alone = row["n_ranks"] == 1 and row["normalized_by"] in ("batch", "both")
        if "Sync" in str(row["class_name"]) and alone and row["n_calls_learning"] > 0:
            yield Finding(
                "warning",
                row["layer"],
                "This SyncBatchNorm has no other process to synchronize with: it acts as a plain batch norm on the "
                "local batch.",
                "1 process in every call in train mode.",
                "Start the training with torchrun, and call torch.distributed.init_process_group before the first batch. "
                f"If one process is intended: `{module(row['layer'])}.__class__ = torch.nn.BatchNorm2d`.",
                call=row["call"],
            )


RULES = (
    Rule(
        "few-values",
        "Do mean and variance come from enough values?",
        "https://github.com/zhanghang1989/ResNeSt/issues/46, https://github.com/TRAILab/CaDDN/issues/103; "
        "Wu & He 2018, arXiv:1803.08494",
        f"{DEFAULT.few_values:g} values per channel in every call that used batch statistics, more than "
        f"{DEFAULT.no_values:g} in norms of single samples",
        few_values,
    ),
    Rule(
        "train-mode-in-evaluation",
        "Were all batch norms in eval mode while nothing was learned?",
        "https://github.com/pytorch/pytorch/issues/5406, https://github.com/pyg-team/pytorch_geometric/issues/1493",
        "eval mode wherever no gradients are computed, and running statistics used in it",
        evaluated_by_batch,
    ),
    Rule(
        "frozen-but-moving",
        "Do the running statistics of a frozen norm stay fixed?",
        "https://github.com/pytorch/pytorch/issues/86590, https://github.com/pgniewko/gt-pyg/issues/112",
        "γ or β that learn, or running statistics that do not change",
        frozen_but_moving,
    ),
    Rule(
        "learning-but-frozen",
        "Are γ and β frozen where the running statistics are?",
        "https://github.com/pytorch/pytorch/issues/66073, https://github.com/isht7/pytorch-deeplab-resnet/issues/39",
        "train mode, or γ and β without gradient, while the model is in train mode",
        learning_but_frozen,
    ),
    Rule(
        "updated-twice",
        "Are the running statistics updated once per call?",
        "https://github.com/pytorch/pytorch/issues/96136, https://github.com/facebookresearch/fairscale/issues/1035",
        "as many updates as calls",
        updated_twice,
    ),
    Rule(
        "momentum-odd",
        "Do the running statistics take in new batches at a sensible rate?",
        "https://github.com/pytorch/pytorch/issues/19916; Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.1",
        f"a momentum above 0 and below {DEFAULT.high_momentum:g}, or None while weights are fixed",
        odd_momentum,
    ),
    Rule(
        "statistics-young",
        "Have the running statistics left their initial values behind?",
        "https://forums.fast.ai/t/momentum-term-in-batch-norm-layer-in-fastai/41000 (2019)",
        f"(1 − m)^k below {DEFAULT.initial_weight:g} after k batches, or running means like the measured ones",
        young,
    ),
    Rule(
        "sync-alone",
        "Does a SyncBatchNorm have other processes to synchronize with?",
        "https://github.com/pytorch/pytorch/issues/48988",
        "more than one process, or eval mode",
        unsynchronised,
    ),
)
