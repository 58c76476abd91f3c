"""How far two ranks are apart that are merged: in what they were fed, and in the running statistics that they store."""

from __future__ import annotations

from dataclasses import replace

from bnprobe.recording import LayerRecord, Recording, gap_between
from bnprobe.recording.source import are_ranks


def with_gaps(mine: Recording, theirs: Recording) -> Recording:
    """`theirs` with the distance of its sites from those of `mine`, where both are ranks.

    Ranks of one model whose running statistics drifted apart are merged all the same: the whole has those of `mine`, and
    says how far the others are. That it is one model is known by its other weights.
    """
    if not are_ranks(mine.sources, theirs.sources):
        return theirs
    known = mine.tensors is not None and theirs.tensors is not None
    one_model = known and not mine.other_tensors(theirs)
    pair = f"{_ranks(mine)} and {_ranks(theirs)}"
    there = {(record.layer, record.call): record for record in mine.layers}
    records = (
        _beside(there[record.layer, record.call], record, pair, one_model)
        if (record.layer, record.call) in there
        else record
        for record in theirs.layers
    )
    return replace(theirs, layers=tuple(records))


def _ranks(recording: Recording) -> str:
    """Which ranks a part holds, in words."""
    first, last = (end(source.index or 0 for source in recording.sources) for end in (min, max))
    return f"rank {first}" if first == last else f"ranks {first} to {last}"


def _beside(mine: LayerRecord, theirs: LayerRecord, pair: str, one_model: bool) -> LayerRecord:
    """The record of the second part, noting how far it is from the first."""
    if mine.pre.shape != theirs.pre.shape:
        return theirs  # merging says so
    gap = gap_between(mine, theirs, pair)
    noted = replace(theirs, ranks=gap if theirs.ranks is None else theirs.ranks.merge(gap))
    return _with_statistics_of(mine, noted) if one_model and gap.stored > 0 else noted


def _with_statistics_of(mine: LayerRecord, theirs: LayerRecord) -> LayerRecord:
    """With the running statistics of the first part, before and after, as one model has one set of them."""
    log, other = mine.call_log, theirs.call_log
    if log is not None and other is not None:
        other = replace(
            other, running_mean_after=log.running_mean_after, running_var_after=log.running_var_after
        )
    return replace(theirs, running_mean=mine.running_mean, running_var=mine.running_var, call_log=other)
