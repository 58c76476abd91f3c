"""Rules about a norm's surroundings: what is shared, redundant, folded away, without effect, or far too large."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.recording.names import INITIAL, INNER, KEY, QUERY, said
from bnprobe.recording.terms import OUTLIER
from bnprobe.rules.edits import DropStatistics, MoveBias, Reinitialize, ScaleDown, SetGamma, remedy
from bnprobe.rules.newness import at_start, updated_meanwhile
from bnprobe.rules.remedies import (
    REINITIALIZE,
    is_function,
    made_new,
    made_new_edit,
    module,
    path,
    unit_scale,
)
from bnprobe.rules.rule import Evidence, Finding, Rule, indices, share_severity
from bnprobe.rules.thresholds import DEFAULT, Limits
from bnprobe.rules.wording import activation, count, first_few, in_all, number, out_of, some, times

FAR_IN_NEW = 100.0
"""How many times larger than the typical channel one must be in a new network: random weights make some 60 times larger."""


def calls_differ(evidence: Evidence) -> Iterator[Finding]:
    """One set of running statistics for several uses whose inputs are not alike."""
    limits = evidence.limits
    first: dict[str, pd.DataFrame] = {}
    for row, channels in evidence.sites:
        one = first.setdefault(row["layer"], channels)
        if one is channels or row["kind"] != "batch_norm" or channels["running_var"].isna().all():
            continue
        distance, ratio = _apart(one, channels)
        top = limits.variance_ratio
        if distance > limits.shift or ratio > top or ratio < 1 / top:
            yield Finding(
                "warning",
                row["layer"],
                "One norm is called on inputs that are not alike: its one set of running statistics fits none of them.",
                f"call {row['call'] + 1} against call 1: means {distance:.2f} σ apart (root mean square over channels, "
                f"threshold {limits.shift:g}), typical variance {times(ratio, 'that of call 1')} (thresholds "
                f"{1 / top:g} and {top:g}), on {count(row['n_images'], 'sample')}.",
                "Use one norm per call, and share only the weights. With the network as it is, each call can at least use "
                f"batch statistics: `n = {module(row['layer'])}; n.running_mean = n.running_var = None`.",
                call=row["call"],
                remedy=remedy(DropStatistics(row["layer"])),
            )


def _apart(one: pd.DataFrame, two: pd.DataFrame) -> tuple[float, float]:
    """Distance of means in pooled standard deviations (root mean square), and the typical ratio of variances."""
    mean = [part["pre_mean"].to_numpy(float) for part in (one, two)]
    var = [part["pre_var"].to_numpy(float) for part in (one, two)]
    with np.errstate(all="ignore"):
        distance = (mean[1] - mean[0]) / np.sqrt((var[0] + var[1]) / 2)
        ratio = var[1] / var[0]
        known = distance[np.isfinite(distance)]
        rms = float(np.sqrt(np.mean(known**2))) if known.size else float("nan")
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    return rms, float(np.median(ratio)) if ratio.size else float("nan")


def redundant_bias(evidence: Evidence) -> Iterator[Finding]:
    """A bias before a norm that subtracts it again, where nothing else uses the biased values."""
    pairs, fresh = [], set()
    alone = evidence.layers.groupby("layer")["feeds_alone"].min()
    for row, channels in evidence.sites:
        pools_alone = row["kind"] == "batch_norm" and row["call"] == 0 and alone[row["layer"]] == 1
        if pools_alone and row["feeder"] and (channels["filter_bias"].fillna(0) != 0).any():
            pairs.append((str(row["feeder"]), str(row["layer"])))
            fresh |= {str(row["layer"])} if at_start(row, channels) else set()
    if pairs:
        ready = [(producer, norm) for producer, norm in pairs if norm not in fresh]
        moved = tuple((path(producer), norm) for producer, norm in ready if not is_function(norm))
        named = first_few([f"{said(producer)} before {said(norm)}" for producer, norm in pairs])
        fed = "layer with a bias feeds" if len(pairs) == 1 else "layers with a bias feed"
        yield Finding(
            "info",  # it costs nothing
            pairs[0][1],
            "A bias before this norm has no effect: the norm subtracts it again, and conversions easily lose it."
            if len(pairs) == 1
            else "Biases before these norms have no effect: the norms subtract them again, and conversions easily "
            "lose them.",
            f"{len(pairs)} {fed} a batch norm: {named}.",
            f"Build such layers with bias=False.{_movable(ready)}",
            remedy=remedy(MoveBias(moved) if moved else None),
        )


def _movable(pairs: list[tuple[str, str]]) -> str:
    """How a bias is moved, where it may be: into a running mean that was never updated it would only hide that."""
    if not pairs:
        return " Their running statistics were never updated, so there is nothing to move a bias into yet."
    return (
        " In a trained model, move the bias into the running mean, which leaves the "
        f"output unchanged: {_into_running_mean(pairs)}."
    )


def _into_running_mean(pairs: list[tuple[str, str]]) -> str:
    """The code for pairs of modules; the running mean that a function is given has no path."""
    modules = [pair for pair in pairs if not is_function(pair[1])]
    code = (
        f"`pairs = {modules}`, then `for f, n in [map(model.get_submodule, pair) for pair in pairs]: "
        "n.running_mean -= f.bias.data; f.bias = None`"
    )
    by_hand = "subtract the bias from the running mean that the function is given, and set it to None"
    if len(modules) == len(pairs):
        return code
    return f"{code}; where a function normalizes, {by_hand}" if modules else by_hand


def folded_away(evidence: Evidence) -> Iterator[Finding]:
    """Norms that are gone, or that do nothing, because they were folded into the preceding weights."""
    gone = [row["layer"] for _, row in evidence.unread.iterrows() if row["why"] == "folded"]
    if gone and not evidence.is_new:
        yield Finding(
            "warning",
            gone[0],
            "Norms of this model were folded into the preceding convolutions: what they learned cannot be shown.",
            f"{count(len(gone), 'place')} with an identity after a convolution with a bias "
            f"({first_few(list(map(said, gone)))}).",
            "Nothing, if the model is meant for inference. To see the norms, probe the model as it was before fusion: "
            "`model = build()`.",
        )
    trained = ~evidence.channels["gamma"].isin((0, 1)) & evidence.channels["gamma"].notna()
    for row, channels in evidence.sites_with(evidence.channels["filter_bias"].fillna(0) != 0):
        biased = (channels["filter_bias"].fillna(0) != 0).all()
        idle = _does_nothing(channels) and not updated_meanwhile(row)
        if trained.any() and biased and row["call"] == 0 and idle:
            yield Finding(
                "warning",
                row["layer"],
                "This norm was folded into the preceding weights but left in place: train mode would normalize twice.",
                f"γ is 1, β 0, the running mean 0 and the running variance 1 {in_all(channels)}, while "
                f"{said(row['feeder'])} adds a bias and other norms of the model were trained.",
                "Never call train() on it, or continue with the model as it was before fusion: `model = build()`.",
            )


def _does_nothing(channels: pd.DataFrame) -> bool:
    # some converters write 1 - eps, so that the root is exactly 1; a vector that is missing is close to nothing
    return bool(np.allclose(channels[list(INITIAL)], list(INITIAL.values()), rtol=0, atol=2e-3))


def branch_off(evidence: Evidence) -> Iterator[Finding]:
    """Residual branches that add next to nothing to their skip connection."""
    limit = evidence.limits.branch_off
    for row, channels in evidence.sites:
        share = row["branch_share"]
        if row["layer_scale"]:
            if share < evidence.limits.scale_off:
                yield _scaled_off(row, evidence)
            continue
        gamma = channels["gamma"].abs()
        near_zero = row["skip"] != "" and bool((gamma < evidence.limits.constant_gamma).all())
        if not (share < limit or near_zero):
            continue
        yield Finding(
            "info" if evidence.is_new else "warning",
            row["layer"],
            "This residual branch adds almost nothing: the block passes its input through.",
            f"{_of_block(row, evidence.limits)}the largest |γ| is {float(gamma.max()):.2g}"
            + (f" (threshold {evidence.limits.constant_gamma:g})." if np.isnan(share) else "."),
            "The block can be removed if accuracy before and after agrees. To reinitialize the branch: "
            f"`{unit_scale(row)}`, and train on: until then results are not those of the trained network. Where this γ "
            "begins at 0 (zero_init_residual), it learns from 0 as well: only train on.",
            call=row["call"],
            remedy=remedy(SetGamma(row["layer"], 1 - row["gamma_offset"])),
        )


def _scaled_off(row: pd.Series, evidence: Evidence) -> Finding:
    """Of a branch that is multiplied by a layer scale; a new network begins like this."""
    return Finding(
        "info" if evidence.is_new else "warning",
        row["layer"],
        "The layer scale turns this residual branch off: the block passes its input through.",
        f"the branch has {row['branch_share']:.2g} of the block's variance, measured in the first pass (threshold "
        f"{evidence.limits.scale_off:g}), after its product with {row['layer_scale']}.",
        "Layer scales start near 1e-6 and grow in training. In a trained network this one was not loaded: look for it among "
        "the missing keys of load_state_dict; some libraries rename “gamma” to “weight”.",
        call=row["call"],
    )


def _of_block(row: pd.Series, limits: Limits) -> str:
    """The branch's share of the block's variance, now and at initialization, as far as they are known."""
    share, initial = row["branch_share"], row["branch_share_initial"]
    if np.isnan(share):
        return ""
    at_start = "" if np.isnan(initial) else f", {initial:.0%} at initialization"
    return f"the branch has {share:.2g} of the block's variance (threshold {limits.branch_off:g}{at_start}); "


def saturated(evidence: Evidence) -> Iterator[Finding]:
    """Channels that stick at the upper end of their activation."""
    for row, channels in evidence.sites_with(evidence.channels["role"] == "saturated"):
        found = channels[channels["role"] == "saturated"]
        if len(found):
            yield Finding(
                share_severity(found, channels, evidence.limits),
                row["layer"],
                f"{some(found, channels)} are saturated: the {activation(row['follows'])} after this norm clips most "
                "of their values.",
                f"in {out_of(found, channels)} more than half of the outputs are beyond the upper end.",
                f"Clipped values pass no gradient. Lower the learning rate or the initial β. {REINITIALIZE}"
                + made_new(row, found, channels)
                + ".",
                indices(found),
                row["call"],
                remedy(made_new_edit(row, found, channels)),
            )


def never_on(evidence: Evidence) -> Iterator[Finding]:
    """Channels that never got past the activation on these data, although γ and β do not rule it out."""
    limits = evidence.limits
    for row, channels in evidence.sites_with(evidence.channels["role"] == "dead"):
        top = limits.variance_ratio
        moved = row["shift_rms"] > limits.shift or not (
            np.isnan(row["var_ratio_median"]) or 1 / top <= row["var_ratio_median"] <= top
        )
        # what the data do to the whole layer is reported by the rule about the data
        if moved or row["n_images"] < limits.few_images:
            continue
        # filters that were pruned to 0 are no news
        alive = ~(channels["dead_predicted"] == 1) & ~(channels["filter_norm"] == 0)
        found = channels[["channel", "n_values"]][(channels["role"] == "dead") & alive]
        if len(found):
            yield Finding(
                share_severity(found, channels, limits),
                row["layer"],
                f"{some(found, channels)} never got past the {activation(row['follows'])} after this norm: on these "
                f"data, its output for them was {'constant' if 'hardtanh' in row['follows'] else 'always 0'}.",
                f"none of {int(found['n_values'].median()):,} outputs passed in {out_of(found, channels)}, on "
                f"{count(row['n_images'], 'sample')}.",
                "Record more samples before pruning these: γ and β alone do not rule out that other inputs activate "
                f"them. {REINITIALIZE}" + made_new(row, found, channels) + ".",
                indices(found),
                row["call"],
                remedy(made_new_edit(row, found, channels)),
            )


def outlier_dimensions(evidence: Evidence) -> Iterator[Finding]:
    """Channels so large that they set the divisor which all others share."""
    for row, channels in evidence.sites_with(evidence.channels["rms_ratio"] > OUTLIER):
        ratio = channels["rms_ratio"].to_numpy(float)
        far = channels[ratio > OUTLIER]
        # an instance norm divides each channel by its own
        if not len(far) or row["kind"] == "instance_norm":
            continue
        with np.errstate(all="ignore"):
            # a dimension that γ damps is large before it, and small for whoever reads the output
            size = ratio * channels["gamma"].fillna(1.0).to_numpy(float) if row["n_tokens"] > 0 else ratio
            energy = float(np.nansum(size[ratio > OUTLIER] ** 2) / np.nansum(size**2))
        # trained language models have most of it in one dimension
        limit = evidence.limits.outlier_energy
        if row["n_tokens"] > 0:
            limit = evidence.limits.outlier_energy_tokens
            if row["kind"] == "layer_norm":  # the mean that is taken off leaves the others a share
                limit *= 1 - len(far) / len(channels)
        # heads turned by rotary positions, and what a gate lets through, have few large channels in healthy networks
        decides = energy > limit and row["norm_role"] not in (QUERY, KEY, INNER)
        largest = int(channels["channel"].iloc[int(np.nanargmax(ratio))])
        factor = float(np.nanmax(ratio))
        smaller = _smaller(str(row["feeder"]), indices(far), [float(r) for r in ratio[ratio > OUTLIER]])
        is_normal = evidence.is_new and factor < FAR_IN_NEW
        yield Finding(
            "warning" if decides and not is_normal else "info",
            row["layer"],
            "A few channels are so large that they alone set the scale that this norm divides all channels by."
            if energy > limit
            else "A few channels are far larger than the others, which are divided by the same scale.",
            f"channel {largest} is {number(factor)} times as large as the typical one (threshold {OUTLIER:g}); "
            f"{energy:.0%} of the energy is in {out_of(far, channels)} (threshold {limit:.0%}).",
            "Large language models have such channels by nature and then cannot be quantized with one scale per tensor. "
            "Elsewhere, scale down the weights that produce them, and train on, as this changes the results of a trained "
            f"network{_scaled_down(smaller)}.",
            indices(far),
            row["call"],
            remedy(smaller),
        )


def _smaller(producer: str, channels: tuple[int, ...], ratios: list[float]) -> ScaleDown | None:
    """The weights that produce these channels divided by their ratios; None where they are in more than one layer."""
    by = tuple(float(f"{ratio:.3g}") for ratio in ratios)
    return ScaleDown(path(producer), channels, by) if producer else None


def _scaled_down(edit: ScaleDown | None) -> str:
    if edit is None:
        return "; they are in more than one layer here"
    by = f"torch.tensor({list(edit.by)}).view(-1, *[1] * (p.dim() - 1))"
    return f": `for p in {module(edit.producer)}.parameters(): p.data[{list(edit.channels)}] /= {by}`"


RULES = (
    Rule(
        "calls-differ",
        "Are the inputs of a norm alike in all its calls?",
        "https://github.com/pytorch/pytorch/issues/1738, https://github.com/keras-team/keras/issues/8794",
        f"calls within {DEFAULT.shift:g} σ and a factor of {DEFAULT.variance_ratio:g} in variance, or no running statistics",
        calls_differ,
        edits=(DropStatistics,),
    ),
    Rule(
        "bias-redundant",
        "Are layers before a batch norm without a bias?",
        "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.2; https://github.com/ultralytics/yolov3/issues/807",
        "no bias, or one that is 0",
        redundant_bias,
        edits=(MoveBias,),
    ),
    Rule(
        "norm-folded",
        "Are all norms still there?",
        "Jacob et al. 2018, arXiv:1712.05877; https://github.com/open-mmlab/mmdetection/issues/2924",
        "no identity in the place of a norm after a convolution with a bias",
        folded_away,
        by_hand="it takes the model as it was before its norms were folded",
    ),
    Rule(
        "branch-off",
        "Does every residual branch add something?",
        "De & Smith 2020, arXiv:2002.10444; Goyal et al. 2017, arXiv:1706.02677, section 5.1",
        f"branches with at least {DEFAULT.branch_off:g} of their block's variance, {DEFAULT.scale_off:g} with a layer scale",
        branch_off,
        edits=(SetGamma,),
    ),
    Rule(
        "channels-saturated",
        "Do channels stay below the upper end of their activation?",
        "Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural networks",
        "at most half of a channel's outputs beyond the upper end",
        saturated,
        edits=(Reinitialize,),
    ),
    Rule(
        "channels-silent",
        "Does every channel get past the activation?",
        "Mehta, Kim & Theobalt 2019, arXiv:1811.12495",
        "one output that passes in every channel, or inputs that do not match the running statistics",
        never_on,
        edits=(Reinitialize,),
    ),
    Rule(
        "outlier-dimensions",
        "Are channels that share a divisor of similar size?",
        "Dettmers et al. 2022, arXiv:2208.07339; Kovaleva et al. 2021, arXiv:2105.06990",
        f"every channel at most {OUTLIER:g} times as large as the typical one",
        outlier_dimensions,
        edits=(ScaleDown,),
    ),
)
