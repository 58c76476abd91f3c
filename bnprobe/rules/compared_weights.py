"""Rules about two recordings by what they store: vectors, tensors and settings that differ where they should not.

They read the tables of a comparison, in which a column of each side ends in _a or _b.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.recording.names import WEIGHTS_ONLY, said
from bnprobe.rules.by_hand import TWO_SIDES
from bnprobe.rules.common_change import common_changes
from bnprobe.rules.misplaced import folded_layers, misplaced_layers
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.wording import count, first_few, in_all, kind_words

ROUNDED = 1e-6
"""Relative difference of one eps that two kinds of files round differently."""


def statistics_changed(evidence: Evidence) -> Iterator[Finding]:
    """Running statistics that changed in a layer whose gamma and beta did not."""
    together, trained = _in_common(evidence), _others_trained(evidence)
    if not _differ(evidence.channels, "gamma", "beta") and not _weights_differ(evidence):
        for row, channels in evidence.sites:
            if (
                _differ(channels, "running_mean", "running_var")
                and _stored(channels)
                and not _reset(channels, "a")
                and not _reset(channels, "b")
                and row["running_gap"] > 0
                and not _moved_by_recording(row)
                and row["layer"] not in together
            ):
                gap = row["running_gap"]
                yield Finding(
                    "warning" if gap >= evidence.limits.gap_of_frozen and not trained else "info",
                    row["layer"],
                    f"The running statistics changed with {trained}, although γ and β did not."
                    if trained
                    else "The running statistics changed, although γ and β did not change anywhere in the network.",
                    f"running_mean and running_var are {gap:.2g} σ apart (threshold {evidence.limits.gap_of_frozen:g}); "
                    f"γ and β are the same to the last bit in all layers{_counted(row)}.",
                    _KEPT_TOGETHER
                    * bool(trained)
                    + "If the norms were meant to be frozen: model.train() puts them back into train mode, so call "
                    "module.eval() on every norm after it. If they were re-estimated on purpose, this is the effect.",
                    call=row["call"],
                )


_KEPT_TOGETHER = (
    "Nothing, if B keeps them together with what was trained: neither goes with the other's of A. "
)

ADAPTERS = re.compile(r"lora|adapter|parametrizations", re.IGNORECASE)
"""What tensors of adapters are called, as by peft and torch."""


def _others_trained(evidence: Evidence) -> str:
    """What was trained around the norms while γ and β stayed, in words; empty where nothing is known to be."""
    if evidence.layers["filters_differ"].astype(bool).any():
        return "the weights before the norms"
    new = evidence.tensors["tensor"][evidence.tensors["side"] == "B"] if len(evidence.tensors) else ()
    return "adapters" if any(map(ADAPTERS.search, map(str, new))) else ""


def _moved_by_recording(row: pd.Series) -> bool:
    """Whether a side was recorded in train mode, which moves the running statistics of the model that it ran."""
    return bool(row["memory_moved_a"] > 0 or row["memory_moved_b"] > 0)


def statistics_unchanged(evidence: Evidence) -> Iterator[Finding]:
    """Trained gamma and beta over running statistics that are the same to the last bit."""
    together, kept = _in_common(evidence), []
    twice = set(evidence.folds["layer"]) if len(evidence.folds) else set()
    for row, channels in evidence.sites:
        if (
            not _stored(channels)
            or _differ(channels, "running_mean", "running_var")
            or row["layer"] in together
        ):
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
        elif row["filters_differ"] and not row["call"] and row["layer"] not in twice:
            kept.append(str(row["layer"]))
    if kept:
        yield Finding(
            "info",
            kept[0] if len(kept) == 1 else "",
            f"The weights before {count(len(kept), 'norm')} changed, while the running statistics did not.",
            f"at {first_few([said(layer) for layer in kept])} γ, β, running_mean and running_var are the same to the "
            "last bit.",
            "Nothing, if the norms were frozen in eval mode while the weights learned. Weights that were merged (LoRA), "
            "averaged, pruned or quantized need running statistics of their own: torch.optim.swa_utils.update_bn(loader, "
            "model). Statistics of a training that were not saved with its weights are lost: save the buffers, too.",
        )


_RECOVER = (
    "Load a checkpoint that includes the buffers (strict=True), or re-estimate them: model.train(), a pass over training "
    "data under torch.no_grad(), model.eval()."
)


_NEW = "Nothing, if B is the newer state. If A is: load A's buffers again, or take B's."


def statistics_lost(evidence: Evidence) -> Iterator[Finding]:
    """Running statistics that one side has and the other has not: critical where B lost them, a note where A lacked them."""
    in_filters = folded_layers(evidence)
    for row, channels in evidence.sites:
        if row["layer"] in in_filters:
            continue
        for without, other, severity, says in (
            ("B", "A", "critical", "The running statistics were lost from A to B:"),
            ("A", "B", "info", "The running statistics are new in B:"),
        ):
            mine, theirs = without.lower(), other.lower()
            if "running_var" in row[f"missing_{mine}"] and row[f"kind_{mine}"] in (
                row[f"kind_{theirs}"],
                "unknown_norm",
            ):
                fact = f"{says} {without} does not store them."
                because = (
                    f"{other} stores running_mean and running_var of {count(len(channels), 'channel')}, {without} does not "
                    "store them."
                )
            elif _lost(channels, mine):
                fact = f"{says} {without} has their initial values."
                because = (
                    f"in {without}, running_mean is 0 and running_var is 1 {in_all(channels)}, in {other} they are "
                    f"not{_counted(row)}.{_WITH_AFFINE * _affine_initial(channels, mine)}"
                )
            else:
                continue
            yield Finding(
                severity,
                row["layer"],
                fact,
                because,
                _RECOVER if severity == "critical" else _NEW,
                call=row["call"],
            )


_WITH_AFFINE = " γ and β have their initial values as well, and these no pass over data brings back."


def _affine_initial(channels: pd.DataFrame, side: str) -> bool:
    """Whether γ is 1 and β 0 in every channel of this side, and not in the other."""
    gamma, beta = channels[f"gamma_{side}"], channels[f"beta_{side}"].fillna(0)
    return bool((gamma == 1).all() and (beta == 0).all() and _differ(channels, "gamma", "beta"))


def has_lost_statistics(row: pd.Series, channels: pd.DataFrame) -> bool:
    """Whether B has the initial running statistics where A has others, or none."""
    return "running_var" in row["missing_b"] or _lost(channels, "b")


def _lost(channels: pd.DataFrame, side: str) -> bool:
    return _stored(channels) and _differ(channels, "running_mean", "running_var") and _reset(channels, side)


def settings_differ(evidence: Evidence) -> Iterator[Finding]:
    """Another eps, kind of norm or number of groups under the same name."""
    for row, _ in evidence.sites:
        facts = [*_other_settings(row), *_missing_vectors(row)]
        if facts:
            yield Finding(
                "warning",
                row["layer"],
                "A and B do not have the same norm here.",
                f"{'; '.join(facts)}.{_effect(row)}",
                "If B was converted from A, set eps to A's, module.eps = value; frameworks differ in their defaults (1e-3, "
                "1e-5). A number of groups is not in a file: build the model with that of training. Where a vector is "
                "missing, load with strict=True.",
                call=row["call"],
            )


def has_other_settings(row: pd.Series) -> bool:
    """Whether eps, the kind, the groups or the vectors of the norm at a site are others on the other side."""
    return bool(_other_settings(row) or _missing_vectors(row))


def _other_settings(row: pd.Series) -> list[str]:
    # of a file eps is known by its config, which code need not follow: two files, or two runs
    alike = (row["mode_a"] == WEIGHTS_ONLY) == (row["mode_b"] == WEIGHTS_ONLY)
    known = "unknown_norm" not in (row["kind_a"], row["kind_b"])
    facts = [f"eps is {row['eps_a']:g} in A and {row['eps_b']:g} in B"] * bool(
        alike and not np.isclose(row["eps_a"], row["eps_b"], rtol=ROUNDED, atol=0)
    )
    grouped = row["kind_a"] == row["kind_b"] == "group_norm"
    facts += [f"A has {row['own_groups_a']:.0f} groups of channels, B {row['own_groups_b']:.0f}"] * bool(
        grouped and abs(row["own_groups_a"] - row["own_groups_b"]) > 0
    )
    return facts + [
        f"A is {kind_words(row['kind_a'], article=True)}, B {kind_words(row['kind_b'], article=True)}"
    ] * bool(known and row["kind_a"] != row["kind_b"])


def _missing_vectors(row: pd.Series) -> list[str]:
    return [
        f"only {there} stores {name}"
        for name in ("γ", "β")
        for there, missing in (("A", row["missing_b"]), ("B", row["missing_a"]))
        if name in missing.split(", ")
    ]


def _effect(row: pd.Series) -> str:
    """How much that changes at the output, where the inputs are the same."""
    if not (row["pre_gap"] == 0 and row["post_gap"] > 0):
        return ""
    return f" The same inputs give outputs {row['post_gap']:.2g} of the layer's standard deviations apart."


def _differ(channels: pd.DataFrame, *names: str) -> bool:
    """Whether a vector differs at all between the sides; NaN is the same as NaN."""
    pairs = [(channels[f"{name}_a"], channels[f"{name}_b"]) for name in names]
    return any(bool((~((a == b) | (a.isna() & b.isna()))).any()) for a, b in pairs)


def _weights_differ(evidence: Evidence) -> bool:
    """Whether something other than the statistics must differ: a norm that one side does not have."""
    return bool(len(evidence.unread) or evidence.channels["gamma_a"].isna().all())


def _stored(channels: pd.DataFrame) -> bool:
    return bool(channels[["running_var_a", "running_var_b"]].notna().any().all())


def _reset(channels: pd.DataFrame, side: str) -> bool:
    return bool(((channels[f"running_mean_{side}"] == 0) & (channels[f"running_var_{side}"] == 1)).all())


def _counted(row: pd.Series) -> str:
    a, b = row["n_batches_tracked_a"], row["n_batches_tracked_b"]
    return (
        ""
        if np.isnan(a) or np.isnan(b) or a == b
        else f" (num_batches_tracked went from {a:,.0f} to {b:,.0f})"
    )


def _in_common(evidence: Evidence) -> set[str]:
    """Norms whose vectors changed as those of others did, or are those of A elsewhere: both have findings of their own."""
    return {layer for change in common_changes(evidence) for layer in change.layers} | misplaced_layers(
        evidence
    )


RULES = (
    Rule(
        "statistics-lost",
        "Does B still have the running statistics of A?",
        "https://github.com/pytorch/pytorch/issues/110361, https://github.com/timgaripov/swa/issues/8",
        "running statistics in B with any mean other than 0 or variance other than 1; none in A",
        statistics_lost,
        by_hand=TWO_SIDES,
    ),
    Rule(
        "norm-replaced",
        "Is it the same norm with the same eps and groups on both sides?",
        "https://github.com/Xilinx/brevitas/issues/388, https://github.com/mapillary/inplace_abn/issues/130",
        "the same kind, eps and number of groups; a file of weights holds neither of the last two",
        settings_differ,
        by_hand=TWO_SIDES,
    ),
    Rule(
        "statistics-outdated",
        "Were the running statistics updated along with γ and β?",
        "Izmailov et al. 2018, arXiv:1803.05407; https://github.com/timgaripov/swa/issues/8",
        "any difference in the running statistics, or none in γ and β",
        statistics_unchanged,
        by_hand=TWO_SIDES,
    ),
    Rule(
        "frozen-statistics-moved",
        "Did the running statistics stay the same where γ and β did?",
        "https://github.com/pytorch/pytorch/issues/86590, https://github.com/pgniewko/gt-pyg/issues/112",
        "any difference in any γ or β, or the same running statistics",
        statistics_changed,
        by_hand=TWO_SIDES,
    ),
)
