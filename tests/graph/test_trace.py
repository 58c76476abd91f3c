"""Watching leaves nothing behind: exceptions, other modes, compilers, function transforms, RAM, our own errors."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _python_dispatch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.flop_counter import FlopCounterMode

import bnprobe
from bnprobe.graph import trace as tracing
from bnprobe.graph.record_op import Graph
from bnprobe.norms import ModuleTree
from graph.watched import Counting

C = 4
X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


class Small(nn.Module):
    """A convolution, a norm, an activation; `within` is called in between."""

    def __init__(self, within: Callable[[Tensor], Any] = lambda x: None) -> None:
        super().__init__()
        self.conv, self.bn, self.within = nn.Conv2d(3, C, 3), nn.BatchNorm2d(C), within
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        self.within(x)
        return torch.relu_(x)


def probed(model: nn.Module, *inputs: Tensor) -> tuple[Any, list[str]]:
    """What the model returns and what is said to follow its norms, without a gradient."""
    with bnprobe.attach(model) as probe, torch.no_grad():
        output = model(*inputs)
    return output, [record.neighbours.follows for record in probe.recording.layers]


def _raise(error: BaseException) -> Callable[[Tensor], None]:
    def act(x: Tensor) -> None:
        raise error

    return act


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_an_exception_leaves_no_mode(error: BaseException):
    """Fails if what passes torch's hooks by (a KeyboardInterrupt) leaves the mode on, or another error comes out."""
    model = Small(_raise(error))
    with bnprobe.attach(model) as probe:
        with pytest.raises(type(error)) as caught:
            model(X)
        assert _get_current_dispatch_mode_stack() == []
        assert caught.value is error
        assert (error.__cause__, error.__context__) == (None, None)
        model.within = lambda x: None
        with torch.no_grad():
            model(X)
    assert [record.neighbours.follows for record in probe.recording.layers] == ["relu"]


def test_the_mode_is_on_for_one_pass_only():
    """Fails if later passes are watched too: they must cost nothing."""
    seen: list[int] = []
    model = Small(lambda x: seen.append(len(_get_current_dispatch_mode_stack())))
    with bnprobe.attach(model), torch.no_grad():
        for _ in range(3):
            model(X)
    assert seen == [1, 0, 0]
    assert "forward" not in vars(model)


def test_a_model_that_calls_itself_is_watched_once():
    """Fails if the inner call pushes a second mode, or ends the watching of the outer one."""

    class Recursive(Small):
        def forward(self, x: Tensor) -> Tensor:
            x = super().forward(x)
            return torch.tanh(self(x[:, :3])) if x.shape[2] > 5 else x

    model = Recursive()
    with torch.no_grad():
        bare = model(X)
    output, follows = probed(model, X)
    assert follows == ["relu", "relu"]
    assert torch.equal(output, bare)


@pytest.mark.parametrize(
    "method", ["before", "after", "norm_begins", "norm_ends", "model_begins", "model_ends"]
)
def test_our_own_errors_stay_with_us(method: str, monkeypatch: pytest.MonkeyPatch):
    """Fails if a slip in the keeping of books reaches the user."""

    def slip(*args: Any) -> None:
        raise RuntimeError("ours")

    model = Small()
    with torch.no_grad():
        bare = model(X)
    monkeypatch.setattr(Graph, method, slip)
    output, follows = probed(model, X)
    assert torch.equal(output, bare)
    assert follows == ["unknown"]


def test_under_a_mode_of_the_user_nothing_is_watched():
    """Fails if another mode sees other operations because of us, or a counter of operations counts otherwise."""
    model, bare, with_us = Small(), Counting(), Counting()
    with torch.no_grad():
        with bare:
            model(X)
        with bnprobe.attach(model, histograms=False) as probe, with_us:
            model(X)
        assert [record.neighbours.follows for record in probe.recording.layers] == ["unknown"]
        with bnprobe.attach(model) as probe:
            with FlopCounterMode(display=False) as flops:
                model(X)
            assert flops.get_total_flops() == 2 * 2 * C * 3 * 9 * 36
            model(X)  # the next pass is free to be watched
        assert [record.neighbours.follows for record in probe.recording.layers] == ["relu"]
    kept = [name for name in with_us.names if name in bare.names]
    assert [name for name in kept if "conv" in name or "relu" in name] == [
        name for name in bare.names if "conv" in name or "relu" in name
    ]


def test_a_mode_of_the_users_inside_the_model():
    """Fails if modes are popped in another order than they were pushed."""
    mine = Counting()

    def within(x: Tensor) -> None:
        with mine:
            x.sum()

    assert probed(Small(within), X)[1] == ["relu"]
    assert mine.names == ["aten::sum"]
    assert _get_current_dispatch_mode_stack() == []


class Around(nn.Module):
    """A part made in another way, between two norms."""

    def __init__(self, part: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.part, self.last = nn.BatchNorm2d(3), part, nn.BatchNorm2d(C)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.part(self.first(x))).relu()


