"""Watching one forward pass, operation by operation, without touching it.

A TorchDispatchMode sees every operation below autograd: in-place forms, functional calls, branches taken
at run time. A torch function mode would be easier to read, but its mere presence turns off fused paths
(multi-head attention in evaluation) and so changes outputs.

The mode must be gone when the model's forward is, however that ends. torch runs no hook of a module when
a KeyboardInterrupt passes, so the mode is not pushed by a hook and popped by another: the pre-hook puts a
frame around this one call of `forward`, in the variable from which torch is about to call it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import CellType, FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils import _python_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from bnprobe.graph.graph import Site
from bnprobe.graph.record_op import Graph
from bnprobe.graph.remembered import Remembered
from bnprobe.norms import ModuleTree
from bnprobe.norms.module_tree import buffers_of, parameters_of


class _Flags:
    """What torch keeps for the whole process while any thread is in a dispatch mode.

    Each mode keeps the flags that it met and puts those back. Of two threads whose passes overlap, the last to leave
    would put back what the first had set, and torch.compile would compile nothing from then on. So ours are counted: the
    flags stand until the last has left.
    """

    NAMES = (
        "_is_in_torch_dispatch_mode",
        "_is_in_non_infra_torch_dispatch_mode",
        "_is_in_any_mode_without_ignore_compile_internals",
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._before: dict[str, bool] = {}

    @contextmanager
    def entering(self) -> Iterator[None]:
        """Around the entry of one mode."""
        with self._lock:
            if not self._n_inside:
                self._before = self._now()
            self._n_inside += 1
            yield

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Around the exit of one mode."""
        with self._lock:
            now = self._now()
            yield
            self._n_inside -= 1
            vars(_python_dispatch).update(now if self._n_inside else self._before)

    def _now(self) -> dict[str, bool]:
        return {name: value for name, value in vars(_python_dispatch).items() if name in self.NAMES}


_FLAGS = _Flags()


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Hands every operation to the trace, before and after it runs."""

    supports_higher_order_operators = True

    def __init__(self, trace: Trace) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = trace

    def __enter__(self) -> Self:
        with _FLAGS.entering():
            super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        with _FLAGS.leaving():
            super().__exit__(*error)  # type: ignore[no-untyped-call]

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled parts stay compiled."""
        return True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Where nothing is compiled torch need not load its compiler for our sake."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        sources = self.trace.before(func, args, kwargs)
        out = func(*args, **kwargs)
        self.trace.after(func, args, kwargs, sources, out)
        return out


class _WatchBesideCompiler(_Watch):  # type: ignore[no-untyped-call]
    """For where torch's compiler is at work in the process: it must not compile the watching itself."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_dispatch__(func, types, args, kwargs)


def watch_this_call(model: nn.Module, args: Any, kwargs: Any) -> Trace | None:
    """Watch the call of `model` whose forward pre-hook is running with `args` and `kwargs`; None where that is not safe.

    That is under other dispatch modes and function transforms (they may need to see operations first),
    where parts of the model are compiled or scripted (their operations stay unseen), and where torch does
    not call `forward` as it does in the versions known here.
    """
    if torch._C._functorch.peek_interpreter_stack() is not None or torch._C._len_torch_dispatch_stack():
        return None
    tree = ModuleTree.of(model)
    if any(map(_is_opaque, tree.modules.values())):
        return None
    cell = _next_forward(model)
    if cell is None:
        return None
    trace, forward = Trace(tree, args, kwargs), cell.cell_contents

    def watched(*args: Any, **kwargs: Any) -> Any:
        return trace.call(forward, args, kwargs)

    cell.cell_contents = watched
    return trace


def _is_opaque(module: nn.Module) -> bool:
    return (
        isinstance(module, torch.jit.ScriptModule)
        or getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(module, "_orig_mod")
    )


def _next_forward(model: nn.Module) -> CellType | None:
    """The variable from which `Module._call_impl`, now running pre-hooks, is about to call forward."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is nn.Module._call_impl.__code__ and frame.f_locals.get("self") is model:
            inner = frame.f_locals.get("inner")
            names = getattr(getattr(inner, "__code__", None), "co_freevars", ())
            if "forward_call" not in names or inner is None:
                return None
            cell: CellType = inner.__closure__[names.index("forward_call")]
            return cell
        frame = frame.f_back
    return None


