"""Rules about the formula: outputs that it does not give, digits that rounding takes, and rows without values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from bnprobe.recording.names import SHIFTED
from bnprobe.rules.by_hand import CODE
from bnprobe.rules.edits import InFloat32, remedy
from bnprobe.rules.remedies import module
from bnprobe.rules.rule import Evidence, Finding, Rule, indices
from bnprobe.rules.thresholds import DEFAULT, Limits
from bnprobe.rules.wording import count, kind_words, number, out_of

TRIED = (
    "statistics over other axes, with or without centering, unbiased, eps beside the root or of another size, 1 + weight or "
    "no weight, a factor, an activation after it, the input added to it, and half precision"
)

OVER = {
    "channels": "the channels at each position",
    "channels, positions": "each sample as a whole, channels and positions together",
    "positions": "the positions of each sample and channel",
    "samples, positions": "samples and positions, for each channel",
    "samples, channels, positions": "the whole batch",
    "samples": "samples, at each position and channel",
    "samples, channels": "samples and channels at each position",
}
"""What one mean and variance are taken over, by the word of a deviation."""

WORDS = {
    "centered": "subtracts a mean",
    "not centered": "subtracts no mean",
    "unbiased variance": "divides by n − 1 in the variance",
    "eps beside the root": "adds eps to the root instead of the variance",
    "no groups": "does not tell the groups apart",
    "1 + weight": "multiplies by 1 + weight",
    "no weight": "does not use its weight",
    "no bias": "does not use its bias",
    "adds the input": "adds its input to its output",
}
"""What a norm does, by the word of a deviation; others stand for an activation after it."""


def beyond_the_formula(evidence: Evidence) -> Iterator[Finding]:
    """Layers whose output is not what their kind gives, and what does give it."""
    for row in evidence.rows:
        if row["output"] != "read" or row["formula_fits"] == 1:
            continue
        # the formula fits where there are values: rows of zeros are a finding of their own
        if row["mismatch"] > evidence.limits.formula_mismatch and not _only_zeros(row):
            known = _words(row["computes_instead"])
            yield Finding(
                _severity(row, evidence.limits),
                row["layer"],
                _says(row, known),
                _because(row),
                _remedy(row),
                call=row["call"],
            )


def _only_zeros(row: pd.Series) -> bool:
    nothing_else = row["mismatch_left"] >= 0 or row["zero_rows"] == 1  # zeros alone fit any formula
    return bool(row["zero_rows"] > 0 and nothing_else and not _words(row["computes_instead"]))


def _words(deviations: str) -> list[str]:
    """What the norm does otherwise, but for the precision, in sentences without a subject."""
    return [_said(name) for name in _names(deviations) if not name.startswith("in ")]


def _names(deviations: str) -> list[str]:
    return [name for name in deviations.split("; ") if name]


def _said(name: str) -> str:
    if name.startswith("over "):
        return f"takes its statistics over {OVER[name.removeprefix('over ')]}"
    if name.startswith("eps "):
        number = name.removeprefix("eps ")
        return WORDS.get(name, f"uses an eps of {number}")
    if name.startswith("gain times "):
        return f"multiplies by a further {name.removeprefix('gain times ')}"
    return WORDS.get(name, f"applies {name} to its output")


def _severity(row: pd.Series, limits: Limits) -> str:
    """Statistics of something else, and a large difference that nothing explains, are warnings."""
    names = _names(row["computes_instead"])
    if names or row["mismatch_left"] >= 0:
        return "warning" if any(name.startswith("over ") or name == "no groups" for name in names) else "info"
    large = limits.large_mismatch <= row["mismatch"] < float("inf")
    return "warning" if large and row["formula_fits"] == 0 else "info"


def _says(row: pd.Series, known: list[str]) -> str:
    kind = kind_words(row["kind"], article=True)
    if known:
        return f"This {row['class_name']} is not {kind} as described: it {' and '.join(known)}."
    if row["mismatch_left"] >= 0:
        dtype = row["computes_instead"].removeprefix("in ")
        return f"This {row['class_name']} computes in {dtype}: its outputs are that coarse."
    return (
        f"This {row['class_name']} does something else than {kind}, and no usual change to the formula explains it: its "
        "outputs were measured, not derived from its inputs."
        if row["formula_fits"] == 0
        else f"This {row['class_name']} does more than {kind}: its outputs were measured, not derived from its inputs."
    )


def _because(row: pd.Series) -> str:
    if row["mismatch"] == float("inf"):
        return "the output could not be compared with the formula."
    differ = f"output and formula differ by {row['mismatch']:.2g} of the largest output at the first call"
    if row["mismatch_left"] >= 0:
        return f"{differ}, and by {row['mismatch_left']:.1g} with this change."
    return f"{differ}; tried were {TRIED}." if row["formula_fits"] == 0 else f"{differ}."


def _remedy(row: pd.Series) -> str:
    describe = "If the layer is meant to do so, describe it with bnprobe.register_norm."
    names = _names(row["computes_instead"])
    over = next((name for name in names if name.startswith("over ")), "")
    if "samples" in over:
        return f"Each output depends on the rest of the batch. Check the dimensions of the mean in its forward. {describe}"
    if "positions" in over:
        return (
            "Each position depends on all others, so a causal model sees what comes later, and padding changes the result. "
            "Check the dimensions of the mean in its forward; after a change, retrain: the weights fit what it does now. "
            f"{describe}"
        )
    if over or names:
        return describe
    return f"Usually something fused into the class. {describe}"


def digits_lost(evidence: Evidence) -> Iterator[Finding]:
    """Means so large that rounding takes the digits that the norm is to bring out.

    Norms whose inputs do not match their running statistics are one finding, at the first: what is wrong there runs on.
    """
    first, following = None, 0
    for finding, is_shifted in _each_digits_lost(evidence):
        if not is_shifted:
            yield finding
        elif first is None:
            first = finding
        else:
            following += 1
    if first is not None:
        more = f" So it is at {count(following, 'following norm')}." if following else ""
        yield replace(first, because=first.because + more)


def _each_digits_lost(evidence: Evidence) -> Iterator[tuple[Finding, bool]]:
    """The same for every norm by itself, and whether its inputs do not match the running statistics."""
    limits = evidence.limits
    for row, channels in evidence.sites:
        half = row["input_dtype"] in ("float16", "bfloat16")
        limit = limits.rounding_step_half if half else limits.rounding_step
        if not row["rounding_step"] > limit:
            continue
        far = channels[channels["mean_in_sds"] > limit * row["mean_in_sds_max"] / row["rounding_step"]]
        of = f" in {out_of(far, channels)}" if len(far) else ""
        first_mend = _mend_first(row, limits)
        is_shifted = bool(first_mend)
        finding = Finding(
            "info" if is_shifted and evidence.is_new else "warning",
            row["layer"],
            "Rounding takes digits that this norm is to bring out: its inputs are a large common number plus little.",
            f"the mean is {number(row['mean_in_sds_max'], 2)} standard deviations{of}, and neighboring numbers of "
            f"{row['input_dtype'] or 'float32'} lie {row['rounding_step']:.2g} standard deviations apart there (threshold "
            f"{limit:g}).",
            first_mend
            + "Subtract the common number where the inputs are made, in float64 or whole numbers, and retrain: outputs "
            "change by what rounding took. Where the mean of the inputs comes from the preceding bias, make that smaller. "
            "Until then expect other results elsewhere: runtimes that compute E[x²] − E[x]² lose all digits, or give NaN.",
            indices(far),
            row["call"],
        )
        yield finding, is_shifted


def _mend_first(row: pd.Series, limits: Limits) -> str:
    """That another input than in training comes first, where the running statistics expect no such mean."""
    if not (row["verdict"] in SHIFTED and row["shift_rms"] > limits.shift):
        return ""
    return "The inputs are not those of training here, as the running statistics show: mend that first. If it remains: "


def zero_rows(evidence: Evidence) -> Iterator[Finding]:
    """Positions whose values are lost in the norm."""
    for row in evidence.rows:
        if row["zero_rows"] > 0:
            yield Finding(
                "critical" if row["zero_rows"] >= 0.5 else "warning",
                row["layer"],
                "This norm outputs nothing but 0 or β for some rows although their inputs vary.",
                f"{row['zero_rows']:.1%} of the positions of the first call"
                + (f", which it computes in {_half(row)}." if _half(row) else "."),
                "In half precision the sum of squares overflows from inputs of 256 on, and 1 / √∞ is 0: compute the "
                f"statistics in float32: {_in_float32(row['layer'])}.",
                call=row["call"],
                remedy=remedy(InFloat32(row["layer"])),
            )


def _in_float32(layer: str) -> str:
    """The code that runs a norm in float32, its input cast, and its output cast back."""
    return (
        f"`n = {module(layer)}.float(); n.register_forward_pre_hook(lambda m, a: setattr(m, 'given', a[0].dtype) or "
        "tuple(v.float() for v in a)); n.register_forward_hook(lambda m, a, y: y.to(m.given))`"
    )


def _half(row: pd.Series) -> str:
    """The half precision it computes in, as far as its outputs show it."""
    inside = [name.removeprefix("in ") for name in _names(row["computes_instead"]) if name.startswith("in ")]
    return inside[0] if inside else str(row["input_dtype"]) * (row["input_dtype"] in ("float16", "bfloat16"))


def saturated_outputs(evidence: Evidence) -> Iterator[Finding]:
    """Outputs that stick at an end of what the module applies after the norm."""
    for row in evidence.rows:
        if row["saturated_outputs"] > evidence.limits.saturated_outputs:
            known = _words(row["computes_instead"])
            yield Finding(
                "warning",
                row["layer"],
                "Outputs of this norm are saturated: they stick at the smallest or largest value.",
                f"{row['saturated_outputs']:.1%} of the outputs of the first call (threshold "
                f"{evidence.limits.saturated_outputs:.0%})" + (f"; it {known[-1]}." if known else "."),
                "Saturated values pass no gradient. Widen the limits, or lower γ and retrain; outputs change either way.",
                call=row["call"],
            )


def constant_rows(evidence: Evidence) -> Iterator[Finding]:
    """Padding, or rows without information, that a norm is given."""
    limit = evidence.limits.constant_rows
    for row in evidence.rows:
        of_first = f"of those of the first call (threshold {limit:.0%})."
        if row["zero_positions"] > limit:
            yield Finding(
                "info",
                row["layer"],
                "Positions of zeros enter this norm, as padding does: they count in its mean and variance"
                + (
                    ", so that what it makes of a sample depends on how far that is padded."
                    if row["normalized_by"] == "sample"
                    else "."
                ),
                f"all channels are 0 at {row['zero_positions']:.1%} {of_first}",
                "Give it the real positions only, as a mask selects them, and put its outputs back in place; retrain then, "
                "since means and variances change.",
                call=row["call"],
            )
        elif row["constant_rows"] > limit:
            yield Finding(
                "info",
                row["layer"],
                "Rows of equal values enter this norm, as padding does: its output there is β.",
                f"the variance is 0 in {row['constant_rows']:.1%} {of_first}",
                "Mask these rows after the norm, and leave them out of the recording with probe.mask(m). If a gradient "
                "reaches them it is multiplied by 1 / √eps; with eps outside the root it is NaN.",
                call=row["call"],
            )


RULES = (
    Rule(
        "more-than-a-norm",
        "Does every layer do what its kind does, and no more?",
        "Recomputed from the input at the first call; a norm with its activation inside is timm's BatchNormAct2d, 2021",
        "output and formula agree",
        beyond_the_formula,
        by_hand=CODE,
    ),
    Rule(
        "digits-lost",
        "Does the input's precision hold what the norm brings out?",
        "Chan, Golub & LeVeque 1983, Algorithms for computing the sample variance; "
        "https://github.com/microsoft/onnxruntime/issues/28463",
        f"rounding of at most {DEFAULT.rounding_step:g} standard deviations at the mean, {DEFAULT.rounding_step_half:g} in "
        "half precision",
        digits_lost,
        by_hand="it takes inputs with more digits than these have",
    ),
    Rule(
        "rows-zero",
        "Does every row that varies give an output that varies?",
        "https://github.com/facebookresearch/ConvNeXt/issues/80 (squares that overflow in float16)",
        "no position whose outputs are all 0 or β",
        zero_rows,
        edits=(InFloat32,),
    ),
    Rule(
        "outputs-saturated",
        "Do outputs stay between the ends of what follows the norm?",
        "Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural networks",
        f"at most {DEFAULT.saturated_outputs:.0%} of the outputs at an end",
        saturated_outputs,
        by_hand=CODE,
    ),
    Rule(
        "rows-constant",
        "Do the rows that a norm is given vary?",
        "https://github.com/microsoft/onnxruntime/issues/21935 (NaN of constant rows elsewhere)",
        f"at most {DEFAULT.constant_rows:.0%} rows of equal values, or positions of zeros",
        constant_rows,
        by_hand=CODE,
    ),
)
