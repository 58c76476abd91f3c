"""Where in depth a shift enters: it is reported there, once, with what the previous and the following norms say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd

from bnprobe.recording.names import NOT_JUDGED, SAME, said
from bnprobe.rules.preprocessing import GIVE_CONSTANTS, constants_missing
from bnprobe.rules.remedies import RECALIBRATE
from bnprobe.rules.rule import Evidence, Finding
from bnprobe.rules.wording import count


def merge_consecutive(evidence: Evidence, found: Iterable[Finding]) -> Iterator[Finding]:
    """Of shifts in norms that follow each other the first, with the advice for where it stands."""
    by_site = {(finding.layer, finding.call): finding for finding in found}
    agrees = ""
    for run in _runs(evidence.layers, set(by_site)):
        first = run.iloc[0]
        finding = by_site.get((first["layer"], first["call"]))
        if finding is None:
            same = run.loc[run["verdict"] == SAME, "layer"]
            agrees = str(same.iloc[-1]) if len(same) else agrees
            continue
        do = _after_match(agrees) if agrees else finding.do + _of_inputs(evidence)
        yield replace(finding, because=finding.because + _following(run.iloc[1:]), do=do)


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
        text += f", with a shift of up to {most['shift_rms']:.2f} σ at {said(most['layer'], most['call'])}"
    return text + "."


def _of_inputs(evidence: Evidence) -> str:
    return f" {GIVE_CONSTANTS}" if constants_missing(evidence) else ""


def _after_match(agrees: str) -> str:
    """Advice where the inputs of a previous norm match, so that range, mean and std of the model's inputs do."""
    match = said(agrees)
    return (
        f"Inputs still match at {match}, so look between {match} and this norm: weights, γ, β or running statistics "
        "changed there without the others (layers fine-tuned with frozen statistics, a part from another file, γ "
        "decayed). If the weights are as intended, compare the accuracy before and after re-estimating the running "
        f"statistics on training data: {RECALIBRATE}. If nothing changed, the data differ in what the first norms do not "
        "see (size, detail, inverted brightness)."
    )
