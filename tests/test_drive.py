"""The loop around the probe: what a batch may be, what is said of the run, and what is left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from models import BY_NAME, C, H, Keyword, W
from torch import Tensor, nn

import bnprobe
from bnprobe.errors import BnprobeError, NoNormLayers, NothingRecorded


@pytest.fixture
def model() -> nn.Module:
    return BY_NAME["batch norm"].model()


@pytest.fixture
def batches() -> list[Tensor]:
    return BY_NAME["batch norm"].batches()


class Two(nn.Module):
    """Takes two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(C)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.bn(x * scale)


def mean_of(recording: bnprobe.Recording) -> np.ndarray:
    return recording.layers[0].pre.mean


def test_batches_with_and_without_labels_are_the_same_run(model, batches):
    """Fails if labels are fed to the model, or a list in place of a tuple is."""
    expected = torch.cat(batches).double().mean((0, 2, 3)).numpy()
    labels = [torch.zeros(len(x)) for x in batches]
    forms: list[list[Any]] = [
        batches,
        [(x, y) for x, y in zip(batches, labels, strict=True)],
        [[x, y] for x, y in zip(batches, labels, strict=True)],
        [(x,) for x in batches],
        [((x,), y) for x, y in zip(batches, labels, strict=True)],
        [(x, None) for x in batches],
    ]
    for form in forms:
        recording = bnprobe.record(model, form)
        np.testing.assert_allclose(mean_of(recording), expected, rtol=1e-12)
        assert (recording.about.n_forwards, recording.about.n_images) == (3, 9)


def test_several_inputs_and_inputs_by_name():
    """Fails if a tuple of arguments is taken for (x, y), or a dict is passed as one argument."""
    x, scale = torch.randn(4, C, H, W), torch.tensor(3.0)
    positional = bnprobe.record(Two().eval(), [((x, scale), None)])
    by_name = bnprobe.record(Two().eval(), [{"x": x, "scale": scale}])
    labelled = bnprobe.record(Two().eval(), [({"scale": scale, "x": x}, torch.zeros(4))])
    expected = (x * 3).double().mean((0, 2, 3))
    for recording in (positional, by_name, labelled):
        np.testing.assert_allclose(mean_of(recording), expected, rtol=1e-6)
    assert bnprobe.record(Keyword().eval(), [{"image": x}]).layers[0].n_images == 4


def test_a_generator_is_run_once_and_not_asked_for_its_length(model, batches):
    """Fails if batches are counted or shown first: a loader may be endless in memory, or used up."""

    def once() -> Iterator[Tensor]:
        yield from batches

    assert bnprobe.record(model, once()).about.n_images == 9


def test_it_equals_the_loop_it_stands_for(model, batches):
    """Fails if `record` measures something else than attach and a loop of one's own."""
    with bnprobe.attach(model) as probe, torch.no_grad():
        for x in batches:
            model(x)
    one, other = bnprobe.report(bnprobe.record(model, batches)), bnprobe.report(probe)
    np.testing.assert_array_equal(
        one.channels.select_dtypes("number"), other.channels.select_dtypes("number")
    )


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_is_the_users(batches, training):
    """Fails if the model is put into eval mode, or left in another than it came in."""
    model = BY_NAME["batch norm"].model(training)
    (record,) = bnprobe.record(model, batches).layers
    assert record.mode == ("train" if training else "eval")
    assert model.training is training


def test_no_gradients_are_made_and_the_setting_comes_back(model, batches):
    """Fails if a graph is kept over all batches, or gradients stay switched off afterwards."""
    seen: list[bool] = []
    handle = model.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    bnprobe.record(model, batches)
    handle.remove()
    assert seen == [False] * 3
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_probe_is_taken_off_when_a_batch_fails(model, batches):
    """Fails if hooks stay on the model after an exception, or the exception is replaced."""
    with pytest.raises(RuntimeError, match="running_mean should contain"):
        bnprobe.record(model, [batches[0], torch.zeros(2, C + 1, H, W, dtype=torch.float64)])
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_what_is_said_of_the_run_is_in_the_recording(model, batches):
    """Fails if a sentence is dropped or mixed up with another, or the defaults claim something."""
    words = {"weights": "ours", "data": "nine images", "preprocessing": "none"}
    about = bnprobe.record(model, batches, model_name="net", **words).about
    assert (about.model, about.weights, about.data, about.preprocessing) == (
        "net",
        "ours",
        "nine images",
        "none",
    )
    plain = bnprobe.record(model, batches).about
    assert (plain.model, plain.weights, plain.data) == ("Sequential", "not stated", "not stated")


def test_layers_and_histograms_are_narrowed(batches):
    """Fails if the two options do not reach the probe."""
    case = BY_NAME["mixed"]
    recording = bnprobe.record(case.model(), case.batches(), layers=["g*", "rms"], histograms=False)
    assert [record.layer for record in recording.layers] == ["gn", "rms"]
    assert all(record.pre_histogram is None for record in recording.layers)
    only = bnprobe.record(case.model(), case.batches(), layers="bn")
    assert [record.layer for record in only.layers] == ["bn"]


@pytest.mark.parametrize("nothing", [[], (), iter([])], ids=["list", "tuple", "iterator"])
def test_no_batches_is_an_error_that_says_so(model, nothing):
    """Fails if an empty loader gives an empty recording, and an empty report much later."""
    with pytest.raises(NothingRecorded, match="Give at least one batch of inputs"):
        bnprobe.record(model, nothing)


def test_a_model_without_norms_is_refused_before_any_batch():
    """Fails if the loader is started for nothing."""

    def untouched() -> Iterator[Tensor]:
        raise AssertionError("the batches were asked for")
        yield

    with pytest.raises(NoNormLayers, match=r"Check that Conv\+BN were not fused"):
        bnprobe.record(nn.Sequential(nn.Conv2d(3, 3, 1)), untouched())
    with pytest.raises(BnprobeError, match="Pass the model itself"):
        bnprobe.record("resnet50", untouched())


def test_a_bar_where_a_person_watches_and_none_elsewhere(model, batches, capsys, monkeypatch):
    """Fails if a log file is filled with the bar, or a person waits without one."""
    bnprobe.record(model, batches, n_images=9)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bnprobe.record(model, batches, n_images=9)
    shown = capsys.readouterr().err
    assert "probing" in shown
    assert "9/9" in shown.replace(" ", "")
    assert "images/s" in shown


def test_a_model_without_parameters_runs_on_the_cpu(batches):
    """Fails if the device is looked up on a parameter that is not there."""
    model = nn.InstanceNorm2d(C)
    assert bnprobe.record(model, batches).layers[0].n_images == 9


def test_inputs_are_not_changed(model, batches):
    """Fails if moving to the device, or probing, writes into the user's tensors."""
    copies = [x.clone() for x in batches]
    bnprobe.record(model, batches)
    assert all(torch.equal(x, copy) for x, copy in zip(batches, copies, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator on this machine")
def test_batches_follow_the_model_to_its_device(batches):
    """Fails if tensors inside tuples and dicts stay on the CPU."""
    on_gpu = Two().eval().cuda()
    scale = torch.tensor(3.0)
    recording = bnprobe.record(on_gpu, [{"x": batches[0].float(), "scale": scale}])
    assert recording.layers[0].n_images == len(batches[0])
