"""Rules about running statistics that training leaves behind, on real training steps."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import bnprobe
from rules.edited import edited, evidence, findings, healthy


def net(**options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4, **options),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 2),
    )


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(8, 3, 6, 6)).square().mean().backward()
    optimizer.step()


def attack(model: nn.Module) -> None:
    """Two gradient steps on the input in eval mode, from which nothing is learned."""
    x = torch.randn(8, 3, 6, 6, requires_grad=True)
    for _ in range(2):
        torch.autograd.grad(model.eval()(x).sum(), x)
    model.train()


def found(rule: str, report: bnprobe.Report) -> pd.DataFrame:
    table = report.findings
    return table[table["rule"] == rule].reset_index(drop=True)


def trained(validates: str, steps: int = 6, before: int = 3, **options: Any) -> bnprobe.Report:
    """A report on training steps; after `before` of them a validation that leaves the mode as `validates` says."""
    model = net(**options)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with bnprobe.attach(model.train()) as probe:
        for i in range(steps):
            if i == before and validates != "never":
                model.eval()
                with torch.no_grad():
                    model(torch.randn(8, 3, 6, 6))
                model.train(validates == "back in train mode")
            if validates == "attacks":
                attack(model)
            step(model, optimizer)
    return bnprobe.report(probe)


def test_a_model_that_is_never_put_back_into_train_mode():
    """Fails if steps in eval mode are not counted: of steps 4, 5 and 6, which learn in eval mode, 2 have a later call."""
    (row,) = found("learning-in-eval", trained("stays in eval mode")).itertuples()
    assert (row.severity, row.layer) == ("warning", "1")
    assert "changed after 2 of 7 calls" in row.because
    assert "1 batch norm learned" in row.because
    assert "`model.train()`" in row.do


def test_modes_that_change_as_they_should():
    """Fails if a validation, or gradients of an attack in eval mode, count as learning in eval mode."""
    for validates in ("never", "back in train mode", "attacks"):
        assert found("learning-in-eval", trained(validates)).empty, validates


def test_gradients_that_are_only_looked_at():
    """Fails if a pass in eval mode with gradients is taken for training, or one without them for learning."""
    model = net()
    data = [torch.randn(8, 3, 6, 6) for _ in range(4)]
    with bnprobe.attach(model.eval()) as probe:
        for x in data:
            model(x).sum().backward()
    assert found("learning-in-eval", bnprobe.report(probe)).empty
    with (
        bnprobe.attach(model) as probe,
        torch.no_grad(),
    ):  # the average of another model's weights, step by step
        for x in data:
            model(x)
            model[1].weight.mul_(0.9)
    assert found("learning-in-eval", bnprobe.report(probe)).empty


def test_a_validation_with_averaged_weights():
    """Fails if weights that are put in for a validation without gradients, and taken out again, count as learning."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with bnprobe.attach(model) as probe:
        for _ in range(3):
            model.train()
            step(model, optimizer)
            model.eval()
            with torch.no_grad():
                model[1].weight.mul_(0.9)
                model(torch.randn(8, 3, 6, 6))
                model[1].weight.div_(0.9)
    assert found("learning-in-eval", bnprobe.report(probe)).empty


def test_the_count_adds_up_over_parts():
    """Fails if merged parts lose it: two parts of 4 steps in eval mode have 3 later calls each."""
    parts = []
    for _ in range(2):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.0)
        with bnprobe.attach(model.eval()) as probe:
            for _ in range(4):
                step(model, optimizer)
        parts.append(probe.recording)
    one = parts[0].layers[0].call_log
    assert one is not None
    assert one.n_learned_in_eval == 3
    assert one.merge(parts[1].layers[0].call_log).n_learned_in_eval == 6  # type: ignore[arg-type]


