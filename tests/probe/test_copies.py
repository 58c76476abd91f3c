"""Copies of a probed model: they record nothing, drag nothing along, and can be saved."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from support.models import BY_NAME
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
