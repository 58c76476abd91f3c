"""What to say of a recording that has nothing to report."""

from __future__ import annotations

from bnprobe.recording import Recording
from bnprobe.report.numbers import count


def nothing_seen(recording: Recording) -> str:
    """What to say of a recording without a single call."""
    if any(not part.saw_nothing for part in recording.parts):
        names = list(recording.phases)
        return f"all was recorded in phases ({', '.join(names)}). Pass one of them: recording.phases[{names[0]!r}]."
    if recording.layers:
        return (
            f"{count(recording.about.n_forwards, 'forward pass')} seen, but without a single value: the batches were "
            "empty. Give batches with at least one sample."
        )
    if recording.about.notes and recording.about.n_forwards:
        return f"{count(recording.about.n_forwards, 'forward pass')} seen. {' '.join(recording.about.notes)}"
    n = len(recording.never_called)
    if recording.about.notes and not n:
        return f"no norm of inputs was called. {' '.join(recording.about.notes)}"
    return (
        f"attached to {count(n, 'layer')}, and no forward pass that completed called {'it' if n == 1 else 'one'}. Run the "
        "object you attached to; a deepcopy, an exported graph, a wrapper compiled earlier or a norm that forward itself "
        "makes does not report here."
    )