def test_running_statistics_that_training_never_updates():
    """Fails if track_running_stats = False passes for frozen, or norms that update or hold none are blamed."""
    model = net()
    model[1].track_running_stats = False
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with bnprobe.attach(model.train()) as probe:
        for _ in range(3):
            step(model, optimizer)
    (row,) = found("statistics-not-updated", bnprobe.report(probe)).itertuples()
    assert (row.severity, row.layer) == ("warning", "1")
    assert "3 calls" in row.because
    for options in ({}, {"track_running_stats": False}, {"momentum": 0.0}):
        assert found("statistics-not-updated", trained("never", **options)).empty, options
    assert found("statistics-not-updated", trained("stays in eval mode", before=0)).empty


def test_buffers_that_are_copied_into_a_frozen_norm():
    """Fails if the moving average of another model's buffers counts as a norm that follows the batches."""
    model = net()
    model[1].requires_grad_(False)
    for mode in (False, True):
        with bnprobe.attach(model.train(mode)) as probe:
            for _ in range(3):
                model(torch.randn(8, 3, 6, 6)).sum().backward()
                with torch.no_grad():
                    model[1].running_mean.add_(0.1)
        assert len(found("frozen-but-moving", bnprobe.report(probe))) == mode


EVAL = {"n_learned_in_eval": 5.0, "n_backward": 3.0, "n_calls": 8, "memory_moved": 0.0}


@pytest.mark.parametrize(
    ("rows", "layer", "because"),
    [
        (
            [EVAL],
            "a",
            "γ or β changed after 5 of 8 calls, which computed gradients while the model was in eval mode; 1 batch "
            "norm learned like that.",
        ),
        (
            [EVAL, {**EVAL, "n_learned_in_eval": 6.0}, EVAL],
            "b",
            "γ or β changed after 6 of 8 calls, which computed gradients while the model was in eval mode; 3 batch norms",
        ),
        ([{**EVAL, "n_learned_in_eval": 0.0}], None, ""),
        ([{**EVAL, "n_learned_in_eval": 1.0, "n_calls": 1}], "a", "after 1 of 1 call,"),
        ([{**EVAL, "n_backward": 0.0}], None, ""),
        ([{**EVAL, "n_backward": 1.0}], "a", ""),
        ([{**EVAL, "kind": "layer_norm"}], None, ""),
        ([{**EVAL, "memory_moved": math.nan}], None, ""),
        ([{**EVAL, "n_calls": 0}], None, ""),
    ],
)
def test_what_is_said_of_learning_in_eval_mode(
    rows: list[dict[str, Any]], layer: str | None, because: str
) -> None:
    """Fails if a norm without running statistics or without a gradient counts, or another than the most frequent is
    named."""
    base = evidence(*map(healthy, "abc"[: len(rows)]))
    for i, row in enumerate(rows):
        base = edited(base, at=i, **row)
    found = findings("learning-in-eval", base)
    assert [one.layer for one in found] == ([layer] if layer else [])
    for one in found:
        assert because in one.because


STILL = {
    "mode": "train",
    "normalized_by": "batch",
    "n_calls": 4,
    "n_calls_learning": 4,
    "n_backward": 4.0,
    "memory_moved": 0.0,
    "n_updates": 0.0,
    "momentum": 0.1,
}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({}, True),
        ({"mode": "eval"}, False),
        ({"normalized_by": "running"}, False),
        ({"n_calls_learning": 3}, False),
        ({"n_calls": 1, "n_calls_learning": 1, "n_backward": 1.0}, True),
        ({"n_backward": 0.0}, False),
        ({"memory_moved": 0.1}, False),
        ({"n_updates": 1.0}, False),
        ({"n_updates": math.nan}, True),
        ({"momentum": 0.0}, False),
        ({"momentum": math.nan}, True),
        ({"kind": "instance_norm"}, False),
    ],
)
def test_statistics_that_stand_still_in_training(row: dict[str, Any], told: bool) -> None:
    """Fails if statistics that move, or that another rule reports, are told, or one call is none."""
    given = {**STILL, **row}
    found = findings("statistics-not-updated", edited(evidence(), **given))
    assert len(found) == told
    for one in found:
        calls = "1 call" if given["n_calls"] == 1 else "4 calls"
        assert (
            f"with gradients in {calls}, after which the running means were exactly as before, in 1 batch norm."
            in one.because
        )
