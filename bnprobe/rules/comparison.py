"""Rules about two recordings: what changed between them that should not have, or that breaks something.

They read the tables of a comparison, in which a column of each side ends in _a or _b.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.recording.names import said
from bnprobe.rules.by_hand import TWO_SIDES
from bnprobe.rules.compared_weights import has_other_settings
from bnprobe.rules.rule import Evidence, Finding, Rule, indices, share_severity
from bnprobe.rules.thresholds import DEFAULT
from bnprobe.rules.wording import count, out_of, some, times

NOISE = 3.0
"""Times the sampling noise that a gap must be."""
ROUNDING = 1e-5
"""Gap that a different order of additions causes."""
MOST_CHANNELS = 0.9
"""Share of channels in which dropout must make the inputs vary more."""
RUNNING = "running"


def inputs_differ(evidence: Evidence) -> Iterator[Finding]:
    """Inputs that differ by more than sampling noise: reported once, where that starts, unless another rule says why."""
    limit = evidence.limits.gap
    beyond = [
        (row, channels)
        for row, channels in evidence.sites
        if row["pre_gap"] >= limit and not row["pre_gap"] < NOISE * row["pre_noise"]
    ]
    origin = _origin(evidence)
    if not beyond or origin is None or evidence.apart:
        return
    row, channels = beyond[0]
    severity, says, do = _cause(origin, evidence)
    if not severity:
        return
    noise = row["pre_noise"]
    yield Finding(
        severity,
        row["layer"],
        f"The inputs of this norm differ between A and B{says}",
        f"means and standard deviations are {row['pre_gap']:.2g} σ apart (root mean square over channels, threshold "
        f"{limit:g}"
        + ("" if np.isnan(noise) else f", sampling noise {noise:.2g}")
        + f"); B's typical std is {times(channels['pre_ratio'].median(), 'that of A')}.{_following(beyond[1:])}",
        do,
        call=row["call"],
    )


def _following(later: list[tuple[pd.Series, pd.DataFrame]]) -> str:
    """Of the norms that follow, how many differ as well, and which most."""
    if not later:
        return ""
    most = max((row for row, _ in later), key=lambda row: float(row["pre_gap"]))
    n = f"{count(len(later), 'following norm')} {'does' if len(later) == 1 else 'do'} as well"
    return f" {n}, by up to {most['pre_gap']:.2g} σ at {said(most['layer'], most['call'])}."


def _origin(evidence: Evidence) -> tuple[pd.Series, str] | None:
    """The first place where the sides differ by more than the choice of samples makes: a site, and before or after it."""
    return next(
        (
            (row, aspect)
            for row, _ in evidence.sites
            for aspect in ("pre", "post")
            if row[f"{aspect}_gap"] > ROUNDING and not row[f"{aspect}_gap"] < NOISE * row[f"{aspect}_noise"]
        ),
        None,
    )


def _cause(origin: tuple[pd.Series, str], evidence: Evidence) -> tuple[str, str, str]:
    """Severity, the end of the sentence and what to do, by where it starts; empty where another rule tells it."""
    row, aspect = origin
    name, gap = said(row["layer"], row["call"]), row[f"{aspect}_gap"]
    if any(True for _ in modes_disagree(evidence)):
        return "", "", ""
    if aspect == "post":
        if has_other_settings(row):
            return "", "", ""
        inside = (
            f"The difference begins inside {name}: its inputs agree, its outputs are {gap:.2g} of the layer's standard "
            "deviations apart."
        )
        if row["normalized_by_a"] != row["normalized_by_b"]:
            return (
                "warning",
                ".",
                f"{inside} One side normalized with running statistics, the other with the batch's.",
            )
        return "info", ": stored values before it do.", f"{inside} Compare its γ, β and running statistics."
    if row["weights_before_differ"]:
        return (
            "info",
            ": weights before it do.",
            f"The inputs of {name} already differ, by {gap:.2g} σ, and so do weights, γ, β or running statistics before it, "
            "as between two states of one training. To compare data, record both with the same weights.",
        )
    mode = "One side ran in train mode, where dropout may change them. " * _in_two_modes(row)
    return (
        "warning",
        ".",
        f"The inputs of {name} already differ, by {gap:.2g} σ, and no weights before it are known to differ. {mode}"
        "If that is the first norm, "
        "compare the data of both sides (range, mean, std; of images size, color order, compression); otherwise compare the "
        "preceding weights.",
    )


def modes_disagree(evidence: Evidence) -> Iterator[Finding]:
    """A norm whose output differs because one side used batch statistics and the other running statistics."""
    limit = evidence.limits.gap
    dropout = _dropout(evidence)
    if dropout is not None:
        yield dropout
    for row, _ in evidence.sites:
        gap, noise = row["post_gap"], row["post_noise"]
        entered = row["pre_gap"]
        if not _other_modes(row) or not gap >= limit or gap < NOISE * noise or entered >= gap / 2:
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


def _other_modes(row: pd.Series) -> bool:
    return {row["normalized_by_a"], row["normalized_by_b"]} == {RUNNING, "batch"}


def _in_two_modes(row: pd.Series) -> bool:
    """Whether one side ran in train mode and the other in eval mode."""
    return {row["mode_a"], row["mode_b"]} == {"train", "eval"}


_AFTER_THE_NORMS = (
    "The running variance is that of train mode, so in eval mode outputs vary too little. Move the dropout after the last "
    "norm before the next training. Without training again: re-estimate the running statistics on training data, with "
    "dropout in eval mode and the norms in train mode, and compare accuracies."
)


def _dropout(evidence: Evidence) -> Finding | None:
    """Dropout before a norm, where inputs vary more in train mode while their means stay: that is what dropout does."""
    names: list[str] = []
    for row, channels in evidence.sites:
        names += [row["dropout_before"]] * bool(row["dropout_before"])
        gap = row["pre_gap"]
        if (
            not names
            or not _in_two_modes(row)
            or not gap >= evidence.limits.gap
            or gap < NOISE * row["pre_noise"]
        ):
            continue
        trained, evaluated = ("a", "b") if row["mode_a"] == "train" else ("b", "a")
        stored = bool(channels[["running_var_a", "running_var_b"]].notna().any(axis=None))
        wider = np.sqrt(channels[f"pre_var_{trained}"] / channels[f"pre_var_{evaluated}"])
        shift = float(np.sqrt((channels["pre_shift"] ** 2).mean()))
        if (wider > 1).mean() < MOST_CHANNELS or shift > gap / 2:
            return None
        return Finding(
            "warning" if stored else "info",
            row["layer"],
            "Dropout before this norm makes its inputs vary more in train mode than in eval mode.",
            f"their typical std in train mode is {np.nanmedian(wider):.2g} times that in eval mode (larger in "
            f"{(wider > 1).mean():.0%} of the channels), their means are {shift:.2g} σ apart; by the module tree, "
            f"{' and '.join(names)} {'comes' if len(names) == 1 else 'come'} before it.",
            _AFTER_THE_NORMS
            if stored
            else "Nothing, if the modes were to be compared. To compare anything else, record both sides in one mode.",
            call=row["call"],
        )
    return None


def silenced(evidence: Evidence) -> Iterator[Finding]:
    """Channels that are positive on one side and never on the other; a note where B has them back."""
    if evidence.apart:
        return
    for row, channels in evidence.sites:
        for on, off in (("A", "B"), ("B", "A")):
            mine, theirs = f"fires_{on.lower()}", f"fires_{off.lower()}"
            found = channels[(channels[mine] >= evidence.limits.fired) & (channels[theirs] == 0)]
            if not len(found):
                continue
            lost = on == "A"
            yield Finding(
                share_severity(found, channels, evidence.limits) if lost else "info",
                row["layer"],
                f"{some(found, channels)} were positive in A and are never positive in B."
                if lost
                else f"{some(found, channels)} were never positive in A and are in B.",
                f"{out_of(found, channels)}; in {on} the most active was positive {found[mine].max():.2%} of the "
                f"time, in {off} none was on {count(row[f'n_images_{off.lower()}'], 'sample')}.",
                "After a ReLU their output is always 0. Check whether β fell (training) or the inputs moved (data): "
                "comparison.channels has both side by side."
                if lost
                else "Nothing, if B is the newer state: these channels came back.",
                indices(found),
                row["call"],
            )


def turned_nonfinite(evidence: Evidence) -> Iterator[Finding]:
    """NaN, infinity or a negative variance on one side alone: critical in B, a note in A; a missing vector is neither."""
    for row, channels in evidence.sites:
        for side, other in (("b", "a"), ("a", "b")):
            values = int(row[f"n_nonfinite_{side}"]) if row[f"n_nonfinite_{other}"] == 0 else 0
            poison = row[f"poison_{side}"]
            if not values and not poison:
                continue
            facts = [f"{count(values, 'input value')} {'is' if values == 1 else 'are'} not finite"] * bool(
                values
            )
            facts += [poison] * bool(poison)
            new = side == "b"
            yield Finding(
                "critical" if new else "info",
                row["layer"],
                f"NaN, infinity or a negative variance {'appeared' if new else 'disappeared'} from A to B.",
                f"in {side.upper()} {' and '.join(facts)}, unlike in {other.upper()}.",
                (
                    "The first layer named is where it starts. NaN and infinity usually come from overflow in half "
                    "precision: run that layer in float32, and take the running statistics from before. A variance below "
                    "0 comes from arithmetic on checkpoints, or from a damaged file."
                )
                if new
                else "Nothing, if B is the repaired state.",
                indices(channels[channels[f"poisoned_{side}"]]),
                row["call"],
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


RULES = (
    Rule(
        "became-nonfinite",
        "Is everything that was finite in A still finite in B, and no variance below 0?",
        "https://github.com/pytorch/pytorch/issues/88474, https://github.com/pytorch/pytorch/issues/96798",
        "no NaN, infinity or negative variance in B, or the same in A already",
        turned_nonfinite,
        by_hand=TWO_SIDES,
    ),
    Rule(
        "modes-disagree",
        "Are the outputs of the norm the same in train and in eval mode?",
        "https://github.com/pytorch/pytorch/issues/5406; Wu & Johnson 2021, arXiv:2105.07576; "
        "Li et al. 2019, arXiv:1801.05134",
        f"outputs less than {DEFAULT.gap:g} of the layer's standard deviations apart, or inputs at least half as far apart",
        modes_disagree,
        by_hand=TWO_SIDES,
    ),
    Rule(
        "inputs-differ",
        "Does the norm get the same inputs on both sides?",
        "Schneider et al. 2020, arXiv:2006.16971; Dowson & Landau 1982; Welch 1947",
        f"inputs less than {DEFAULT.gap:g} σ apart, or less than {NOISE:g} times the sampling noise",
        inputs_differ,
        by_hand=TWO_SIDES,
    ),
    Rule(
        "channels-silenced",
        "Is every channel that was positive in A sometimes positive in B?",
        "Mehta, Kim & Theobalt 2019, arXiv:1811.12495",
        f"one positive output in B, or less than {DEFAULT.fired:.1%} of them in A",
        silenced,
        by_hand=TWO_SIDES,
    ),
    Rule(
        "layers-unmatched",
        "Does every norm have a counterpart?",
        "https://github.com/VainF/Torch-Pruning/issues/508",
        "every norm on both sides, with the same number of channels",
        left_alone,
        by_hand=TWO_SIDES,
    ),
)
