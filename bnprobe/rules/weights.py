"""Rules about what the stored vectors say by themselves: they need no data, and apply to a checkpoint alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.recording.names import said
from bnprobe.recording.terms import MANY_EPS, NO_VARIANCE, REACH_SIGMAS, TORCH_EPS
from bnprobe.rules.newness import affine_at_start, at_start, fresh, updated_meanwhile
from bnprobe.rules.precision import HALVES, step_words, stuck
from bnprobe.rules.remedies import RECALIBRATE, module, recalibrate, reinitialized, rescaled
from bnprobe.rules.rule import Evidence, Finding, Rule, indices, share_severity
from bnprobe.rules.thresholds import DEFAULT, Limits
from bnprobe.rules.wording import activation, count, eps_of, if_assumed, in_all, number, out_of, some

VECTORS = ("running_mean", "running_var", "gamma", "beta")
WELL_WITHIN = 64.0
"""Inputs of this size have a variance that half precision holds, too."""

SMALLEST_HALF = 6.1e-5
"""Smallest number that half precision holds to its full digits."""

OTHER_DATA = (
    "The running statistics fit easily, so look at the inputs first: preprocess them as in training (range, mean, std), and "
    "look for samples with values far beyond the others. If they are as in training, the preceding weights have grown since "
    "the running statistics were updated (too large a step): go back to a checkpoint from before that."
)

CARRY_BETA = (
    "They can be removed if what the next layer makes of β is added to its bias; at borders padded with zeros that is not "
    "exact, so measure before and after."
)

RELUS = ("relu", "relu6")
"""Activations whose output is 0 for everything negative."""


def dead(evidence: Evidence) -> Iterator[Finding]:
    """Batch norm channels whose output cannot become positive, before a ReLU or what may be one."""
    limits = evidence.limits
    k = limits.dead_sigmas
    for row, channels in evidence.sites:
        known = row["follows"] in RELUS
        if row["kind"] != "batch_norm" or not (known or row["follows"] == "unknown") or _all_zero(channels):
            continue
        beta = channels["beta"].fillna(0)
        # a constant input that outputs exactly 0 is reported as a constant
        reach = beta + k * channels["gamma_effective"].where(beta < 0, channels["gamma"].fillna(1).abs())
        found = channels[(reach < limits.dead_reach) & ~(channels["fires"] > 0)]
        if len(found):
            yield Finding(
                "critical"
                if known and len(found) == len(channels)
                else share_severity(found, channels, limits),
                row["layer"],
                f"{some(found, channels)} are dead: the {activation(row['follows'])} after this norm always outputs 0 "
                "for them."
                if known
                else f"{some(found, channels)} can never be positive: if a ReLU follows this norm, they are dead.",
                f"β + {k:g}|γ| < {limits.dead_reach:g} in {_with_eps(found, channels, _alone(found, k, limits), row)}.",
                ("" if known else "Check with --arch NAME to see what follows; if it is a ReLU, do this. ")
                + (
                    "Neither values nor gradients pass through this layer. "
                    if len(found) == len(channels)
                    else "They add nothing but 0: remove them with the filters before and the weights that read them, and "
                    "no output changes. Where a depthwise convolution reads them, its own norm makes a constant of it: "
                    "add what the next layer makes of that to its bias. "
                )
                + "To keep them alive in the next training, lower the initial learning rate or the weight decay on γ and β. "
                + f"To reinitialize them: {reinitialized(row['layer'], indices(found), len(channels))}.",
                indices(found),
                row["call"],
            )


def _alone(found: pd.DataFrame, k: float, limits: Limits) -> pd.Series:
    """Those that are dead even if γ counts in full."""
    return found["beta"].fillna(0) + k * found["gamma"].fillna(1).abs() < limits.dead_reach


def _with_eps(found: pd.DataFrame, channels: pd.DataFrame, alone: pd.Series, row: pd.Series) -> str:
    """How many channels, and of how many this holds only with what eps leaves of γ."""
    n = int((~alone).sum())
    if not n:
        return out_of(found, channels)
    which = f", in {n} of them" if n < len(found) else ","
    return (
        f"{out_of(found, channels)}{which} with |γ| √(running_var / (running_var + eps)) for |γ|, as their inputs hardly "
        f"vary ({eps_of(row)})"
    )


def _all_zero(channels: pd.DataFrame) -> bool:
    """γ and β exactly 0 everywhere: a branch that was initialized to 0, which is not dead."""
    return bool(((channels["gamma"] == 0) & (channels["beta"].fillna(0) == 0)).all())


def decayed(evidence: Evidence) -> Iterator[Finding]:
    """Filters that weight decay has shrunk because no gradient has reached them for long."""
    limits = evidence.limits
    for row, channels in evidence.sites:
        length = channels["filter_norm"]
        typical = float(length.median())
        small = length < limits.decayed_filter * typical
        found = channels[small & (channels["gamma_effective"] < limits.constant_gamma)]
        if len(found):
            most = float(found["filter_norm"].max())
            small_gamma = found["gamma"].abs() < limits.constant_gamma
            yield Finding(
                share_severity(found, channels, limits),
                row["layer"],
                "Weight decay has shrunk the filters of some channels almost to zero; the loss no longer pushes back.",
                f"|γ| < {limits.constant_gamma:g} in {_with_eps(found, channels, small_gamma, row)}; their filters in "
                f"{said(row['feeder'])} have a length of at most {most:.2g}, {_percent(most / typical)} of the layer's "
                f"median (threshold {limits.decayed_filter:.0%}).",
                f"Little is left of them but β. {CARRY_BETA} "
                + _reinitialized_filters(row, indices(found), len(channels)),
                indices(found),
                row["call"],
            )


def _percent(part: float) -> str:
    """A share that is not rounded to 0."""
    return f"{part:.1%}" if part >= 0.001 else "under 0.1%"


def _reinitialized_filters(row: pd.Series, channels: tuple[int, ...], n_channels: int) -> str:
    """Random filters of the layer's own size, a scale of 1, and statistics that do not amplify what these put out."""
    filters = f"w = {module(row['feeder'])}.weight.data; w[at] = torch.randn_like(w[at]) * w.std(); "
    stored = "; n.running_mean[at] = 0; n.running_var[at] = 1" if row["kind"] == "batch_norm" else ""
    code = reinitialized(row["layer"], channels, n_channels, filters, stored)
    return f"To reinitialize them before training goes on: {code}."


