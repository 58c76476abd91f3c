"""What a reader of a recording must know of how it was made: calls that are missing, or were made another way."""

from __future__ import annotations

from collections.abc import Iterator

from bnprobe.probe.forward import Forward
from bnprobe.probe.functional_calls import MOST_SIZES, Unhooked
from bnprobe.probe.survey.compiled import Eager

LATE_BACKWARD = (
    "A backward pass ran after the probe was detached: its gradients were not recorded. Call backward before "
    "detach(), inside the with block."
)


def notes(forward: Forward, unhooked: Unhooked, eager: Eager) -> Iterator[str]:
    """Sentences, each with what to do."""
    if forward.n_unreadable:
        yield (
            f"{forward.n_unreadable} calls of norm layers had an input that is not a floating tensor of known shape, "
            "or ran inside a transform of torch.func, where tensors stand for others."
        )
    if eager.late:
        yield (
            "The model was compiled while the probe was attached. Compiled code passes no hook: the forward passes in "
            "which that was noticed are missing; after them it ran uncompiled. Compile it after detach()."
        )
    elif eager.held:
        yield "Compiled parts ran uncompiled while the probe was attached, since compiled code passes no hook."
    for name, n in unhooked.direct.items():
        yield (
            f"{name}: forward was called directly {n} times, past its hooks. It was recorded all the same, from the "
            "function that it calls; hooks of others did not run. Call the module itself."
        )
    for name in sorted(unhooked.crowded):
        yield (
            f"{name}: it normalized over {MOST_SIZES} numbers of channels and more, as a norm over a sequence of any "
            f"length does; calls with any but the first {MOST_SIZES} were not recorded. Give it inputs of one size."
        )
    if forward.n_outside:
        yield (
            "Parts of the model were called outside its own forward: there the calls of a layer that is used "
            "more than once are not told apart. Attach to the part that is called."
        )
    if forward.gradients.perhaps_scaled and forward.gradients.seen:
        yield (
            "Gradients passed a forward under float16 autocast: if a loss scaler was in use they are scaled by it. "
            "Give it to attach(model, scaler=...) to record them unscaled."
        )
