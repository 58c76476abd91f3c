"""Rules about two recordings as wholes: changes that norms share, channels that do not correspond, other tensors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.recording.names import WEIGHTS_ONLY
from bnprobe.rules.averaged import averaged
from bnprobe.rules.by_hand import TWO_SIDES
from bnprobe.rules.common_change import CommonChange, common_changes
from bnprobe.rules.embeddings import scaled_tensors
from bnprobe.rules.gains import in_gguf
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.thresholds import DEFAULT, Limits
from bnprobe.rules.wording import count, first_few

MOST_NAMED = 4
"""Tensors spelt out in a sentence."""


def changed_alike(evidence: Evidence) -> Iterator[Finding]:
    """The same number added to, or multiplied into, the vectors of many norms; a 1 that a GGUF file lacks."""
    yield from in_gguf(evidence)
    for change in common_changes(evidence):
        names = " and ".join(filter(None, (", ".join(change.vectors[:-1]), change.vectors[-1])))
        names = names.replace("gamma", "γ").replace("beta", "β")
        where = (
            f"in all {count(change.n_norms, 'norm')}"
            if change.everywhere
            else f"in {len(change.layers):,} of {count(change.n_norms, 'norm')}"
        )
        convention = change.vectors == ("gamma",) and _by_one(change)
        by_convention = convention and _one_is_a_file(evidence)
        yield Finding(
            "info" if by_convention else "warning",
            "",
            f"Every {names} {_amount(change)} in B than in A, {where}."
            if not change.factor
            else f"Every {names} {_amount(change)} A, {where}.",
            f"the same {'factor' if change.factor else 'difference'}, {change.number:.6g}, holds {where}, in all "
            f"{count(change.n_channels, 'channel')} of them.",
            _FILE
            if by_convention
            else _ADDED
            if convention
            else _SCALED
            if "running_var" in change.vectors
            else _OTHER,
        )


_FILE = "Nothing: the file stores w, and the layers multiply by 1 + w, which is what the recording shows."
_ADDED = (
    "Some norms multiply by 1 + w and store w (Gemma), others store the whole factor: one side was converted to the other "
    "convention, or 1 was added and not taken off again. Load both sides into the code of each, and take the 1 off the "
    "larger side's weights if its layers add it themselves."
)
_SCALED = (
    "A factor that all channels share comes from a converter, not from training: Caffe stores sums and a third blob, the "
    "factor to divide them by. Divide the larger side's running statistics by it, unless its inputs are that much larger."
)
_OTHER = "A change that all channels share comes from a conversion, not from training. Undo it on the converted side."


def _by_one(change: CommonChange) -> bool:
    return not change.factor and abs(abs(change.number) - 1) < 1e-2


def _one_is_a_file(evidence: Evidence) -> bool:
    """Whether only one side was run: a file holds w where a run shows 1 + w."""
    modes = evidence.layers[["mode_a", "mode_b"]] == WEIGHTS_ONLY
    return bool((modes.any(axis=1) & ~modes.all(axis=1)).any())


def _amount(change: CommonChange) -> str:
    if change.factor:
        return f"is {change.number:.6g} times as large in B as in"
    size = abs(change.number)
    exactly = "exactly 1" if _by_one(change) else f"{size:.6g}"
    return f"is {exactly} {'larger' if change.number > 0 else 'smaller'}"


def channels_unrelated(evidence: Evidence) -> Iterator[Finding]:
    """Two networks trained apart: channel 5 of one is not channel 5 of the other."""
    if evidence.apart:
        facts = ", ".join(f"{name} {r:.2f}" for name, r in evidence.apart.items())
        yield Finding(
            "info",
            "",
            "A and B were trained apart: their channels do not correspond, so distributions over channels are compared.",
            f"correlation across the channels of a layer: {facts} (threshold 0.5; two states of one training have more).",
            "To compare two trainings channel by channel, start both from the same weights. Do not average or mix the "
            "weights of these two: their channels mean different things.",
        )


def tensors_differ(evidence: Evidence) -> Iterator[Finding]:
    """Tensors beside the norms that differ: a note, or a warning where a few lost their scale while the rest is the same."""
    both = evidence.tensors[evidence.tensors["side"] == "both"] if len(evidence.tensors) else evidence.tensors
    both = both.drop(scaled_tensors(both).index)
    if both.empty or evidence.apart or any(averaged(evidence)):
        return
    reshaped = both["shape_a"] != both["shape_b"]
    jumped = _jumped(both, evidence.limits) & ~reshaped
    norms_moved = (
        any(_moved(evidence.channels, name) for name in ("gamma", "beta")) or len(evidence.folds) > 0
    )
    if reshaped.any():
        # where norms have other widths the weights around them have, too
        yield _differing(
            both[reshaped], "have another shape", "info" if _other_widths(evidence) else "warning"
        )
    if jumped.any() and not norms_moved:
        yield _differing(
            both[jumped], f"differ in size by a factor of {evidence.limits.tensor_scale:g} or more", "warning"
        )
    alone = _gains_alone(both, evidence) & ~reshaped & ~jumped & (not norms_moved)
    if alone.any():
        yield _gains_changed(both[alone])
    rest = both[~reshaped & ~(jumped & (not norms_moved)) & ~alone]
    if len(rest):
        yield _differing(rest, "differ", "info")


def _gains_alone(both: pd.DataFrame, evidence: Evidence) -> pd.Series:
    """The gains beside the norms, where nothing else differs: training moves matrices, too."""
    gains = both["tensor"].isin(_gains(both["tensor"], both["shape_a"], evidence))
    return gains & bool(gains.all())


def _gains(names: pd.Series, shapes: pd.Series, evidence: Evidence) -> list[str]:
    """Vectors of a module, or of one of its parts, with as many entries as a norm of that module has channels.

    So are scales of branches, which stand beside a norm; biases are not taken for any.
    """
    widths = dict(zip(evidence.layers["layer"], evidence.layers["n_channels"], strict=True))
    found = []
    for name, shape in zip(names, shapes, strict=True):
        long = [int(n) for n in str(shape).split("×") if n not in ("", "1")]
        parents = [_module(str(name)), _module(_module(str(name)))]
        beside = {n for layer, n in widths.items() if any(p and layer.startswith(f"{p}.") for p in parents)}
        if len(long) == 1 and long[0] in beside and not str(name).endswith("bias"):
            found.append(str(name))
    return found


def _gains_changed(found: pd.DataFrame) -> Finding:
    names = [str(name) for name in found["tensor"]]
    sizes = [
        f"{row['tensor']} (root mean square {row['size_a']:.3g} in A, {row['size_b']:.3g} in B)"
        for _, row in found.head(MOST_NAMED).iterrows()
    ]
    return Finding(
        "warning",
        "",
        f"Vectors called “{_leaf(names[0])}” differ, and nothing else does: the scales of branches, by their place.",
        f"{len(names)}: {'; '.join(sizes)}{_and_more(names)}",
        "Training moves matrices along with such scales. They were probably not loaded and have initial values, or were "
        "converted: load with strict=True, and look for names that changed.",
    )


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _and_more(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return f"; and {more:,} more." if more > 0 else "."


def _other_widths(evidence: Evidence) -> bool:
    """Whether a norm has another number of channels on the other side, as after pruning."""
    unread = evidence.unread
    sites = unread.groupby(["layer", "call"])["n_channels"].nunique() if len(unread) else pd.Series(dtype=int)
    return bool((sites > 1).any())


def _differing(found: pd.DataFrame, what: str, severity: str) -> Finding:
    with np.errstate(all="ignore"):
        order = np.abs(np.log(found["size_b"].to_numpy(float) / found["size_a"].to_numpy(float)))
    largest = found.iloc[np.argsort(-np.nan_to_num(order, nan=-1.0, posinf=1e9), kind="stable")[:MOST_NAMED]]
    facts = [
        f"{row['tensor']} ({row['shape_a']} in A, {row['shape_b']} in B)"
        if row["shape_a"] != row["shape_b"]
        else f"{row['tensor']} (root mean square {row['size_a']:.3g} in A, {row['size_b']:.3g} in B)"
        for _, row in largest.iterrows()
    ]
    more = len(found) - len(facts)
    subject = "One tensor" if len(found) == 1 else f"{len(found):,} tensors"
    verb = what.replace("have", "has").replace("differ", "differs", 1) if len(found) == 1 else what
    return Finding(
        severity,
        "",
        f"{subject} beside the norms {verb}.",
        "; ".join(facts) + (f"; and {more:,} more." if more > 0 else "."),
        "Training moves all weights a little. Where a few tensors jump and the rest stays, they were probably not loaded: "
        "load with strict=True, and look for names that changed."
        if severity == "warning"
        else "Nothing, if B was trained on from A. Otherwise look at where they come from: comparison.tensors lists them.",
    )


def _jumped(both: pd.DataFrame, limits: Limits) -> pd.Series:
    """Tensors whose size changed by a large factor; a bias that was 0 has no size to begin with."""
    with np.errstate(all="ignore"):
        ratio = both["size_b"] / both["size_a"]
    far = (ratio >= limits.tensor_scale) | (ratio <= 1 / limits.tensor_scale)
    return far & ~both["tensor"].str.endswith("bias")


def tensors_unmatched(evidence: Evidence) -> Iterator[Finding]:
    """Tensors that only one side has, and those that only changed their name."""
    if evidence.tensors.empty:
        return
    only = {side: evidence.tensors[evidence.tensors["side"] == side] for side in "AB"}
    renamed = _renamed(only["A"], only["B"])
    if renamed:
        leaves = dict.fromkeys((a.rpartition(".")[2], b.rpartition(".")[2]) for a, b in renamed)
        words = first_few([f"“{a}” in A, “{b}” in B" for a, b in leaves], MOST_NAMED)
        yield Finding(
            "warning",
            "",
            f"Tensors of one shape in the same modules have other names: {words}.",
            f"{len(renamed)}: {'; '.join(f'{a} and {b}' for a, b in renamed[:MOST_NAMED])}"
            + (f"; and {len(renamed) - MOST_NAMED} more." if len(renamed) > MOST_NAMED else "."),
            "With strict=False a loader that does not know both names leaves these tensors at their initial values, without "
            "a word. Rename the keys before loading, and load with strict=True.",
        )
    done = {name for pair in renamed for name in pair}
    for side, other in (("A", "B"), ("B", "A")):
        lost = _gains_lost(only[side], only[other], evidence, side)
        if lost:
            done |= set(lost)
            yield Finding(
                "warning",
                "",
                f"Only {side} has vectors called “{_leaf(lost[0])}”, and all else is the same: without these scales, "
                f"branches of {other} have another size.",
                f"{len(lost)}: {first_few(lost, MOST_NAMED)}.",
                "A converter that drops the scale of a branch must multiply it into the weights before it. Keep these "
                "tensors, and build the model with its layer scale.",
            )
    for side, found in only.items():
        names = [str(name) for name in found["tensor"] if name not in done]
        if names:
            yield Finding(
                "info",
                "",
                f"Only {side} has some of the tensors beside the norms.",
                f"{len(names)}: {first_few(names, MOST_NAMED)}.",
                "Another architecture, adapters, or parts that were left out when saving: comparison.tensors lists them.",
            )


def _gains_lost(mine: pd.DataFrame, theirs: pd.DataFrame, evidence: Evidence, side: str) -> list[str]:
    """Gains that only this side has, where no other tensor differs that may have taken them in."""
    same = not (evidence.tensors["side"] == "both").any() and not evidence.apart
    if not same or len(theirs) or any(_moved(evidence.channels, name) for name in ("gamma", "beta")):
        return []
    return _gains(mine["tensor"], mine[f"shape_{side.lower()}"], evidence)


def _renamed(a: pd.DataFrame, b: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs of one module and one shape, where there is exactly one of either on each side."""
    found = []
    there = list(zip(b["tensor"], b["shape_b"], strict=True))
    mine = list(zip(a["tensor"], a["shape_a"], strict=True))
    for name, shape in mine:
        alike = [other for other, of in there if of == shape and _module(other) == _module(name)]
        back = [one for one, of in mine if of == shape and _module(one) == _module(name)]
        if len(alike) == len(back) == 1:
            found.append((str(name), str(alike[0])))
    return found


