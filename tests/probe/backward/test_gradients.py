"""Backward passes: which are recorded, which forward pass each belongs to, in threads and after failures."""

from __future__ import annotations

import gc
import sys
import threading

import numpy as np
import pytest
import torch
from support import oracles
from support.gradients import Cut, assert_gradient_true, energy_by_hand, loss_of, together
from support.models import BN, BY_NAME, C, W
from torch import Tensor, nn

import bnprobe
from bnprobe.recording import Recording
from probe.backward.runs import (
    gradients,
    images,
    learned,
    n_tensors,
    one_behind_conv,
    one_norm,
    probed,
    wanted,
)


@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "gradients=False", "no backward"])
def test_no_gradient_is_no_record(how):
    """Fails if a forward pass alone leaves a gradient record, or one is made although it was declined."""
    case = BY_NAME["mixed"]
    model, (x, *_) = case.model(True), case.batches()
    with bnprobe.attach(model, gradients=how != "gradients=False") as probe:
        if how == "no_grad":
            with torch.no_grad():
                model(wanted(x))
        elif how == "inference_mode":
            with torch.inference_mode():
                model(x)
        else:
            loss = loss_of(model(wanted(x)))
            if how == "gradients=False":
                loss.backward()
    assert set(gradients(probe.recording).values()) == {None}
    assert probe.recording.about.n_forwards == 1


def test_backward_after_detach_is_not_recorded():
    """Fails if hooks that live on in the graph write to a recording that is closed, or raise."""
    model, x = BY_NAME["mixed"].model(True), images(4)
    with bnprobe.attach(model) as probe:
        loss = loss_of(model(wanted(x)))
    loss.backward()
    assert set(gradients(probe.recording).values()) == {None}
    assert model.bn.weight.grad is not None


def test_two_losses_on_one_graph_are_two_passes():
    """Fails if a second backward pass over the same graph is lost, or its pieces join the first's."""
    (model, pulls), x = one_norm(), images()
    with bnprobe.attach(model) as probe:
        y = model(wanted(x))
        loss_of(y, 1).backward(retain_graph=True)
        (2 * loss_of(y, 2)).backward()
    first = pulls(lambda m: loss_of(m(wanted(x)), 1))
    second = pulls(lambda m: 2 * loss_of(m(wanted(x)), 2))
    (record,) = probe.recording.layers
    assert record.n_calls == 1
    assert_gradient_true(record.gradient, BN, [first["1", 0], second["1", 0]], record.eps)


def test_accumulating_over_small_batches_is_a_pass_each():
    """Fails if the accumulated .grad is read, and not the gradient of the pass: the second would hold both."""
    (model, pulls), parts = one_norm(), BY_NAME["batch norm"].batches()
    with bnprobe.attach(model) as probe:
        for x in parts:
            (loss_of(model(wanted(x))) / len(parts)).backward()
    expected = [pulls(lambda m, x=x: loss_of(m(wanted(x))) / len(parts))["1", 0] for x in parts]
    (record,) = probe.recording.layers
    assert_gradient_true(record.gradient, BN, expected, record.eps)


def test_one_loss_over_two_forward_passes():
    """Fails if two calls that one backward pass reaches overwrite each other: as with a Siamese network."""
    (model, pulls), (a, b) = one_norm(), (images(2), images(3, seed=6))
    recording = probed(model, lambda: loss_of(model(wanted(a))) + loss_of(model(wanted(b))))
    expected = [pulls(lambda m, x=x: loss_of(m(wanted(x))))["1", 0] for x in (a, b)]
    assert_gradient_true(recording.layers[0].gradient, BN, expected, recording.layers[0].eps)


def test_interleaved_graphs_keep_their_own_vectors():
    """Fails if a pass is measured with the vectors of the last forward pass, not of its own."""
    (model, pulls), x = one_norm(False), images()
    expected = [pulls(lambda m: loss_of(m(wanted(x))))["1", 0]]
    with bnprobe.attach(model) as probe:
        early = loss_of(model(wanted(x)))
        with torch.no_grad():
            changed = {"weight": model[1].weight * 3, "running_var": model[1].running_var * 2}
            model[1].weight = nn.Parameter(changed["weight"])
            model[1].running_var = changed["running_var"]
        late = loss_of(model(wanted(x)))
        late.backward()
        early.backward()
    twin = Cut(one_behind_conv(lambda: nn.BatchNorm2d(C))().double().eval(), ["1"])
    twin.model.load_state_dict(model.state_dict())
    expected.append(twin.pulls(lambda m: loss_of(m(wanted(x))))["1", 0])
    (record,) = probe.recording.layers
    assert_gradient_true(record.gradient, BN, expected, record.eps)
    np.testing.assert_allclose(record.gradient.gap_map, 0, atol=1e-9)


