"""Rules about where stored vectors come from: initial values, updates that others did not have, copies of another norm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.recording.names import said
from bnprobe.recording.terms import MISFIT
from bnprobe.rules.alternatives import never_learned, never_trained, not_learned
from bnprobe.rules.by_hand import TRAINING
from bnprobe.rules.edits import RENEWED, Recalibrate, remedy
from bnprobe.rules.newness import affine_at_start, at_start, fresh, updated_meanwhile
from bnprobe.rules.of_all_norms import once
from bnprobe.rules.precision import HALVES, step_words, stuck
from bnprobe.rules.remedies import RECALIBRATE, module, recalibrate, recalibration
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.wording import count, in_all, number


def untrained(evidence: Evidence) -> Iterator[Finding]:
    """γ and β at their initial values in a layer that has seen training, or in a network that has."""
    beside = never_learned(evidence)
    yield from [not_learned(beside)] if beside else []
    reported = {*never_trained(evidence), *beside}
    found = [finding for finding in _each_untrained(evidence) if finding.layer not in reported]
    (says, *others) = {finding.says for finding in found} or {""}
    whole = "" if others else _OF_ALL.get(says, "")
    yield from once(found, len(evidence.layers), whole) if whole else found


_NEW = "This norm is new: γ and β have their initial values, and the running statistics were updated a few times."
_UNTRAINED = "This norm is untrained: nothing was learned."
_OF_ALL = {
    _NEW: "Every norm is new: γ and β have their initial values, and the running statistics were updated a few times.",
    _UNTRAINED: "Every norm is untrained: nothing was learned.",
}


def _each_untrained(evidence: Evidence) -> Iterator[Finding]:
    """The same for every norm by itself."""
    trained = {row["layer"] for row, channels in evidence.sites if not affine_at_start(channels)}
    some_scale = evidence.channels["gamma"].notna() & ~evidence.channels["gamma"].isin((0, 1))
    for row, channels in evidence.sites_with(evidence.channels["gamma"].isin((0, 1))):
        gamma, beta = channels["gamma"], channels["beta"]
        if gamma.isna().all() or gamma.nunique(dropna=False) > 1 or gamma.iloc[0] not in (0, 1):
            continue
        if (gamma.iloc[0] == 0 and row["skip"]) or len(stuck(row, channels)):
            continue  # a branch that adds nothing, and updates that are rounded away, have rules of their own
        start, both = f"γ is exactly {gamma.iloc[0]:g}", bool((beta.fillna(0) == 0).all())
        learned = bool(some_scale.any()) and not evidence.is_new
        updated = channels["running_mean"].notna().any() and not at_start(row, channels)
        others = bool(trained - {row["layer"]}) and not evidence.is_new
        if both and updated and not others and row["initial_weight"] >= evidence.limits.initial_weight:
            yield Finding(
                "info",
                row["layer"],
                _NEW,
                f"{start} {in_all(channels)} after {count(row['n_batches_tracked'], 'batch')}.",
                "Nothing, in the first batches of training.",
                call=row["call"],
            )
        elif both and (updated or others):
            yield Finding(
                "warning",
                row["layer"],
                "γ and β never left their initial values.",
                f"{start} and β {'missing' if beta.isna().all() else 'exactly 0'} {in_all(channels)}"
                + (
                    ", while the running statistics were updated."
                    if updated
                    else ", while other norms were trained."
                ),
                "If this is not intended, check that "
                + (
                    ""
                    if updated
                    else "its weights were loaded (strict=False leaves out keys with another prefix), "
                )
                + ("the layer is called at all, " if row["n_calls"] == 0 else "")
                + "they are in the optimizer and that gradients reach them. "
                + _learn(row["layer"]),
                call=row["call"],
            )
        elif both and channels["running_mean"].isna().all():
            yield Finding(
                "info",
                row["layer"],
                _UNTRAINED,
                f"{start} and β {'missing' if beta.isna().all() else 'exactly 0'} {in_all(channels)}.",
                "Load trained weights, if there are any. If the network was trained, the optimizer did not have γ and β: "
                f"pass it model.parameters().{_if_rounded(row, gamma)}",
                call=row["call"],
            )
        elif not both:
            yield Finding(
                "warning" if learned else "info",
                row["layer"],
                "γ never left its initial value, while β did.",
                f"{start} {in_all(channels)}"
                + (
                    ", while other norms have learned theirs."
                    if learned
                    else ", as in every norm of this model."
                ),
                f"Some libraries build norms without a scale. Otherwise let it learn. {_learn(row['layer'])}",
                call=row["call"],
            )


def _if_rounded(row: pd.Series, gamma: pd.Series) -> str:
    """What else leaves γ at 1 where it is stored in half precision."""
    if row["parameter_dtype"] not in HALVES or gamma.iloc[0] != 1:
        return ""
    return (
        f" If the network was trained: {step_words(row['parameter_dtype'])}, and smaller updates are rounded away; keep the "
        "weights of norms, or master copies, in float32."
    )


def _learn(layer: str) -> str:
    """One step of training that moves gamma and beta."""
    return (
        f"One step, which changes results: `n = {module(layer)}; n.requires_grad_(True); "
        "step = torch.optim.SGD(n.parameters(), 0.01)`, "
        "`loss(model(x), y).backward(); step.step()`."
    )


def counted_differently(evidence: Evidence) -> Iterator[Finding]:
    """Norms that were updated more or less often than the others."""
    # torch keeps the count of an instance norm's buffers at 0, whatever is done
    counting = (evidence.layers["call"] == 0) & (evidence.layers["kind"] != "instance_norm")
    layers = evidence.layers[counting]
    if layers["n_batches_tracked"].nunique() < 2:
        return
    unused = [row["layer"] for row, channels in evidence.sites if fresh(row, channels)]
    # what was never updated has a rule of its own
    counts = layers["n_batches_tracked"][~layers["layer"].isin(unused)].dropna()
    if counts.nunique() < 2:
        return
    # of two that are as frequent the smaller is the usual one: what is updated several times has more
    modes = counts.mode()
    usual = float(modes[modes > 0].min() if (modes > 0).any() else 0.0)
    calls = evidence.layers.groupby("layer")["n_calls"].sum()
    for layer, n in zip(layers["layer"][counts.index], counts, strict=True):
        if n == usual:
            continue
        times = n / usual if usual else float("inf")
        often = usual > 0 and n > 0 and times == round(times)
        as_called = often and _as_called(calls, layer, times, layers.loc[counts.index])
        yield Finding(
            "warning" if often and not as_called else "info",
            layer,
            "This norm was updated several times for each update of the others."
            if often
            else f"This norm was updated {'more' if n > usual else 'less'} often than the others.",
            f"num_batches_tracked is {n:,.0f}, and {usual:,.0f} in most norms"
            + (f", {times:,.0f} times as many{as_called}." if often else "."),
            "Nothing, where a part is meant to be called more often, as a discriminator is."
            if as_called
            else "Gradient checkpointing that reruns the norm, or a module that is used more than once, causes this; "
            "momentum m then acts as 1 − (1 − m)^k. Leave the norm out of the checkpointed part, or use one norm per use. "
            f"In a trained model, re-estimate the running statistics as a plain average: {RECALIBRATE}."
            if often
            else "Expected of layers that were frozen, added later or skipped in some passes; otherwise find out why.",
            remedy=remedy(Recalibrate() if often and not as_called else None),
        )


def _as_called(calls: pd.Series, layer: str, times: float, counted: pd.DataFrame) -> str:
    """Why such a count is that of its calls, as a part of the sentence; empty where it is not.

    Where calls were recorded they tell. Without any, a part all of whose norms have the same count, beside parts of
    another one, is called as a whole.
    """
    counts = counted["n_batches_tracked"]
    n = counts[counted["layer"] == layer].iloc[0]
    others = calls[counted["layer"][counts * times == n]].median()
    if calls[layer] > 0 and others > 0:
        return ", as it is called" if calls[layer] == times * others else ""
    names = counted["layer"].str.split(".")
    shared = next((i for i, level in enumerate(zip(*names, strict=False)) if len(set(level)) > 1), 0)
    parts = names.map(lambda name: name[shared] if len(name) > shared + 1 else "")
    own = parts[counted["layer"] == layer].iloc[0]
    of_part, rest = parts == own, parts != own
    whole = own and counts[of_part].nunique() == 1 == counts[rest].nunique()
    several = of_part.sum() > 1 and rest.sum() > 1
    return f", in all norms of {own}" if whole and several else ""


BUFFERS = {"mean": "running_mean", "variance": "running_var"}


def alike(evidence: Evidence) -> Iterator[Finding]:
    """Statistics that no data make: one mean or one variance for all channels, or those of another layer."""
    known: dict[bytes, tuple[str, bytes, bytes]] = {}
    for row, channels in evidence.sites:
        mean, var = channels["running_mean"].to_numpy(float), channels["running_var"].to_numpy(float)
        if row["call"] or len(var) < 4 or fresh(row, channels) or not np.isfinite(var).all():
            continue
        if updated_meanwhile(row):
            continue  # shown are the statistics from before the recording, and γ and β from its end
        affine = b"".join(channels[name].to_numpy(float).tobytes() for name in ("gamma", "beta"))
        # norms that take turns on the same input, as those of several widths do, come to the same statistics
        fed = b"".join(channels[name].to_numpy(float).tobytes() for name in ("pre_mean", "pre_var"))
        first = known.setdefault(mean.tobytes() + var.tobytes(), (row["layer"], affine, fed))
        same = {
            name: values[0]
            for name, values in (("mean", mean), ("variance", var))
            if (values == values[0]).all()
        }
        if same:
            yield Finding(
                "warning",
                row["layer"],
                f"All channels have the same running {' and '.join(same)}, which no data produce.",
                f"{' and '.join(f'{BUFFERS[name]} is {number(value)}' for name, value in same.items())} in all {len(var)} "
                "channels.",
                "The buffer was set by hand or by a conversion: take it from the original file, or re-estimate it: "
                f"{recalibrate(row)}.",
                call=row["call"],
                remedy=remedy(recalibration(row)),
            )
        elif first[1] != affine and not (row["n_calls"] > 0 and first[2] == fed):
            # without data two heads, whose norms take one input, look the same, unless the weights before say otherwise
            may_be_right = row["n_calls"] == 0 and not row["means_fit"] < MISFIT
            yield Finding(
                "info" if may_be_right else "warning",
                row["layer"],
                "This norm has exactly the running statistics of another one, although their γ and β differ.",
                f"running_mean and running_var are those of {said(first[0])}, to the last bit, in all {len(var)} channels.",
                (
                    "Where both take the same input, as two heads do, this is right. Otherwise its"
                    if may_be_right
                    else "Its"
                )
                + " buffers were copied, or loaded under the wrong name: compare the names in the file with the model's, "
                f"or re-estimate them: {recalibrate(row)}.",
                call=row["call"],
                remedy=remedy(recalibration(row)),
            )


RULES = (
    Rule(
        "affine-untrained",
        "Did γ and β leave their initial values?",
        "Frankle, Schwab & Morcos 2020, arXiv:2003.00152; https://github.com/tensorflow/tensorflow/issues/564",
        "any γ other than 0 or 1",
        untrained,
        by_hand=TRAINING,
    ),
    Rule(
        "batches-differ",
        "Were all norms updated equally often?",
        "https://github.com/pytorch/pytorch/issues/96136, https://github.com/Tencent/YOLO-Master/issues/262",
        "one num_batches_tracked in all norms",
        counted_differently,
        edits=RENEWED,
    ),
    Rule(
        "statistics-alike",
        "Does every layer have running statistics of its own?",
        "https://github.com/huggingface/pytorch-image-models/issues/245, https://github.com/pytorch/pytorch/issues/1738",
        "variances that differ between channels and between layers",
        alike,
        edits=RENEWED,
    ),
)
