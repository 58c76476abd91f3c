"""Where in depth a shift enters: it is reported there, once, with what the previous and the following norms say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd

from bnprobe.recording.names import NOT_JUDGED, SAME, said
from bnprobe.recording.terms import TORCH_EPS
from bnprobe.rules.causes import cause_of
from bnprobe.rules.course import PASSED_ON, Course, course_of, grown_by_a_sum, outgrows
from bnprobe.rules.preprocessing import GIVE_CONSTANTS, constants_missing, reported_at
from bnprobe.rules.remedies import RECALIBRATE
from bnprobe.rules.rule import Evidence, Finding
from bnprobe.rules.wording import count, first_few, sigmas
from bnprobe.severity import SEVERITIES


def merge_consecutive(
    evidence: Evidence, found: Iterable[Finding], elsewhere: Collection[str] = ()
) -> Iterator[Finding]:
    """Of shifts in norms that follow each other the first, with the advice for where it stands.

    Those that begin with inputs that were not preprocessed as in training, or at one of the norms that are reported
    `elsewhere`, belong to that finding. Where the advice for several is the same, they are one finding at the first.
    """
    alike: dict[str, list[Finding]] = {}
    for finding in _where_shifts_enter(evidence, found, elsewhere):
        alike.setdefault(finding.do, []).append(finding)
    yield from (_with_others(*findings) for findings in alike.values())


def _with_others(finding: Finding, *others: Finding) -> Finding:
    """A finding that names further places of which the same is said."""
    if not others:
        return finding
    places = first_few([said(other.layer, other.call) for other in others])
    more = f" So it is again at {places}, between which inputs match better."
    severity = min((one.severity for one in (finding, *others)), key=SEVERITIES.index)
    return replace(finding, severity=severity, because=finding.because + more)


def _where_shifts_enter(
    evidence: Evidence, found: Iterable[Finding], elsewhere: Collection[str]
) -> Iterator[Finding]:
    """A finding for each run of norms that are off, with the advice for where it begins."""
    by_site = {(finding.layer, finding.call): finding for finding in found}
    inputs, agrees, blind = reported_at(evidence), "", _ruled_by_eps(evidence)
    before = None  # the norms before the first shift
    for i, run in enumerate(_runs(evidence.layers, {*by_site, (inputs, 0)})):
        if run.iloc[0]["layer"] in (inputs, *elsewhere):
            run = _not_passed_on(run)
            if not len(run):
                continue
        first = run.iloc[0]
        finding = by_site.get((first["layer"], first["call"]))
        if finding is None:
            same = run.loc[(run["verdict"] == SAME) & ~run["layer"].isin(blind), "layer"]
            agrees = str(same.iloc[-1]) if len(same) else agrees
            before = run.iloc[-1] if i == 0 else None
            continue
        said = replace(finding, because=finding.because + _following(run.iloc[1:]))
        if cause_of(evidence, first) is None:
            slight = evidence.limits.slight
            nearly = "" if agrees or before is None else _nearly_matches(before, first, blind, slight)
            said = _by_course(said, evidence, blind, agrees, nearly)
        yield said


def _nearly_matches(previous: pd.Series, first: pd.Series, blind: Collection[str], slight: float) -> str:
    """The norm before a shift, where it is off by little, and by less than the inputs could pass on; else empty.

    What is off by more than a little may be passed on many times larger: an average takes away what varies, and leaves
    what moved.
    """
    little = previous["discrepancy"] <= slight and previous["layer"] not in blind
    near = little and first["discrepancy"] > PASSED_ON * previous["discrepancy"]
    return str(previous["layer"]) if near else ""


def _not_passed_on(run: pd.DataFrame) -> pd.DataFrame:
    """What is left of a run whose beginning is explained: from the first norm that is off by more than it could pass on.

    Through norms that use their running statistics a discrepancy of the inputs fades, or grows a little; wrong statistics
    of the norms behind make a jump.
    """
    beyond = (run["discrepancy"] > PASSED_ON * run["discrepancy"].iloc[0]).to_numpy()
    return run.iloc[int(beyond.argmax()) if beyond.any() else len(run) :]


def _ruled_by_eps(evidence: Evidence) -> set[str]:
    """Norms whose match says little: most of what they divide by is eps, beside which other inputs look the same."""
    return {
        str(row["layer"])
        for row, channels in evidence.sites
        if float(channels["running_var"].median()) < row["eps"]
    }


def _by_course(
    finding: Finding, evidence: Evidence, blind: Collection[str], agrees: str, nearly: str
) -> Finding:
    """A shift whose cause is not known at its norm, with what its course through the network says.

    Where eps hides what the first norm is given, nothing is known of the inputs, and so of the course. `agrees` is a
    previous norm that matches, or else `nearly` one that is off by far less.
    """
    if evidence.begun_again:  # the finding says so already, and its advice is the first
        return replace(finding, do=finding.do + _of_inputs(evidence))
    judged = evidence.layers[~evidence.layers["verdict"].isin(NOT_JUDGED)]
    layers = judged[~judged["layer"].isin(blind)]
    known = not judged.empty and judged["layer"].iloc[0] not in blind
    course = course_of(layers) if known else Course("")
    if course.shrinks:
        return replace(
            finding,
            says=f"{finding.says.rstrip('.')}, and from norm to norm the variance falls further behind.",
            because=f"{finding.because} {_fall(layers)}.",
            do=_of_eps(evidence) + SHRINKING,
        )
    first_is_off = known and layers["discrepancy"].iloc[0] > evidence.limits.slight
    if course.kind == "growing" or (known and first_is_off and outgrows(layers)):
        return replace(
            finding,
            says=f"{finding.says.rstrip('.')}, by more from norm to norm.",
            because=f"{finding.because} {_growth(layers)}.",
            do=_of_eps(evidence) + (_outgrown(layers) if first_is_off else after_sum(layers) + GROWING),
        )
    if agrees or nearly:
        return replace(finding, do=(after_sum(layers) if known else "") + _after_match(agrees, nearly))
    return replace(finding, do=finding.do + _of_inputs(evidence))


def _outgrown(layers: pd.DataFrame) -> str:
    """Advice where the first norm is off, and later ones by more than that could pass on."""
    first = float(layers["discrepancy"].iloc[0])
    return OUTGROWN.format(otherwise=BEFORE_EACH if first >= FIRST_SEES else IN_DETAIL)


def _of_eps(evidence: Evidence) -> str:
    """That eps may be larger than in training, where it is a good part of what the norms divide by and the variance falls;
    else empty."""
    ratios = evidence.layers["var_ratio_median"].dropna()
    if ratios.empty or not ratios.iloc[-1] < 1:
        return ""
    parts = [
        float((row["eps"] / (channels["running_var"] + row["eps"])).median())
        for row, channels in evidence.sites
        if channels["running_var"].notna().any()
    ]
    part, eps = float(np.median(parts)), float(evidence.layers["eps"].max())
    if not part >= EPS_COUNTS:
        return ""
    return (
        f"eps is {eps:g}, {part:.0%} of what a typical norm divides by: if training had a smaller one, that alone makes "
        "every norm pass on less. Compare it with training first; torch's own, to try: "
        f'`for n in filter(lambda m: hasattr(m, "eps"), model.modules()): n.eps = {TORCH_EPS:g}`. If eps is right: '
    )


def after_sum(layers: pd.DataFrame) -> str:
    """What adds more to a residual stream than in training, where that begins at a sum; else empty."""
    last = grown_by_a_sum(layers)
    return AFTER_SUM.format(last=said(last)) if last else ""


def _fall(layers: pd.DataFrame) -> str:
    known = layers[layers["var_ratio_median"].notna()]
    return "Typical variance relative to the running one, by depth: " + _through(known, "var_ratio_median")


def _growth(layers: pd.DataFrame) -> str:
    known = layers[layers["discrepancy"].notna()]
    return "Discrepancy in mean and std together, by depth: " + _through(known, "discrepancy")


def _through(known: pd.DataFrame, column: str) -> str:
    """The first, the last, and up to three norms between them."""
    at = np.unique(np.linspace(0, len(known) - 1, min(len(known), 5)).round().astype(int))
    return ", ".join(f"{known[column].iloc[i]:.2g} at {known['layer'].iloc[i]}" for i in at)


def _runs(layers: pd.DataFrame, shifted: set[tuple[str, int]]) -> Iterator[pd.DataFrame]:
    """Neighbors in order of execution that are all shifted, or all not; norms without usable statistics are left out."""
    sites = zip(layers["layer"], layers["call"], strict=True)
    moved = np.array([site in shifted for site in sites], dtype=bool)
    judged = moved | ~layers["verdict"].isin(NOT_JUDGED).to_numpy()
    layers, moved = layers.iloc[np.flatnonzero(judged)], moved[judged]
    starts = np.flatnonzero(np.diff(moved)) + 1
    for first, end in pairwise((0, *starts.tolist(), len(layers))):
        if end > first:
            yield layers.iloc[first:end]


def _following(norms: pd.DataFrame) -> str:
    """That the norms that follow are shifted as well, and which most."""
    if norms.empty:
        return ""
    text = f" {count(len(norms), 'following norm')} {'is' if len(norms) == 1 else 'are'} affected too"
    if norms["shift_rms"].notna().any():
        most = norms.iloc[int(norms["shift_rms"].argmax())]
        text += (
            f", with a shift of up to {sigmas(most['shift_rms'])} σ at {said(most['layer'], most['call'])}"
        )
    return text + "."


def _of_inputs(evidence: Evidence) -> str:
    return f" {GIVE_CONSTANTS}" if constants_missing(evidence) else ""


EPS_COUNTS = 0.05
"""Part of the variance that norms divide by from which eps may be what shrinks outputs: with torch's own it is 1e-4 or less
as a rule."""

PORTED = "another activation, tensors joined in another order, kernels or gates that a converter left in another layout"
"""What a port of a network does otherwise between two norms, where all shapes still agree."""

SHRINKING = (
    "Images cannot do this: another contrast changes the variance by about the same factor everywhere. The weights "
    "changed and the running statistics did not: weights averaged or interpolated between networks, quantized or pruned; "
    f"or a port computes something else between norms ({PORTED}). If it does not, re-estimate the running statistics on "
    f"training data, and compare the accuracy before and after: {RECALIBRATE}."
)

GROWING = (
    "No single norm is at fault, and the first ones match, so the range, mean and std of the inputs are right: the weights "
    "changed a little everywhere while the running statistics stayed (statistics of an earlier checkpoint, fine-tuned with "
    "frozen statistics, averaged, quantized, pruned), a module acts in training alone (branches that are dropped, and not "
    f"divided by the share that is kept), a port computes something else between norms ({PORTED}; or norms that stand "
    "after weights and not before them), or the data differ in what the first norms do not see. If weights and code are "
    "as intended, compare the accuracy before and after re-estimating the running statistics on training data: "
    f"{RECALIBRATE}."
)

OUTGROWN = (
    "Another range, mean or std of the inputs does not do this: what is off there fades from norm to norm, or hardly more "
    "than doubles. Either weights and running statistics are not of one moment: statistics of an earlier checkpoint, "
    "weights that were fine-tuned with frozen statistics, averaged or pruned. Then load both from one checkpoint. Or "
    "{otherwise}. If weights, code and inputs are as intended, compare the accuracy before and after re-estimating the "
    f"running statistics on training data: {RECALIBRATE}."
)
IN_DETAIL = (
    "the inputs differ in detail, which the first norm hardly sees: blur, noise, compression, another size. Look at some "
    "beside those of training"
)
BEFORE_EACH = (
    "the same step before every norm computes something else than in training: a sum over neighbors where training took "
    "their mean, weights with another scale, another activation"
)
FIRST_SEES = 1.0
"""Discrepancy of the first norm from which it is no matter of detail."""

AFTER_SUM = (
    "Inputs match up to the sum that {last} enters, and vary more after it. Branches that training drops (stochastic depth) "
    "and does not divide by the share that is kept do this: in eval mode all of them are added, in full. If there are any, "
    "multiply each branch by that share in eval mode. If not: "
)


def _after_match(agrees: str, nearly: str) -> str:
    """Advice where the inputs of a previous norm match, so that range, mean and std of the model's inputs do."""
    match, how = said(agrees or nearly), "still match" if agrees else "match far better"
    return (
        f"Inputs {how} at {match}, so look between {match} and this norm. Either weights, γ, β or running statistics "
        "changed there without the others (running statistics of an earlier checkpoint, layers fine-tuned with frozen "
        f"statistics, a part from another file, γ decayed), or a port computes something else there ({PORTED}), or the data "
        "differ from the training data in what the first norms do not see (other scenes, size, detail, inverted "
        "brightness). If weights and code are as intended, compare the accuracy before and after re-estimating the running "
        f"statistics on training data: {RECALIBRATE}."
    )
