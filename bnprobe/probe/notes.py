"""The notes of a recording: which calls are missing from it, which were recorded in another way, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from bnprobe.probe.functional_calls import MOST_SIZES, Unhooked
from bnprobe.probe.phases import Phase
from bnprobe.probe.survey.compiled import Eager
from bnprobe.recording.names import said_passes

LATE_BACKWARD = (
    "A backward pass ran after the probe was detached, so its gradients were not recorded. Call backward() before "
    "detach(), inside the with block."
)


TWO_PROBES = (
    "Another probe was attached to this model at the same time. Each records as if it were alone, and a pass takes as long "
    "as with both. If it was left over, as in a notebook, detach it: probe.detach()."
)


def notes(
    phase: Phase,
    apart: bool,
    unhooked: Unhooked,
    eager: Eager,
    until: int | None = None,
    shares: bool = False,
) -> Iterator[str]:
    """Sentences for the report: the fact, and what to do about it. `apart` says whether phases are kept apart, `until` after
    how many passes of each recording was to end, and `shares` whether another probe was attached as well."""
    if shares:
        yield TWO_PROBES
    if phase.n_unreadable:
        yield (
            f"{_calls(phase.n_unreadable)} not recorded: "
            f"{'; '.join(sorted(phase.unreadable)) or 'the input did not have the shape that the layer takes'}. "
            "Run the model on plain tensors of floating-point numbers to record it."
        )
    if eager.late:
        yield (
            "The model was compiled while the probe was attached. Compiled code does not call hooks, so the forward "
            "passes until this was noticed are missing; after that the model ran uncompiled. Compile it after detach()."
        )
    elif eager.held:
        yield "Compiled parts ran uncompiled while the probe was attached, because compiled code does not call hooks."
    for name, n in unhooked.direct.items():
        yield (
            f"{name}: forward was called directly {_times(n)}, which skips hooks. It was recorded from the function that "
            "it calls, but hooks registered by others did not run. Call the module itself."
        )
    for name in sorted(unhooked.crowded):
        yield (
            f"{name}: called with more than {MOST_SIZES} different numbers of channels, as a norm over sequences of any "
            f"length is. Only calls with the first {MOST_SIZES} were recorded. Use inputs of one size to record all."
        )
    if unhooked.n_standardized:
        yield (
            f"F.batch_norm was called {_times(unhooked.n_standardized)} to standardize weights. No inputs are normalized "
            "there, so it is in no table."
        )
    yield from phase.masking.notes()
    if phase.out_of_order:
        yield _out_of_order(sorted(phase.out_of_order), bool(phase.masking.n_left_out))
    if phase.exemplars is not None:
        yield from phase.exemplars.notes()
    if 0 < phase.n_training < phase.n_forwards and not apart:
        yield (
            f"Passes in train mode ({phase.n_training:,} of {phase.n_forwards:,}) and in eval mode are pooled: every number "
            'is of both. Keep them apart: with probe.phase("train"): ..., and with probe.phase("val"): ...'
        )
    if until is not None and phase.n_skipped and phase.turns.all_over:
        yield (
            f"Recording ended after {said_passes(until, 0)}, as until={until} asks: what came later is not in the numbers."
        )
    if phase.n_outside:
        yield (
            "Parts of the model were called outside its own forward, where several calls of one layer cannot be "
            "distinguished. Attach to the part that is called."
        )
    if phase.gradients.perhaps_scaled and phase.gradients.seen:
        yield (
            "Gradients come from a forward pass under float16 autocast. If a loss scaler is in use, they are scaled by "
            "it. Pass it as attach(model, scaler=...) to record them unscaled."
        )


def _out_of_order(layers: list[str], masked: bool) -> str:
    """That masks and positions belong to other tokens than those at some layers."""
    names = ", ".join(layers[:3]) + (f" and {len(layers) - 3:,} more" if len(layers) > 3 else "")
    pads = (
        "the mask was applied to them as they were given, so padding counts there and tokens are left out. "
        if masked
        else ""
    )
    return (
        "The model puts its tokens in another order, as by sorting a batch or turning sequences around, before "
        f"{names}: {pads}Positions, ids and numbers of sequences there are those of other tokens. Give the model batches in "
        "the order that it makes, such as sorted by length, or record layers outside that part."
    )


def _calls(n: int) -> str:
    return "1 call of a norm layer was" if n == 1 else f"{n:,} calls of norm layers were"


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"