def same_as_bare(model: nn.Module) -> list[str]:
    """What follows, after holding the outputs of three passes against the bare model's."""
    with torch.no_grad():
        bare = model(X)
        with bnprobe.attach(model) as probe:
            assert all(torch.equal(model(X), bare) for _ in range(3))
    return [record.neighbours.follows for record in probe.recording.layers]


def test_compiled_parts_stay_compiled():
    """Fails if a compiled module runs eagerly under our eyes, or an answer is given that was not seen."""
    frames: list[int] = []

    def backend(graph: Any, example: Any) -> Any:
        frames.append(1)
        return graph.forward

    torch._dynamo.reset()
    conv = nn.Conv2d(3, C, 3)
    assert same_as_bare(Around(torch.compile(conv, backend=backend))) == ["unknown", "unknown"]
    assert frames == [1]


def test_compiled_functions_stay_compiled():
    """A compiled function cannot be recognized beforehand: it must run as it does without us."""
    frames: list[int] = []

    def backend(graph: Any, example: Any) -> Any:
        frames.append(1)
        return graph.forward

    torch._dynamo.reset()
    conv = nn.Conv2d(3, C, 3)
    assert same_as_bare(Around(torch.compile(lambda x: conv(x).tanh(), backend=backend)))[1] == "relu"
    assert frames == [1]


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_scripted_parts():
    """Operations inside a scripted module are not all seen: nothing is said."""
    part = torch.jit.trace(nn.Conv2d(3, C, 3), X)
    assert same_as_bare(Around(part)) == ["unknown", "unknown"]


def test_under_a_function_transform_nothing_is_watched():
    """Fails if tensors that stand for many, or for their derivatives, are taken for what they wrap."""
    model, watched = Small(), []
    handle = model.register_forward_pre_hook(
        lambda m, args, kwargs: watched.append(tracing.watch_this_call(m, args, kwargs)), with_kwargs=True
    )
    torch.func.grad(lambda x: model(x).sum())(X)
    torch.func.vmap(lambda x: model(x[None])[0])(X)
    assert watched == [None, None]
    model(X)
    assert watched[2] is not None
    handle.remove()


def test_tensor_subclasses():
    """Fails if a tensor with a dispatch of its own breaks the pass; nothing is said then."""

    class Logged(Tensor):
        @staticmethod
        def __new__(cls, inner: Tensor) -> Logged:
            made = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
            made.inner = inner
            return made

        def __init__(self, inner: Tensor) -> None:
            pass

        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            plain = [a.inner if isinstance(a, Logged) else a for a in args]
            out = func(*plain, **(kwargs or {}))
            return Logged(out) if isinstance(out, Tensor) else out

    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.bn(x)
            return Logged(x).relu().inner

    model = Inside().eval()
    with torch.no_grad():
        bare = model(X)
    output, follows = probed(model, X)
    assert torch.equal(output, bare)
    assert follows == ["unknown"]


def test_nothing_is_kept_alive():
    """Fails if a tensor of the pass, or a weight computed in it, outlives the pass, without waiting for a collector."""
    made: list[weakref.ref[Tensor]] = []

    class Computed(Small):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.conv.weight * 2
            y = nn.functional.conv2d(x, weight)
            made.extend(weakref.ref(t) for t in (weight, y))
            return torch.relu(self.bn(y))

    gc.collect()
    gc.disable()
    try:
        model = Computed()
        with bnprobe.attach(model, gradients=False) as probe, torch.no_grad():
            model(X)
            alive = [ref() is not None for ref in made]
    finally:
        gc.enable()
    assert alive == [False, False]
    assert [record.neighbours.producer for record in probe.recording.layers] == ["conv"]


def test_memory_is_freed_during_the_pass():
    """Fails if weak references keep the values of earlier layers."""
    kept: list[StorageWeakRef] = []
    alive: list[bool] = []

    class Long(Small):
        def forward(self, x: Tensor) -> Tensor:
            x = self.bn(self.conv(x))
            kept.append(StorageWeakRef(x.untyped_storage()))
            x = x + 1
            alive.append(not kept[0].expired())
            return x

    probed(Long(), X)
    assert alive == [False]


def test_without_a_place_for_the_frame_nothing_is_watched(monkeypatch: pytest.MonkeyPatch):
    """A torch that calls forward in another way is left alone."""
    monkeypatch.setattr(tracing, "_next_forward", lambda model: None)
    output, follows = probed(Small(), X)
    assert follows == ["unknown"]
    assert output.shape == (2, C, 6, 6)


def test_passes_of_two_threads_that_overlap_leave_torchs_flags_as_they_were() -> None:
    """Fails if the last thread to leave puts back what the first had set: torch.compile would compile nothing any more."""

    def flags() -> dict[str, object]:
        return {name: value for name, value in vars(_python_dispatch).items() if name.startswith("_is_in_")}

    before = flags()
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def first(x: Tensor) -> None:
        first_is_in.set()
        assert second_is_in.wait(60)

    def second(x: Tensor) -> None:
        second_is_in.set()
        assert first_is_out.wait(60)

    def run_second() -> None:
        assert first_is_in.wait(60)
        probed(Small(second), X)

    thread = threading.Thread(target=run_second)
    thread.start()
    probed(Small(first), X)
    during = flags()
    first_is_out.set()
    thread.join()
    assert before
    assert during["_is_in_torch_dispatch_mode"]  # the second is still inside
    assert flags() == before


