"""Rules about parts that learn nothing, on real training steps: a teacher beside a student."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.rules.frozen_parts import fed_by_training, kept_aside, unreached, without_steps
from rules.edited import edited, evidence, healthy

MOVING = "moving-without-gradient"
ABOUT_GRADIENTS = {
    MOVING,
    "learning-but-frozen",
    "frozen-but-moving",
    "gradient-no-signal",
    "train-mode-in-evaluation",
}


def net() -> nn.Sequential:
    inner = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4))
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), inner)


class Distiller(nn.Module):
    """Both see the batch; the teacher without a graph, unless its output is merely detached."""

    def __init__(self, detaches: bool = False) -> None:
        super().__init__()
        self.teacher, self.student, self.detaches = net(), net(), detaches

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.detaches):
            target = self.teacher(x).detach()
        return self.student(x) - target


def step(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


def by_parts(model: nn.Module, x: Tensor) -> Tensor:
    """As a training step outside the model has it."""
    with torch.no_grad():
        target = model.teacher(x)
    return model.student(x) - target


def findings(model: nn.Module, call: Callable[[nn.Module, Tensor], Tensor] = step) -> list:
    torch.manual_seed(0)
    with bnprobe.attach(model) as probe:
        for _ in range(3):
            call(model, torch.randn(8, 3, 9, 9)).square().mean().backward()
    found = bnprobe.report(probe).findings
    return list(found[found["rule"].isin(ABOUT_GRADIENTS)].itertuples())


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "learnable"])
@pytest.mark.parametrize("call", [step, by_parts])
@pytest.mark.parametrize("detaches", [True, False], ids=["detached", "no grad"])
def test_a_teacher_in_train_mode_is_one_finding(detaches: bool, call: Callable, frozen: bool):
    """Fails if each norm speaks by itself, another rule gives other advice, or the student is meant."""
    model = Distiller(detaches).train()
    model.teacher.requires_grad_(not frozen)
    (row,) = findings(model, call)
    assert (row.rule, row.severity, row.layer) == (MOVING, "warning", "teacher.1")
    assert row.says.startswith("teacher.* is in train mode without a gradient")
    assert "2 norms" in row.because
    assert "in 3 updates" in row.because
    assert "other norms had up to 3" in row.because
    assert "`model.teacher.eval()`" in row.do


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "learnable"])
@pytest.mark.parametrize("call", [step, by_parts])
@pytest.mark.parametrize("detaches", [True, False], ids=["detached", "no grad"])
def test_a_teacher_in_eval_mode_is_as_it_should_be(detaches: bool, call: Callable, frozen: bool):
    """Fails if correct distillation is blamed: γ and β that get no gradient do not learn, and need none."""
    model = Distiller(detaches).train()
    model.teacher.eval().requires_grad_(not frozen)
    assert findings(model, call) == []


def test_the_largest_part_without_a_gradient_is_named():
    """Fails if a part is named in which a norm does learn, or the part is a piece of what stands still."""
    model = Distiller().train()
    model.student[3].requires_grad_(False)
    model.whole = nn.ModuleDict({"teacher": model.teacher})
    del model.teacher
    model.forward = lambda x: model.student(x) - model.whole["teacher"](x).detach()
    (row,) = [row for row in findings(model) if row.rule == MOVING]
    assert row.says.startswith("whole.* is")
    assert row.layer == "whole.teacher.1"


def test_a_part_in_which_some_norms_learn_is_not_the_one():
    """Fails if it is enough that some other norm learns outside of the part."""
    model = nn.Sequential(Distiller(), nn.BatchNorm2d(4)).train()
    (row,) = findings(model)
    assert row.says.startswith("0.teacher.* is")


def test_a_single_norm_that_is_cut_off_is_named_itself():
    """Fails if the part around it, in which others learn, is put into eval mode."""
    model = Distiller().train()
    model.aside = nn.BatchNorm2d(3)
    model.teacher.eval()

    def aside(model: nn.Module, x: Tensor) -> Tensor:
        return model.student(x) + 0 * model.aside(x).detach().mean()

    (row,) = [row for row in findings(model, aside) if row.rule == MOVING]
    assert row.says.startswith("aside is in train mode")
    assert "1 norm moved" in row.because
    assert "`model.aside.eval()`" in row.do


def test_without_any_backward_pass_nothing_is_known():
    """Fails if a forward pass in train mode alone is taken for training of something else."""
    model = Distiller().train()
    with bnprobe.attach(model) as probe:
        model(torch.randn(8, 3, 9, 9))
    assert MOVING not in set(bnprobe.report(probe).findings["rule"])


def test_a_part_that_learns_while_its_statistics_are_fixed_is_still_told():
    """Fails if eval mode alone makes a norm count as kept aside: here its γ and β do get gradients."""
    model = Distiller().train()
    model.student.eval()
    model.teacher.eval()
    assert {(row.rule, row.layer.split(".")[0]) for row in findings(model)} == {
        ("learning-but-frozen", "student")
    }


@pytest.mark.parametrize(("calls", "aside"), [(0, frozenset()), (1, frozenset({"b"})), (3, frozenset({"b"}))])
def test_one_call_in_training_tells_what_was_kept_aside(calls: int, aside: frozenset[str]):
    """Fails if a teacher that was called once is blamed, or a model that only evaluates has one."""
    tables = evidence(healthy("a"), healthy("b"))
    tables = edited(
        edited(tables, n_backward=2), at=1, n_backward=0, mode="eval", n_calls_model_training=calls
    )
    assert unreached(tables) == {"b"}
    assert kept_aside(tables) == aside


@pytest.mark.parametrize(
    ("mode", "back", "training", "expected"),
    [("eval", 0, 3, True), ("eval", 0, 0, False), ("eval", 2, 3, False), ("train", 0, 3, False)],
    ids=["kept aside", "nothing trains", "learns itself", "in train mode"],
)
def test_a_teacher_called_by_itself_is_fed_by_training(mode: str, back: int, training: int, expected: bool):
    """Fails if what a teacher is fed counts as training only where a call of the whole model computes gradients."""
    tables = edited(evidence(healthy("a"), healthy("b")), n_backward=2)
    alone = {"n_calls_model_training": training, "n_calls_learning": 0}
    tables = edited(tables, at=1, n_backward=back, mode=mode, **alone)
    assert fed_by_training(tables, tables.layers.iloc[1]) is expected


@pytest.mark.parametrize("call", [step, by_parts])
def test_augmented_samples_at_a_teacher_are_no_warning(call: Callable):
    """Fails if a teacher that is called by itself, without gradients, is said to get wrong inputs at warning."""
    torch.manual_seed(0)
    model = Distiller().train()
    for x in torch.randn(40, 8, 3, 9, 9):
        model.teacher(x)
    model.teacher.eval()
    with bnprobe.attach(model) as probe:
        for x in torch.randn(6, 8, 3, 9, 9):
            call(model, 4 * x + 3).square().mean().backward()
    found = bnprobe.report(probe).findings
    of_teacher = found[found["layer"].str.startswith("teacher") & (found["rule"] == "data-shifted")]
    assert set(of_teacher["severity"]) == {"info"}


class Tuned(nn.Module):
    """A backbone with norms, and a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = net(), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def stepped(model: Tuned, *learn: nn.Module, n: int = 3, rate: float = 0.1) -> list:
    """What is found after so many steps of an optimizer that has these parts."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD([p for part in learn for p in part.parameters()], rate)
    with bnprobe.attach(model) as probe:
        for _ in range(n):
            optimizer.zero_grad()
            model(torch.randn(8, 3, 9, 9)).square().mean().backward()
            optimizer.step()
    found = bnprobe.report(probe).findings
    return list(found[found["rule"] == MOVING].itertuples())


def test_a_part_that_the_optimizer_does_not_have():
    """Fails if a backbone in train mode that was left out of the optimizer passes for one that learns."""
    model = Tuned().train()
    (row,) = stepped(model, model.head)
    assert (row.severity, row.layer) == ("warning", "backbone.1")
    assert row.says.startswith("backbone.* is in train mode, but no step changes it")
    assert "γ and β of 2 norms were the same after up to 3 backward passes" in row.because
    assert "in 3 updates" in row.because
    assert "to the optimizer" in row.do
    assert "`model.backbone.eval()`" in row.do


def test_parts_of_which_nothing_is_said():
    """Fails if a part that learns, one in eval mode, one without a step at all or with too few, is called left out."""
    model = Tuned().train()
    assert stepped(model, model) == []
    assert stepped(model, model.head, n=2) == []
    assert stepped(model, model.head, rate=0.0) == []
    model.backbone.eval()
    assert stepped(model, model.head) == []


LEFT_OUT = {"stepped": 0.0, "n_backward": 3, "learns": "both", "memory_moved": 0.2, "normalized_by": "batch"}


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        ({}, {"a"}),
        ({"stepped": 1.0}, set()),
        ({"stepped": float("nan")}, set()),
        ({"learns": "none"}, set()),
        ({"normalized_by": "running"}, set()),
        ({"memory_moved": 0.0}, set()),
        ({"parameter_dtype": "bfloat16"}, set()),
        ({"grad": 0.0}, set()),
    ],
)
def test_each_condition_of_a_part_without_steps(cells: dict, found: set):
    """Fails if one is not asked for: updates in half precision may be too small, and dead channels get no gradient."""
    row = {**LEFT_OUT, **cells}
    grad = row.pop("grad", 0.5)
    tables = edited(evidence(healthy("a")), {"grad_gamma": grad, "grad_beta": 0.0}, **row)
    assert without_steps(tables) == found
