"""Rules about how the norms were used: modes, freezing, processes, and how much one call saw."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.rules.edits import Freeze, OfModel, PlainBatchNorm, Remove, SetAttribute, SetMode, remedy
from bnprobe.rules.frozen_parts import following_batches, unreached
from bnprobe.rules.remedies import module
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.thresholds import DEFAULT
from bnprobe.rules.wording import count

FEWEST_SINGLE = 4
"""Batches of one sample from which training is done in such batches, and a single one was not the last of an epoch."""


def few_values(evidence: Evidence) -> Iterator[Finding]:
    """A mean and variance made of a handful of values."""
    for row in evidence.rows:
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
        advice, edit = _enough_values(row, by_batch)
        yield Finding(
            "warning",
            row["layer"],
            "Batch statistics here come from very few values and are noisy."
            if by_batch
            else "This norm normalizes over so few values that hardly any information is left.",
            f"{count(n, 'value')} per {'channel' if by_batch else 'mean and variance'}{_in_call(row)}{noise} "
            f"(threshold {limit:g}).",
            advice,
            call=row["call"],
            remedy=remedy(edit),
        )
    yield from _single_samples(evidence)
    yield from _one_feature(evidence)


def _single_samples(evidence: Evidence) -> Iterator[Finding]:
    """Batch norms that learn from one sample at a time, where samples differ: another function than in eval mode."""
    layers, limits = evidence.layers, evidence.limits
    alone = (layers["n_images"] == layers["n_calls"]) & (layers["n_calls"] >= FEWEST_SINGLE)
    learns = (layers["normalized_by"] == "batch") & (layers["n_calls_learning"] == layers["n_calls"])
    with np.errstate(all="ignore"):
        apart = np.sqrt(1 / layers["share_within_median"] - 1)
    found = layers[
        (layers["kind"] == "batch_norm")
        & alone
        & learns
        & (apart > limits.samples_apart)
        & ~(layers["fewest_values"] < limits.few_values)
    ]
    if found.empty:
        return
    row = found.iloc[0]
    yield Finding(
        "warning",
        row["layer"],
        "Every batch holds a single sample: this norm takes each sample's own mean and std out, and eval mode does not.",
        f"{count(row['n_calls'], 'call')} with 1 sample each; the means of samples are {apart[found.index[0]]:.2g} times as "
        f"far apart as values within a sample (typical channel, threshold {limits.samples_apart:g}). So it is at "
        f"{count(found['layer'].nunique(), 'batch norm')}.",
        "Use larger batches, or GroupNorm, which does the same in both modes; or freeze the norms, so that they use the "
        "running statistics while the rest trains: `[m.eval().requires_grad_(False) for m in model.modules() if "
        "isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]` after model.train().",
        call=row["call"],
        remedy=remedy(Freeze(tuple(dict.fromkeys(found["layer"])), eval_mode=True)),
    )


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
            remedy=remedy(Remove(row["layer"])),
        )


def _in_call(row: pd.Series) -> str:
    """Which call that was, if any is on record, and how many samples it had."""
    samples = count(row["fewest_images"], "sample")
    if not row["n_calls"]:
        return f" of {samples}"
    return f" in call {int(row['fewest_call']) + 1} of {int(row['n_calls'])}, with {samples}"


def _enough_values(row: pd.Series, by_batch: bool) -> tuple[str, OfModel | None]:
    """Advice, in words and as an edit."""
    layer = str(row["layer"])
    if not by_batch:
        if row["kind"] == "group_norm":
            code = f"`{module(layer)}.num_groups = 1`"
            return (
                f"Let it normalize over more channels, {code}, and retrain.",
                SetAttribute(layer, "num_groups", 1),
            )
        code = f'`model.set_submodule("{layer}", torch.nn.Identity())`'
        return f"Remove the norm where only one position is left, {code}, and retrain.", Remove(layer)
    typical = row["n_values"] / row["n_channels"] / row["n_calls"]
    if row["n_calls"] > 1 and typical > 2 * row["fewest_values"]:
        return (
            "The other calls had more: drop the small last batch, "
            "`loader = torch.utils.data.DataLoader(loader.dataset, loader.batch_size, drop_last=True)`.",
            None,
        )
    return (
        "Use larger batches, SyncBatchNorm over several devices or GroupNorm (gradient accumulation does not help); "
        "or freeze it, so that it uses the running statistics while the rest trains: "
        f"`{module(layer)}.eval().requires_grad_(False)` after model.train().",
        Freeze((layer,), eval_mode=True),
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
        remedy=remedy(SetMode("", training=False)),
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
    for row in evidence.rows:
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
                remedy=remedy(SetMode(row["layer"], training=False)),
            )


def learning_but_frozen(evidence: Evidence) -> Iterator[Finding]:
    """gamma and beta learn, while the model trains and the running statistics stay fixed."""
    without_gradient = unreached(evidence)
    for row in evidence.rows:
        trains = row["n_calls_model_training"] == row["n_calls"] and row["n_calls_learning"] > 0
        if (
            trains
            and row["layer"] not in without_gradient
            and row["mode"] == "eval"
            and row["normalized_by"] == "running"
            and row["learns"] in ("both", "γ", "β")
            and row["stepped"] != 0  # a gradient that no optimizer uses
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
                remedy=remedy(Freeze((row["layer"],))),
            )


def unsynchronised(evidence: Evidence) -> Iterator[Finding]:
    """SyncBatchNorm alone with itself."""
    for row in evidence.rows:
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
                remedy=remedy(PlainBatchNorm(row["layer"])),
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
        edits=(SetAttribute, Freeze, Remove),
    ),
    Rule(
        "train-mode-in-evaluation",
        "Were all batch norms in eval mode while nothing was learned?",
        "https://github.com/pytorch/pytorch/issues/5406, https://github.com/pyg-team/pytorch_geometric/issues/1493",
        "eval mode wherever no gradients are computed, and running statistics used in it",
        evaluated_by_batch,
        edits=(SetMode,),
        of_calls=True,
    ),
    Rule(
        "frozen-but-moving",
        "Do the running statistics of a frozen norm stay fixed?",
        "https://github.com/pytorch/pytorch/issues/86590, https://github.com/pgniewko/gt-pyg/issues/112",
        "γ or β that learn, or running statistics that do not change",
        frozen_but_moving,
        edits=(SetMode,),
    ),
    Rule(
        "learning-but-frozen",
        "Are γ and β frozen where the running statistics are?",
        "https://github.com/pytorch/pytorch/issues/66073, https://github.com/isht7/pytorch-deeplab-resnet/issues/39",
        "train mode, or γ and β without gradient, while the model is in train mode",
        learning_but_frozen,
        edits=(Freeze,),
        of_calls=True,
    ),
    Rule(
        "sync-alone",
        "Does a SyncBatchNorm have other processes to synchronize with?",
        "https://github.com/pytorch/pytorch/issues/48988",
        "more than one process, or eval mode",
        unsynchronised,
        edits=(PlainBatchNorm,),
        of_calls=True,
    ),
)
