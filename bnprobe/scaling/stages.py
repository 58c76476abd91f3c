"""Ranks that are stages of a pipeline: each holds some of the norms, and all see the same samples."""

from __future__ import annotations

from dataclasses import replace

from bnprobe.errors import CannotMerge
from bnprobe.recording import Recording, TensorTable, common_samples
from bnprobe.recording.source import are_ranks


def are_stages(mine: Recording, theirs: Recording) -> bool:
    """Whether two ranks, or sums of ranks, reached norms of which none is the same."""
    if not are_ranks(mine.sources, theirs.sources):
        return False
    here, there = ({record.layer for record in part.layers} for part in (mine, theirs))
    return bool(here and there and not here & there)


def side_by_side(mine: Recording, theirs: Recording) -> Recording:
    """The norms of both stages; samples and passes are those of one. Raises CannotMerge where their numbers differ."""
    if mine.about.n_images != theirs.about.n_images:
        raise CannotMerge(
            f"they recorded other norms, and {mine.about.n_images:,} and {theirs.about.n_images:,} samples, while stages of "
            "a pipeline see the same samples. Gather over the data-parallel group of each stage first, then over the stages."
        )
    first, second, samples = common_samples(mine.layers, mine.samples, theirs.layers, theirs.samples)
    reached = {record.layer for record in (*first, *second)}
    never = dict.fromkeys((*mine.never_called, *theirs.never_called))
    phases = {**mine.phases, **theirs.phases}
    phases |= {
        name: side_by_side(part, theirs.phases[name])
        for name, part in mine.phases.items()
        if name in theirs.phases
    }
    about = mine.about
    return replace(
        mine,
        about=replace(
            about.merge(theirs.about),
            n_parameters=about.n_parameters + theirs.about.n_parameters,
            n_forwards=about.n_forwards,
            n_skipped=about.n_skipped,
            n_images=about.n_images,
            n_positions=about.n_positions,
            n_masked=about.n_masked,
            seconds=max(about.seconds, theirs.about.seconds),
        ),
        layers=(*first, *second),
        not_understood=tuple(sorted({*mine.not_understood, *theirs.not_understood})),
        never_called=tuple(name for name in never if name not in reached),
        folded=tuple(sorted({*mine.folded, *theirs.folded})),
        integrity=None if mine.integrity is None else mine.integrity.merge(theirs.integrity),
        tensors=_tensors(mine.tensors, theirs.tensors),
        dropouts=(*mine.dropouts, *theirs.dropouts),
        parts=tuple(phases.values()),
        sources=mine.seen + theirs.seen,
        samples=samples,
    )


def _tensors(mine: TensorTable | None, theirs: TensorTable | None) -> TensorTable | None:
    """Those of both stages; None where one does not know its own."""
    return None if mine is None or theirs is None else mine.beside(theirs)