def below_eps(evidence: Evidence) -> Iterator[Finding]:
    """Live channels whose running variance is smaller than eps, and per-sample norms that divide by little but eps."""
    for row, channels in evidence.sites:
        live = channels["gamma"].fillna(1).abs() >= evidence.limits.constant_gamma
        var = channels["running_var"]
        # all 0 were set so; of a few that are 0, the inputs were constant, or half precision rounded their variance
        flat = (var >= 0) & (var < NO_VARIANCE) & ((var > 0) | (var.max() > 0)) & ~(channels["pre_var"] > 0)
        small = live & (var >= 0) & (var < row["eps"]) & ~flat
        varies = channels["pre_var"] > MANY_EPS * row["eps"]
        if (small & varies).any():
            yield _lost_variance(row, channels[small & varies], channels, evidence.limits)
        if (small & ~varies).any():
            yield _hardly_varies(row, channels[small & ~varies], channels, evidence.limits)
        if flat.any():
            yield _never_varied(row, channels[flat], channels)
        if row["own_sd"] ** 2 < 2 * row["eps"]:
            yield _divides_by_eps(row, evidence.is_new)


def _never_varied(row: pd.Series, found: pd.DataFrame, channels: pd.DataFrame) -> Finding:
    """Constant inputs: nothing that eps or γ could change."""
    has_beta = bool(found["beta"].notna().all())
    return Finding(
        "info",
        row["layer"],
        f"The inputs of {some(found, channels).lower()} were constant in training: on such inputs the output is "
        f"{'β' if has_beta else '0'}.",
        f"{_long_constant(row, found, channels)}.",
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


def _hardly_varies(row: pd.Series, found: pd.DataFrame, channels: pd.DataFrame, limits: Limits) -> Finding:
    return Finding(
        share_severity(found, channels, limits),
        row["layer"],
        f"eps, more than the data, sets the scale of {some(found, channels).lower()}{if_assumed(row)}.",
        f"running_var < {eps_of(row)} in {out_of(found, channels)} "
        f"(smallest {float(found['running_var'].min()):.2g}), and |γ| ≥ {limits.constant_gamma:g}.",
        "Their inputs hardly vary, or are scaled too small. Keep eps as it is when the model is converted: another value "
        f"changes the outputs of these channels. {_more_than_eps(row, found, channels)}",
        indices(found),
        row["call"],
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
    )


def _more_than_eps(row: pd.Series, found: pd.DataFrame, channels: pd.DataFrame) -> str:
    """Another eps where this one is larger than usual, else larger weights before the norm."""
    if row["eps"] > TORCH_EPS:
        return (
            f"Only if training used {TORCH_EPS:g}, as is usual: `{module(row['layer'])}.eps = {TORCH_EPS:g}`."
        )
    typical = float(channels["running_var"].median())
    if not row["feeder"] or not typical > 0:
        return "Check the preceding weights."
    if channels["gamma"].isna().any():
        return "Check the preceding weights."
    least = float(found["running_var"].min())
    if not least > MANY_EPS * row["eps"] * typical:
        return "No larger weights can help all of them: their variance is next to nothing beside that of the others."
    larger = rescaled(str(row["feeder"]), row["layer"], typical**-0.5, with_gamma=True)
    assumed = " (assumed here)" if row["eps_assumed"] else ""
    return (
        f"Larger weights, with γ corrected for eps{assumed}, give the same output in eval mode, well clear of eps: "
        f"{larger}."
    )


def untrained(evidence: Evidence) -> Iterator[Finding]:
    """γ and β at their initial values in a layer that has seen training, or in a network that has."""
    trained = {row["layer"] for row, channels in evidence.sites if not affine_at_start(channels)}
    some_scale = evidence.channels["gamma"].notna() & ~evidence.channels["gamma"].isin((0, 1))
    for row, channels in evidence.sites:
        gamma, beta = channels["gamma"], channels["beta"]
        if gamma.isna().all() or gamma.nunique(dropna=False) > 1 or gamma.iloc[0] not in (0, 1):
            continue
        if (gamma.iloc[0] == 0 and row["skip"]) or len(stuck(row, channels)):
            continue  # a branch that adds nothing, and updates that are rounded away, have rules of their own
        start, both = f"γ is exactly {gamma.iloc[0]:g}", bool((beta.fillna(0) == 0).all())
        learned = bool(some_scale.any()) and not evidence.is_new
        updated = channels["running_mean"].notna().any() and not at_start(channels)
        others = bool(trained - {row["layer"]}) and not evidence.is_new
        if both and updated and not others and row["initial_weight"] >= evidence.limits.initial_weight:
            yield Finding(
                "info",
                row["layer"],
                "This norm is new: γ and β have their initial values, and the running statistics were updated a few times.",
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
                + ("the layer is called at all, " if row["n_calls"] == 0 else "")
                + "they are in the optimizer and that gradients reach them. "
                + _learn(row["layer"]),
                call=row["call"],
            )
        elif both and channels["running_mean"].isna().all():
            yield Finding(
                "info",
                row["layer"],
                "This norm is untrained: nothing was learned.",
                f"{start} and β {'missing' if beta.isna().all() else 'exactly 0'} {in_all(channels)}.",
                f"Load trained weights, if there are any.{_if_rounded(row, gamma)}",
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
        f"One step: `n = {module(layer)}; n.requires_grad_(True); step = torch.optim.SGD(n.parameters(), 0.01)`, "
        "`loss(model(x), y).backward(); step.step()`."
    )


def overflows_half(evidence: Evidence) -> Iterator[Finding]:
    """Numbers of a layer that half precision cannot hold."""
    top = evidence.limits.half_overflow
    for row, channels in evidence.sites:
        beyond = {name: _is_beyond(channels[name], top) for name in VECTORS}
        vectors = [name for name, values in beyond.items() if values.any()]
        found = channels[np.logical_or.reduce(list(beyond.values()))]
        # without data the largest input is 6 standard deviations from the mean, which is headroom enough
        measured = row["n_values"] > 0
        highest = top / (evidence.limits.half_headroom if measured else 1.0)
        if not vectors and not highest < row["largest_input"] < np.inf:
            continue
        stored = (
            f"{', '.join(vectors)} of {out_of(found, channels)} above {number(top, 5)}" if vectors else ""
        )
        reach = (
            f"largest input {number(row['largest_input'])} "
            + (f"(threshold {number(highest, 5)})" if measured else "expected from the running statistics")
            + f", half precision ends at {number(top, 5)}"
            if row["largest_input"] > highest
            else ""
        )
        of_data = not vectors and _data_only(row, channels, evidence.limits)
        beyond_now = vectors or row["largest_input"] > top
        subject = "On these data, the input of this layer" if of_data else "This layer"
        yield Finding(
            "warning",
            row["layer"],
            f"{subject} does not fit into half precision: it overflows to infinity."
            if beyond_now
            else f"{subject} only just fits into half precision: a slightly larger input overflows to infinity.",
            f"{'; '.join(filter(None, (stored, reach)))}.",
            OTHER_DATA
            if of_data
            else "Keep this norm and the layer before it in float32 or bfloat16 (autocast does so for the norm, not "
            "for its input)" + _smaller(row, channels, evidence.limits),
            indices(found),
            row["call"],
        )


def _data_only(row: pd.Series, channels: pd.DataFrame, limits: Limits) -> bool:
    """Whether the running statistics fit well, and the data vary far more than they say."""
    with np.errstate(all="ignore"):
        reach = float(
            (channels["running_mean"].abs() + REACH_SIGMAS * np.sqrt(channels["running_var"])).max()
        )
    return bool(
        row["var_ratio_median"] > limits.variance_ratio
        and reach < limits.half_overflow / limits.half_headroom
    )


def _smaller(row: pd.Series, channels: pd.DataFrame, limits: Limits) -> str:
    """Weights before the norm so small that its inputs, and their variance, fit; ends the sentence where none are known."""
    with np.errstate(invalid="ignore"):
        largest = max(float(row["largest_input"]), float(np.sqrt(channels["running_var"].max())))
    if not row["feeder"] or channels["running_mean"].isna().all() or not 0 < largest < np.inf:
        return "."
    factor = float(2.0 ** -np.ceil(np.log2(largest / WELL_WITHIN)))
    live = channels[
        (channels["gamma"].fillna(1).abs() >= limits.constant_gamma) & (channels["running_var"] > 0)
    ]
    least = float(live["running_var"].min()) * factor**2
    if least < SMALLEST_HALF:
        return (
            f". Scaling down the preceding weights does not help: the smallest running_var would fall to {least:.2g}, and "
            f"{eps_of(row)}."
        )
    with_eps = least < MANY_EPS * row["eps"]
    code = rescaled(str(row["feeder"]), row["layer"], factor, with_eps)
    return f", or scale down the preceding weights, which leaves the output of the norm unchanged: {code}."


def _is_beyond(values: pd.Series, top: float) -> pd.Series:
    """Finite and out of reach: what is not finite has a rule of its own."""
    return (values.abs() > top) & (values.abs() < np.inf)


def counted_differently(evidence: Evidence) -> Iterator[Finding]:
    """Norms that were updated more or less often than the others."""
    # torch keeps the count of an instance norm's buffers at 0, whatever is done
    counting = (evidence.layers["call"] == 0) & (evidence.layers["kind"] != "instance_norm")
    layers = evidence.layers[counting]
    unused = [row["layer"] for row, channels in evidence.sites if fresh(row, channels)]
    # what was never updated has a rule of its own
    counts = layers["n_batches_tracked"][~layers["layer"].isin(unused)].dropna()
    if counts.nunique() < 2:
        return
    # of two that are as frequent the smaller is the usual one: what is updated several times has more
    modes = counts.mode()
    usual = float(modes[modes > 0].min() if (modes > 0).any() else 0.0)
    for layer, n in zip(layers["layer"][counts.index], counts, strict=True):
        if n == usual:
            continue
        times = n / usual if usual else float("inf")
        often = usual > 0 and n > 0 and times == round(times)
        yield Finding(
            "warning" if often else "info",
            layer,
            "This norm was updated several times for each update of the others."
            if often
            else f"This norm was updated {'more' if n > usual else 'less'} often than the others.",
            f"num_batches_tracked is {n:,.0f}, and {usual:,.0f} in most norms"
            + (f", {times:,.0f} times as many." if often else "."),
            "Gradient checkpointing that reruns the norm, or a module that is used more than once, causes this; momentum m "
            "then acts as 1 − (1 − m)^k. Leave the norm out of the checkpointed part, or use one norm per use. In a trained "
            f"model, re-estimate the running statistics as a plain average: {RECALIBRATE}."
            if often
            else "Expected of layers that were frozen, added later or skipped in some passes; otherwise find out why.",
        )


def alike(evidence: Evidence) -> Iterator[Finding]:
    """Statistics that no data make: one variance for all channels, or those of another layer."""
    known: dict[bytes, tuple[str, bytes]] = {}
    for row, channels in evidence.sites:
        mean, var = channels["running_mean"].to_numpy(float), channels["running_var"].to_numpy(float)
        if row["call"] or len(var) < 4 or fresh(row, channels) or not np.isfinite(var).all():
            continue
        if updated_meanwhile(row):
            continue  # shown are the statistics from before the recording, and γ and β from its end
        affine = channels[["gamma", "beta"]].to_numpy(float).tobytes()
        first = known.setdefault(mean.tobytes() + var.tobytes(), (row["layer"], affine))
        if (var == var[0]).all():
            yield Finding(
                "warning",
                row["layer"],
                "All channels have the same running variance, which no data produce.",
                f"running_var is {number(var[0])} in all {len(var)} channels.",
                "The buffer was set by hand or by a conversion: take it from the original file, or re-estimate it: "
                f"{recalibrate(row)}.",
                call=row["call"],
            )
        elif first[0] != row["layer"] and first[1] != affine:
            yield Finding(
                "warning",
                row["layer"],
                "This norm has exactly the running statistics of another one, although their γ and β differ.",
                f"running_mean and running_var are those of {said(first[0])}, to the last bit, in all {len(var)} channels.",
                "Its buffers were copied, or loaded under the wrong name: compare the names in the file with the model's, "
                f"or re-estimate them: {recalibrate(row)}.",
                call=row["call"],
            )


RULES = (
    Rule(
        "channels-dead",
        "Can every channel become positive before its ReLU?",
        "Mehta, Kim & Theobalt 2019, arXiv:1811.12495",
        f"every β + {DEFAULT.dead_sigmas:g}|γ| of at least {DEFAULT.dead_reach:g}, or a positive output on the data",
        dead,
    ),
    Rule(
        "filters-decayed",
        "Do all filters before the norm still learn?",
        "van Laarhoven 2017, arXiv:1706.05350; Mehta, Kim & Theobalt 2019, arXiv:1811.12495",
        f"filters longer than {DEFAULT.decayed_filter:.0%} of the layer's median, or |γ| of at least "
        f"{DEFAULT.constant_gamma:g}",
        decayed,
    ),
    Rule(
        "variance-below-eps",
        "Do the data, and not eps, set the scale?",
        "Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1; https://github.com/Xilinx/brevitas/issues/388",
        "every running variance of a live channel, and what a per-sample norm divides by, clear of eps",
        below_eps,
    ),
    Rule(
        "affine-untrained",
        "Did γ and β leave their initial values?",
        "Frankle, Schwab & Morcos 2020, arXiv:2003.00152; https://github.com/tensorflow/tensorflow/issues/564",
        "any γ other than 0 or 1",
        untrained,
    ),
    Rule(
        "half-overflow",
        "Does the layer fit into half precision?",
        "https://github.com/pytorch/pytorch/issues/88474, https://github.com/pytorch/pytorch/issues/90342",
        f"vectors and inputs below {DEFAULT.half_overflow:g}",
        overflows_half,
    ),
    Rule(
        "batches-differ",
        "Were all norms updated equally often?",
        "https://github.com/pytorch/pytorch/issues/96136, https://github.com/Tencent/YOLO-Master/issues/262",
        "one num_batches_tracked in all norms",
        counted_differently,
    ),
    Rule(
        "statistics-alike",
        "Does every layer have running statistics of its own?",
        "https://github.com/huggingface/pytorch-image-models/issues/245, https://github.com/pytorch/pytorch/issues/1738",
        "variances that differ between channels and between layers",
        alike,
    ),
)
