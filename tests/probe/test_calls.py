"""How a norm is called: more than once, by keyword, past its hooks, inside itself, in parts, in threads, and in vain."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from recording.test_recording import assert_same_recordings
from support.models import BY_NAME, C, Failing, Mixed
from support.witness import Witness, assert_recording_true
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe

BN = BY_NAME["batch norm"]


def recorded(model: nn.Module, *batches: Any) -> bnprobe.Recording:
    with bnprobe.attach(model) as probe:
        for x in batches:
            model(x)
    return probe.recording


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


class Direct(nn.Module):
    """Calls the forward of its norm, and not the norm."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm.forward(x)


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm2d(C),
        lambda: nn.InstanceNorm2d(C, affine=True),
        lambda: nn.GroupNorm(1, C),
        lambda: nn.LayerNorm(7),
        lambda: nn.RMSNorm(7),
    ],
)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_module_forward_called_directly_is_recorded_and_said(norm: Any, training: bool):
    """Fails if a call past the hooks vanishes, counts as another site, or is recorded without a word."""
    batches = BN.batches()
    direct, plain = Direct(norm()).double().train(training), nn.Sequential(norm()).double().train(training)
    found, expected = recorded(direct, *batches), recorded(plain, *batches)
    assert [record.layer for record in found.layers] == ["norm"]
    one, other = found.layers[0], expected.layers[0]
    assert (one.n_calls, one.kind, one.mode, one.normalized_by) == (
        3,
        other.kind,
        other.mode,
        other.normalized_by,
    )
    np.testing.assert_array_equal(one.pre.mean, other.pre.mean)
    np.testing.assert_array_equal(one.post.m2, other.post.m2)
    assert "norm: forward was called directly 3 times" in " ".join(found.about.notes)
    assert not expected.about.notes


def test_a_direct_call_that_no_function_betrays_shows_in_the_certificate():
    """Fails if statistics that move without a recorded call pass for the model's own updates."""

    class Own(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.running_mean.lerp_(x.mean((0, 2, 3)), 0.1)
            return (x - self.running_mean[:, None, None]) / (
                self.running_var[:, None, None] + self.eps
            ).sqrt()

    model = nn.Sequential(Direct(Own(C)), nn.BatchNorm2d(C)).double().train()
    integrity = recorded(model, *BN.batches()).integrity
    assert [(change.what, change.names) for change in integrity.unexplained] == [
        ("buffers", ("0.norm.running_mean",))
    ]
    assert {name for change in integrity.changes if change.because for name in change.names} >= {
        "1.running_mean",
        "1.running_var",
    }


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
    """Fails if two passes at once share call numbers, or what one of them has open."""
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


def test_two_probes_at_once_are_one_probe_twice():
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
