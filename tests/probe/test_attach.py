"""The life of a probe: attached, asked for its recording, detached; and what it holds meanwhile."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from recording.test_recording import assert_same_recordings
from support.model_state import all_tensors, fingerprint, tensors_alive
from support.models import BY_NAME, C, Mixed
from support.runs import recorded
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from bnprobe.errors import BnprobeError


def test_detach_may_be_called_twice_and_ends_the_recording():
    """Fails if hooks stay, or if removing them again raises."""
    case = BY_NAME["mixed"]
    model, (x, *_) = case.model(), case.batches()
    before = fingerprint(model)
    with bnprobe.attach(model) as probe:
        model(x)
        probe.detach()
        probe.detach()
        model(x)
    assert probe.recording.layers[0].n_calls == 1
    assert fingerprint(model) == before
    assert repr(probe) == "Probe(Mixed: 4 norms detached, 1 forward pass)"


def test_leaving_the_block_by_an_exception_detaches():
    """Fails if only a clean exit takes the hooks out, or the exception is swallowed."""
    model = BY_NAME["mixed"].model()
    before = fingerprint(model)
    with pytest.raises(ValueError, match="mine"), bnprobe.attach(model):
        raise ValueError("mine")
    assert fingerprint(model) == before


def test_recording_does_not_change_after_detach():
    """Fails if fields are filled from the living model whenever someone asks (training went on)."""
    case = BY_NAME["batch norm"]
    model, (x, y, _) = case.model(training=True), case.batches()
    with bnprobe.attach(model) as probe:
        model(x)
    early = probe.recording.layers[0]
    model(y)
    with torch.no_grad():
        model[0].weight += 1
    late = probe.recording.layers[0]
    assert late.n_batches_tracked == early.n_batches_tracked == 1
    assert late.parameters_moved == early.parameters_moved is False


def test_two_probes_at_once_are_one_probe_twice():
    """Fails if probes disturb one another; each may cover other layers and leave at another time."""
    case = BY_NAME["mixed"]
    model, (x, y, z) = case.model(), case.batches()
    alone = recorded(model, x, y, z)
    with bnprobe.attach(model) as one:
        model(x)
        with bnprobe.attach(model, layers="gn") as other:
            model(y)
        model(z)
    assert_same_recordings(one.recording, alone, 1e-15)
    assert [(r.layer, r.n_images) for r in other.recording.layers] == [("gn", 3)]


def test_no_tensor_is_kept():
    """Fails if an activation, or a view of one, outlives its forward pass: RAM would grow with the data."""
    case = BY_NAME["mixed"]
    model, batches = case.model(training=True), case.batches()
    with bnprobe.attach(model) as probe:
        model(batches[0])
        before = tensors_alive()
        x = batches[1].clone().requires_grad_()
        y = model(x)
        gone = [weakref.ref(x), weakref.ref(y)]
        y.sum().backward()
        model.zero_grad()
        del x, y
        assert tensors_alive() == before
        assert [ref() for ref in gone] == [None, None]
    assert probe.recording.layers[0].n_calls == 2


def test_no_tensor_is_kept_after_a_failure():
    """Fails if the copy made for the first call's check waits for a next pass that never comes."""

    class FailsInside(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("in the norm itself")

    model, x = nn.Sequential(FailsInside(C)).double(), BY_NAME["batch norm"].batches()[0]
    before = sum(t.numel() == x.numel() for t in all_tensors())
    with bnprobe.attach(model):
        alive = []
        for _ in range(3):  # what is known of the layer itself is there from the first call on
            with pytest.raises(ValueError, match="in the norm itself") as caught:
                model(x)
            caught.value.__traceback__ = None  # its frames hold tensors, too
            del caught
            alive.append(tensors_alive())
            assert sum(t.numel() == x.numel() for t in all_tensors()) == before
        assert alive[0] == alive[1] == alive[2]


def test_histograms_may_be_left_out():
    """Fails if they are made all the same, or if anything else depends on them."""
    case = BY_NAME["mixed"]
    model, batches = case.model(), case.batches()
    with bnprobe.attach(model, histograms=False) as probe:
        for x in batches:
            model(x)
    full = recorded(model, *batches)
    for lean, record in zip(probe.recording.layers, full.layers, strict=True):
        assert lean.pre_histogram is lean.post_histogram is None
        np.testing.assert_array_equal(lean.n_positive, record.n_positive)
        np.testing.assert_array_equal(lean.post.m4, record.post.m4)


def test_attach_wants_a_module():
    """Fails if a state dict or a class is hooked, or refused without saying what to pass."""
    with pytest.raises(BnprobeError, match="Pass the model itself"):
        bnprobe.attach({"weight": torch.ones(3)})  # type: ignore[arg-type]


def test_the_first_of_two_probes_may_leave_first():
    """Fails if one probe's hooks, or its functions, take the other's away."""

    class Both(Mixed):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.group_norm(x, 1))

    torch.manual_seed(3)
    model, batches = Both().double().eval(), BY_NAME["mixed"].batches()
    alone = recorded(model, *batches)
    with bnprobe.attach(model) as one:
        model(batches[0])
        other = bnprobe.attach(model, layers="gn")
        model(batches[1])
        model(batches[2])
    other.detach()
    assert_same_recordings(one.recording, alone, 1e-15)
    assert [(r.layer, r.n_images) for r in other.recording.layers] == [("gn", 7)]


def test_attaching_anew_each_epoch_leaves_nothing_behind():
    """Fails if a probe that was replaced and never detached goes on recording, with its hooks."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    for _ in range(3):
        probe = bnprobe.attach(model)
        model(torch.randn(2, 3, 5, 5))
        assert probe.recording.about.n_forwards == 1
        assert len(model[1]._forward_hooks) == 1
        assert len(model._forward_pre_hooks) == 1
    del probe
    assert not model[1]._forward_hooks
    assert not model._forward_pre_hooks
