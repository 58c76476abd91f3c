"""Rules about two recordings: what changed between them that should not have, or that breaks something.

They read the tables of a comparison, in which a column of each side ends in _a or _b.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.recording.names import WEIGHTS_ONLY, said
from bnprobe.rules.rule import Evidence, Finding, Rule, indices, share_severity
from bnprobe.rules.thresholds import DEFAULT
from bnprobe.rules.wording import count, in_all, kind_words, out_of, some, times

NOISE = 3.0
"""Times the sampling noise that a gap must be."""
ROUNDING = 1e-5
"""Gap that a different order of additions causes."""
RUNNING = "running"


def inputs_differ(evidence: Evidence) -> Iterator[Finding]:
    """Inputs of a norm that differ by more than sampling noise."""
    limit, cause = evidence.limits.gap, ""
    for row, channels in evidence.sites:
        gap, noise = row["pre_gap"], row["pre_noise"]
        cause = cause or _cause(row)
        if not gap >= limit or gap < NOISE * noise:
            continue
        yield Finding(
            "warning",
            row["layer"],
            "The inputs of this norm differ between A and B.",
            f"means and standard deviations are {gap:.2g} σ apart (root mean square over channels, threshold {limit:g}"
            + ("" if np.isnan(noise) else f", sampling noise {noise:.2g}")
            + f"); B's typical std is {times(channels['pre_ratio'].median(), 'that of A')}.",
            cause,
            call=row["call"],
        )


def _cause(row: pd.Series) -> str:
    """What to look at, by the first place where the sides differ significantly; empty before that."""
    name = said(row["layer"], row["call"])
    if row["pre_gap"] > ROUNDING and not row["pre_gap"] < NOISE * row["pre_noise"]:
        return (
            f"The inputs of {name} already differ, by {row['pre_gap']:.2g} σ. If that is the first norm, compare the "
            "data of both sides (range, mean, std, color order, size, compression); otherwise compare the preceding "
            "weights."
        )
    if row["post_gap"] > ROUNDING and not row["post_gap"] < NOISE * row["post_noise"]:
        return (
            f"The difference begins inside {name}: its inputs agree, its outputs are {row['post_gap']:.2g} of the layer's "
            "standard deviations apart. Compare its γ, β, running statistics and mode."
        )
    return ""


def modes_disagree(evidence: Evidence) -> Iterator[Finding]:
    """A norm whose output differs because one side used batch statistics and the other running statistics."""
    limit = evidence.limits.gap
    for row, _ in evidence.sites:
        by = {row["normalized_by_a"], row["normalized_by_b"]}
        gap, noise = row["post_gap"], row["post_noise"]
        entered = row["pre_gap"]
        if by != {RUNNING, "batch"} or not gap >= limit or gap < NOISE * noise or entered >= gap / 2:
            continue
        yield Finding(
            "warning",
            row["layer"],
            "The outputs of this norm differ between train mode and eval mode.",
            f"outputs are {gap:.2g} of the layer's standard deviations apart (threshold {limit:g}), inputs "
            f"{entered:.2g}: the running statistics are not those of these data.",
            "If these data are like the training data, re-estimate the running statistics: model.train(), a pass "
            "over training data under torch.no_grad(), model.eval(). If not, compare accuracies before changing anything.",
            call=row["call"],
        )


def statistics_changed(evidence: Evidence) -> Iterator[Finding]:
    """Running statistics that changed in a layer whose gamma and beta did not."""
    if not _differ(evidence.channels, "gamma", "beta") and not _weights_differ(evidence):
        for row, channels in evidence.sites:
            if (
                _differ(channels, "running_mean", "running_var")
                and _stored(channels)
                and not _reset(channels)
                and row["running_gap"] > 0
                and not _moved_by_recording(row)
            ):
                gap = row["running_gap"]
                yield Finding(
                    "warning" if gap >= evidence.limits.gap_of_frozen else "info",
                    row["layer"],
                    "The running statistics changed, although γ and β did not change anywhere in the network.",
                    f"running_mean and running_var are {gap:.2g} σ apart (threshold {evidence.limits.gap_of_frozen:g}); "
                    f"γ and β are the same to the last bit in all layers{_counted(row)}.",
                    "If the norms were meant to be frozen: model.train() puts them back into train mode, so call "
                    "module.eval() on every norm after it. If they were re-estimated on purpose, this is the effect.",
                    call=row["call"],
                )


def _moved_by_recording(row: pd.Series) -> bool:
    """Whether a side was recorded in train mode, which moves the running statistics of the model that it ran."""
    return bool(row["memory_moved_a"] > 0 or row["memory_moved_b"] > 0)


def statistics_unchanged(evidence: Evidence) -> Iterator[Finding]:
    """Trained gamma and beta over running statistics that are the same to the last bit."""
    for row, channels in evidence.sites:
        if not _stored(channels) or _differ(channels, "running_mean", "running_var"):
            continue
        if _differ(channels, "gamma", "beta") and row["affine_gap"] > 1e-3:
            yield Finding(
                "warning",
                row["layer"],
                "γ and β changed, but the running statistics did not.",
                f"γ and β are {row['affine_gap']:.2g} of their own scale apart, while running_mean and running_var are the "
                f"same to the last bit{_counted(row)}.",
                "Weights that were averaged (EMA, SWA) or fine-tuned need running statistics of their own: "
                "torch.optim.swa_utils.update_bn(loader, model), or a pass over training data in train mode.",
                call=row["call"],
            )


_RECOVER = (
    "Load a checkpoint that includes the buffers (strict=True), or re-estimate them: model.train(), a pass over training "
    "data under torch.no_grad(), model.eval()."
)


def statistics_lost(evidence: Evidence) -> Iterator[Finding]:
    """Running statistics that one side has and the other has lost."""
    for row, channels in evidence.sites:
        if "running_var" in row["missing_b"] and row["kind_b"] in (row["kind_a"], "unknown_norm"):
            yield Finding(
                "critical",
                row["layer"],
                "The running statistics were lost from A to B: B does not store them.",
                f"A stores running_mean and running_var of {count(len(channels), 'channel')}, B does not store them.",
                _RECOVER,
                call=row["call"],
            )
        if _stored(channels) and _differ(channels, "running_mean", "running_var") and _reset(channels):
            yield Finding(
                "critical",
                row["layer"],
                "The running statistics were lost from A to B: B has their initial values.",
                f"in B, running_mean is 0 and running_var is 1 {in_all(channels)}, in A they are not{_counted(row)}.",
                _RECOVER,
                call=row["call"],
            )


def silenced(evidence: Evidence) -> Iterator[Finding]:
    """Channels that were positive in A and never in B."""
    for row, channels in evidence.sites:
        found = channels[(channels["fires_a"] >= evidence.limits.fired) & (channels["fires_b"] == 0)]
        if len(found):
            yield Finding(
                share_severity(found, channels, evidence.limits),
                row["layer"],
                f"{some(found, channels)} were positive in A and are never positive in B.",
                f"{out_of(found, channels)}; in A the most active was positive {found['fires_a'].max():.2%} of the "
                f"time, in B none was on {count(row['n_images_b'], 'sample')}.",
                "After a ReLU their output is always 0. Check whether β fell (training) or the inputs moved (data): "
                "comparison.channels has both side by side.",
                indices(found),
                row["call"],
            )


def turned_nonfinite(evidence: Evidence) -> Iterator[Finding]:
    """NaN, infinity or a negative variance in B where A has none; a vector that is missing is neither."""
    for row, channels in evidence.sites:
        values = int(row["n_nonfinite_b"]) if row["n_nonfinite_a"] == 0 else 0
        if values or row["poison_b"]:
            facts = [f"{count(values, 'input value')} {'is' if values == 1 else 'are'} not finite"] * bool(
                values
            )
            facts += [row["poison_b"]] * bool(row["poison_b"])
            yield Finding(
                "critical",
                row["layer"],
                "NaN, infinity or a negative variance appeared from A to B.",
                f"in B {' and '.join(facts)}, unlike in A.",
                "The first layer named is where it starts. NaN and infinity usually come from overflow in half "
                "precision: run that layer in float32, and take the running statistics from before. A variance below "
                "0 comes from arithmetic on checkpoints, or from a damaged file.",
                indices(channels[channels["poisoned_b"]]),
                row["call"],
            )


def settings_differ(evidence: Evidence) -> Iterator[Finding]:
    """Another eps or kind of norm under the same name."""
    for row, _ in evidence.sites:
        stored = WEIGHTS_ONLY not in (row["mode_a"], row["mode_b"])
        known = "unknown_norm" not in (row["kind_a"], row["kind_b"])
        facts = [f"eps is {row['eps_a']:g} in A and {row['eps_b']:g} in B"] * bool(
            stored and row["eps_a"] != row["eps_b"]
        )
        facts += [
            f"A is {kind_words(row['kind_a'], article=True)}, B {kind_words(row['kind_b'], article=True)}"
        ] * bool(known and row["kind_a"] != row["kind_b"])
        facts += [
            f"only {there} stores {name}"
            for name in ("γ", "β")
            for there, missing in (("A", row["missing_b"]), ("B", row["missing_a"]))
            if name in missing.split(", ")
        ]
        if facts:
            yield Finding(
                "warning",
                row["layer"],
                "A and B do not have the same norm here.",
                f"{'; '.join(facts)}.",
                "If B was converted from A, set eps to A's, module.eps = value; frameworks differ in their defaults (1e-3, "
                "1e-5). Where a vector is missing, load with strict=True.",
                call=row["call"],
            )


def left_alone(evidence: Evidence) -> Iterator[Finding]:
    """Norms of one side that have no counterpart."""
    for (side, why), group in evidence.unread.groupby(["side", "why"], sort=False):
        names = list(dict.fromkeys(group["layer"]))
        yield Finding(
            "info",
            names[0] if len(names) == 1 else "",
            f"Some norms of {side} were not compared: {why}."
            if len(names) > 1
            else f"This norm of {side} was not compared: {why}.",
            f"{len(names)}: {', '.join(said(str(name)) for name in names[:8])}"
            + (f" and {len(names) - 8} more." if len(names) > 8 else "."),
            "Norms are matched by path and number of channels. Other widths come from pruning, missing norms from "
            "folding or from another architecture: comparison.unmatched lists them.",
        )


def _differ(channels: pd.DataFrame, *names: str) -> bool:
    """Whether a vector differs at all between the sides; NaN is the same as NaN."""
    pairs = [(channels[f"{name}_a"], channels[f"{name}_b"]) for name in names]
    return any(bool((~((a == b) | (a.isna() & b.isna()))).any()) for a, b in pairs)


def _weights_differ(evidence: Evidence) -> bool:
    """Whether something other than the statistics must differ: a norm that one side does not have."""
    return bool(len(evidence.unread) or evidence.channels["gamma_a"].isna().all())


def _stored(channels: pd.DataFrame) -> bool:
    return bool(channels[["running_var_a", "running_var_b"]].notna().any().all())


def _reset(channels: pd.DataFrame) -> bool:
    return bool(((channels["running_mean_b"] == 0) & (channels["running_var_b"] == 1)).all())


def _counted(row: pd.Series) -> str:
    a, b = row["n_batches_tracked_a"], row["n_batches_tracked_b"]
    return (
        ""
        if np.isnan(a) or np.isnan(b) or a == b
        else f" (num_batches_tracked went from {a:,.0f} to {b:,.0f})"
    )


RULES = (
    Rule(
        "became-nonfinite",
        "Is everything that was finite in A still finite in B, and no variance below 0?",
        "https://github.com/pytorch/pytorch/issues/88474, https://github.com/pytorch/pytorch/issues/96798",
        "no NaN, infinity or negative variance in B, or the same in A already",
        turned_nonfinite,
    ),
    Rule(
        "statistics-lost",
        "Does B still have the running statistics of A?",
        "https://github.com/pytorch/pytorch/issues/110361, https://github.com/timgaripov/swa/issues/8",
        "running statistics in B with any mean other than 0 or variance other than 1; none in A",
        statistics_lost,
    ),
    Rule(
        "modes-disagree",
        "Are the outputs of the norm the same in train and in eval mode?",
        "https://github.com/pytorch/pytorch/issues/5406; Wu & Johnson 2021, arXiv:2105.07576",
        f"outputs less than {DEFAULT.gap:g} of the layer's standard deviations apart, or inputs at least half as far apart",
        modes_disagree,
    ),
    Rule(
        "inputs-differ",
        "Does the norm get the same inputs on both sides?",
        "Schneider et al. 2020, arXiv:2006.16971; Dowson & Landau 1982; Welch 1947",
        f"inputs less than {DEFAULT.gap:g} σ apart, or less than {NOISE:g} times the sampling noise",
        inputs_differ,
    ),
    Rule(
        "statistics-outdated",
        "Were the running statistics updated along with γ and β?",
        "Izmailov et al. 2018, arXiv:1803.05407; https://github.com/timgaripov/swa/issues/8",
        "any difference in the running statistics, or none in γ and β",
        statistics_unchanged,
    ),
    Rule(
        "frozen-statistics-moved",
        "Did the running statistics stay the same where γ and β did?",
        "https://github.com/pytorch/pytorch/issues/86590, https://github.com/pgniewko/gt-pyg/issues/112",
        "any difference in any γ or β, or the same running statistics",
        statistics_changed,
    ),
    Rule(
        "channels-silenced",
        "Is every channel that was positive in A sometimes positive in B?",
        "Mehta, Kim & Theobalt 2019, arXiv:1811.12495",
        f"one positive output in B, or less than {DEFAULT.fired:.1%} of them in A",
        silenced,
    ),
    Rule(
        "norm-replaced",
        "Is it the same norm with the same eps on both sides?",
        "https://github.com/Xilinx/brevitas/issues/388, https://github.com/mapillary/inplace_abn/issues/130",
        "the same kind and eps; a file of weights does not hold eps",
        settings_differ,
    ),
    Rule(
        "layers-unmatched",
        "Does every norm have a counterpart?",
        "https://github.com/VainF/Torch-Pruning/issues/508",
        "every norm on both sides, with the same number of channels",
        left_alone,
    ),
)
