"""Whatever an experiment does, and wherever it fails, the model is afterwards what it was, bit for bit."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.experiments.put_back import put_back, write
from bnprobe.experiments.recalibrate import recalibrate
from bnprobe.norms import ModuleTree
from bnprobe.probe.integrity.fingerprint import Fingerprint


class Odd(nn.Module):
    """Two norms, dropout, a buffer that is replaced at each pass, and one in eval mode on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(4)
        self.conv, self.dropout = nn.Conv2d(3, 4, 3), nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(1))
        self.fails_at = -1
        self.n_calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + 1
        for place, layer in enumerate((self.first, self.conv, self.dropout, self.second)):
            if place == self.fails_at:
                raise RuntimeError(f"planted at {place}")
            x = layer(x)
        return x.mean((2, 3))


def state(model: nn.Module) -> dict[str, object]:
    states = dict(Fingerprint.of(ModuleTree.of(model)).states)
    states["places"] = [id(t) for t in (*model.parameters(), *model.buffers())]  # type: ignore[assignment]
    return states


def batches(n: int = 3) -> list[Tensor]:
    return list(torch.randn(n, 5, 3, 6, 6, generator=torch.Generator().manual_seed(0)))


def in_each_mode(mode: str) -> Odd:
    model = Odd()
    model.train(mode != "eval")
    if mode == "mixed":
        model.second.eval()
    return model


@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
@pytest.mark.parametrize("layer_by_layer", [False, True])
def test_planning_and_preview_leave_no_trace(mode: str, layer_by_layer: bool) -> None:
    model = in_each_mode(mode)
    before = state(model)
    plan = recalibrate(model, batches(), layer_by_layer=layer_by_layer)
    assert state(model) == before
    plan.preview(batches(2))
    assert state(model) == before
    with plan:
        assert not torch.equal(model.first.running_mean, torch.zeros(3))
        model(batches(1)[0])
        model.eval()
    assert state(model) == before
    plan.apply()
    assert state(model) != before
    plan.undo()
    assert state(model) == before


@pytest.mark.parametrize("place", range(4))
def test_a_failure_anywhere_leaves_no_trace(place: int) -> None:
    """Fails if anything is put back only on success."""
    model = in_each_mode("train")
    plan = recalibrate(model, batches())
    model.fails_at = place
    before = state(model)
    for act in (
        lambda: recalibrate(model, batches()),
        lambda: recalibrate(model, batches(), layer_by_layer=True),
        lambda: plan.preview(batches()),
    ):
        with pytest.raises(RuntimeError, match="planted"):
            act()
        assert state(model) == before


def test_ctrl_c_in_the_middle_of_a_preview_leaves_no_trace() -> None:
    model = in_each_mode("eval")
    plan = recalibrate(model, batches())

    def interrupt(output: Tensor, target: object) -> Tensor:
        raise KeyboardInterrupt

    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        plan.preview(batches(), metric=interrupt)
    assert state(model) == before


def test_an_exception_inside_with_takes_the_plan_back() -> None:
    model = in_each_mode("eval")
    plan = recalibrate(model, batches())
    before = state(model)

    def inside() -> None:
        with plan, torch.no_grad():
            model.conv.weight.add_(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        inside()
    assert state(model) == before
    plan.apply()


def test_random_numbers_go_on_where_they_stopped() -> None:
    """Fails if one of the three generators is forgotten."""
    model = nn.Sequential(nn.BatchNorm1d(2))
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    expected = (torch.rand(1).item(), random.random(), np.random.rand())
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    with put_back(model):
        torch.rand(5), random.random(), np.random.rand(3)
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected


def test_a_backward_pass_that_is_still_to_come_stays_valid() -> None:
    """Fails if statistics are written so that autograd takes its saved tensors for overwritten."""
    model = nn.Sequential(nn.BatchNorm1d(3)).eval()
    x = torch.randn(4, 3, requires_grad=True)
    loss = model(x).square().sum()
    recalibrate(model, [torch.randn(8, 3)]).preview([torch.randn(8, 3)])
    loss.backward()
    assert x.grad is not None


def test_tensors_of_the_user_can_still_be_resized() -> None:
    """Fails if numpy looked into a tensor of the model or of a batch, which torch never resizes from then on."""
    model = nn.Sequential(nn.BatchNorm1d(3)).double().eval()
    x = torch.randn(8, 3, dtype=torch.float64)
    recording = bnprobe.record(model, [x.clone()], histograms=False)
    recalibrate(model, recording).preview([x])
    assert recalibrate(model, [x]).channels["mean_after"].notna().all()
    for tensor in (x, model[0].weight.data, model[0].running_mean, model[0].running_var):
        tensor.resize_(100)


def test_what_the_model_changes_of_itself_is_told() -> None:
    """A model that writes into its own parameter in eval mode is named in the effect."""

    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            self.norm.weight.data.add_(1)
            return self.norm(x)

    model = Writes().eval()
    effect = recalibrate(model, [torch.randn(9, 3)]).preview([torch.randn(9, 3)])
    assert any("norm.weight" in note for note in effect.notes)


def test_experiments_of_two_threads_wait_for_one_another() -> None:
    """Fails if a second experiment sees the statistics that the first one has written."""
    model = nn.Sequential(nn.BatchNorm1d(2)).eval()
    running = model[0].running_mean
    inside, seen = threading.Event(), []

    def second() -> None:
        inside.wait()
        with put_back(model):
            seen.append(running.tolist())

    thread = threading.Thread(target=second)
    thread.start()
    with put_back(model):
        write(running, torch.tensor([5.0, 5.0]))
        inside.set()
        thread.join(0.2)
        assert not seen
    thread.join()
    assert seen == [[0.0, 0.0]]


def test_blocks_may_be_nested() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2)).eval()
    running = model[0].running_mean
    with put_back(model):
        write(running, torch.ones(2))
        with put_back(model):
            write(running, torch.full((2,), 7.0))
        assert running.tolist() == [1, 1]
    assert running.tolist() == [0, 0]
