"""No tensor, graph or hook of a backward pass is kept, and the tensors of the user are as without the probe."""

from __future__ import annotations

import gc
import weakref
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from support.gradients import loss_of
from support.models import BY_NAME, Case
from support.runs import BOTH_MODES, case_and_mode
from torch import Tensor

import bnprobe
from bnprobe.stats.folds import N_FOLDS
from probe.backward.runs import gradients, images, n_tensors, one_norm, wanted


@pytest.mark.parametrize(("case", "training"), BOTH_MODES, ids=case_and_mode)
def test_the_users_tensors_are_as_without_the_probe(case: Case, training: bool):
    """Fails if a bit of an output, a parameter's .grad or the input's .grad changes, or a tensor carries a hook."""

    def run(watch: bool) -> list[Tensor]:
        model = case.model(training)
        probe = bnprobe.attach(model) if watch else None
        result = []
        for i, x in enumerate(case.batches()):
            torch.manual_seed(i)
            leaf = wanted(x)
            output = case.call(model, leaf)
            loss = loss_of(output)
            loss.backward()
            y = output["features"] if isinstance(output, dict) else output
            for tensor in (leaf, y, loss, *model.parameters()):
                assert not tensor._backward_hooks
                assert not getattr(tensor, "_post_accumulate_grad_hooks", None)
            result += [y.detach(), leaf.grad]
        if probe:
            probe.detach()
            assert any(gradients(probe.recording).values())
        return [
            *result,
            *(p.grad for p in model.parameters() if p.grad is not None),
            *model.state_dict().values(),
        ]

    plain, watched = run(False), run(True)
    assert len(plain) == len(watched)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))


@pytest.mark.parametrize("name", ["mixed", "checkpointed"])
def test_no_graph_outlives_its_pass(name):
    """Fails if the probe holds a node, a gradient or an activation after backward, or grows with the steps."""
    case = BY_NAME[name]
    model, (x, *_) = case.model(True), case.batches()
    counts = []
    with bnprobe.attach(model) as probe:
        for step in range(50):
            leaf = wanted(x)
            output = case.call(model, leaf)
            watched = [weakref.ref(leaf), weakref.ref(output), tied_to(output.grad_fn)]
            loss_of(output).backward()
            model.zero_grad()
            del leaf, output
            assert [ref() for ref in watched] == [None] * 3, "without the help of the garbage collector"
            if step in (4, 49):
                gc.collect()
                counts.append(n_tensors())
        size = sum(a.nbytes for a in arrays_of(probe.recording))
    assert counts[0] == counts[1]
    with bnprobe.attach(model) as probe:
        for _ in range(N_FOLDS):  # each of the first batches opens a fold
            loss_of(case.call(model, wanted(x))).backward()
    assert sum(a.nbytes for a in arrays_of(probe.recording)) == size


class Tied:
    """Lives as long as the node that it is hung on; nodes themselves take no weak references."""

    def __call__(self, *gradients: Any) -> None: ...


def tied_to(node: Any) -> weakref.ref[Tied]:
    hung = Tied()
    node.register_hook(hung)
    return weakref.ref(hung)


def arrays_of(value: Any) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, tuple):
        return [a for item in value for a in arrays_of(item)]
    if hasattr(value, "__dataclass_fields__"):
        return [a for field in fields(value) for a in arrays_of(getattr(value, field.name))]
    return []


def test_a_graph_that_is_never_run_goes_with_its_output():
    """Fails if a forward pass without a backward pass keeps its graph: hooks on nodes must not hold the nodes."""
    model = one_norm()[0]
    with bnprobe.attach(model):
        y = model(wanted(images()))
        behind = y.grad_fn.next_functions[0][0]
        assert "Convolution" in behind.name(), "its weights feed the norm, so it is hooked too"
        gone = [tied_to(y.grad_fn), tied_to(behind), weakref.ref(y)]
        del y, behind
        assert [ref() for ref in gone] == [None] * 3
