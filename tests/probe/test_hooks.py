"""The hooks: copies of a probed model record nothing and drag nothing along, and hooks of others stay."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from support.model_state import bits
from support.models import BY_NAME
from support.runs import recorded
from torch import nn

import bnprobe

MIXED = BY_NAME["mixed"]


def _saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), _saved])
def test_deepcopy_and_pickle_of_a_probed_model(copied: Callable[[nn.Module], nn.Module]):
    """Fails if a copy records into the original's probe, holds it, or cannot be made; also of functional norms."""
    model, (x, *_) = MIXED.model(), MIXED.batches()
    with bnprobe.attach(model) as probe:
        expected = model(x)
        other = copied(model)
        assert torch.equal(other(x), expected)
        assert probe.recording.about.n_forwards == 1
    hooks = [h for m in other.modules() for d in (m._forward_hooks, m._forward_pre_hooks) for h in d.values()]
    assert all(getattr(hook, "forward", None) is None for hook in hooks)
    with bnprobe.attach(other) as second:
        other(x)
    assert second.recording.layers[0].n_calls == 1
    assert second.recording.integrity.changes == ()


def test_a_state_dict_is_the_models():
    """Fails if a probe adds a key to what is saved."""
    model = MIXED.model()
    keys = list(model.state_dict())
    with bnprobe.attach(model):
        assert list(model.state_dict()) == keys


def test_hooks_of_others_stay_where_they_are():
    """Fails if detaching clears a module's hooks instead of removing its own."""
    case = BY_NAME["batch norm"]
    model, (x, *_) = case.model(), case.batches()
    seen: list[str] = []
    model[0].register_forward_hook(lambda *_: seen.append("before"))
    probe = bnprobe.attach(model)
    model[0].register_forward_hook(lambda *_: seen.append("after"))
    probe.detach()
    model(x)
    assert seen == ["before", "after"]


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
)
def test_a_copy_carries_no_probe(copied: Callable[[nn.Module], nn.Module]):
    """Fails if a copy made while probing records into the original's probe, or drags its recording along."""
    case = BY_NAME["mixed"]
    model, (x, *_) = case.model(), case.batches()
    with bnprobe.attach(model) as probe:
        expected = model(x)
        other = copied(model)
        assert bits(other(x)) == bits(expected)
        assert probe.recording.about.n_forwards == 1
        assert not any(isinstance(v, bnprobe.Probe) for v in _held_by(other))
        model(x)
    assert probe.recording.layers[0].n_calls == 2
    assert recorded(other, x).layers[0].n_calls == 1


def _held_by(model: nn.Module) -> list[object]:
    hooks = [h for m in model.modules() for k, v in vars(m).items() if "hook" in k and v for h in v.values()]
    return [value for hook in hooks if hasattr(hook, "__dict__") for value in vars(hook).values()]
