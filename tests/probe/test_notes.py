"""The notes of a recording: calls that are missing, or were made another way."""

from __future__ import annotations

from typing import Any

import torch
from support.models import BY_NAME, C
from torch import nn

import bnprobe


def test_input_that_cannot_be_read_is_noted():
    """Fails if a call with no floating tensor of known shape vanishes without a word, or raises."""

    class Odd(nn.BatchNorm2d):
        def forward(self, x: Any) -> Any:
            return x if isinstance(x, str) else super().forward(x)

    model = nn.Sequential(Odd(C)).double().eval()
    with bnprobe.attach(model) as probe:
        assert model("hello") == "hello"
        model(BY_NAME["batch norm"].batches()[0])
    assert probe.recording.layers[0].n_calls == 1
    assert probe.recording.about.notes[0].startswith("1 calls of norm layers")


def test_parts_called_alone_are_said():
    """Fails if the report of a part called outside the model's forward speaks of 0 images, and does not say why."""
    model = nn.Module()
    model.part = nn.Sequential(nn.Conv2d(3, C, 3), nn.BatchNorm2d(C)).eval()
    with bnprobe.attach(model) as probe:
        model.part(torch.randn(5, 3, 9, 8))
    about = probe.recording.about
    assert about.n_images == 5
    assert any("outside its own forward" in note for note in about.notes)


def test_a_backward_pass_after_detach_is_said():
    """Fails if a backward pass that comes too late is silently not recorded."""
    model = BY_NAME["in-place ReLU"].model(training=True)
    with bnprobe.attach(model) as probe:
        loss = model(BY_NAME["batch norm"].batches()[0]).square().sum()
    assert not probe.recording.about.notes
    loss.backward()
    assert "A backward pass ran after the probe was detached" in probe.recording.about.notes[-1]
    assert probe.recording.layers[0].gradient is None