def test_autograd_grad_in_place_of_backward():
    """Fails if only .backward() counts, or parameters that were not asked for are given a gradient."""
    (model, pulls), x = one_norm(), images()
    expected = pulls(lambda m: loss_of(m(wanted(x))))["1", 0]
    with bnprobe.attach(model) as probe:
        torch.autograd.grad(loss_of(model(wanted(x))), list(model.parameters()))
    assert_gradient_true(probe.recording.layers[0].gradient, BN, [expected], 1e-5)
    with bnprobe.attach(model) as probe:
        torch.autograd.grad(loss_of(model(wanted(x))), [model[1].bias])
    found = probe.recording.layers[0].gradient
    assert (found.n_passes, found.gamma, found.dx, found.importance) == (1, None, None, None)
    np.testing.assert_allclose(found.beta.mean, expected.dbeta, rtol=1e-9)
    assert all(p.grad is None for p in model.parameters())


def test_energy_counts_only_passes_whose_dx_is_known():
    """Fails if a pass without dx adds to what dx is compared with: the norm would seem to take out more."""
    (model, pulls), x = one_norm(), images()
    pull = pulls(lambda m: loss_of(m(wanted(x))))["1", 0]
    with bnprobe.attach(model) as probe:
        loss = loss_of(model(wanted(x)))
        torch.autograd.grad(loss, [model[1].weight], retain_graph=True)
        loss.backward()
    found = probe.recording.layers[0].gradient
    assert found.n_passes == 2
    np.testing.assert_allclose(found.energy, energy_by_hand(BN, pull, 1e-5), rtol=1e-8)


def test_a_graph_of_the_gradient():
    """Fails if create_graph changes what is recorded, or the second derivative is not the user's own."""
    x = images()

    def run(watch: bool) -> tuple[list[Tensor], Recording | None]:
        model, _ = one_norm()
        probe = bnprobe.attach(model) if watch else None
        leaf = wanted(x)
        (slope,) = torch.autograd.grad(loss_of(model(leaf)), leaf, create_graph=True)
        recording = probe.recording if probe else None
        (slope**2).sum().backward()
        return [slope, *(p.grad for p in model.parameters())], recording

    torch.manual_seed(1)
    plain, _ = run(False)
    torch.manual_seed(1)
    watched, recording = run(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    torch.manual_seed(1)
    _, pulls = one_norm()
    pull = pulls(lambda m: loss_of(m(wanted(x))))["1", 0]
    found = recording.layers[0].gradient
    assert found.n_passes == 1
    oracles.assert_same_moments(found.dx, together(BN, [pull.dx]), 1e-8)
    oracles.assert_same_moments(found.dy, together(BN, [pull.dy]), 1e-8)


@pytest.mark.parametrize("same_graph", [True, False], ids=["same graph", "new graph"])
def test_an_exception_inside_backward_leaves_later_passes_right(same_graph):
    """Fails if pieces of a pass that broke off are counted, join the next pass, or raise in it."""
    (model, pulls), x = one_norm(), images()
    fails = [True]

    def interrupt(gradient: Tensor) -> None:
        if fails:
            fails.clear()
            raise ValueError("no more memory")

    def forward() -> Tensor:
        leaf = wanted(x) * 1
        leaf.register_hook(interrupt)  # after the norm has been passed
        return loss_of(model(leaf))

    with bnprobe.attach(model) as probe:
        loss = forward()
        with pytest.raises(ValueError, match="no more memory"):
            loss.backward(retain_graph=True)
        (loss if same_graph else forward()).backward()
    found = probe.recording.layers[0].gradient
    assert_gradient_true(found, BN, [pulls(lambda m: loss_of(m(wanted(x))))["1", 0]], 1e-5)


def test_a_pass_that_broke_off_is_not_kept():
    """Fails if every failed backward pass leaves its calls behind: a loop with retries would fill the memory."""
    model, x = learned(nn.Sequential(nn.LayerNorm(W))), images()

    def interrupt(gradient: Tensor) -> None:
        raise ValueError("no more memory")

    with bnprobe.attach(model):
        model(x)  # what the probe keeps of the layer itself is there from the first call on
        gc.collect()
        before = n_tensors()
        for _ in range(5):
            leaf = wanted(x) * 1
            leaf.register_hook(interrupt)
            with pytest.raises(ValueError, match="no more memory"):
                loss_of(model(leaf)).backward()
            model.zero_grad()
        del leaf
        gc.collect()
        assert n_tensors() <= before


def test_backward_in_another_thread():
    """Fails if what a backward pass tells is bound to the thread of the forward pass."""
    (model, pulls), x = one_norm(), images()
    with bnprobe.attach(model) as probe:
        loss = loss_of(model(wanted(x)))
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
    found = probe.recording.layers[0].gradient
    assert_gradient_true(found, BN, [pulls(lambda m: loss_of(m(wanted(x))))["1", 0]], 1e-5)


@pytest.mark.parametrize("attempt", range(8))
def test_threads_do_not_mix_their_passes(attempt):
    """Fails if gradients of passes that run at the same time are lost or mixed, or follow a .grad that grows."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    (model, pulls), x = one_norm(False), images()
    expected = [
        pulls(lambda m, k=k: k * loss_of(m(wanted(x))))["1", 0] for k in range(1, 5) for _ in range(5)
    ]
    start = threading.Barrier(4)

    def work(k: int) -> None:
        start.wait()
        for _ in range(5):
            (k * loss_of(model(wanted(x)))).backward()

    try:
        with bnprobe.attach(model) as probe:
            threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    found = probe.recording.layers[0].gradient
    assert_gradient_true(found, BN, expected, 1e-5)
