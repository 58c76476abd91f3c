"""Rules about the model's input: mistakes of preprocessing, recognized by the running statistics of the first norm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from bnprobe.recording.names import NEVER_UPDATED, NO_CONSTANTS, NO_PIXELS, OF_CHANNELS
from bnprobe.recording.terms import VISIBLE_SHIFT
from bnprobe.rules.causes import cause_of
from bnprobe.rules.course import outgrows
from bnprobe.rules.edits import Remedy, ResizeInputs, SmoothInputs, UndoMap, remedy, undoing
from bnprobe.rules.frozen_parts import fed_by_training
from bnprobe.rules.rule import Evidence, Finding, Rule, follows_batches, frozen, settled
from bnprobe.rules.thresholds import DEFAULT
from bnprobe.rules.wording import number, sigmas

CLEAR = 1.5
"""Times what an input mistake leaves that another cause may leave at most, to be preferred."""

BEYOND_CHANCE = 0.1
"""Share of channels off beyond sampling error, at a false discovery rate of 1%, that inputs as in training do not show."""

OF_FROZEN = (
    "This norm is frozen: a network that was trained on inputs like these with it frozen learned with the mismatch, and "
    "neither the inputs nor its running statistics may be changed then. Compare the accuracy before and after."
)
"""After advice on the inputs of a norm that was kept as it is on purpose."""

NEW_BESIDE_OLD = (
    "every β is exactly 0 and every γ within 0.1 of 1, beside running statistics of more than 100 batches"
)
"""What stands for weights that were initialized again: the two limits of `newness.begun_again`."""

LOAD_LAST = (
    "Compare the weights with those of the checkpoint. Call load_state_dict after all that initializes, such as "
    "`model.apply(init_weights)`, and record again."
)

GIVE_CONSTANTS = "Pass the constants of training to attach, normalize=(mean, std), to have the cause named."
"""Where none were given."""


def wrong_preprocessing(evidence: Evidence) -> Iterator[Finding]:
    """The mistake that best explains the inputs of the first norm; where none is certain, those that may be it."""
    if reported_at(evidence):
        row = evidence.preprocessing.iloc[0]
        first = evidence.layers[evidence.layers["layer"] == row["layer"]].iloc[0]
        severity = "warning" if 1 / 4 < row["scale_predicted"] < 4 or frozen(first) else "critical"
        of_channels = row["constants"] == OF_CHANNELS
        found = (_of_channels if of_channels else _with_cause if row["certain"] else _without_cause)(
            severity, row
        )
        if evidence.begun_again and not row["certain"]:
            found = _of_new_weights(found)
        yield replace(found, do=f"{found.do} {OF_FROZEN}") if frozen(first) else found
        if of_channels:
            return
    yield from _constant_channels(evidence)


def _constant_channels(evidence: Evidence) -> Iterator[Finding]:
    """Channels of the input that hold one value, as a band that is zeroed after normalization: mean and scale of the first
    norm may hardly show it."""
    found = evidence.layers[evidence.layers["constant_inputs"] != ""]
    if found.empty:
        return
    row, limits = found.iloc[0], evidence.limits
    share = float(np.nanmax([row["shifted_share"], row["scaled_share"], 0.0]))
    known = share > BEYOND_CHANCE and row["n_images"] >= limits.few_images and not evidence.is_new
    several = "," in row["constant_inputs"]
    yield Finding(
        "warning" if known else "info",
        row["layer"],
        f"Of the model's input, channel{'s' if several else ''} {row['constant_inputs']} "
        f"{'hold' if several else 'holds'} one value in the whole first batch.",
        "counted from 0, with the value in brackets; "
        + (
            f"this norm differs from its running statistics beyond sampling error in {share:.0%} of channels (threshold "
            f"{BEYOND_CHANCE:.0%}), so that training had other inputs."
            if known
            else "its running statistics do not say whether that was so in training."
        ),
        "See how this channel is read, and what fills or zeroes it, also after it is normalized: `print(x.transpose(0, 1)"
        ".flatten(1).aminmax(dim=1))`. If it was so in training, there is nothing to mend.",
        call=row["call"],
    )


def reported_at(evidence: Evidence) -> str:
    """The norm whose inputs are reported as not preprocessed as in training; empty where none is."""
    if not _some_mistake(evidence):
        return ""
    row = evidence.preprocessing.iloc[0]
    first = evidence.layers[evidence.layers["layer"] == row["layer"]].iloc[0]
    # few weights before it have moved: what a new network measures there is what it is fed
    if evidence.is_new and not settled(first, evidence.limits):
        return ""
    top = evidence.limits.variance_ratio**0.5
    # what other light explains as well is reported where the shift is reported in any case
    least = evidence.limits.shift if row["light"] else VISIBLE_SHIFT
    if not (row["shift"] > least or not 1 / top <= row["scale_predicted"] <= top):
        return ""
    # running statistics that follow the very batches of this run say nothing against them
    if follows_batches(first) or (fed_by_training(evidence, first) and not row["certain"]):
        return ""
    # inputs that may have been changed do not explain norms that are off by far more than the first
    if not row["certain"] and row["constants"] != OF_CHANNELS and outgrows(evidence.layers):
        return ""
    # one factor in the running statistics predicts all channels from one number, a map of the inputs from several; by the
    # constants that were given it does so from none. Of signals gain and offset are fitted, with which no certain cause,
    # such as a dropout, has to keep up
    cause = cause_of(evidence, first)
    clear = {"given": 1 / CLEAR, NO_PIXELS: np.inf}.get(row["constants"], CLEAR)
    if cause is not None and cause["left_over"] <= clear * row["left_over"]:
        return ""
    return str(row["layer"])


def explained(evidence: Evidence) -> bool:
    """Whether some map of the model's inputs explains those of the first norm, as other light does not."""
    return _some_mistake(evidence) and not evidence.preprocessing["light"].iloc[0]


