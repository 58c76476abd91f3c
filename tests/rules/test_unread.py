"""Norms that gave no numbers: what is said of parts, of functions beside them, and of tensors without numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from bnprobe.recording.names import EMPTY
from bnprobe.rules import Finding
from bnprobe.rules.edits import Remedy, Remove
from rules.edited import edited, evidence, findings, healthy


def unread(
    *layers: str, why: str = "never called", reached: tuple[str, ...] = ("bn",), **row: Any
) -> list[Finding]:
    """What is said of these layers beside norms that were called."""
    base = evidence(*map(healthy, reached))
    for i in range(len(reached)):
        base = edited(base, at=i, **row)
    table = pd.DataFrame({"layer": list(layers), "why": why})
    return findings("tensors-empty" if why == "empty" else "layer-unread", replace(base, unread=table))


TRAINING = {"n_calls_model_training": 1}


@pytest.mark.parametrize(
    ("layers", "row", "severity", "says", "because", "remedy"),
    [
        (
            ("a",),
            {},
            "warning",
            "This norm layer was never called.",
            "no forward pass reached it through model(...).",
            Remedy((Remove("a"),)),
        ),
        (
            ("head.a", "head.b"),
            TRAINING,
            "warning",
            "Norm layers of this part were never called.",
            "no forward pass reached them through model(...), 2 norms of head.",
            Remedy((Remove("head.a"), Remove("head.b"))),
        ),
        (
            ("head.a", "head.b"),
            {"n_calls_model_training": 0},
            "info",
            "No norm of head was called in eval mode.",
            "no forward pass reached 2 norms in it through model(...), and the model was in eval mode in all of them.",
            None,
        ),
        (
            ("head.a", "head.b"),
            {"n_calls_model_training": 0, "n_calls": 0},
            "warning",
            "Norm layers of this part were never called.",
            "no forward pass reached them through model(...), 2 norms of head.",
            Remedy((Remove("head.a"), Remove("head.b"))),
        ),
        (
            ("a",),
            {"class_name": "F.layer_norm"},
            "info",
            "This norm layer was never called as a module, but a functional norm may use its γ and β.",
            "no forward pass reached it through model(...), but functional norms were called: bn.",
            None,
        ),
        (
            ("h.a", "h.b"),
            {"class_name": "F.layer_norm"},
            "info",
            "Norm layers of this part were never called as modules, but a functional norm may use their γ and β.",
            "no forward pass reached them through model(...), but functional norms were called: bn, 2 norms of h.",
            None,
        ),
    ],
)  # fmt: skip
def test_norms_that_were_never_called(
    layers: tuple[str, ...],
    row: dict[str, Any],
    severity: str,
    says: str,
    because: str,
    remedy: Remedy | None,
) -> None:
    """Fails if a part is told as one norm, eval mode excuses a norm alone, or one that a function may use is to be
    removed."""
    (one,) = unread(*layers, **row)
    assert (one.severity, one.says, one.because, one.remedy) == (severity, says, because, remedy)
    assert one.layer == layers[0]
    code = "`[model.set_submodule(name" if len(layers) > 1 else "`model.set_submodule("
    assert (code in one.do) is (remedy is not None)


@pytest.mark.parametrize(
    ("layers", "reached", "parts"),
    [
        (("a.x.1", "a.x.2", "a.y"), ("bn",), [("a.x.1", 3)]),
        (("a.x.1", "a.x.2", "a.y"), ("a.z",), [("a.x.1", 2), ("a.y", 1)]),
        (("a.x.1", "b.1"), ("bn",), [("a.x.1", 1), ("b.1", 1)]),
        (("ab.1",), ("a.1",), [("ab.1", 1)]),
        (("a", "b"), ("bn",), [("a", 1), ("b", 1)]),
    ],
)
def test_parts_are_the_largest_without_a_norm_that_was_called(
    layers: tuple[str, ...], reached: tuple[str, ...], parts: list[tuple[str, int]]
) -> None:
    """Fails if a part holds a norm that was called, or what begins with the same letters is taken for it."""
    found = unread(*layers, reached=reached, **TRAINING)
    told = [(one.layer, len(one.remedy.edits) if one.remedy else 0) for one in found]
    assert told == parts


@pytest.mark.parametrize(("why", "severity"), [("not understood", "warning"), ("no norm", "info")])
def test_modules_that_are_named_like_norms(why: str, severity: str) -> None:
    """Fails if modules of one class are told one by one, of two classes as one, or their number is another."""
    one, other = unread("a (MyNorm)", "b (OwnNorm)", "c (MyNorm)", why=why)
    assert (one.severity, one.layer, other.layer) == (severity, "a (MyNorm)", "b (OwnNorm)")
    assert "; there are 2 of its class." in one.because
    assert "of its class" not in other.because
    of_its_own = 'register_norm(type(model.get_submodule("b")), '
    assert (of_its_own in other.do) is (why == "not understood")


@pytest.mark.parametrize(
    ("layer", "says", "holds"),
    [
        (
            "a.bn (entries: gamma 4, beta 4, running_var 4)",
            "no running_mean of it",
            "gamma 4, beta 4, running_var 4;",
        ),
        ("a.bn (entries: running_mean 4)", "no running_var of it", "running_mean 4;"),
        (
            "a.bn (entries: running_mean 4, running_var 3)",
            "do not fit together",
            "running_mean 4, running_var 3;",
        ),
    ],
)
def test_what_is_known_of_an_incomplete_norm_of_a_file(layer: str, says: str, holds: str) -> None:
    """Fails if a norm of a file, which has no class, is to be registered, or what it lacks is not named."""
    (one,) = unread(layer, why="not understood")
    assert (one.layer, one.severity) == ("a.bn", "warning")
    assert says in one.says
    assert f"the file holds {holds}" in one.because
    assert "register" not in one.do
    assert "strict=False" in one.do
    (other,) = unread("a.bn (entries: running_mean 4; weight is quantized)", why="not understood")
    assert other.says.startswith("This module is named like a norm")


def test_tensors_without_numbers() -> None:
    """Fails if the layer, or how many of its tensors are empty, is read from the wrong part of the name."""
    (one,) = unread(f"block.bn: 2 of 5 tensors {EMPTY}", why="empty")
    assert (one.severity, one.layer) == ("critical", "block.bn")
    assert one.because == "2 of 5 tensors have no number, or one in place of many."
