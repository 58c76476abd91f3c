"""The notes of a recording: calls that are missing, or were made another way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.models import BY_NAME, C
from torch import nn

import bnprobe
from bnprobe.errors import NothingRecorded


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
    assert probe.recording.about.notes[0].startswith("1 call of a norm layer was not recorded")


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


def on_meta() -> bnprobe.Probe:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    with bnprobe.attach(model) as probe:
        model(torch.empty(2, 3, device="meta"))
    return probe


def under_vmap() -> bnprobe.Probe:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).eval()
    with bnprobe.attach(model) as probe:
        torch.vmap(model)(torch.randn(5, 2, 3))
    return probe


@pytest.mark.parametrize(("run", "match"), [(on_meta, "on the meta device"), (under_vmap, "such as vmap")])
def test_a_pass_without_values_says_why(run, match):
    """Fails if the user is told to run the object that was run."""
    with pytest.raises(NothingRecorded, match=match) as error:
        bnprobe.report(run())
    assert "Run the object" not in str(error.value)
