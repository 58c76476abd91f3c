"""The probe changes nothing of the model, and the recording says what else did."""

from __future__ import annotations

import gc
import sys
import weakref
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.models import BY_NAME, C
from torch import Tensor, nn

import bnprobe
from bnprobe.errors import CannotProbe
from bnprobe.norms import ModuleTree
from bnprobe.probe.integrity.checksums import COLUMNS, digests, sums_of
from bnprobe.probe.integrity.expected_changes import OWN_UPDATES
from bnprobe.probe.integrity.fingerprint import Fingerprint
from bnprobe.recording.integrity import Change, IntegrityReport

MIXED = BY_NAME["mixed"]


def certified(model: nn.Module, act: Any = lambda model: None) -> IntegrityReport:
    with bnprobe.attach(model) as probe:
        for x in MIXED.batches():
            model(x)
        act(model)
    assert probe.recording.integrity is not None
    return probe.recording.integrity


def test_an_evaluation_changes_nothing():
    """Fails if anything that the probe does shows, or if something is not compared at all."""
    model = MIXED.model()
    integrity = certified(model)
    assert integrity.changes == ()
    assert integrity.n_parameters == len(list(model.parameters()))
    assert integrity.n_buffers == len(list(model.buffers()))
    assert integrity.n_modules == len(list(model.modules()))
    assert integrity.n_bytes == sum(t.nbytes for t in model.state_dict().values())
    assert integrity.says.endswith("bit for bit the same.")


def test_training_updates_are_explained():
    """Fails if running statistics, gradients and dropout of a training run are laid at our door."""
    integrity = certified(
        MIXED.model(training=True), lambda model: model(MIXED.batches()[0]).square().sum().backward()
    )
    assert integrity.unexplained == ()
    changes = {change.what: change for change in integrity.changes}
    assert changes["buffers"].names == ("bn.running_mean", "bn.running_var", "bn.num_batches_tracked")
    assert changes["buffers"].because == OWN_UPDATES
    assert changes["gradients"].because == "backward passes"
    assert (changes["random state"].names, changes["random state"].because) == (
        ("torch",),
        "dropout in training mode",
    )


def _step(model: nn.Module) -> None:
    with torch.no_grad():
        model.conv.weight[0, 0, 0, 0] += 1e-6


def _through_data(model: nn.Module) -> None:
    model.gn.bias.data[5] = -model.gn.bias.data[5]


def _freeze(model: nn.Module) -> None:
    model.ln.weight.requires_grad_(False)


def _buffer(model: nn.Module) -> None:
    model.bn.running_var[3] = 7.0


def _mode(model: nn.Module) -> None:
    model.drop.train()


def _hook(model: nn.Module) -> None:
    model.act.register_forward_hook(lambda *_: None)


def _attribute(model: nn.Module) -> None:
    model.head.note = "mine"


def _swap(model: nn.Module) -> None:
    model.act = nn.GELU()


def _grad(model: nn.Module) -> None:
    model.rms.weight.grad = torch.ones_like(model.rms.weight)


@pytest.mark.parametrize(
    ("act", "what", "name"),
    [
        (_step, "parameters", "conv.weight"),
        (_through_data, "parameters", "gn.bias"),
        (_freeze, "parameters", "ln.weight"),
        (_buffer, "buffers", "bn.running_var"),
        (_mode, "modes", "drop"),
        (_hook, "hooks", "act"),
        (_attribute, "attributes", "head"),
        (_swap, "modules", "act"),
        (_grad, "gradients", "rms.weight"),
    ],
)
def test_whatever_else_changes_is_named(act: Any, what: str, name: str):
    """Fails if a change of one bit by the code around the model goes unseen, or is excused."""
    integrity = certified(MIXED.model(), act)
    assert (what, name) in [(change.what, n) for change in integrity.unexplained for n in change.names]
    assert name in integrity.says
    assert "changed outside the model's forward passes" in integrity.says


