"""Forward passes: what is one, which calls count, in threads, after failures, and for parts of a model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from recording.test_recording import assert_same_recordings
from support.models import BY_NAME, C, Failing
from support.runs import recorded
from support.witness import Witness, assert_recording_true
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe


@pytest.mark.parametrize(
    "error", [ValueError("in the middle"), KeyboardInterrupt()], ids=["error", "interrupt"]
)
@pytest.mark.parametrize("n_before", [0, 1])
def test_a_failed_batch_counts_nowhere(error: BaseException, n_before: int):
    """Fails if the norms before the failure keep the batch (fault: pending), or if later passes go unseen."""
    batches = BY_NAME["batch norm"].batches()
    model = Failing().double().eval()
    good = batches[:1] if n_before == 0 else batches[:2]
    expected = recorded(model, *good)
    with bnprobe.attach(model) as probe:
        for x in good[:n_before]:
            model(x)
        model.fails = error
        for _ in range(2):
            with pytest.raises(type(error)):
                model(batches[2])
        model.fails = None
        for x in good[n_before:]:
            model(x)
    assert_same_recordings(probe.recording, expected, 1e-15)
    assert probe.recording.about.n_forwards == len(good)
    assert probe.recording.about.n_images == sum(len(x) for x in good)


def test_an_error_that_the_model_handles_is_no_error():
    """Fails if a caught exception inside the forward pass throws the batch away, or leaves a call open."""

    class Falls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Failing(), nn.BatchNorm2d(C)
            self.first.fails = ValueError("handled")

        def forward(self, x: Tensor) -> Tensor:
            try:
                x = self.first(x)
            except ValueError:
                return self.second(x)
            raise AssertionError("must fail")

    model = Falls().double().eval()
    recording = recorded(model, *BY_NAME["batch norm"].batches())
    assert {record.layer: record.n_calls for record in recording.layers} == {"first.first": 3, "second": 3}
    assert recording.never_called == ("first.second",)


def test_a_forward_pass_inside_an_except_block_counts():
    """Fails if an exception that was there before the pass is taken for the pass's own."""
    model, (x, *_) = BY_NAME["batch norm"].model(), BY_NAME["batch norm"].batches()
    with bnprobe.attach(model) as probe:
        try:
            raise ValueError("before")
        except ValueError:
            model(x)
        model(x)
    assert probe.recording.layers[0].n_calls == 2


def test_gradients_are_not_recorded_and_not_needed():
    """Fails if the probe works only with, or only without, a graph."""
    case = BY_NAME["mixed"]
    model = case.model()
    with torch.inference_mode():
        inference = recorded(model, *case.batches())
    learning = recorded(model, *case.batches())
    assert {layer.call_log.n_calls_learning for layer in inference.layers} == {0}
    assert all(layer.call_log.n_calls_learning == layer.n_calls for layer in learning.layers)
    of_inference = {layer.site: layer.call_log for layer in inference.layers}
    same = tuple(replace(layer, call_log=of_inference[layer.site]) for layer in learning.layers)
    assert_same_recordings(inference, replace(learning, layers=same), 1e-15)


def test_a_model_that_calls_itself_is_one_pass():
    """Fails if the inner call is taken for a pass of its own: call numbers would start again."""

    class Recursive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(C)

        def forward(self, x: Tensor, again: int = 1) -> Tensor:
            x = self.bn(x)
            return self(x, again - 1) if again else x

    recording = recorded(Recursive().double().eval(), *BY_NAME["batch norm"].batches())
    assert [(r.layer, r.call, r.n_calls) for r in recording.layers] == [("bn", 0, 3), ("bn", 1, 3)]
    assert recording.about.n_forwards == 3


def test_a_part_of_the_model_may_be_called_alone():
    """Fails if calls outside a pass of the whole model wait for an end that never comes."""
    model, (x, *_) = BY_NAME["mixed"].model(), BY_NAME["mixed"].batches()
    with bnprobe.attach(model) as probe:
        for _ in range(3):
            model.bn(model.conv(x))
    (record,) = probe.recording.layers
    assert (record.layer, record.call, record.n_calls) == ("bn", 0, 3)
    assert probe.recording.never_called == ("gn", "ln", "rms")


def test_transforms_of_torch_func_run_as_without_the_probe():
    """Fails if the probe looks for the memory of a tensor that stands for others."""
    model = nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C), nn.ReLU()).eval()
    parameters, x = dict(model.named_parameters()), torch.randn(3, C, 5, 5)

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, (x,)).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))
    expected = per_sample(parameters, x[:, None])
    with bnprobe.attach(model) as probe:
        found = per_sample(parameters, x[:, None])
        assert not probe.recording.layers
        assert "torch.func" in " ".join(probe.recording.about.notes)
        model(x)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert probe.recording.layers[0].neighbours.follows == "relu"


BN = BY_NAME["batch norm"]


