"""The states of a thread: outside a pass of the whole model, in one that is recorded, in one that is not."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from support.models import BY_NAME, C, Checkpointed, learn
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from bnprobe import Probe
from bnprobe.probe.passes import OUTSIDE, RECORDED, SKIPPED, Pass
from bnprobe.probe.schedule import MODEL

CASE = BY_NAME["mixed"]
BATCHES = CASE.batches((3, 2, 5, 4, 1, 6))


class WithFunctions(nn.Module):
    """A model that calls itself, a functional norm, and a norm past its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.bn, self.gn = CASE.build(), nn.BatchNorm2d(C), nn.GroupNorm(1, C)

    def forward(self, x: Tensor, again: bool = True) -> Tensor:
        x = F.instance_norm(self.gn.forward(self.bn(x)))
        return self.inner(x) + (self(x, again=False) if again else 0.0)


def model() -> nn.Module:
    torch.manual_seed(3)
    found = WithFunctions().double().eval()
    learn(found)
    return found


def run(model: nn.Module, batches: list[Tensor], backward: bool = True, **options: Any) -> bnprobe.Recording:
    with bnprobe.attach(model, **options) as probe:
        for x in batches:
            y = model(x)
            if backward:
                y.square().sum().backward()
    return probe.recording


def assert_same(found: bnprobe.Recording, expected: bnprobe.Recording) -> None:
    assert len(expected.layers) > 0
    assert [(r.layer, r.call) for r in found.layers] == [(r.layer, r.call) for r in expected.layers]
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert (one.n_calls, one.n_images) == (other.n_calls, other.n_images)
        np.testing.assert_array_equal(one.pre.m2, other.pre.m2)
        np.testing.assert_array_equal(one.post_histogram.counts, other.post_histogram.counts)
        assert (one.gradient is None) == (other.gradient is None)
        if one.gradient is not None:
            assert one.gradient.n_passes == other.gradient.n_passes
            np.testing.assert_array_equal(one.gradient.dy.m2, other.gradient.dy.m2)
    assert found.about.n_forwards == expected.about.n_forwards
    assert found.about.n_images == expected.about.n_images
    assert found.about.notes == expected.about.notes


@pytest.mark.parametrize("backward", [True, False], ids=["with gradients", "without"])
def test_of_a_pass_that_is_not_recorded_nothing_is(backward: bool):
    """Fails if calls in a skipped pass count as calls outside the model, or anything else of it is in the recording.

    The other side is a run on the recorded batches alone.
    """
    found = run(model(), BATCHES, backward, every=2)
    expected = run(model(), BATCHES[::2], backward)
    assert (found.about.n_skipped, expected.about.n_skipped) == (3, 0)
    assert_same(found, expected)
    assert not any("outside" in note for note in found.about.notes)


def test_outputs_of_skipped_passes_are_the_models():
    """Fails if a skipped pass changes an output, a gradient or a buffer."""
    plain, probed = model().train(), model().train()
    with bnprobe.attach(probed, every=2):
        for seed, x in enumerate(BATCHES):
            outputs = []
            for one in (plain, probed):
                torch.manual_seed(seed)
                outputs.append(one(x))
                outputs[-1].square().sum().backward()
            assert torch.equal(*outputs)
    for one, other in zip(plain.parameters(), probed.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    for one, other in zip(plain.buffers(), probed.buffers(), strict=True):
        assert torch.equal(one, other)


def test_the_time_of_a_skipped_pass_is_not_counted():
    """Fails if seconds are of more passes than the numbers beside them."""
    found = CASE.model()
    with bnprobe.attach(found, every=2) as probe:
        found(BATCHES[0])
        before = probe.recording.about.seconds
        found(BATCHES[1])
        assert probe.recording.about.seconds == before
        found(BATCHES[2])
        assert probe.recording.about.seconds > before > 0


class Stops(nn.Module):
    """Raises `error`, if set, after its first norm."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.after = nn.BatchNorm2d(C), nn.BatchNorm2d(C)
        self.error: BaseException | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(x)
        if self.error is not None:
            raise self.error
        return self.after(x)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()], ids=["exception", "interrupt"])
def test_a_skipped_pass_that_fails_is_over(error: BaseException):
    """Fails if a thread stays in the skipped state, and misses what comes after, when the pass ends by an exception."""
    stops = Stops().double().eval()
    with bnprobe.attach(stops, every=2) as probe:
        stops(BATCHES[0])
        stops.error = error
        with suppress(ValueError, KeyboardInterrupt):
            stops(BATCHES[1])
        stops.error = None
        stops(BATCHES[2])
        stops(BATCHES[3])
    assert [record.n_calls for record in probe.recording.layers] == [2, 2]
    # a pass that fails gives its turn back; torch tells no hook of an interrupt
    second = BATCHES[2] if isinstance(error, KeyboardInterrupt) else BATCHES[3]
    assert probe.n_images == len(BATCHES[0]) + len(second)


def test_a_part_called_by_itself_between_passes_counts():
    """Fails if the state outside is taken for the skipped one: there a call counts at once, and is noted."""
    found = CASE.model()
    with bnprobe.attach(found, every=2) as probe:
        found(BATCHES[0])
        found(BATCHES[1])
        found.bn(torch.ones(2, 6, 3, 3, dtype=torch.float64))
    by_name = {record.layer: record for record in probe.recording.layers}
    assert (by_name["bn"].n_calls, by_name["gn"].n_calls) == (2, 1)
    assert any("outside its own forward" in note for note in probe.recording.about.notes)


def test_a_checkpoint_in_a_skipped_pass_is_not_recomputed_into_the_recording():
    """Fails if what a backward pass runs again of a skipped pass is taken for a call."""
    checkpointed = Checkpointed().double().train()
    found = run(checkpointed, BATCHES[:4], every=2)
    assert [record.n_calls for record in found.layers] == [2, 2, 2]
    assert [record.gradient.n_passes for record in found.layers if record.gradient] == [2, 2, 2]


def test_a_pass_that_began_before_the_probe_is_none():
    """Fails if the end of a pass whose beginning was not seen takes the thread out of step for calls to come."""

    class Attaches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(C).double().eval()
            self.probe: Probe | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.probe is None:
                self.probe = bnprobe.attach(self)
            return self.bn(x)

    attaches = Attaches()
    attaches(BATCHES[0])
    assert attaches.probe is not None
    assert attaches.probe._forward.run.state is OUTSIDE
    attaches.bn(BATCHES[1])
    attaches(BATCHES[2])
    attaches.probe.detach()
    (record,) = attaches.probe.recording.layers
    assert record.n_calls == 3
    assert attaches.probe.n_images == len(BATCHES[2])


def test_the_states_of_a_pass():
    """Fails if a pass begins in the wrong state, keeps what the last one left, or another thread's state is seen."""
    one = Pass()
    assert (one.state, one.depth) == (OUTSIDE, 0)
    assert [one.next_call("bn"), one.next_call("bn")] == [0, 0], "outside no end would restart the count"
    for state in (RECORDED, SKIPPED):
        error = ValueError()
        one.enter(state, error, 7, 7)
        assert (one.state, one.depth, one.handling, one.entry, one.called) == (state, 1, error, 7, 7)
        assert [one.next_call("bn"), one.next_call("bn")] == [0, 1]
        one.labels = np.ones(3)
        one.leave()
        assert (one.state, one.depth, one.handling, one.entry, one.calls) == (OUTSIDE, 0, None, 0, {})
        assert one.called == MODEL
        assert one.labels is not None, "labels hold for all passes of their block"