def _drawn(act: Any, model: nn.Module) -> Any:
    """What is said of the random states after `act`, with two passes about it."""

    def run(model: nn.Module) -> None:
        model(MIXED.batches()[0])
        act(model)
        model(MIXED.batches()[0])

    return next(change for change in certified(model, run).changes if change.what == "random state")


@pytest.mark.parametrize(
    ("draw", "whose"), [(lambda _: torch.rand(1), "torch"), (lambda _: np.random.random(), "numpy")]
)
def test_numbers_drawn_between_the_passes_are_the_loop_s(draw: Any, whose: str):
    """Fails if a data loader that shuffles is called a change of the model that nobody explains."""
    change = _drawn(draw, MIXED.model())
    assert (change.names, change.because) == (
        (whose,),
        "random numbers drawn between the passes, as by a data loader",
    )


def test_numbers_drawn_inside_a_pass_are_not_the_loop_s():
    """Fails if what a hook draws, as one of ours might, is excused as the loop's doing."""
    model = MIXED.model()
    model.act.register_forward_hook(lambda *_: torch.rand(1) and None)
    change = _drawn(lambda _: None, model)
    assert (change.names, change.because) == (("torch",), "")


def test_lazy_layers_are_explained():
    """Fails if a layer that gets its shape at its first call is said to have been changed by someone."""
    case = BY_NAME["lazy"]
    model = nn.Sequential(nn.LazyBatchNorm2d()).double()
    with bnprobe.attach(model) as probe:
        model(case.batches()[0])
    assert probe.recording.integrity.unexplained == ()
    assert probe.recording.integrity.changes


def test_a_snapshot_before_detach_claims_nothing():
    """Fails if what has not been compared is certified."""
    with bnprobe.attach(MIXED.model()) as probe:
        assert probe.recording.integrity is None


def test_it_is_saved_loaded_and_merged(tmp_path):
    """Fails if the file drops it, or the whole of two runs claims what only one of them can."""
    model = MIXED.model()
    recordings = []
    for act in (lambda: None, lambda: _mode(model)):
        with bnprobe.attach(model) as probe:
            model(MIXED.batches()[0])
            act()
        recordings.append(bnprobe.load(probe.recording.save(tmp_path / "r.bnp")))
        assert recordings[-1].integrity == probe.recording.integrity
    one, two = recordings
    assert one.merge(two).integrity.changes == (Change("modes", ("drop",)),)
    assert one.merge(replace(two, integrity=None)).integrity is None


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bool, torch.complex64, torch.int64, torch.uint8]
)
@pytest.mark.parametrize("size", [(1,), (7, 3), (COLUMNS + 5,), (3, COLUMNS)])
def test_digests_see_every_bit_and_every_place(dtype: torch.dtype, size: tuple[int, ...]):
    """Fails if one flipped value, or two that changed places, leave the digest as it was: on the CPU or a device."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randint(0, 2 if dtype == torch.bool else 100, size, generator=generator).to(dtype)
    flat = x.reshape(-1)
    for i in {0, flat.numel() // 2, flat.numel() - 1}:
        other = flat.clone()
        other[i] = (not flat[i]) if dtype == torch.bool else flat[i] + 1
        assert digests([x]) != digests([other.reshape(size)])
        assert not torch.equal(sums_of(x), sums_of(other.reshape(size)))
    rolled = flat.roll(1)
    if not torch.equal(rolled, flat):
        assert digests([x]) != digests([rolled.reshape(size)])
        assert not torch.equal(sums_of(x), sums_of(rolled.reshape(size)))
    assert digests([x]) == digests([x.clone()])
    assert torch.equal(sums_of(x), sums_of(x.clone()))


def test_tensors_without_bytes_at_hand_have_a_digest():
    """Fails if attaching to a model with meta, sparse, lazy, strided or nested tensors raises."""
    tensors = [
        torch.empty(3, device="meta"),
        torch.eye(3).to_sparse(),
        nn.parameter.UninitializedParameter(),
        torch.ones(4, 6)[:, ::2],
        torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        torch.empty(0),
    ]
    assert digests(tensors) == digests(tensors)
    assert digests([torch.ones(4, 6)[:, ::2]]) != digests([torch.zeros(4, 6)[:, ::2]])


def test_a_look_reads_every_byte_once(monkeypatch):
    """Fails if a look reads a tensor twice, or leaves one out."""
    read: list[int] = []
    checksum = zlib.crc32

    def counted(data: Any) -> int:
        read.append(memoryview(data).nbytes)
        return checksum(data)

    monkeypatch.setattr(zlib, "crc32", counted)
    look = Fingerprint.of(ModuleTree.of(MIXED.model()))
    generators = torch.get_rng_state().nbytes + np.random.get_state()[1].nbytes
    assert sum(read) == look.n_bytes + generators


def test_half_finished_attaching_rolls_back(monkeypatch):
    """Fails if an error while the third hook is registered leaves the first two, or torch's functions replaced."""
    model = MIXED.model()
    before = Fingerprint.of(ModuleTree.of(model)).states
    code = nn.functional.layer_norm.__code__
    register = nn.GroupNorm.register_forward_hook

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no more hooks")

    monkeypatch.setattr(nn.GroupNorm, "register_forward_hook", fails)
    with pytest.raises(
        CannotProbe, match=r"^gn: .*RuntimeError: no more hooks\)\. Nothing of the model was changed"
    ):
        bnprobe.attach(model)
    monkeypatch.setattr(nn.GroupNorm, "register_forward_hook", register)
    assert Fingerprint.of(ModuleTree.of(model)).states == before
    assert nn.functional.layer_norm.__code__ is code


