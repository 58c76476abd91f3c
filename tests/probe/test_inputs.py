"""What a norm is given: layouts, number formats, empty and single samples, sequences, transforms, strange tensors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from support import oracles
from support.models import BY_NAME, C, H, L, Mixed, W
from support.reference_probe import ReferenceProbe, assert_recording_true
from torch import Tensor, nn

import bnprobe
from bnprobe import NothingRecorded

BN = BY_NAME["batch norm"]


def recorded(model: nn.Module, *batches: Any) -> bnprobe.Recording:
    with bnprobe.attach(model) as probe:
        for x in batches:
            model(x)
    return probe.recording


# Layouts


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _strided(x: Tensor) -> Tensor:
    return torch.stack([x, -x], dim=-1)[..., 0]


def _expanded(x: Tensor) -> Tensor:
    return x[:, :, :1].expand(x.shape)


def _turned(x: Tensor) -> Tensor:
    return x.transpose(2, 3).contiguous().transpose(2, 3)


@pytest.mark.parametrize("layout", [_channels_last, _strided, _expanded, _turned])
@pytest.mark.parametrize("name", ["batch norm", "instance norm", "group norm"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_channels_last_and_other_layouts(name: str, layout: Any, training: bool):
    """Fails if values are read in another order than the tensor's own."""
    case = BY_NAME[name]
    model = case.model(training)
    reference = ReferenceProbe(model, list(case.norms))
    with bnprobe.attach(model) as probe:
        for x in case.batches():
            x = layout(x)
            with reference.watching():
                y = model(x)
            assert y.stride() == case.model(training)(x).stride()
    assert_recording_true(probe.recording, case, reference, rtol=1e-7 if layout is _expanded else 1e-9)


