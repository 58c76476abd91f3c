"""The answer: is something wrong, and what did these norms learn; made of the numbers of the network at hand."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.measures.shape import median
from bnprobe.measures.verdict import ENOUGH
from bnprobe.recording import Recording
from bnprobe.recording.names import SAME, SHIFTED
from bnprobe.report.chapters.chapter import (
    against,
    all_norms,
    highest,
    named,
    norms,
    running_sds,
    unit_of,
)
from bnprobe.report.chapters.findings import worst_finding
from bnprobe.report.numbers import count, number, share
from bnprobe.report.vocabulary import KINDS
from bnprobe.rules.rule import Evidence

NEAR_ZERO = 1e-2
"""|γ| below which a channel's output hardly varies."""

CUTTING = ("batch_norm", "group_norm", "instance_norm")
"""Kinds of norms that an activation usually follows; what share of the values is positive matters there."""

STEADY = 1.15
"""Factor through depth below which a scale counts as the same."""


def answer(recording: Recording, tables: Tables, findings: pd.DataFrame) -> list[str]:
    """The answer in a few sentences, the verdict first."""
    fresh = untrained(tables) or begun(tables)
    # running statistics that follow the batches of this run say nothing of these
    following = tables.layers["normalized_by"].isin(("batch", "sample")) & (tables.layers["memory_moved"] > 0)
    used = tables.layers[~_never_updated(tables) & ~following]
    sentences = [
        fresh or _match(used, unit_of(recording)),
        worst_finding(findings) or ("" if fresh else _no_finding(used, unit_of(recording))),
        _what_there_is(recording),
        "" if fresh else " ".join([*_learned(tables.channels), *_outputs(tables.channels)]),
        *_scale(tables.layers, unit_of(recording)),
    ]
    return [sentence for sentence in sentences if sentence]


# Is something wrong?


def untrained(tables: Tables) -> str:
    """That the network is untrained, as far as its norms can tell; empty where one of them learned anything."""
    channels, never = tables.channels, _never_updated(tables)
    gamma, beta = channels["gamma"].dropna(), channels["beta"].dropna()
    stored = channels["running_mean"].notna()
    by_site = [channels["layer"], channels["call"]]
    # γ of the last norm of a residual branch is often 0 at the start
    at_start = (channels["gamma"].isna() | (channels["gamma"] == 1)).groupby(by_site).all()
    at_start |= (channels["gamma"] == 0).groupby(by_site).all()
    learned = not at_start.all() or (beta != 0).any()
    updated = stored.any() and bool((~never & tables.layers["layer"].isin(channels["layer"][stored])).any())
    if learned or updated or not (len(gamma) or stored.any()):
        return ""
    zeros = " or 0" if (gamma == 0).any() else ""
    before = " before this recording" if (tables.layers["memory_moved"] > 0).any() else ""
    facts = [
        *([f"every γ is 1{zeros}"] if len(gamma) else []),
        *(["every β is 0"] if len(beta) else []),
        *([f"the running statistics were never updated{before}"] if stored.any() else []),
    ]
    return f"This network is untrained: {_listing(facts)}."


def begun(tables: Tables) -> str:
    """That training has only begun, so that nothing is said of data or channels yet; empty where it went on."""
    if not Evidence.of(tables).is_new:
        return ""
    counted = tables.layers["n_batches_tracked"].max()
    after = f", after {count(int(counted), 'batch')}" if counted > 0 else ""
    affine = tables.channels["gamma"].notna().any()
    near = "its γ and β are near" if affine else "its running statistics are in good part"
    return f"This network has only begun to train: {near} their initial values{after}."


def _listing(facts: list[str]) -> str:
    if len(facts) < 3:
        return " and ".join(facts)
    return f"{', '.join(facts[:-1])}, and {facts[-1]}"


def _never_updated(tables: Tables) -> pd.Series:
    """Sites with running means of 0 and variances of 1 everywhere, before the recording."""
    channels = tables.channels
    initial = (channels["running_mean"] == 0) & (channels["running_var"] == 1)
    by_site = initial.groupby([channels["layer"], channels["call"]]).all()
    sites = zip(tables.layers["layer"], tables.layers["call"], strict=True)
    return pd.Series([bool(by_site[site]) for site in sites], index=tables.layers.index, dtype=bool)


