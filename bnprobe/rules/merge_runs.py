"""Where in depth a shift enters: it is told there, once, with what the norms before and behind it say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd

from bnprobe.recording.names import NOT_JUDGED, SAME, site_name
from bnprobe.rules.preprocessing import GIVE_CONSTANTS, constants_missing
from bnprobe.rules.remedies import RECALIBRATE
from bnprobe.rules.rule import Evidence, Finding


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
        do = _behind(agrees) if agrees else finding.do + _of_inputs(evidence)
        yield replace(finding, because=finding.because + _again(run.iloc[1:]), do=do)


def _runs(layers: pd.DataFrame, shifted: set[tuple[str, int]]) -> Iterator[pd.DataFrame]:
    """Neighbours in order of execution that are all shifted, or all not; what remembers nothing is left out."""
    sites = zip(layers["layer"], layers["call"], strict=True)
    moved = np.array([site in shifted for site in sites], dtype=bool)
    judged = moved | ~layers["verdict"].isin(NOT_JUDGED).to_numpy()
    layers, moved = layers.iloc[np.flatnonzero(judged)], moved[judged]
    starts = np.flatnonzero(np.diff(moved)) + 1
    for first, end in pairwise((0, *starts.tolist(), len(layers))):
        if end > first:
            yield layers.iloc[first:end]


def _again(behind: pd.DataFrame) -> str:
    """That the shift is found in norms behind, and where most."""
    if behind.empty:
        return ""
    n = len(behind)
    text = f" Found again in the {'norm' if n == 1 else f'{n} norms'} behind it"
    if behind["shift_rms"].notna().any():
        most = behind.iloc[int(behind["shift_rms"].argmax())]
        text += f", up to {most['shift_rms']:.2f} σ at {site_name(most['layer'], most['call'])}"
    return text + "."


def _of_inputs(evidence: Evidence) -> str:
    return f" {GIVE_CONSTANTS}" if constants_missing(evidence) else ""


def _behind(agrees: str) -> str:
    """Advice where a norm before agrees with its memory, so that range, mean and deviation of the inputs do."""
    return (
        f"{agrees}, before it, agrees with its memory, so look between {agrees} and this one: weights, γ, β or "
        "statistics changed there without the others (layers fine-tuned under frozen statistics, a part from another "
        "file, γ decayed). If the weights are as they should be, compare the accuracy before and after re-estimation "
        f"on training images, {RECALIBRATE}. If nothing changed, the images differ in what the first norms do not "
        "see: size, detail, light for dark."
    )