def _some_mistake(evidence: Evidence) -> bool:
    found = evidence.preprocessing
    return not found.empty and bool(found["mistake"].iloc[0])


def constants_missing(evidence: Evidence) -> bool:
    """Whether the first norm shows the mean pixel of training, and nobody gave the constants to read it by."""
    found = evidence.preprocessing
    return not found.empty and not found["constants"].isin(("given", NO_PIXELS)).any()


def _with_cause(severity: str, row: pd.Series) -> Finding:
    by = (
        "as passed to attach" if row["constants"] == "given" else "common ones, as none were passed to attach"
    )
    other = f" The same by another name: {row['also']}." if row["also"] else ""
    return Finding(
        severity,
        row["layer"],
        f"The inputs are not preprocessed as in training: most likely {row['mistake']}{_rarer(row)}.",
        f"{_distance(row)}; this predicts {number(row['scale_predicted'])}, and explains {_share(row)} of the discrepancy "
        f"in mean and std. No other {'common ' if row['rarer'] else ''}mistake fits as well; images without any would need "
        f"{number(row['scale'])} times the contrast of training.{other} Constants of normalization: {by}.",
        f"{_look(row)}{_undo(row)}",
        remedy=_undone(row),
    )


def _rarer(row: pd.Series) -> str:
    """What nobody does by accident and would look the same, as a part of the sentence."""
    return f", or, which is rarer, {' or '.join(row['rarer'].split('; '))}" if row["rarer"] else ""


def _look(row: pd.Series) -> str:
    return "Look at one image as it enters the model, which tells these apart. " if row["rarer"] else ""


def _undo(row: pd.Series) -> str:
    if not row["undo"]:
        return "Look at one image as it enters the model, and at what loads it."
    return f"Preprocess as in training. To convert the inputs as they are now: `{row['undo']}`."


def _undone(row: pd.Series) -> Remedy | None:
    """The same as an edit of the inputs."""
    gain, offset, exchanged = row["map"]
    return undoing(UndoMap(gain, offset, exchanged)) if row["undo"] else None


def _without_cause(severity: str, row: pd.Series) -> Finding:
    do = f"{_look(row)}Compare the preprocessing with that of training, step by step (range, mean, std, color order)."
    nameless = row["constants"] in (NO_CONSTANTS, NO_PIXELS)
    if nameless:
        says = f"The inputs are not preprocessed as in training: it looks as if {row['mistake']}."
        do = _undo_nameless(row)
    else:
        either = " or that ".join([str(row["mistake"]), *filter(None, str(row["also"]).split("; "))])
        says = f"The inputs are not preprocessed as in training: it may be that {either}{_rarer(row)}."
        if row["constants"] == "guessed":
            do += f" {GIVE_CONSTANTS}"
        elif row["undo"]:
            do += f" Try the first: undo it and record again, `{row['undo']}`. Where this stays, it is another of these."
    return Finding(
        severity,
        row["layer"],
        says,
        f"{_distance(row)}. {'This' if nameless else 'The first'} explains {_share(row)} of the "
        "discrepancy in mean and std.",
        do,
        remedy=_undone(row) if f"`{row['undo']}`" in do else None,
    )


