"""Which samples drive the channels: how often those with the highest outputs are of one class, and what chance gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.measures.exemplars import chance, of_samples, purity
from bnprobe.recording import LayerRecord, Recording, SampleTable
from bnprobe.report.chapters.chapter import named, unit_of
from bnprobe.report.colours import EXPECTED, MEASURED
from bnprobe.report.figures.from_tables import by_depth, level
from bnprobe.report.figures.specs import Curves, Line
from bnprobe.report.numbers import count, share, shorten, visible
from bnprobe.report.page.blocks import Figure, Prose, Section
from bnprobe.stats.exemplars import NOBODY
from bnprobe.stats.moments import Array

TITLE = "Which samples drive the channels"


@dataclass(frozen=True)
class Purity:
    """By norm, in the order of the table of layers: the mean share of the most frequent class among the exemplars of a
    channel, highest and lowest, and what as many samples drawn at random have; NaN where there are no labels."""

    high: Array
    low: Array
    chance: Array

    @property
    def known(self) -> bool:
        """Whether any exemplars have labels."""
        return bool(np.isfinite(self.high).any())


def purities(recording: Recording) -> Purity:
    """Of every norm."""
    rows = [_purity(record, recording.samples) for record in recording.layers]
    return Purity(*np.array(rows, dtype=np.float64).reshape(-1, 3).T)


def _purity(record: LayerRecord, table: SampleTable | None) -> tuple[float, float, float]:
    nothing = float("nan")
    if record.exemplars is None or table is None or record.classes is None or len(record.classes.n) < 2:
        return nothing, nothing, nothing
    high, low = purity(record, table)
    if not (np.isfinite(high).any() and np.isfinite(low).any()):
        return nothing, nothing, nothing
    k = _labelled(record, table)
    return float(np.nanmean(high)), float(np.nanmean(low)), chance(record.classes.n, k)


def _labelled(record: LayerRecord, table: SampleTable) -> int:
    """How many exemplars on a side of a channel have a label: of the typical channel."""
    assert record.exemplars is not None
    sample = record.exemplars.sample
    known = np.append(np.isfinite(table.labels), False)[sample.astype(np.int64)] & (sample != NOBODY)
    return int(np.median(known.sum(axis=2)))


def chapter(recording: Recording, tables: Tables) -> tuple[Section, ...]:
    """The section; none where no exemplars were kept."""
    kept = [record.exemplars.k for record in recording.layers if record.exemplars is not None]
    if recording.samples is None or not kept:
        return ()
    found, unit, k = purities(recording), unit_of(recording), kept[0]
    words = [_words(found, tables.layers, unit, k)]
    if recording.about.n_images < k:
        words.append(
            f"{count(recording.about.n_images, unit)} went through the model, so a channel has no more than that on either "
            f"side, and not the {k:,} that were asked for."
        )
    words.append("Choose a channel in a layer above to see its samples; `report.exemplars` has all of them.")
    blocks = (Prose(tuple(words)), *((_figure(found, tables.layers, k),) if found.known else ()))
    return (Section("exemplars", TITLE, blocks, short="Samples"),)


def _words(found: Purity, layers: pd.DataFrame, unit: str, k: int) -> str:
    if not found.known:
        return (
            f"For each channel the {k:,} {unit}s with the highest and the {k:,} with the lowest outputs were kept. Without "
            "labels nothing can be said of their classes."
        )
    there = np.flatnonzero(np.isfinite(found.high))
    first, last = int(there[0]), int(there[-1])
    of_them = f"of the {k:,} {unit}s that raise a channel most, {share(float(found.high[first]))} are of one class at "
    text = f"On average, {of_them}{named(layers.iloc[first])}"
    if first != last:
        text += f" and {share(float(found.high[last]))} at {named(layers.iloc[last])}"
    return (
        f"{text}; of {k:,} drawn at random it would be {share(float(found.chance[last]))}. Of those that lower it most, "
        f"{share(float(found.low[last]))}{f' at {named(layers.iloc[last])}' if first != last else ''}."
    )


def _figure(found: Purity, layers: pd.DataFrame, k: int) -> Figure:
    known = np.isfinite(found.high)
    panel = Curves(
        f"share of the most frequent class among a channel's {k} samples (mean over channels)",
        (
            level(found.chance[known], "drawn at random"),
            Line(found.high[known], "highest outputs", MEASURED),
            Line(found.low[known], "lowest outputs", EXPECTED),
        ),
        limits=(0, 1),
        unit="share",
    )
    return Figure(
        "exemplars",
        "How often the samples with the highest and lowest outputs of a channel are of one class, by depth, and by chance.",
        by_depth(layers[known], (panel,)),
        "Samples count by their mean after the norm. Chance is exact for samples drawn without replacement from the labeled "
        "ones of this run.",
    )


def purest(recording: Recording, tables: Tables) -> str:
    """The channel whose highest samples are most of one class, as a sentence; empty without labels.

    The deepest of several that are alike. The best of many is not typical, so it says of how many, and how many are alike.
    """
    table = recording.samples
    found = [
        np.zeros(0)
        if table is None or np.isnan(_purity(record, table)[0])
        else np.nan_to_num(purity(record, table)[0])
        for record in recording.layers
    ]
    if table is None or not any(map(len, found)):
        return ""
    most = max(float(one.max()) for one in found if len(one))
    i = max(i for i, one in enumerate(found) if len(one) and one.max() == most)
    channel, record = int(found[i].argmax()), recording.layers[i]
    assert record.exemplars is not None
    assert record.classes is not None
    sample = record.exemplars.sample[0, channel]
    labels = pd.Series(of_samples(table)["label"][sample[sample != NOBODY].astype(np.int64)]).dropna()
    common, n = labels.value_counts(), len(labels)
    alike, channels = sum(int((one == most).sum()) for one in found), sum(map(len, found))
    among = (
        f"the purest of {channels:,} channels"
        if alike == 1
        else f"{alike:,} of {channels:,} channels are as pure"
    )
    return (
        f"Of the {n:,} {unit_of(recording)}s that raise channel {channel} of {named(tables.layers.iloc[i])} most, "
        f"{int(common.iloc[0]):,} are of class {visible(shorten(str(common.index[0]), 30))}; {among}. Of {n:,} drawn "
        f"at random, {share(chance(record.classes.n, n))} would be of one class."
    )