def trace_of(model: nn.Module) -> tracing.Trace:
    return tracing.Trace(ModuleTree.of(model), (X,), {})


def test_a_norm_without_a_tensor_costs_the_graph_nothing() -> None:
    """Fails if a call without an input or output, as of a norm that returns None, gives the whole graph up."""
    trace = trace_of(Small())
    trace.norm_begins(("bn", 0), None)
    trace.norm_ends(("bn", 0), None)
    assert trace.graph is not None
    assert (trace.graph.open, trace.graph.sites) == ([], {})
    trace.norm_begins(("bn", 0), X)
    trace.norm_ends(("bn", 0), X + 1)
    assert list(trace.graph.sites) == [("bn", 0)]


def test_after_the_graph_was_given_up_nothing_is_kept() -> None:
    """Fails if a pass goes on to be watched after the graph is gone, or an operation without sources is entered."""
    trace = trace_of(Small())
    assert trace.before(torch.ops.aten.relu.default, (X,), {}) is not None
    graph = trace.graph
    trace.after(torch.ops.aten.relu.default, (X,), {}, None, X + 1)
    assert trace.graph is graph
    trace.forget()
    assert trace.graph is None
    assert trace.before(torch.ops.aten.relu.default, (X,), {}) is None
    trace.norm_begins(("bn", 0), X)
    trace.norm_ends(("bn", 0), X)
    trace.model_ends(X)
    trace.forget()


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_set_aside_is_so_until_it_ends(fails: bool) -> None:
    """Fails if a trace that was set aside stays so, or one that is set aside twice counts again after the first end."""
    one, other = trace_of(Small()), trace_of(Small())
    with contextlib.suppress(ValueError), tracing._unseen([one, other]):
        with tracing._unseen([one]):
            assert (one.n_aside, other.n_aside) == (2, 1)
        assert (one.n_aside, other.n_aside) == (1, 1)
        assert one.before(torch.ops.aten.relu.default, (X,), {}) is None
        if fails:
            raise ValueError
    assert (one.n_aside, other.n_aside) == (0, 0)
    assert one.before(torch.ops.aten.relu.default, (X,), {}) is not None


def test_which_traces_a_computation_of_a_probe_is_set_aside_for() -> None:
    """Fails if another probe's trace counts what this one computes, or one whose model does not run is touched."""
    own, other, idle = trace_of(Small()), trace_of(Small()), trace_of(Small())

    def during(which: tracing.Trace | None) -> tuple[int, int, int]:
        with tracing.set_aside(which):
            return own.n_aside, other.n_aside, idle.n_aside

    assert during(None) == (0, 0, 0)
    assert during(own) == (1, 0, 0)
    seen: dict[str, tuple[int, int, int]] = {}

    def inner() -> None:
        seen.update(own=during(own), other=during(other), idle=during(idle), none=during(None))

    own.call(lambda: other.call(inner, (), {}), (), {})
    assert seen == {"own": (1, 1, 0), "other": (1, 1, 0), "idle": (1, 1, 1), "none": (1, 1, 0)}
    assert during(None) == (0, 0, 0)


def test_another_thread_sees_and_enters_nothing() -> None:
    """Fails if what other threads compute at the same time is taken for the model's."""
    trace = trace_of(Small())
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append(trace.before(torch.ops.aten.relu.default, (X,), {}))
    )
    thread.start()
    thread.join()
    assert found == [None]
    assert trace.graph is not None


def flags() -> dict[str, object]:
    return {name: value for name, value in vars(_python_dispatch).items() if name.startswith("_is_in_")}


def test_after_a_pass_torchs_flags_are_as_before() -> None:
    """Fails if a pass leaves torch thinking that it is in a mode, so that nothing is compiled any more."""
    before, during = flags(), []
    for _ in range(2):
        probed(Small(lambda x: during.append(flags())), X)
        assert flags() == before
        assert tracing._FLAGS._n_inside == 0
    assert all(found["_is_in_torch_dispatch_mode"] for found in during)
    assert not before["_is_in_torch_dispatch_mode"]


@pytest.mark.parametrize("loaded", [True, False])
def test_the_compiler_is_kept_from_the_watching(loaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if torch's compiler, where it is loaded, may compile our mode, or is loaded for our sake."""
    if loaded:
        monkeypatch.setitem(sys.modules, "torch._dynamo", torch)
    else:
        monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    trace = trace_of(Small())
    seen: list[Any] = []
    assert trace.call(lambda: seen.append(trace._mode), (), {}) is None
    assert isinstance(seen[0], tracing._WatchBesideCompiler) is loaded
    assert seen[0]._should_skip_dynamo() is loaded
    assert seen[0].ignore_compile_internals() is True
    assert trace._mode is None
