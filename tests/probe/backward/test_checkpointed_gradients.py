"""Gradients of parts that gradient checkpointing runs again inside the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.gradients import Cut, assert_gradients_true, loss_of
from support.models import BN, BY_NAME, Case, Checkpointed, Twice
from support.runs import case_and_mode
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import bnprobe
from probe.backward.runs import gradients, trained, twins, wanted


class TwiceInOnePart(Twice):
    """A norm reached twice in one checkpointed part, and once more in another."""

    def __init__(self, use_reentrant: bool | None) -> None:
        super().__init__()
        self.use_reentrant = use_reentrant

    def run(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        how = self.use_reentrant
        return part(x) if how is None else checkpoint(part, x, use_reentrant=how)

    def part(self, x: Tensor) -> Tensor:
        return self.bn(F.relu(self.bn(x)) * 2 - 1)

    def other(self, x: Tensor) -> Tensor:
        return self.bn(x.tanh() * 3)

    def forward(self, x: Tensor) -> Tensor:
        for part in (self.part, self.other):
            x = self.run(part, x)
        return x


@pytest.mark.parametrize("use_reentrant", [True, False], ids=["reentrant", "not reentrant"])
@pytest.mark.parametrize("training", [True, False], ids=case_and_mode)
def test_a_norm_twice_in_a_checkpointed_part(use_reentrant, training):
    """Fails if a pass is counted twice or not at all, or the calls are exchanged: they are run again in an
    order of their own."""
    norms = {"bn": replace(BN, calls=3)}
    case = Case("", lambda: TwiceInOnePart(use_reentrant), norms)
    plain = replace(case, build=lambda: TwiceInOnePart(None))
    recording = trained(case, case.model(training), case.batches())
    passes = twins(plain, Cut(plain.model(training), ["bn"]), case.batches())
    assert_gradients_true(recording, case, passes)
    assert [record.n_calls for record in recording.layers] == [3, 3, 3]


@pytest.mark.parametrize("use_reentrant", [True, False], ids=["reentrant", "not reentrant"])
def test_a_checkpointed_part_counts_once(use_reentrant):
    """Fails if the norm inside is recorded twice (first run and recomputation), or not at all."""
    case = replace(BY_NAME["checkpointed"], build=lambda: Checkpointed(use_reentrant))
    recording = trained(case, case.model(True), case.batches())
    passes = twins(case, Cut(case.model(True), list(case.norms)), case.batches())
    assert_gradients_true(recording, case, passes)
    assert all(np.nanmax(g.gap_centre) < 1e-10 for g in gradients(recording).values() if g.producer)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # torch's own, of evaluation
def test_checkpointed_evaluation_before_training_is_not_taken_for_it():
    """Fails if calls without a graph, made earlier in evaluation, are matched with later recomputations."""
    case = replace(BY_NAME["checkpointed"], build=lambda: Checkpointed(True))
    model, batches = case.model(False), case.batches()
    with bnprobe.attach(model) as probe:
        with torch.no_grad():
            for x in batches:
                model(x)
        for x in batches:
            loss_of(model(wanted(x))).backward()
    passes = twins(case, Cut(case.model(False), list(case.norms)), batches)
    assert_gradients_true(probe.recording, case, passes)
