"""torch.compile, before and after attaching: compiled code passes no hook."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.models import BY_NAME, C
from torch import Tensor, nn
from torch._dynamo import eval_frame

import bnprobe

BATCHES = BY_NAME["batch norm"].batches(dtype=torch.float32)


class Counting:
    """A backend that runs what it is given, and counts what it compiled and how often that ran."""

    def __init__(self) -> None:
        self.compiled = self.ran = 0

    def __call__(self, graph: Any, example: Any) -> Any:
        self.compiled += 1

        def run(*args: Any) -> Any:
            self.ran += 1
            return graph.forward(*args)

        return run


def wide() -> nn.Module:
    return nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C), nn.ReLU()).eval()


def deep() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(C, C, 3), nn.BatchNorm2d(C)), nn.Sequential(nn.GroupNorm(1, C))
    )


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


def recorded(model: nn.Module) -> bnprobe.Recording:
    with torch.no_grad(), bnprobe.attach(model) as probe:
        for x in BATCHES:
            model(x)
    return probe.recording


def assert_same(found: bnprobe.Recording, expected: bnprobe.Recording) -> None:
    assert [(r.layer, r.n_calls) for r in found.layers] == [(r.layer, r.n_calls) for r in expected.layers]
    for one, other in zip(found.layers, expected.layers, strict=True):
        np.testing.assert_array_equal(one.pre.m2, other.pre.m2)


@pytest.mark.parametrize("build", [wide, deep])
@pytest.mark.parametrize("warm", [False, True], ids=["not yet run", "already run"])
def test_compiled_before_attaching_runs_uncompiled_meanwhile(build: Any, warm: bool):
    """Fails if compiled code runs past the hooks, or stays uncompiled after detach."""
    backend, model = Counting(), build()
    compiled = torch.compile(model, backend=backend)
    with torch.no_grad():
        if warm:
            compiled(BATCHES[0])
        ran = backend.ran
        found = recorded(compiled)
        assert backend.ran == ran
        compiled(BATCHES[0])
        assert backend.ran > ran, "compiled again"
    assert_same(found, recorded(model))
    assert found.about.model == "Sequential"
    assert any("ran uncompiled" in note for note in found.about.notes)
    assert eval_frame._stance.stance == "default"


def test_a_compiled_part_with_norms_runs_uncompiled_and_keeps_its_path():
    """Fails if a part that was compiled by itself is missed, in any of torch's three ways to say so."""
    for compile_part in (
        lambda part: torch.compile(part, backend="eager"),
        lambda part: (part.compile(backend="eager"), part)[1],
    ):
        model = deep()
        expected = recorded(model)
        model[0] = compile_part(model[0])
        found = recorded(model)
        assert_same(found, expected)
        assert any("ran uncompiled" in note for note in found.about.notes)


def test_compiled_parts_without_norms_stay_compiled():
    """Fails if all that is compiled runs eagerly, where nothing of it is probed."""
    backend, model = Counting(), deep()
    model[0][0] = Doubled()  # torch before 2.7 compiles no module whose code is all torch's own
    model[0][0].compile(backend=backend)
    found = recorded(model)
    assert backend.ran == len(BATCHES)
    assert not found.about.notes


@pytest.mark.parametrize("build", [wide, deep])
@pytest.mark.parametrize("fullgraph", [False, True])
def test_compiled_after_attaching_is_noticed_and_said(build: Any, fullgraph: bool):
    """Fails if a model that is compiled while we are attached records nothing in silence, or fails to compile."""
    model = build()
    backend = Counting()
    with torch.no_grad():
        expected = model(BATCHES[0])
        with bnprobe.attach(model) as probe:
            compiled = torch.compile(model, backend=backend, fullgraph=fullgraph)
            for x in BATCHES:
                y = compiled(x)
            np.testing.assert_allclose(compiled(BATCHES[0]), expected, atol=1e-5)
        recording = probe.recording
        assert all(record.n_calls == len(BATCHES) for record in recording.layers)  # but for the first pass
        assert "compiled while the probe was attached" in " ".join(recording.about.notes)
        assert eval_frame._stance.stance == "default"
        ran = backend.ran
        compiled(x)
        assert backend.ran > ran
    assert torch.isfinite(y).all()


def test_a_stance_of_the_user_comes_back():
    """Fails if leaving sets torch's stance to its default instead of what it was."""
    compiled = torch.compile(wide(), backend="eager")
    with torch.compiler.set_stance("eager_on_recompile"):
        one, two = bnprobe.attach(compiled), bnprobe.attach(compiled)
        assert eval_frame._stance.stance == "force_eager"
        one.detach()
        assert eval_frame._stance.stance == "force_eager"
        two.detach()
        assert eval_frame._stance.stance == "eager_on_recompile"


def test_a_plain_model_does_not_wake_the_compiler():
    """Fails if attaching to a model that nobody compiled touches torch's stance."""
    before = eval_frame._stance
    with bnprobe.attach(wide()):
        assert eval_frame._stance is before


class Watched(nn.Module):
    """A forward that is compiled by its decorator."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(C)

    @torch.compile(backend="eager")  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x)


def test_a_decorated_forward_runs_uncompiled():
    """Fails if a model whose class compiles its own forward is taken for a plain one."""
    (record,) = recorded(Watched().eval()).layers
    assert (record.layer, record.n_calls) == ("bn", 3)


def test_a_compiled_model_runs_as_it_was_written():
    """Fails if a compiler traces through the hooks into the compiled loops (that ends the process), or past them."""
    model = nn.Sequential(nn.Conv2d(3, C, 3), nn.BatchNorm2d(C), nn.ReLU()).eval()
    x = torch.randn(2, 3, 9, 8)
    expected = model(x)
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad(), bnprobe.attach(compiled) as probe:
        np.testing.assert_array_equal(compiled(x).numpy(), expected.detach().numpy())
    assert probe.recording.about.n_forwards == 1
    with torch.no_grad(), bnprobe.attach(model) as probe:
        model(x)
    assert probe.recording.about.n_forwards == 1