def _undo_nameless(row: pd.Series) -> str:
    """Advice where the map of the inputs is known and what made it is not."""
    if not row["undo"]:
        return (
            "Look at one sample as it enters the model, and at what loads it. If it was only to see whether the model runs, "
            "record real data before anything is read from these numbers."
        )
    first = (
        "Compare the unit and the scaling of the inputs with those of training, and mend what makes them. Signals that are "
        "stronger or weaker than those of training, as louder recordings are, look the same."
        if row["constants"] == NO_PIXELS
        else f"{GIVE_CONSTANTS} Then preprocess as in training."
    )
    return f"{first} Until then, this restores mean and std, and is right unless the inputs are inverted: `{row['undo']}`."


def _of_channels(severity: str, row: pd.Series) -> Finding:
    """Channels of the input, by what they do to the means: nothing is said of their values one by one."""
    undo = (
        f" To put them into the order of training, by this estimate: `{row['undo']}`." if row["undo"] else ""
    )
    return Finding(
        severity,
        row["layer"],
        f"The inputs are not those of training in single channels: it looks as if {row['mistake']}.",
        f"{_distance(row)}. By the weights before it, this explains {_share(row)} of the squared shift of the means. "
        "Channels are counted from 0.",
        "Compare these channels, as they enter the model, with those of training: their order, whether they are there, and "
        f"what each is scaled by.{undo} Running statistics of other data would hide this: mend the inputs first.",
    )


def _of_new_weights(found: Finding) -> Finding:
    """The same where new weights explain what a map of the inputs does: a norm sees both as another scale."""
    map_ = found.says.partition(": ")[2].removesuffix(".")
    return replace(
        found,
        severity="warning",
        says="The inputs of the first norm do not match its running statistics, and γ and β of every norm are as "
        "initialized: the weights were probably initialized again after loading.",
        because=f"{NEW_BESIDE_OLD}; {found.because} If the inputs are the cause instead, {map_}.",
        do=f"{LOAD_LAST} If γ and β were kept fixed in training, look at the preprocessing instead.",
        remedy=None,
    )


def _share(row: pd.Series) -> str:
    return f"{row['explains']:.0%}" if row["explains"] < 0.995 else "more than 99%"


def _distance(row: pd.Series) -> str:
    return (
        f"the inputs of this norm are {sigmas(row['shift'])} running σ off (root mean square of the means), and their std "
        f"is {number(row['scale'])} times the running one"
    )


def wrong_size(evidence: Evidence) -> Iterator[Finding]:
    """Images finer or coarser than those of training."""
    top = evidence.limits.variance_ratio**0.5
    if explained(evidence):
        return  # another mistake explains what is seen
    for row in evidence.rows:
        ratio = row["detail_ratio"]
        known = row["verdict"] != NEVER_UPDATED and row["n_images"] >= evidence.limits.few_images
        # the initial variance of 1 is the same for fine and for coarse filters
        old = not row["initial_weight"] >= evidence.limits.initial_weight
        if not (known and old) or row["call"] or not (ratio > top or ratio < 1 / top):
            continue
        smoother = ratio < 1
        yield Finding(
            "warning",
            row["layer"],
            "The images are smoother than in training: enlarged, blurred, or compressed."
            if smoother
            else "The images have more fine detail than in training: shrunk without smoothing, or noisy.",
            f"relative to filters that see areas, those that see edges have {ratio:.2g} times their running std "
            f"(thresholds {1 / top:.2g} and {top:.2g}).",
            "Use the size and the resizing of training. To undo the difference, by this estimate: "
            f'`x = torch.nn.functional.interpolate(x, scale_factor={ratio:.2g}, mode="bilinear", antialias=True)`.'
            if smoother
            else "Use the size and the resizing of training (with antialias=True): nothing else mends shrunk images. "
            "To take noise out, which changes results: `x = torch.nn.functional.avg_pool2d(x, 3, 1, 1)`.",
            remedy=remedy(ResizeInputs(float(f"{ratio:.2g}")) if smoother else SmoothInputs()),
        )


RULES = (
    Rule(
        "input-not-as-trained",
        "Are the inputs preprocessed as in training?",
        "The first norm's running means are its weights times the mean input of training; "
        "https://github.com/pytorch/vision/issues/2079",
        f"a first norm whose inputs are within {VISIBLE_SHIFT:g} running σ, or off in a way that no known mistake explains",
        wrong_preprocessing,
        edits=(UndoMap,),
    ),
    Rule(
        "input-size",
        "Do the images have as much detail as in training?",
        "Simoncelli & Olshausen 2001, Natural image statistics and neural representation; "
        "Touvron et al. 2019, arXiv:1906.06423 (sizes of training and test)",
        f"a first norm whose fine filters have between {1 / DEFAULT.variance_ratio:g} and {DEFAULT.variance_ratio:g} "
        "times their running variance, relative to the coarse ones",
        wrong_size,
        edits=(ResizeInputs, SmoothInputs),
        of_calls=True,
    ),
)
