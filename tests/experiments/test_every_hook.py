"""A failure at every hook, batch and metric of every experiment in turn: the model is afterwards as it was, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.errors import BnprobeError
from tests.experiments.synthesize.small import NORMALIZE, SHAPE, Net, batch, trained
from tests.experiments.test_snapshot import state

MOST = 15
"""Failures of one experiment that are tried; of more calls so many, evenly spread."""
ERRORS = (RuntimeError, KeyboardInterrupt)


class Trap:
    """Counts what an experiment calls, and fails at one of the calls."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.n, self.at, self.error = 0, -1, ERRORS[0]
        for module in modules:
            module.register_forward_pre_hook(self)
            module.register_forward_hook(self)

    def __call__(self, *_: object) -> None:
        self.n += 1
        if self.n == self.at:
            raise self.error("planted")

    def set(self, at: int, error: type[BaseException]) -> None:
        self.n, self.at, self.error = 0, at, error

    def batches(self) -> Batches:
        """A loader that may fail at each batch."""
        return Batches(self)

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        """The score of the class that is asked for, or a failure."""
        self()
        return output.gather(1, target[:, None])[:, 0]


class Batches:
    def __init__(self, trap: Trap) -> None:
        self._trap = trap

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for seed in (1, 2):
            self._trap()
            yield batch(6 + seed, seed)


Experiment = Callable[[nn.Module, Trap], Any]


def changed_by_hand(model: nn.Module, trap: Trap) -> None:
    """A plan in a `with` in which the model is run, trained a little and put into another mode."""
    with bnprobe.recalibrate(model, trap.batches()):
        model.train()
        for x, _ in trap.batches():
            model(x)


@cache
def report_before() -> bnprobe.Report:
    """Of the same model, without hooks."""
    return bnprobe.report(bnprobe.record(ready(), [batch(7, 1), batch(8, 2)]))


def remedies(model: nn.Module, trap: Trap) -> None:
    bnprobe.try_remedies(report_before(), model, trap.batches(), trap.metric)


def made(model: nn.Module, trap: Trap) -> None:
    judge = trained(5, seed=2).train()
    judge.register_forward_hook(trap)
    before = state(judge)
    try:
        bnprobe.synthesize(
            model, n=6, steps=2, judge=judge, data=trap.batches(), shape=SHAPE, normalize=NORMALIZE
        )
    finally:
        assert state(judge) == before, "the judge"


EXPERIMENTS: dict[str, Experiment] = {
    "recalibrate": lambda m, t: bnprobe.recalibrate(m, t.batches()),
    "recalibrate, layer by layer": lambda m, t: bnprobe.recalibrate(m, t.batches(), layer_by_layer=True),
    "preview": lambda m, t: bnprobe.recalibrate(m, t.batches()).preview(t.batches(), metric=t.metric),
    "changed by hand": changed_by_hand,
    "ablate": lambda m, t: bnprobe.ablate(m, t.batches(), t.metric),
    "ablate with a budget": lambda m, t: bnprobe.ablate(m, t.batches(), budget_s=60),
    "try_remedies": remedies,
    "synthesize": made,
    "fold": lambda m, t: bnprobe.fold(m, t.batches(), metric=t.metric),
    "replace_norms": lambda m, t: bnprobe.replace_norms(m, t.batches(), by="group", metric=t.metric),
    "prune": lambda m, t: bnprobe.prune(m, t.batches(), proof="data", metric=t.metric),
    "invariances": lambda m, t: bnprobe.invariances(m, [x for x, _ in t.batches()]),
}
SURGERY = ("fold", "replace_norms", "prune")
"""These take eval mode only, and no norm or layer with hooks."""


def ready(training: bool = True) -> Net:
    """With modes, gradients and flags of its own, and a fault whose remedy is code."""
    model = trained()
    model.bn1.eps = 10.0
    model.bn2.train(training)
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    model.head.bias.requires_grad_(False)
    return model


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_failure_anywhere_leaves_the_model_as_it_was(name: str) -> None:
    """Fails if anything that an experiment changes is put back only where it ends well."""
    model, act = ready(name not in SURGERY), EXPERIMENTS[name]
    trap = Trap([model.head] if name in SURGERY else model.modules())
    torch.manual_seed(5)
    before, random = state(model), torch.get_rng_state()

    def tried(at: int, error: type[BaseException] = RuntimeError) -> None:
        trap.set(at, error)
        with suppress(*ERRORS, BnprobeError):  # one line may stand for what the user's metric raised
            act(model, trap)
        assert state(model) == before, f"after a failure at call {at}"
        assert torch.equal(torch.get_rng_state(), random), f"after a failure at call {at}"

    tried(-1)
    assert trap.n > 8
    for i, at in enumerate(range(1, trap.n + 1, -(-trap.n // MOST))):
        tried(at, ERRORS[i % 2])