def test_nothing_of_ours_survives():
    """Fails if the model holds anything of the probe after detach, or the probe anything of the model."""
    model = MIXED.model()
    with bnprobe.attach(model) as probe:
        for x in MIXED.batches():
            model(x)
    forward = weakref.ref(probe._forward)
    assert [thing for thing in held_by(model) if type(thing).__module__.startswith("bnprobe")] == []
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None, "the probe keeps the model alive"
    recording = probe.recording
    del probe
    gc.collect()
    assert forward() is None
    assert recording.layers[0].n_calls == 3


def held_by(model: nn.Module) -> list[object]:
    """Every attribute of every module, and every hook."""
    values = [item for module in model.modules() for item in vars(module).items()]
    hooks = [
        hook
        for name, value in values
        if "hook" in name and isinstance(value, dict)
        for hook in value.values()
    ]
    return [value for _, value in values] + hooks


@pytest.mark.slow
def test_a_thousand_probes_leave_nothing():
    """Fails if attaching, five forward passes and detaching a thousand times keeps an object, or a byte."""
    model = MIXED.model(training=True)
    x = MIXED.batches()[0]

    def one() -> None:
        with bnprobe.attach(model):
            for _ in range(5):
                model(x)

    def alive() -> tuple[int, int]:
        gc.collect()
        tensors = sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())
        return len(gc.get_objects()), tensors

    for _ in range(20):
        one()
    objects, tensors = alive()
    blocks = sys.getallocatedblocks()
    for _ in range(1000):
        one()
    assert alive()[1] == tensors
    assert alive()[0] - objects < 100
    assert sys.getallocatedblocks() - blocks < 2000, "two blocks of RAM per probe would show"


def test_inference_tensors_and_shared_parameters():
    """Fails if a model made in inference mode, or with tied weights, cannot be looked at."""
    with torch.inference_mode():
        model = nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C), nn.Conv2d(C, C, 1)).double().eval()
        model[2].weight = model[0].weight
        with bnprobe.attach(model) as probe:
            model(BY_NAME["batch norm"].batches()[0])
    assert probe.recording.integrity.changes == ()
