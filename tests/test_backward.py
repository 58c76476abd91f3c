"""What backward passes did, against graphs cut at every norm and against the formulas by hand."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from gradients import (
    Cut,
    Pull,
    assert_gradient_true,
    assert_gradients_true,
    dgamma_dbeta_by_hand,
    dx_by_hand,
    loss_of,
    together,
)
from models import CASES, EVAL_ONLY, Case
from torch import Tensor, nn

import bnprobe

BOTH_MODES = [(case, False) for case in CASES + EVAL_ONLY] + [(case, True) for case in CASES]


def _name(value: object) -> str:
    return value.name if isinstance(value, Case) else ("train" if value else "eval")


def trained(case: Case, model: nn.Module, batches: list[Tensor], **options: object) -> bnprobe.Recording:
    """A forward and a backward pass per batch; the input wants a gradient too."""
    with bnprobe.attach(model, **options) as probe:
        for i, x in enumerate(batches):
            torch.manual_seed(i)
            loss_of(case.call(model, x.clone().requires_grad_())).backward()
    return probe.recording


def twins(case: Case, cut: Cut, batches: list[Tensor]) -> list[dict[tuple[str, int], Pull]]:
    return [
        cut.pulls(lambda model, x=x: loss_of(case.call(model, x.clone().requires_grad_())), seed=i)
        for i, x in enumerate(batches)
    ]


@pytest.fixture
def _uncut_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the twin: a checkpointed part is run once, as any other."""
    monkeypatch.setattr("models.checkpoint", lambda part, x, use_reentrant: part(x))


@pytest.mark.parametrize(("case", "training"), BOTH_MODES, ids=_name)
def test_every_gradient_agrees_with_a_cut_graph(case: Case, training: bool, monkeypatch):
    """Fails if any number of a gradient record is not what autograd gives the norm alone, in float64."""
    model, batches = case.model(training), case.batches()
    cut = Cut(model, list(case.norms))
    recording = trained(case, model, batches)
    monkeypatch.setattr("models.checkpoint", lambda part, x, use_reentrant: part(x))
    assert_gradients_true(recording, case, twins(case, cut, batches))