# Number formats


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(dtype: torch.dtype):
    """Fails if a half-precision input is summed in half precision, or the note on scaled gradients is wrong."""
    model = nn.Sequential(nn.Conv2d(C, 6, 3), nn.BatchNorm2d(6), nn.GroupNorm(2, 6)).train()
    kept: list[Tensor] = []
    model[1].register_forward_pre_hook(lambda module, args: kept.append(args[0].detach().clone()))
    with bnprobe.attach(model) as probe, torch.autocast("cpu", dtype):
        for x in BN.batches(dtype=torch.float32):
            model(x).float().square().sum().backward()
    record = probe.recording.layers[0]
    assert kept[0].dtype == dtype
    rows = torch.cat(kept).double().flatten(2).numpy()
    np.testing.assert_allclose(record.pre.mean, rows.mean((0, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(record.pre.var_population, rows.var((0, 2)), rtol=1e-5)
    assert record.gradient.n_passes == 3
    assert any("loss scaler" in note for note in probe.recording.about.notes) == (dtype == torch.float16)


def test_half_precision_does_not_overflow():
    """Fails if squares of float16 values, which end at 65504, are summed in float16."""
    model = nn.Sequential(nn.BatchNorm2d(C)).half().eval()
    x = (1000 + 300 * torch.randn(4, C, H, W)).half()
    record = recorded(model, x).layers[0]
    rows = x.double().flatten(2).numpy()
    np.testing.assert_allclose(record.pre.var_population, rows.var((0, 2)), rtol=1e-5)
    np.testing.assert_array_equal(record.pre_nonfinite, 0)


# Sizes


def test_batches_of_different_sizes_and_one_sample():
    """Fails if the last, smaller batch weighs as much as the others, or one image is a division by zero."""
    model = BN.model()
    reference = ReferenceProbe(model, ["0"])
    with bnprobe.attach(model) as probe:
        for x in BN.batches(sizes=(1, 5, 1, 2)):
            with reference.watching():
                model(x)
    assert_recording_true(probe.recording, BN, reference)
    assert probe.recording.layers[0].n_images == 9


def test_a_batch_that_torch_refuses_counts_nowhere():
    """Fails if a training batch of one value per channel, which raises in torch, leaves a trace."""
    model = nn.Sequential(nn.BatchNorm1d(C)).train()
    good = torch.randn(4, C)
    with bnprobe.attach(model) as probe:
        with pytest.raises(ValueError, match="Expected more than 1 value"):
            model(torch.randn(1, C))
        model(good)
    record = probe.recording.layers[0]
    assert (record.n_calls, probe.recording.about.n_images) == (1, 4)
    np.testing.assert_allclose(record.pre.mean, good.mean(0).numpy(), rtol=1e-5, atol=1e-6)


def test_only_empty_batches_are_nothing_recorded():
    """Fails if a page is made of nothing."""
    recording = recorded(BN.model(), BN.batches()[0][:0])
    with pytest.raises(NothingRecorded, match="at least one sample"):
        bnprobe.report(recording)


def test_an_empty_batch_among_others_changes_nothing():
    """Fails if an empty batch is 0/0."""
    x, y, _ = BN.batches()
    one, other = recorded(BN.model(), x, y[:0], y).layers[0], recorded(BN.model(), x, y).layers[0]
    np.testing.assert_array_equal(one.pre.m2, other.pre.m2)
    np.testing.assert_array_equal(one.post_histogram.counts, other.post_histogram.counts)


def test_variable_length_sequences():
    """Fails if a sequence of another length starts a new site, or positions are not weighed alike."""
    model = nn.Sequential(nn.LayerNorm(C)).double()
    sequences = [torch.randn(2, length, C, dtype=torch.float64) for length in (3, L, 1)]
    record = recorded(model, *sequences).layers[0]
    rows = torch.cat([x.flatten(0, 1) for x in sequences]).numpy()
    oracles.assert_same_moments(record.pre, oracles.moments(rows), 1e-9)
    means, _ = oracles.own_statistics(
        [x.transpose(1, 2).numpy() for x in sequences], "channels", 1e-5, 1, True
    )
    oracles.assert_same_moments(record.own_mean, oracles.moments(means), 1e-9)


OF_NESTED = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")


@OF_NESTED
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_tensors_are_said(layout):
    """Fails if a nested tensor raises in a hook, or vanishes without a word; a strided one has no shape at all."""
    nested = torch.nested.nested_tensor([torch.randn(3, 5), torch.randn(2, 5)], layout=layout)
    recording = recorded(nn.Sequential(nn.LayerNorm(5)), nested, torch.randn(2, 3, 5))
    assert recording.layers[0].n_calls == 1
    assert recording.about.n_images == 4
    assert "the input was a nested tensor" in recording.about.notes[0]


class Masked(nn.Module):
    """Takes a mask by the usual name, and does not look at it."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(5)

    def forward(self, x, attention_mask=None):
        return self.norm(x)


@OF_NESTED
def test_a_nested_mask_is_no_mask():
    """Fails if a mask without a shape raises in a hook, beside nested inputs or plain ones."""
    ones = torch.nested.nested_tensor([torch.ones(3), torch.ones(2)])
    nested = torch.nested.nested_tensor([torch.randn(3, 5), torch.randn(2, 5)])
    model = Masked().eval()
    with bnprobe.attach(model) as probe:
        model(torch.randn(2, 3, 5), attention_mask=ones)
        model(nested, attention_mask=ones)
        model(nested, attention_mask=torch.ones(2, 3))
    (record,) = probe.recording.layers
    assert record.n_calls == 1


@OF_NESTED
def test_padded_batches_of_torchs_encoder_are_recorded_as_the_note_says():
    """Fails if what is to be called before is not what keeps torch's encoder from making nested tensors."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    model = nn.TransformerEncoder(layer, 1).eval()
    x, padding = torch.randn(2, 3, 4), torch.tensor([[False] * 3, [False, True, True]])

    def norms() -> tuple[list[str], tuple[str, ...]]:
        with torch.no_grad(), bnprobe.attach(model, mask="~src_key_padding_mask") as probe:
            model(x, src_key_padding_mask=padding)
        return [record.layer for record in probe.recording.layers], probe.recording.about.notes

    before, notes = norms()
    assert before == []
    assert "torch.backends.mha.set_fastpath_enabled(False)" in notes[0]
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert norms()[0] == ["layers.0.norm1", "layers.0.norm2"]
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


# Strange tensors


class Tolerant(nn.BatchNorm2d):
    """Takes what a batch norm of torch refuses."""

    def forward(self, x: Any) -> Any:
        return super().forward(x) if isinstance(x, Tensor) and x.is_floating_point() else x


@pytest.mark.parametrize(
    "x",
    [
        torch.ones(2, C, 3, 3, dtype=torch.complex64),
        torch.ones(2, C, 3, 3, dtype=torch.int64),
        "words",
        None,
        [],
    ],
    ids=["complex", "integer", "text", "nothing", "empty list"],
)
def test_complex_and_integer_inputs_are_said(x: Any):
    """Fails if an input that is no floating tensor raises in a hook, or is counted."""
    model = nn.Sequential(Tolerant(C)).eval()
    recording = recorded(model, x, BN.batches(dtype=torch.float32)[0])
    assert recording.layers[0].n_calls == 1
    assert "1 call of a norm layer was not recorded" in recording.about.notes[0]


def test_meta_parameters():
    """Fails if attaching to a model without storage reads it; the pass is said to have had no values."""
    model = nn.Sequential(nn.Conv2d(3, C, 3), nn.BatchNorm2d(C)).to("meta").eval()
    recording = recorded(model, torch.empty(2, 3, 8, 8, device="meta"))
    assert recording.layers == ()
    assert recording.never_called == ("1",)
    assert "on the meta device, where tensors hold no values" in recording.about.notes[0]


def test_lazy_parameters():
    """Fails if a layer without a shape cannot be attached to, or is read before it has one."""
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()).eval()
    record = recorded(model, torch.randn(2, 3, 8, 8)).layers[0]
    assert (record.n_channels, record.n_calls) == (4, 1)


def test_vmap_runs_as_without_the_probe():
    """Fails if tensors that stand for many are read as one, or the transform fails under our hooks."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C), nn.ReLU()).double().eval()
    x = torch.stack(BN.batches(sizes=(2, 2)))
    expected = torch.func.vmap(model)(x)
    with bnprobe.attach(model) as probe:
        assert torch.equal(torch.func.vmap(model)(x), expected)
    assert not probe.recording.layers
    assert "torch.func" in probe.recording.about.notes[0]


# The loop


def test_merging_parts_with_and_without_histograms_says_what_is_lost():
    """Fails if histograms vanish from the whole without a word."""
    model, (x, y, _) = BN.model(), BN.batches()
    with bnprobe.attach(model, histograms=False) as probe:
        model(x)
    lean, full = probe.recording, recorded(model, y)
    for merged in (lean.merge(full), full.merge(lean)):
        assert merged.layers[0].pre_histogram is None
        assert "Histograms are missing" in " ".join(merged.about.notes)
    assert not full.merge(full).about.notes


def test_warnings_of_ours_are_none():
    """Fails if probing a mixed model in either mode warns about anything."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for training in (False, True):
            recorded(Mixed().double().train(training), *BY_NAME["mixed"].batches())
