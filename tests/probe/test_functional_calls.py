"""Norms that pass no hook: functions as sites of the module they stand in, and modules called past their hooks."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from norms.test_functional import BATCHES, AnySize, pair
from support.models import BY_NAME, C, W
from support.runs import recorded
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe

BN = BY_NAME["batch norm"]


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


def test_a_direct_call_that_no_function_betrays_shows_in_the_integrity_report():
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


@pytest.mark.parametrize("layers", [None, "gn"], ids=["all", "another layer"])
def test_running_statistics_that_a_function_updates_are_the_models_own_doing(layers: str | None):
    """Fails if the integrity report blames the probe for what F.batch_norm did, or excuses what it did not do."""
    functions, _ = pair(training=True)
    with bnprobe.attach(functions, layers=layers) as probe:
        functions(BATCHES[0])
    (change,) = probe.recording.integrity.changes
    assert change.names == ("bn.running_mean", "bn.running_var")
    assert change.because == "the model's own updates in training mode"
    with bnprobe.attach(functions.eval()) as probe:
        functions(BATCHES[0])
        functions.bn.running_mean += 1
    (change,) = probe.recording.integrity.unexplained
    assert change.names == ("bn.running_mean",)


def test_sites_are_named_after_the_enclosing_module_and_the_line():
    """Fails if a site is named after a helper, torch's own file, or the wrong line; or if layers= does not narrow."""

    def helper(x: Tensor) -> Tensor:
        return F.layer_norm(x, (W,))

    class Block(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return helper(F.group_norm(x, 1))

    line = Block.forward.__code__.co_firstlineno + 1
    model = nn.Sequential(nn.Sequential(Block()), nn.BatchNorm2d(C)).double().eval()
    with bnprobe.attach(model) as probe:
        model(BATCHES[0])
    assert [(r.layer, r.class_name) for r in probe.recording.layers] == [
        (f"0.0.group_norm:{line}", "F.group_norm"),
        (f"0.0.layer_norm:{helper.__code__.co_firstlineno + 1}", "F.layer_norm"),
        ("1", "BatchNorm2d"),
    ]
    with bnprobe.attach(model, layers="*group_norm*") as probe:
        model(BATCHES[0])
    assert [r.layer for r in probe.recording.layers] == [f"0.0.group_norm:{line}"]


def test_a_model_with_functional_norms_only_can_be_probed():
    """Fails if a model whose own LayerNorm class calls the function (as nanoGPT's does) is refused, or named unknown."""

    class LayerNorm(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n))

        def forward(self, x: Tensor) -> Tensor:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)

    recording = recorded(nn.Sequential(LayerNorm(W), LayerNorm(W)).double(), *BATCHES)
    assert [(r.layer.partition(":")[0], r.n_calls) for r in recording.layers] == [
        ("0.layer_norm", 3),
        ("1.layer_norm", 3),
    ]
    assert recording.not_understood == ()


def test_norms_of_other_models_are_not_ours():
    """Fails if a functional norm of another model, or of no model at all, is recorded while we are attached."""
    mine, other = pair(False)[0], pair(False)[0]
    with bnprobe.attach(mine) as probe:
        other(BATCHES[0])
        F.layer_norm(BATCHES[0], (W,))
        assert not probe.recording.layers
        thread = threading.Thread(target=other, args=(BATCHES[0],))
        thread.start()
        thread.join()
        assert not probe.recording.layers
        mine(BATCHES[0])
    assert len(probe.recording.layers) == 5


class Standardized(nn.Conv2d):
    """A convolution whose filters are normalized before they are used, as timm's ScaledStdConv2d."""

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, torch.ones(self.out_channels), training=True)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias)


@pytest.mark.parametrize("grad", [True, False])
def test_weights_that_are_standardized_are_no_inputs(grad: bool):
    """Fails if the filters of a convolution are recorded as a batch of one sample, or what is fed to a norm no more."""
    model = nn.Sequential(Standardized(2, 3, 2), nn.BatchNorm2d(3))
    with bnprobe.attach(model) as probe, torch.set_grad_enabled(grad):
        model(torch.randn(5, 2, 4, 4))
    assert [record.layer for record in probe.recording.layers] == ["1"]


def test_a_network_whose_weights_alone_are_standardized_says_so():
    """Fails if a network without norms of inputs is said to have been given no batches, or to be another object."""
    model, said = nn.Sequential(Standardized(2, 3, 2), Standardized(3, 3, 2)), "called 2 times to standardize"
    with bnprobe.attach(model) as probe:
        model(torch.randn(5, 2, 4, 4))
    with pytest.raises(bnprobe.NothingRecorded, match=said):
        bnprobe.report(probe)
    with pytest.raises(bnprobe.NothingRecorded, match=f"was run, but no norm .* {said}"):
        bnprobe.record(model, [torch.randn(5, 2, 4, 4)])


def test_another_number_of_channels_is_another_site():
    """Fails if channels that are not the same are added up, or arrays are read beyond their end."""
    model, lengths = AnySize(), [48, 162, 48, 8]
    batches = [torch.randn(4, length, generator=torch.Generator().manual_seed(length)) for length in lengths]
    with bnprobe.attach(model) as probe:
        for x in batches:
            model(x)
    by_size = {record.pre.mean.size: record for record in probe.recording.layers}
    assert list(by_size) == [48, 162, 8]
    names = [record.layer for record in by_size.values()]
    assert names[1:] == [f"{names[0]}[162]", f"{names[0]}[8]"]
    for length, record in by_size.items():
        rows = torch.cat([x for x in batches if x.shape[1] == length]).double().numpy()
        assert record.n_images == len(rows)
        np.testing.assert_allclose(record.pre.mean, rows.mean(0), atol=1e-6)
        np.testing.assert_allclose(record.pre.var_population, rows.var(0), atol=1e-6)


def test_sequences_of_any_length_do_not_fill_the_recording():
    """Fails if every length becomes a site, or what was left out is not said."""
    model = AnySize()
    with bnprobe.attach(model) as probe:
        for length in range(2, 42):
            model(torch.randn(3, length))
    assert len(probe.recording.layers) == 16
    (note,) = (
        note for note in probe.recording.about.notes if "more than 16 different numbers of channels" in note
    )
    assert "layer_norm" in note


class Stages(nn.Module):
    """One line, called with other vectors each time."""

    def __init__(self) -> None:
        super().__init__()
        for i in range(3):
            self.register_buffer(f"mean{i}", torch.full((C,), float(i)))
            self.register_buffer(f"var{i}", torch.full((C,), 1.0 + i))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(3):
            x = F.batch_norm(x, getattr(self, f"mean{i}"), getattr(self, f"var{i}"), training=self.training)
        return x


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_each_call_of_a_function_has_vectors_of_its_own(training: bool):
    """Fails if the running statistics of the first call are recorded for the others."""
    model = Stages().double().train(training)
    for record in recorded(model, *BATCHES).layers:
        np.testing.assert_array_equal(record.running_mean, np.full(C, record.call))
        np.testing.assert_array_equal(record.running_var, np.full(C, 1 + record.call))
        assert record.buffers_moved == training
