"""Two parts of one recording made one, unless they are none: other settings, another model, or the same samples."""

from __future__ import annotations

from bnprobe.errors import CannotMerge
from bnprobe.recording import Recording, same_samples
from bnprobe.scaling.apart import with_gaps
from bnprobe.scaling.stages import are_stages, side_by_side

SAME_RANKS = (
    "Give each rank data of its own (DistributedSampler), or leave one out; with tensor parallelism only the ranks of the "
    "data-parallel group count."
)


OF_STAGES = ("models", "recorded norms", "modes")
"""What stages of a pipeline need not have in common."""


def join(mine: Recording, theirs: Recording) -> Recording:
    """Both parts together. Raises CannotMerge, which names one part of each side, where they do not belong together."""
    names = f"{called(mine)} and {called(theirs)}"
    twice = same_samples(mine.seen, theirs.seen)
    if twice is not None:
        a, b = twice
        raise CannotMerge(
            f"{a.name or called(mine)} and {b.name or called(theirs)} hold the same samples, which would be counted twice. "
            f"{SAME_RANKS if a.kind == b.kind == 'rank' else 'Leave one of them out.'}"
        )
    stages = are_stages(mine, theirs)
    here, there = (_settings(part, OF_STAGES if stages else ()) for part in (mine, theirs))
    for what in here:
        if what in there and here[what] != there[what]:
            raise CannotMerge(
                f"{names}: {what} differ ({here[what] or 'none'}; {there[what] or 'none'}). Record all parts with the same "
                "settings."
            )
    try:
        return side_by_side(mine, theirs) if stages else mine.merge(with_gaps(mine, theirs))
    except CannotMerge as error:
        raise CannotMerge(f"{names}: {error}") from None


def called(recording: Recording) -> str:
    """What messages call a part, or a whole by its first part."""
    return next((source.name for source in recording.sources if source.name), recording.about.model)


def _settings(recording: Recording, beside: tuple[str, ...]) -> dict[str, str]:
    """What must be the same of all parts but for what is `beside`, by name and in words.

    Of a part that no data reached less is known.
    """
    about, layers = recording.about, [r for part in (recording, *recording.parts) for r in part.layers]
    norms = sorted({record.layer for record in layers}.union(recording.never_called))
    known = {
        "models": about.model,
        "recorded norms": f"{len(norms):,}, {', '.join(norms)[:60]}",
        "preprocessings": about.preprocessing,
        "constants of normalization": "" if about.normalize is None else str(about.normalize),
        "units": about.unit,
    }
    if layers:
        known |= {
            "modes": ", ".join(sorted({record.mode for record in layers})),
            "histograms": "with" if any(record.pre_histogram for record in layers) else "without",
            "gradients": "with" if any(record.gradient for record in layers) else "without",
        }
    return {what: said for what, said in known.items() if what not in beside}
