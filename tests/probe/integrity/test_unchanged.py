"""Nothing of the model is changed, bit for bit, on success and when it raises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.model_state import bits, fingerprint
from support.models import BY_NAME, Case, Failing
from support.runs import BOTH_MODES, case_and_mode
from torch import Tensor

import bnprobe


def loss_of(output: Any) -> Tensor:
    return (output["features"] if isinstance(output, dict) else output).square().sum()


@pytest.mark.parametrize(("case", "training"), BOTH_MODES, ids=case_and_mode)
def test_nothing_changes_on_success(case: Case, training: bool):
    """Fails if the probe moves one bit of outputs, inputs, buffers, gradients, modes, hooks or random state."""
    plain, probed = case.model(training), case.model(training)
    results = []
    for model, with_probe in ((plain, False), (probed, True)):
        torch.manual_seed(7)
        batches = [x.requires_grad_() for x in case.batches()]
        probe = bnprobe.attach(model) if with_probe else None
        outputs = []
        for x in batches:
            outputs.append(case.call(model, x))
            loss_of(outputs[-1]).backward()
        if probe is not None:
            probe.detach()
            assert probe.recording.layers
        results.append(
            (fingerprint(model), [bits(x) for x in batches], [bits(x.grad) for x in batches], outputs)
        )
    (state, inputs, grads, outputs), (state2, inputs2, grads2, outputs2) = results
    assert state == state2
    assert inputs == inputs2
    assert grads == grads2
    assert [bits(y) for y in outputs] == [bits(y) for y in outputs2]
    # the graph, too: a detach or a clone in a hook would show
    assert [str(y.grad_fn)[:20] for y in outputs if isinstance(y, Tensor)] == [
        str(y.grad_fn)[:20] for y in outputs2 if isinstance(y, Tensor)
    ]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "error", [ValueError("in the middle"), KeyboardInterrupt()], ids=["error", "interrupt"]
)
def test_nothing_changes_when_the_model_raises(training: bool, error: BaseException):
    """Fails if hooks, modes or buffers are restored on success only, or the error is swallowed or replaced."""
    states = []
    for with_probe in (False, True):
        torch.manual_seed(7)
        model = BY_NAME["batch norm"].model()
        model = Failing().double().train(training)
        model.fails = error
        probe = bnprobe.attach(model) if with_probe else None
        with pytest.raises(type(error)) as caught:
            model(BY_NAME["batch norm"].batches()[0])
        assert caught.value is error
        if probe is not None:
            probe.detach()
        states.append(fingerprint(model))
    assert states[0] == states[1]
