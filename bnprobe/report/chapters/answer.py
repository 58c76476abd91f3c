"""The sentences of the page, made of the numbers of the network at hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.measures.shape import median
from bnprobe.measures.verdict import ENOUGH
from bnprobe.recording import Recording
from bnprobe.recording.names import SAME, SHIFTED
from bnprobe.report.chapters.chapter import KINDS, named
from bnprobe.report.numbers import count, listed, number, share


def answer(recording: Recording, tables: Tables, findings: pd.DataFrame) -> list[str]:
    """The answer in a few sentences, made of this network's numbers."""
    sentences = [
        _what_there_is(recording),
        *_memory(tables.layers[~_fresh(tables)]),
        *_learned(tables.channels),
        *_own(tables.layers),
        _verdict(findings, tables.layers[~_fresh(tables)]),
    ]
    return [sentence for sentence in sentences if sentence]


def _what_there_is(recording: Recording) -> str:
    layers = {record.layer: record.kind for record in recording.layers}
    kinds = Counter(layers.values())
    names = ", ".join(count(n, KINDS.get(kind, kind)) for kind, n in kinds.items())
    where = names if len(kinds) == 1 else f"{count(len(layers), 'norm')} ({names})"
    if len(recording.layers) > len(layers):
        where += f", called in {len(recording.layers):,} places"
    if recording.weights_only:
        return f"{recording.about.model} holds {where}. No data went through: this is what the stored vectors say."
    modes = {record.mode for record in recording.layers}
    mode = f"in {modes.pop()} mode" if len(modes) == 1 else "in more than one mode"
    return (
        f"{recording.about.model} holds {where}; "
        f"{count(recording.about.n_images, 'image')} went through it {mode}."
    )


def _fresh(tables: Tables) -> pd.Series:
    """Which sites remember nothing: running means of 0 and variances of 1 everywhere."""
    channels = tables.channels
    initial = (channels["running_mean"] == 0) & (channels["running_var"] == 1)
    by_site = initial.groupby([channels["layer"], channels["call"]]).all()
    sites = zip(tables.layers["layer"], tables.layers["call"], strict=True)
    return pd.Series([bool(by_site[site]) for site in sites], index=tables.layers.index, dtype=bool)


def _memory(layers: pd.DataFrame) -> list[str]:
    """Whether the data look like what the running statistics remember, and where they do not."""
    known = layers[layers["var_ratio_median"].notna()]
    if known.empty:
        return []
    ratio, shift = _typical(known)
    off = np.abs(np.log(known["var_ratio_median"].clip(lower=1e-12)))
    far = known.loc[off.idxmax()]
    judged, n = _judged(known)
    words = "look much like" if _agree(known) else "differ from"
    where = f" at {n} of {count(len(known), 'norm')}" if 0 < n < len(known) else ""
    unsure = ", as far as so few images can tell" if judged.empty else ""
    text = (
        f"The data {words} what the batch norms remember of their training set{where}{unsure}: "
        f"typically the mean lies {number(shift, 2)} remembered deviations away and the variance is "
        f"{number(ratio, 2)} times the remembered one"
    )
    if len(known) > 2 and not 0.8 < far["var_ratio_median"] < 1.25:
        text += f"; the variance is furthest off at {named(far)} ({number(far['var_ratio_median'], 2)})"
        if far.name != known.index[-1]:
            last = known.iloc[-1]
            text += f", and {number(last['var_ratio_median'], 2)} at the last norm, {named(last)}"
    return [text + "."]


def _typical(known: pd.DataFrame) -> tuple[float, float]:
    """Variance ratio and shift of the middle norm."""
    return median(known["var_ratio_median"].to_numpy()), median(known["shift_rms"].to_numpy())


def _is_close(ratio: float, shift: float) -> bool:
    return 0.8 < ratio < 1.25 and shift < 0.25


def _judged(known: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The norms with a verdict on whether the data look as remembered, and how many of them are shifted."""
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


def _learned(channels: pd.DataFrame) -> list[str]:
    """What gamma and beta say, and what the outputs do."""
    sentences = []
    gamma, fires = channels["gamma"].dropna(), channels["fires"].dropna()
    if len(gamma) and not (gamma == 1).all():
        negative, small = int((gamma < 0).sum()), int((gamma.abs() < 1e-2).sum())
        sentences.append(
            f"The learned scale is typically {number(float(gamma.abs().median()), 2)}; it is negative in "
            f"{_of_channels(negative, len(gamma))}, and {_of_channels(small, len(gamma))} "
            f"{'were' if small > 1 else 'was'} switched off (|γ| < 0.01)."
        )
    if len(fires):
        never = int((fires == 0).sum())
        sentences.append(
            f"After the norm the typical channel is positive for {share(float(fires.median()))} of its values; "
            f"{_of_channels(never, len(fires))} {'were' if never > 1 else 'was'} never positive."
        )
    return sentences


def _of_channels(n: int, total: int) -> str:
    """So many channels, with their share."""
    return f"{count(n, 'channel')} ({share(n / total)})" if n else "no channel"


def _own(layers: pd.DataFrame) -> list[str]:
    """How the statistics of norms without memory run through depth."""
    known = layers[layers["own_sd"].notna()]
    if len(known) < 2:
        return []
    first, last = known.iloc[0], known.iloc[-1]
    steady = median(known["own_log_var_sd"].to_numpy())
    return [
        f"What the norms without memory divide by goes from {number(first['own_sd'], 2)} at {named(first)} "
        f"to {number(last['own_sd'], 2)} at {named(last)}; from sample to sample its logarithm varies by "
        f"{number(steady / 2, 2)}."
    ]


def _verdict(findings: pd.DataFrame, layers: pd.DataFrame) -> str:
    serious = findings[findings["severity"] != "info"]
    if serious.empty:
        return _no_rule(layers)
    rules = [f"{rule} ({count(len(group), 'place')})" for rule, group in serious.groupby("rule", sort=False)]
    return f"Worth a look: {listed(rules, 4)}."


def _no_rule(layers: pd.DataFrame) -> str:
    """No rule warns; where data differ from the memory by less than its thresholds, that is not nothing."""
    known, n = _judged(layers)
    measured = layers[layers["var_ratio_median"].notna()]
    if not n and (measured.empty or _agree(measured)):
        return "No rule found anything to worry about."
    differ = f"are surely shifted in {n} of {count(len(known), 'norm')}, by" if n else "differ by"
    return (
        f"No rule warns, but the data {differ} less than the thresholds: measure the accuracy on these data before "
        "relying on it."
    )