def _match(layers: pd.DataFrame, unit: str) -> str:
    """Whether the data match the running statistics, and where they match least; nothing without any."""
    known = layers[layers["var_ratio_median"].notna()]
    if known.empty:
        return ""
    yours = "Your images" if unit == "image" else "Your inputs"
    judged, n = _judged(known)
    far = f"As far as {count(int(known['n_images'].max()), unit)} can tell, {yours[0].lower()}{yours[1:]}"
    if judged.empty:
        match, words = ("match", _typical_words) if _agree(known) else ("do not match", _worst_words)
        return f"{far} {match} the training data: {words(known)}."
    if _agree(known) and len(judged) < len(known):
        left = f"{len(known) - len(judged)} of {norms(len(known))}"
        return (
            f"{far} match the training data: {_typical_words(known)}; {left} need more {unit}s to be judged."
        )
    if _agree(known):
        return f"{yours} match the training data: {_typical_words(known)}."
    if not n:  # those that could not be judged are far off
        return f"{yours} may not match the training data: {_worst_words(known)}."
    where = f"at {all_norms(n)}" if n == len(judged) else f"at {n} of {norms(len(judged))}"
    where += " that could be judged" * (len(judged) < len(known))
    shifted = judged[judged["verdict"].isin(SHIFTED)]
    return (
        f"{yours} do not {'quite ' if _mildly(shifted) else ''}match the training data: {where} the inputs differ "
        f"significantly from the running statistics, and {_worst_words(shifted)}."
    )


def _typical_words(known: pd.DataFrame) -> str:
    ratio, shift = _typical(known)
    return (
        f"at a typical norm the mean is off by {running_sds(shift)}, and the variance is "
        f"{against(ratio, 'the running variance')}"
    )


def _worst_words(known: pd.DataFrame) -> str:
    """The variance furthest off, or where no variance is far off, the mean."""
    off = np.abs(np.log(known["var_ratio_median"].clip(lower=1e-12)))
    far = known.loc[off.idxmax()]
    if not 0.8 < far["var_ratio_median"] < 1.25:
        return f"at worst their variance is {against(far['var_ratio_median'], 'the running variance')} ({named(far)})"
    far = highest(known, "shift_rms")
    return f"at worst their mean is off by {running_sds(far['shift_rms'])} ({named(far)})"


def _mildly(known: pd.DataFrame) -> bool:
    """Whether no norm is so far off that it needs to be said bluntly."""
    return bool(known["var_ratio_median"].between(0.5, 2).all() and (known["shift_rms"] < 0.5).all())


def _typical(known: pd.DataFrame) -> tuple[float, float]:
    """Variance ratio and shift of the middle norm."""
    return median(known["var_ratio_median"].to_numpy()), median(known["shift_rms"].to_numpy())


def _is_close(ratio: float, shift: float) -> bool:
    return 0.8 < ratio < 1.25 and shift < 0.25