@pytest.mark.parametrize("name", ["twice", "two paths", "keyword", "dictionaries"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_reused_module_a_keyword_call_and_a_dictionary(name: str, training: bool):
    """Fails if calls of one module are mixed, an input by name is missed, or one inside a container."""
    case = BY_NAME[name]
    model = case.model(training)
    witness = Witness(model, list(case.norms))
    with bnprobe.attach(model) as probe:
        for x in case.batches():
            with witness.watching():
                case.call(model, x)
    assert_recording_true(probe.recording, case, witness)


def test_nested_forwards_are_one_pass():
    """Fails if a model that calls itself begins anew inside: the call numbers would start again."""

    class Recursive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(C)

        def forward(self, x: Tensor, left: int = 2) -> Tensor:
            x = self.bn(x)
            return self(x, left - 1) if left else x

    recording = recorded(Recursive().double().eval(), *BN.batches())
    assert [(r.call, r.n_calls) for r in recording.layers] == [(0, 3), (1, 3), (2, 3)]
    assert recording.about.n_forwards == 3


def test_a_reentrant_forward_of_a_norm_inside_a_norm():
    """Fails if a norm that calls a norm of its own closes the outer call with the inner one."""

    class Outer(nn.BatchNorm2d):
        def __init__(self, n: int) -> None:
            super().__init__(n)
            self.inner = nn.BatchNorm2d(n)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.inner(x))

    model = nn.Sequential(Outer(C)).double().eval()
    batches = BN.batches()
    found = {record.layer: record for record in recorded(model, *batches).layers}
    x = torch.cat(batches)
    assert {name: record.n_calls for name, record in found.items()} == {"0": 3, "0.inner": 3}
    for record in found.values():  # both are given the same x
        np.testing.assert_allclose(record.pre.mean, x.mean((0, 2, 3)).numpy())


def test_pipeline_like_partial_execution():
    """Fails if stages that are called one by one are not recorded, or counted as many passes of the whole."""

    class Stages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C))
            self.second = nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C), nn.BatchNorm2d(C))

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    model, batches = Stages().double().eval(), BN.batches()
    whole = recorded(model, *batches)
    with bnprobe.attach(model) as probe:
        for x in [model.first(x) for x in batches]:
            model.second(x)
    parts = probe.recording
    assert (parts.about.n_forwards, parts.about.n_images) == (3, 9)
    for record, expected in zip(parts.layers, whole.layers, strict=True):
        np.testing.assert_array_equal(record.pre.mean, expected.pre.mean)
    assert any("outside its own forward" in note for note in parts.about.notes)


def test_a_generator_runs_after_the_model_has_returned():
    """Fails if norms that run while a result is consumed are lost, because the pass was over."""

    class Lazily(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(C)

        def forward(self, x: Tensor) -> Iterator[Tensor]:
            yield self.bn(x)
            yield x

    model, batches = Lazily().double().eval(), BN.batches()
    with bnprobe.attach(model) as probe:
        for x in batches:
            assert len(list(model(x))) == 2
    (record,) = probe.recording.layers
    assert (record.n_calls, record.n_images) == (3, 9)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_exception_in_the_middle_counts_everywhere_or_nowhere(error: BaseException):
    """Fails if norms before the failure keep a batch that those after it never saw: modules and functions alike."""

    class Stops(Failing):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.instance_norm(x))

    model, batches = Stops().double().eval(), BN.batches()
    expected = recorded(model, *batches[:2])
    with bnprobe.attach(model) as probe:
        model(batches[0])
        model.fails = error
        with pytest.raises(type(error)):
            model(batches[2])
        model.fails = None
        model(batches[1])
    assert_same_recordings(probe.recording, expected, 1e-15)
    assert len(probe.recording.layers) == 3


def test_threads_keep_their_passes_apart():
    """Fails if passes at once share a counter (there would be a second call), or what one of them has open."""
    model, (x, *_) = BY_NAME["mixed"].model(), BY_NAME["mixed"].batches()
    barrier = threading.Barrier(3)

    def work() -> None:
        barrier.wait()
        for _ in range(8):
            model(x)

    with bnprobe.attach(model) as probe:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = {r.layer: (r.call, r.n_calls) for r in probe.recording.layers}
    assert found == dict.fromkeys(("bn", "gn", "ln", "rms"), (0, 24))
    assert probe.recording.about.n_images == 24 * len(x)


def test_detaching_while_another_thread_is_inside():
    """Fails if a pass that outlives the probe raises in the user's thread."""
    inside, gone = threading.Event(), threading.Event()

    class Waits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.BatchNorm2d(C), nn.BatchNorm2d(C)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            inside.set()
            assert gone.wait(10)
            return self.two(x)

    model, (x, *_) = Waits().double().eval(), BN.batches()
    results: list[Any] = []
    probe = bnprobe.attach(model)
    thread = threading.Thread(target=lambda: results.append(model(x)))
    thread.start()
    assert inside.wait(10)
    probe.detach()
    gone.set()
    thread.join()
    assert torch.equal(results[0], model(x))
    assert not probe.recording.layers
