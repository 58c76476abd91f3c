"""Rules about how the norms were used: modes, freezing, updates, momentum, and how much one call saw."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.recording.names import SHIFTED
from bnprobe.rules.remedies import RECALIBRATE, module
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.thresholds import DEFAULT

UPDATES_PER_CALL = 1.5
"""Updates per call from which a norm is updated more than it is called: of whole numbers, 2 is the next after 1."""


def few_values(evidence: Evidence) -> Iterator[Finding]:
    """A mean and variance made of a handful of values."""
    for _, row in evidence.layers.iterrows():
        by_batch = row["normalized_by"] in ("batch", "both")
        limit = evidence.limits.few_values if by_batch else evidence.limits.no_values
        n = row["fewest_values"]
        # where n <= 2 the output is 0 or +-1; above that a norm of one image is what it is meant to be
        if not (n < limit or (n == limit and not by_batch)):
            continue
        images = row["fewest_images"]
        noise = (
            f": a relative error of {np.sqrt(2 / (n - 1)):.0%} in the variance" if n > 1 and by_batch else ""
        )
        yield Finding(
            "warning",
            row["layer"],
            "The batch's own mean and variance were made of very few values: they are noise."
            if by_batch
            else "This norm takes the mean and variance of so few values that hardly anything is left of them.",
            f"{n:g} value{'s' if n > 1 else ''} per channel in call {int(row['fewest_call']) + 1} of "
            f"{int(row['n_calls'])}, which had {images:g} image{'s' if images > 1 else ''}{noise} "
            f"(threshold {limit:g}).",
            _enough_values(row, by_batch),
            call=row["call"],
        )


def _enough_values(row: pd.Series, by_batch: bool) -> str:
    if not by_batch:
        what = "num_groups" if row["kind"] == "group_norm" else "track_running_stats"
        return (
            f"Let it pool over more: `{module(row['layer'])}.num_groups = 1`, and train it again so."
            if what == "num_groups"
            else f"Take the norm away where there is one position left: "
            f'`model.set_submodule("{row["layer"]}", torch.nn.Identity())`, and train again.'
        )
    typical = row["n_values"] / row["n_channels"] / row["n_calls"]
    if row["n_calls"] > 1 and typical > 2 * row["fewest_values"]:
        return (
            "The other calls had more: leave the small batch at the end out, "
            "`loader = torch.utils.data.DataLoader(loader.dataset, loader.batch_size, drop_last=True)`."
        )
    return (
        "Use larger batches, SyncBatchNorm over several devices or GroupNorm (gradient accumulation does not help); "
        f"or let it use its memory while the rest trains: `{module(row['layer'])}.eval()` after model.train()."
    )


def train_while_evaluating(evidence: Evidence) -> Iterator[Finding]:
    """Batch norms in train mode although nothing is learned."""
    norms = evidence.layers[(evidence.layers["kind"] == "batch_norm") & (evidence.layers["n_calls"] > 0)]
    by_batch = norms["normalized_by"].isin(("batch", "both")) & norms["mode"].isin(("train", "mixed"))
    found = norms[by_batch & (norms["n_calls_learning"] == 0)]
    if found.empty:
        return
    names = list(dict.fromkeys(found["layer"]))
    moved = found["memory_moved"].max()
    yield Finding(
        "warning",
        names[0],
        "The model was evaluated with batch norms in train mode: results depend on batch mates, and memories moved.",
        f"{len(names)} of {norms['layer'].nunique()} batch norms normalized by the batch while no gradients were computed"
        + (f"; running means moved by up to {moved:.2g} remembered σ." if moved > 0 else "."),
        "`model.eval()` before evaluating, and again after every model.train().",
    )


def frozen_but_moving(evidence: Evidence) -> Iterator[Finding]:
    """gamma and beta do not learn, but the memory follows the batches."""
    for _, row in evidence.layers.iterrows():
        if row["learns"] != "none" or row["call"] or not row["n_calls_learning"] > 0:
            continue
        if row["memory_moved"] > 0:
            yield Finding(
                "warning",
                row["layer"],
                "This norm is frozen and moves none the less: γ and β do not learn, but its memory follows the batches.",
                f"γ and β require no gradient, and the running means moved by {row['memory_moved']:.2g} remembered σ in "
                f"{row['n_updates']:g} updates (threshold: none at all)."
                if row["n_updates"] > 0
                else f"γ and β require no gradient, and the running means moved by {row['memory_moved']:.2g} remembered σ "
                "(threshold: none at all).",
                f"A frozen norm needs eval mode, too, after every model.train(): `{module(row['layer'])}.eval()`.",
            )


def learning_but_frozen(evidence: Evidence) -> Iterator[Finding]:
    """gamma and beta learn, while the model trains and the memory stands still."""
    for _, row in evidence.layers.iterrows():
        trains = row["n_calls_model_training"] == row["n_calls"] and row["n_calls_learning"] > 0
        if (
            trains
            and row["mode"] == "eval"
            and row["normalized_by"] == "running"
            and row["learns"] in ("both", "γ", "β")
        ):
            what = "γ and β" if row["learns"] == "both" else row["learns"]
            yield Finding(
                "warning",
                row["layer"],
                f"The memory of this norm is frozen, but {what} learn: they adapt to statistics that go out of date.",
                f"it was in eval mode at every call while the model was in train mode, and {what} "
                "require a gradient.",
                f"Freeze both, `{module(row['layer'])}.requires_grad_(False)`, or neither: leave it in train mode.",
                call=row["call"],
            )


def updated_twice(evidence: Evidence) -> Iterator[Finding]:
    """More updates of the memory than calls."""
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
            "The memory of this norm is updated more than once per call: gradient checkpointing runs it again.",
            f"num_batches_tracked grew by {updates:g}, {times:.3g} per call (threshold "
            f"{UPDATES_PER_CALL:g}){acts}.",
            "Leave the norm out of the checkpointed part, or keep the second run from updating: "
            f"`{module(str(layer))}.register_forward_pre_hook(lambda m, x: torch._C._current_graph_task_id() == -1 and "
            f'setattr(m, "momentum", {m:g}) or torch._C._current_graph_task_id() != -1 and (setattr(m, "momentum", 0.0), '
            "m.num_batches_tracked.sub_(1)) and None or None)`.",
        )


def odd_momentum(evidence: Evidence) -> Iterator[Finding]:
    """A memory that learns nothing, everything, or too slowly."""
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
                "This norm normalizes by the batch and remembers nothing of it: its momentum is 0.",
                f"momentum is 0 in train mode (calls: {int(calls)}): eval mode will use what was there before.",
                f"{set_it} if it shall remember, {module(row['layer'])}.eval() if it shall be frozen.",
            )
        elif m >= evidence.limits.high_momentum:
            yield Finding(
                "warning",
                row["layer"],
                "This norm remembers little more than its last batch.",
                f"momentum is {m:g}: the memory is worth (2 − m)/m = {(2 - m) / m:.3g} batches (threshold "
                f"{evidence.limits.high_momentum:g}). In torch the new batch has the weight m; elsewhere 1 − m is given.",
                f"{set_it}, then make the memory anew, {RECALIBRATE}.",
            )
        elif np.isnan(m) and (learning or row["verdict"] in SHIFTED):
            yield Finding(
                "warning",
                row["layer"],
                "This norm averages over the whole of training: its memory lags behind weights that change.",
                f"momentum is not set (a plain average over {row['n_batches_tracked']:g} batches), and "
                + ("it is being trained." if learning else f"these data look {row['verdict']}."),
                f"{set_it} for training, then {RECALIBRATE}; a plain average is right when weights stand still.",
            )


def young(evidence: Evidence) -> Iterator[Finding]:
    """A memory that is still in good part the 0 and 1 of its creation, as the data confirm."""
    for row, channels in evidence.sites:
        k, m = row["n_batches_tracked"], row["momentum"]
        if row["call"] or not (k > 0 and 0 < m < 1) or row["mode"] != "eval":
            continue
        left = (1 - m) ** k
        seen, mean = channels["pre_mean"].to_numpy(float), channels["running_mean"].to_numpy(float)
        var = channels["running_var"].to_numpy(float)
        known = np.isfinite(seen) & np.isfinite(mean) & np.isfinite(var) & (var > 0)
        if left < evidence.limits.initial_weight or not known.any() or (mean == 0).all():
            continue
        slope = _slope(seen[known], mean[known], var[known])
        if abs(slope - (1 - left)) < abs(slope - 1):
            yield Finding(
                "warning",
                row["layer"],
                "The memory of this norm is young: much of it is still the 0 and 1 that it began with.",
                f"after {k:g} batches with momentum {m:g} the initial values still weigh {left:.0%} (threshold "
                f"{evidence.limits.initial_weight:.0%}), and the running means are {slope:.0%} of those seen.",
                f"Train on, or make the memory anew as a plain average: {RECALIBRATE}.",
            )


def _slope(seen: np.ndarray, mean: np.ndarray, var: np.ndarray) -> float:
    """Of the running means on the means seen, through the origin, in remembered deviations."""
    with np.errstate(all="ignore"):
        x, y = seen / np.sqrt(var), mean / np.sqrt(var)
        return float((x * y).sum() / (x * x).sum())


def unsynchronised(evidence: Evidence) -> Iterator[Finding]:
    """SyncBatchNorm alone with itself."""
    for _, row in evidence.layers.iterrows():
        alone = row["n_ranks"] == 1 and row["normalized_by"] in ("batch", "both")
        if "Sync" in str(row["class_name"]) and alone and row["n_calls_learning"] > 0:
            yield Finding(
                "warning",
                row["layer"],
                "This SyncBatchNorm synchronizes with nobody: it works as a plain batch norm on the local batch.",
                "one process was there, at every call in train mode.",
                "Start the training with torchrun, and call torch.distributed.init_process_group before the first batch. "
                f"If one process is what you want: `{module(row['layer'])}.__class__ = torch.nn.BatchNorm2d`.",
                call=row["call"],
            )


RULES = (
    Rule(
        "few-values",
        "Were mean and variance made of enough values?",
        "https://github.com/zhanghang1989/ResNeSt/issues/46, https://github.com/TRAILab/CaDDN/issues/103; "
        "Wu & He 2018, arXiv:1803.08494",
        f"{DEFAULT.few_values:g} values per channel in every call that was normalized by the batch, more than "
        f"{DEFAULT.no_values:g} in norms of one image",
        few_values,
    ),
    Rule(
        "train-mode-in-evaluation",
        "Were all batch norms in eval mode while nothing was learned?",
        "https://github.com/pytorch/pytorch/issues/5406, https://github.com/pyg-team/pytorch_geometric/issues/1493",
        "eval mode wherever no gradients are computed",
        train_while_evaluating,
    ),
    Rule(
        "frozen-but-moving",
        "Does the memory of a frozen norm stand still?",
        "https://github.com/pytorch/pytorch/issues/86590, https://github.com/pgniewko/gt-pyg/issues/112",
        "γ or β that learn, or a memory that does not move",
        frozen_but_moving,
    ),
    Rule(
        "learning-but-frozen",
        "Do γ and β stand still where the memory does?",
        "https://github.com/pytorch/pytorch/issues/66073, https://github.com/isht7/pytorch-deeplab-resnet/issues/39",
        "train mode, or γ and β without gradient, while the model is in train mode",
        learning_but_frozen,
    ),
    Rule(
        "updated-twice",
        "Is the memory updated once per call?",
        "https://github.com/pytorch/pytorch/issues/96136, https://github.com/facebookresearch/fairscale/issues/1035",
        "as many updates as calls",
        updated_twice,
    ),
    Rule(
        "momentum-odd",
        "Does the memory take in new batches at a sensible rate?",
        "https://github.com/pytorch/pytorch/issues/19916; Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.1",
        f"a momentum above 0 and below {DEFAULT.high_momentum:g}, or none where weights stand still",
        odd_momentum,
    ),
    Rule(
        "statistics-young",
        "Has the memory forgotten its initial values?",
        "https://forums.fast.ai/t/momentum-term-in-batch-norm-layer-in-fastai/41000 (2019)",
        f"(1 − m)^k below {DEFAULT.initial_weight:g} after k batches, or means like those seen",
        young,
    ),
    Rule(
        "sync-alone",
        "Does a SyncBatchNorm have others to synchronize with?",
        "https://github.com/pytorch/pytorch/issues/48988",
        "more than one process, or eval mode",
        unsynchronised,
    ),
)