def _shared(tree: ModuleTree) -> frozenset[int]:
    """The identities of parameters and buffers that more than one module of the model holds."""
    held = Counter(
        id(tensor)
        for module in tree.modules.values()
        for _, tensor in (*parameters_of(module), *buffers_of(module))
    )
    return frozenset(one for one, times in held.items() if times > 1)


class _Here(threading.local):
    """The traces of this thread whose model runs: more than one where several probes are attached to a model."""

    traces: tuple[Trace, ...] = ()


_here = _Here()


def set_aside(own: Trace | None) -> AbstractContextManager[None]:
    """Around what a probe computes: neither its own trace nor that of another probe counts it as the model's doing."""
    others = [trace for trace in _here.traces if trace is not own]
    if not others:
        return nullcontext() if own is None else own.aside()
    return _unseen([*others, *filter(None, [own])])


@contextmanager
def _unseen(traces: list[Trace]) -> Iterator[None]:
    for trace in traces:
        trace.n_aside += 1
    try:
        yield
    finally:
        for trace in traces:
            trace.n_aside -= 1


class Trace:
    """The graph of one forward pass of a model.

    No error in the keeping of books reaches the user: then the graph is given up.
    """

    def __init__(self, tree: ModuleTree, args: Any, kwargs: Any) -> None:
        self._mode: _Watch | None = None
        self.remembered = Remembered.of(tree.model)
        names = {id(tensor): name for name, tensor in (tree.buffers() | tree.parameters()).items()}
        self._graph: Graph | None = Graph(names, _shared(tree))
        self._thread = threading.get_ident()
        self.n_aside = 0
        with self._keeping() as graph:
            if graph is not None:
                graph.model_begins((args, kwargs))

    @property
    def graph(self) -> Graph | None:
        """The graph so far; None when it was given up."""
        return self._graph

    def look_for_order(self, n_sequences: int, n_tokens: int) -> None:
        """From now on operations are noted that put tokens in another order."""
        with self._keeping() as graph:
            if graph is not None:
                graph.tokens = n_sequences, n_tokens

    def look_for_modulation(self, n_samples: int) -> None:
        """From now on what layers make of each sample, or once for all, is followed."""
        with self._keeping() as graph:
            if graph is not None:
                graph.rows = frozenset((1, n_samples))

    def model_ends(self, output: Any) -> None:
        """The model has returned `output`."""
        with self._keeping() as graph:
            if graph is not None:
                graph.model_ends(output)

    def forget(self) -> None:
        """Give up the graph, and with it the last references to tensors."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.storages.forget()

    def norm_begins(self, site: Site, x: Tensor | None) -> None:
        """A norm is called with x."""
        with self._keeping() as graph:
            if graph is not None and x is not None:
                graph.norm_begins(site, x)

    def norm_ends(self, site: Site, y: Tensor | None) -> None:
        """A norm returns y."""
        with self._keeping() as graph:
            if graph is not None and y is not None:
                graph.norm_ends(site, y)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What happens meanwhile is not the model's doing."""
        n_modes = torch._C._len_torch_dispatch_stack()
        if n_modes and torch._C._get_dispatch_stack_at(n_modes - 1) is self._mode:
            # without the mode, which takes longer than a small operation does
            with _python_dispatch._pop_mode_temporarily():
                yield
            return
        with _unseen([self]):  # the mode lies below one of the model's own, or in another thread
            yield

    def before(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation is about to run."""
        with self._keeping() as graph:
            if graph is not None and not self.n_aside:
                return graph.before(args, kwargs)
        return None

    def after(self, func: Any, args: Any, kwargs: Any, sources: Any, out: Any) -> None:
        """An operation has run."""
        with self._keeping() as graph:
            if graph is not None and sources is not None:
                graph.after(func, args, kwargs, sources, out)

    def call(self, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """forward(*args, **kwargs), watched."""
        self._mode = (_WatchBesideCompiler if "torch._dynamo" in sys.modules else _Watch)(self)
        _here.traces = (*_here.traces, self)
        try:
            with self._mode:
                return forward(*args, **kwargs)
        except BaseException:
            self.forget()
            raise
        finally:
            self._mode = None
            _here.traces = tuple(trace for trace in _here.traces if trace is not self)

    @contextmanager
    def _keeping(self) -> Iterator[Graph | None]:
        """The graph, for one entry; an error in it gives the whole graph up, and goes no further."""
        if threading.get_ident() != self._thread:
            yield None
            return
        try:
            yield self._graph
        except Exception:
            self.forget()