def _module(name: str) -> str:
    return str(name).rpartition(".")[0]


def _moved(channels: pd.DataFrame, name: str) -> bool:
    """Whether a vector differs anywhere; NaN is the same as NaN."""
    a, b = channels[f"{name}_a"], channels[f"{name}_b"]
    return bool((~((a == b) | (a.isna() & b.isna()))).any())


RULES = (
    Rule(
        "changed-alike",
        "Did the vectors of many norms change by the same number?",
        "https://github.com/pytorch/executorch/pull/19901, https://github.com/BVLC/caffe/issues/4885",
        "vectors that stay, or change by another number in every channel",
        changed_alike,
        by_hand=TWO_SIDES,
    ),
    Rule(
        "channels-unrelated",
        "Is channel c of A the same channel as channel c of B?",
        "Ainsworth, Hayase & Srinivasa 2023, arXiv:2209.04836",
        "γ, β, running statistics or filter lengths that correlate across channels",
        channels_unrelated,
        by_hand=TWO_SIDES,
    ),
    Rule(
        "tensors-differ",
        "Do the tensors beside the norms agree?",
        "https://github.com/huggingface/transformers/issues/29554",
        f"the same numbers; a size less than {DEFAULT.tensor_scale:g} times as large is a note, and so is any where γ and β "
        "moved too",
        tensors_differ,
        by_hand=TWO_SIDES,
    ),
    Rule(
        "tensors-unmatched",
        "Does every tensor beside the norms have a counterpart?",
        "https://github.com/huggingface/transformers/issues/29554",
        "the same names on both sides; a file is not held against the parameters of a model",
        tensors_unmatched,
        by_hand=TWO_SIDES,
    ),
)
