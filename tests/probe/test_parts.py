"""Parts of a model that are called by themselves: a training step that never calls the model it belongs to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe

SILENT = "train-mode-in-evaluation"


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
    )


class Step(nn.Module):
    """As Lightning has it: a forward for inference, and a training step that calls the network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).softmax(1)


class Adversaries(nn.Module):
    """A container without a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = net(), net()


class Deep(nn.Module):
    """Lists and dictionaries of modules, which cannot be called."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"some": nn.ModuleList([net()])})


CALLS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, Tensor], Tensor]]] = {
    "step": (Step, lambda model, x: model.net(x)),
    "adversaries": (Adversaries, lambda model, x: model.generator(x) + model.discriminator(x)),
    "dictionary": (lambda: nn.ModuleDict({"net": net()}), lambda model, x: model["net"](x)),
    "deep": (Deep, lambda model, x: model.parts["some"][0](x)),
    "layer by layer": (Step, lambda model, x: model.net[1](model.net[0](x)).mean((2, 3))),
}


def run(way: str, training: bool = True, backward: bool = True) -> bnprobe.Recording:
    torch.manual_seed(0)
    build, call = CALLS[way]
    model, x = build().train(training), torch.randn(6, 3, 7, 7)
    call(model, x)  # for the lazy layer
    with bnprobe.attach(model) as probe:
        for _ in range(3):
            with torch.set_grad_enabled(backward):
                loss = call(model, x).square().mean()
            if backward:
                loss.backward()
    return probe.recording


def rules(recording: bnprobe.Recording) -> set[str]:
    return set(bnprobe.report(recording).findings["rule"])


@pytest.mark.parametrize("way", CALLS)
def test_a_part_that_learns_is_seen_to_learn(way: str):
    """Fails if a call past the model's own forward counts as one without gradients, or outside of training."""
    recording = run(way)
    for record in recording.layers:
        assert (record.call_log.n_calls_learning, record.call_log.n_calls_model_training) == (3, 3)
        assert record.gradient.n_passes == 3
    assert recording.layers
    assert SILENT not in rules(recording)


@pytest.mark.parametrize("way", CALLS)
def test_a_part_that_is_evaluated_in_train_mode_is_still_told(way: str):
    """Fails if the rule is silent whenever the model is not called."""
    recording = run(way, backward=False)
    assert all(record.call_log.n_calls_learning == 0 for record in recording.layers)
    assert SILENT in rules(recording)


@pytest.mark.parametrize("way", CALLS)
def test_the_model_as_a_whole_says_whether_it_trains(way: str):
    """Fails if the flag is that of the part or of the norm, which may be frozen while the model trains."""
    build, call = CALLS[way]
    model, x = build(), torch.randn(6, 3, 7, 7)
    call(model, x)
    for module in model.modules():
        if module is not model:
            module.training = False
    with bnprobe.attach(model) as probe:
        call(model, x)
    (record, *_) = probe.recording.layers
    assert (record.mode, record.call_log.n_calls_model_training) == ("eval", 1)


@pytest.mark.parametrize("way", [way for way in CALLS if way != "layer by layer"])
def test_what_surrounds_a_norm_is_found_in_a_part(way: str):
    """Fails if only calls of the whole model are traced, or one part uses up the looks meant for another."""
    for record in run(way).layers:
        assert record.neighbours.follows == "relu"
        assert record.neighbours.producer.endswith("0")


def test_several_calls_within_a_part_are_told_apart():
    """Fails if a part is no pass of its own: both calls of its one norm would be pooled."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.bn(self.bn(x) * 2 + 5)

    model, x = nn.ModuleDict({"part": Twice()}).eval(), torch.randn(6, 3, 7, 7)
    with bnprobe.attach(model) as probe:
        model["part"](x)
    first, second = probe.recording.layers
    assert (first.site, second.site) == ("part.bn", "part.bn (call 2)")
    np.testing.assert_allclose(second.pre.mean, 2 * x.mean((0, 2, 3)) / np.sqrt(1 + 1e-5) + 5, rtol=1e-5)


def test_a_part_that_raises_leaves_nothing():
    """Fails if the end of a part's call is not noticed: what was read before an exception would count."""

    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(3)

        def forward(self, x: Tensor, breaks: bool) -> Tensor:
            y = self.bn(x)
            if breaks:
                raise ZeroDivisionError
            return y

    model, x = nn.ModuleDict({"part": Breaks()}).eval(), torch.randn(6, 3, 7, 7)
    with bnprobe.attach(model) as probe:
        with pytest.raises(ZeroDivisionError):
            model["part"](x, True)
        model["part"](x, False)
    (record,) = probe.recording.layers
    assert record.n_calls == 1


def test_a_model_that_is_called_is_one_pass():
    """Fails if its parts begin passes of their own."""
    torch.manual_seed(0)
    model, x = Step().eval(), torch.randn(6, 3, 7, 7)
    model(x)
    with bnprobe.attach(model) as probe:
        for _ in range(2):
            model(x)
    about = probe.recording.about
    assert (about.n_forwards, about.n_images) == (2, 12)
    assert not any("outside its own forward" in note for note in about.notes)