def _judged(known: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The norms with a verdict on whether the data match, and how many of them do not."""
    judged = known[known["verdict"].isin((SAME, *SHIFTED))]
    return judged, int(judged["verdict"].isin(SHIFTED).sum())


def _agree(known: pd.DataFrame) -> bool:
    """Whether no norm is shifted, and those that could not be judged are close, all but a few and typically."""
    judged, n = _judged(known)
    if n or len(judged) == len(known):
        return not n
    pairs = zip(known["var_ratio_median"], known["shift_rms"], strict=True)
    far = np.mean([not _is_close(ratio, shift) for ratio, shift in pairs])
    return _is_close(*_typical(known)) and bool(far < ENOUGH)


def _no_finding(layers: pd.DataFrame, unit: str) -> str:
    """That no rule warns; a mismatch below all thresholds is not nothing."""
    n = _judged(layers)[1]
    measured = layers[layers["var_ratio_median"].notna()]
    check = "Check accuracy on these data before you rely on it."
    if n:
        return f"The mismatch is significant but below the warning level. {check}"
    if not measured.empty and not _agree(measured):
        return f"Any mismatch is below the warning level, and too few {unit}s were run to judge it. {check}"
    return "No rule found a problem."


# What is there, and what was learned?


def _what_there_is(recording: Recording) -> str:
    layers = {record.layer: record.kind for record in recording.layers}
    kinds = Counter(layers.values())
    names = ", ".join(count(n, KINDS.get(kind, kind)) for kind, n in kinds.items())
    has = names if len(kinds) == 1 else f"{norms(len(layers))} ({names})"
    if len(recording.layers) > len(layers):
        has += f", called at {len(recording.layers):,} places"
    name = _called(recording.about.model)
    if recording.weights_only:
        return f"{name} has {has}. Read from the weights alone: no data were run."
    modes = {record.mode for record in recording.layers}
    mode = (
        f"in {modes.pop()} mode"
        if modes in ({"eval"}, {"train"})
        else "partly in train and partly in eval mode"
    )
    samples = count(recording.about.n_images, unit_of(recording))
    return f"{name} has {has}. Measured on {samples} {mode}."


def _called(model: str) -> str:
    """The model in a sentence: resnet20 for package.module:resnet20; a whole description has no place there."""
    name = model.rpartition(":")[2] if re.fullmatch(r"[\w.]+:\w+", model) else model
    return name if re.fullmatch(r"[\w.:-]+", name) else "This network"


def _learned(channels: pd.DataFrame) -> list[str]:
    """What γ and β were trained to."""
    gamma = channels["gamma"].dropna()
    if not len(gamma):
        return []
    if (gamma == 1).all() and not (channels["beta"].fillna(0) != 0).any():
        beta = " and every β is 0" if channels["beta"].notna().any() else ""
        return [f"Scale and shift were not trained: every γ is 1{beta}."]
    negative = int((gamma < 0).sum())
    size = f"A typical |γ| is {number(float(gamma.abs().median()), 2)}"
    signs = (
        f"; γ is negative in {count(negative, 'channel')} ({share(negative / len(gamma))})"
        if negative
        else ""
    )
    return [f"{size}{signs}.", *_switched_off(channels[channels["gamma"].abs() < NEAR_ZERO])]


def _switched_off(small: pd.DataFrame) -> list[str]:
    if small.empty:
        return []
    one, n_norms = len(small) == 1, len(small[["layer", "call"]].drop_duplicates())
    about = "β" if small["beta"].notna().all() else "0"
    return [
        f"{count(len(small), 'channel')} in {norms(n_norms)} {'has' if one else 'have'} |γ| below {NEAR_ZERO:g}: "
        f"{'its output hardly varies' if one else 'their outputs hardly vary'} about {about}."
    ]


def _outputs(channels: pd.DataFrame) -> list[str]:
    """How often outputs are positive, where that matters."""
    known = channels[channels["fires"].notna() & channels["kind"].isin(CUTTING)]
    if known.empty:
        return []
    never = int((known["fires"] == 0).sum())
    rest = (
        f"; {never:,} of {len(known):,} never {'does' if never == 1 else 'do'}"
        if never
        else ", and every channel was positive at least once"
    )
    return [
        f"A typical channel outputs a positive value {share(float(known['fires'].median()))} of the time{rest}."
    ]


def _scale(layers: pd.DataFrame, unit: str) -> list[str]:
    """How the scale of the inputs runs through norms that use each sample's own statistics."""
    known = layers[layers["own_sd"].notna()]
    if len(known) < 2:
        return []
    first, last = float(known["own_sd"].iloc[0]), float(known["own_sd"].iloc[-1])
    kinds = set(known["kind"])
    kind = KINDS.get(kinds.pop(), "norm") if len(kinds) == 1 else "per-sample norm"
    sentence = f"From the first {kind} to the last, the scale of the inputs {_course(first, last)}"
    spread = (
        median(known["own_log_var_sd"].to_numpy()) / 2
    )  # half the log of the variance is that of the scale
    varies = f"; it differs by about {share(spread)} between {unit}s" if 0 < spread < 0.5 else ""
    return [f"{sentence}{varies}."]


def _course(first: float, last: float) -> str:
    ends = f"{number(first, 2)} to {number(last, 2)}"
    if not (first > 0 and last > 0):
        return f"goes from {ends}"
    factor = max(last / first, first / last)
    if factor < STEADY:
        return f"stays about the same ({ends})"
    return f"{'grows' if last > first else 'shrinks'} by a factor of {number(factor, 2)}, from {ends}"
