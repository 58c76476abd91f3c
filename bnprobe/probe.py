"""Hooks in, hooks out: the only room that touches torch's hook machinery.

A probe reads each norm's input in a forward pre-hook and finishes in the forward hook. What one
forward pass of the whole model saw is added only when that pass has ended well: an exception in the
middle leaves no trace. Nothing is written on the user's modules, and no tensor is kept.
"""

from __future__ import annotations

import platform
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Self
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils.hooks import RemovableHandle

from bnprobe.backward import BackwardCall
from bnprobe.condense import WHOLE
from bnprobe.errors import BnprobeError, NoNormLayers
from bnprobe.graph import Origin, origin_of, route
from bnprobe.labels import check_length, labels_of
from bnprobe.ledger import ALONE, LedgerTotals, Situation
from bnprobe.neighbours import Wiring
from bnprobe.norms import NormLayer, folded_away, is_norm, looks_like_norm
from bnprobe.observation import (
    Before,
    Last,
    Reference,
    Seen,
    Vectors,
    last_of,
    observe_after,
    observe_before,
    share_of,
    vectors_of,
)
from bnprobe.recording import About, LayerRecord, Normalize, Recording
from bnprobe.stats.moments import Array
from bnprobe.totals import GradientTotals, Totals
from bnprobe.watch import Watch
from bnprobe.wiring import UNKNOWN, Known, Trace, watch_this_call, wirings

MOST_WATCHED = 4
"""Forward passes whose operations are watched: the first, and those after a norm was met for the first time."""

MOST_RECOMPUTED = 64
"""Calls of one layer without a graph that are remembered until a checkpoint repeats them."""


def attach(
    model: nn.Module,
    *,
    layers: str | Sequence[str] | None = None,
    histograms: bool = True,
    gradients: bool = True,
    scaler: Any = None,
    normalize: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Probe:
    """Hook every normalization layer of `model` and return the probe that records them.

    Use it as a context manager, or call `detach()`. `layers` narrows it to paths that match one of
    these shell patterns ("layer4.*"); `histograms=False` leaves out the distributions, `gradients=False`
    what backward passes do. With a loss scaler (torch.amp.GradScaler) give it as `scaler`, so that
    gradients are recorded unscaled. `normalize` is (mean, std) per input channel where the inputs are
    (pixel - mean) / std of pixels in 0 to 1: with it `report.stem` tells colours, else only units of the input.

    Raises NoNormLayers when the model holds no layer that is understood, or none that matches.
    """
    if not isinstance(model, nn.Module):
        raise BnprobeError(
            f"attach needs a torch.nn.Module, got {type(model).__name__}. Pass the model itself."
        )
    constants = None if normalize is None else Normalize(*(tuple(map(float, part)) for part in normalize))
    return Probe(model, _choose(model, _patterns(layers)), histograms, gradients, scaler, constants)


def _patterns(layers: Any) -> list[str] | None:
    """The shell patterns of `layers`; None for every layer."""
    if layers is None:
        return None
    several = isinstance(layers, Iterable) and not isinstance(layers, str)
    patterns = list(layers) if several else [layers]
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise BnprobeError(
            f"layers={layers!r} is not a path. Give a path or a shell pattern such as "
            '"layer4.*", or a list of them.'
        )
    if not patterns:
        raise BnprobeError("layers is empty, so there is nothing to probe. Leave it out for every layer.")
    return patterns


def _choose(model: nn.Module, patterns: Sequence[str] | None) -> dict[str, nn.Module]:
    """The norm layers to hook, by path."""
    norms = {
        name or type(model).__name__: module for name, module in model.named_modules() if is_norm(module)
    }
    if not norms:
        raise NoNormLayers(_no_norms(model))
    chosen = {n: m for n, m in norms.items() if patterns is None or any(fnmatchcase(n, p) for p in patterns)}
    if not chosen:
        some = ", ".join(list(norms)[:3])
        raise NoNormLayers(
            f"no norm layer of {type(model).__name__} matches {', '.join(patterns or [])}. "
            f"Its {len(norms)} norm layers have paths like {some}."
        )
    return chosen


def _no_norms(model: nn.Module) -> str:
    name = type(model).__name__
    like = [type(module).__name__ for module in model.modules() if looks_like_norm(module)]
    if not like:
        return f"{name} has no normalization layer. Check that Conv+BN were not fused, and that this is the right model."
    closest = max(set(like), key=like.count)
    return (
        f"{name} has no normalization layer I know. Closest: {closest} ({like.count(closest)} modules, by name). "
        f"Teach me with bnprobe.register_norm({closest}, describe), or check that Conv+BN were not fused."
    )


@dataclass
class _Site:
    """The running total of one (layer, call), and what its first call settled.

    `settled` holds the plan and the way to the output by the layer's training flag: a layer frozen in
    a way of its own may follow another plan in each mode.
    """

    settled: dict[bool, tuple[int, str]]
    mismatch: float
    reference: Reference
    first: Vectors
    plan: NormLayer
    last: Last
    n_calls: int = 0
    n_calls_training: int = 0
    n_calls_running: int = 0
    n_images: int = 0
    output: str = "derived"
    wiring: Wiring | None = None
    totals: Totals = field(default_factory=Totals)
    ledger: LedgerTotals = field(default_factory=LedgerTotals)

    def add(self, seen: Seen, situation: Situation) -> None:
        """Updating is merging: every statistic of the call joins the total."""
        before = seen.before
        self.totals.add(seen)
        self.ledger.add(seen, situation)
        self.n_calls += 1
        self.n_calls_training += before.training
        self.n_calls_running += before.plan.uses_running
        self.n_images += seen.n_images
        self.plan, self.last = before.plan, last_of(before)
        self.output = "read" if "read" in (seen.output, self.output) else "derived"
        self.mismatch = float(np.fmax(self.mismatch, seen.mismatch))


class _Pass(threading.local):
    """One thread's forward pass of the whole model: calls so far, and what waits for its end."""

    def __init__(self) -> None:
        self.depth = 0
        self.labels: Array | None = None
        self.begin(None)

    def begin(self, handling: BaseException | None) -> None:
        self.handling = handling
        self.wants_graph = False
        self.situation = ALONE
        self.started = time.perf_counter()
        self.n_images = 0
        self.calls: dict[str, int] = {}
        self.memory: dict[str, Vectors] = {}
        self.open: list[tuple[str, int, list[Before | None], Origin | None]] = []
        self.waiting: list[tuple[tuple[str, int], tuple[int, str], Seen]] = []
        self.trace: Trace | None = None


@dataclass
class _Reached:
    """The norms that one backward pass has reached so far."""

    calls: list[BackwardCall] = field(default_factory=list)
    __hash__ = object.__hash__


class Probe:
    """What `attach` returns: it records until `detach()`, and its `recording` is a snapshot at any time."""

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        histograms: bool = True,
        gradients: bool = True,
        scaler: Any = None,
        normalize: Normalize | None = None,
    ) -> None:
        self._layers = dict(layers)
        self._n_layers = len(layers)
        self._model_name = type(model).__name__
        self._n_parameters = sum(p.numel() for p in model.parameters() if not _is_lazy(p))
        self._histograms = histograms
        self._wants_gradients = gradients
        self._scaler = scaler
        self._normalize = normalize
        self._perhaps_scaled = False
        self._gradients: dict[tuple[str, int], GradientTotals] = {}
        self._backward: WeakValueDictionary[int, _Reached] = WeakValueDictionary()
        self._graphless: dict[str, deque[tuple[int, Array]]] = {}
        self._sites: dict[tuple[str, int], _Site] = {}
        self._memory: dict[str, Vectors] = {}
        self._watches = {name: Watch() for name in layers}
        self._lock = threading.Lock()
        self._pass = _Pass()
        self._n_forwards = self._n_images = 0
        self._seconds = 0.0
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._not_understood = tuple(
            f"{name} ({type(module).__name__})"
            for name, module in model.named_modules()
            if looks_like_norm(module)
        )
        self._folded = folded_away(model)
        self._device = ""
        self._wants_wiring, self._n_watched = True, 0
        self._n_unreadable = 0
        self._n_outside = 0
        self._handles: list[RemovableHandle] = []
        self._final: Recording | None = None
        self._hook(model)

    def _hook(self, model: nn.Module) -> None:
        """Register every hook, or none."""
        put = self._handles.append
        try:
            put(model.register_forward_pre_hook(_Hook(self, "_model_begins"), with_kwargs=True))
            for name, module in self._layers.items():
                put(module.register_forward_pre_hook(_Hook(self, "_before", name), with_kwargs=True))
                put(module.register_forward_hook(_Hook(self, "_after", name), with_kwargs=True))
            # always called: a pass that ends in an exception must give up what it saw
            put(model.register_forward_hook(_Hook(self, "_model_ends"), with_kwargs=True, always_call=True))
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Remove the hooks; may be called any number of times. The recording stays as it is then."""
        if self._handles:
            self._final = self.recording
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        # nothing of the model is ours to hold any longer
        self._layers, self._sites, self._watches = {}, {}, {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    @contextmanager
    def labels(self, labels: Any) -> Iterator[None]:
        """Say to which classes the samples of the batches inside belong, for the variance between classes.

        `labels` is a 1-D tensor, array or list of whole numbers, one per sample of every batch that passes
        inside; a negative number or None stands for a sample without a label. They hold for forward passes
        of this thread and end with the block, however it ends; inside another block they take its place.

        Raises BadLabels for another form, and from the model's forward for a batch of another length.
        """
        run = self._pass
        outer, run.labels = run.labels, labels_of(labels)
        try:
            yield
        finally:
            run.labels = outer

    @property
    def n_images(self) -> int:
        """Samples of the completed forward passes so far."""
        return self._n_images

    def __repr__(self) -> str:
        state = "attached to" if self._handles else "detached from"
        return f"<Probe {state} {self._n_layers} norm layers of {self._model_name}, {self._n_forwards} forward passes>"

    @property
    def recording(self) -> Recording:
        """What was seen so far, as plain data; usable after `detach()` and not changed by later passes."""
        if self._final is not None:
            return self._final
        with self._lock:
            sites = dict(self._sites)
            for site in sites.values():
                site.totals.come_home()
            about = self._about()
        reached = {name for name, _ in sites}
        return Recording(
            about=about,
            layers=tuple(self._record(name, call, site) for (name, call), site in sites.items()),
            not_understood=self._not_understood,
            never_called=tuple(name for name in self._layers if name not in reached),
            folded=self._folded,
        )

    def _about(self) -> About:
        notes = []
        if self._n_unreadable:
            notes.append(
                f"{self._n_unreadable} calls of norm layers had an input that is not a floating tensor of known shape, "
                "or ran inside a transform of torch.func, where tensors stand for others."
            )
        if self._n_outside:
            notes.append(
                "Parts of the model were called outside its own forward: there the calls of a layer that is used "
                "more than once are not told apart. Attach to the part that is called."
            )
        if self._perhaps_scaled and self._gradients:
            notes.append(
                "Gradients passed a forward under float16 autocast: if a loss scaler was in use they are scaled by it. "
                "Give it to attach(model, scaler=...) to record them unscaled."
            )
        return About(
            model=self._model_name,
            device=self._device or "none",
            versions=f"bnprobe {_version()}, torch {torch.__version__}, Python {platform.python_version()}",
            started=self._started,
            n_parameters=self._n_parameters,
            n_forwards=self._n_forwards,
            n_images=self._n_images or max((site.n_images for site in self._sites.values()), default=0),
            seconds=self._seconds,
            notes=tuple(notes),
            normalize=self._normalize,
        )

    def _record(self, name: str, call: int, site: _Site) -> LayerRecord:
        plan, last = site.plan, site.last.vectors
        now = vectors_of(plan)
        moved = [not _same(a, b) for a, b in zip(vars(site.first).values(), vars(now).values(), strict=True)]
        tracked, gradient = plan.n_batches_tracked, self._gradients.get((name, call))
        return LayerRecord(
            layer=name,
            call=call,
            kind=plan.kind,
            class_name=type(self._layers[name]).__name__,
            pools=plan.pools,
            eps=plan.eps,
            momentum=plan.momentum,
            n_batches_tracked=None if tracked is None else int(tracked),
            gamma=last.gamma,
            beta=last.beta,
            running_mean=site.first.running_mean,
            running_var=site.first.running_var,
            parameters_moved=moved[0] or moved[1],
            buffers_moved=moved[2] or moved[3],
            n_calls=site.n_calls,
            n_calls_training=site.n_calls_training,
            n_calls_running=site.n_calls_running,
            n_images=site.n_images,
            output=site.output,
            mismatch=site.mismatch,
            wiring=site.wiring or UNKNOWN,
            gradient=gradient.finished() if gradient is not None else None,
            ledger=site.ledger.finished(plan, now, self._watches[name].counted_at_first),
            **site.totals.finished(),
        )

    # What the hooks call, in the order of a forward pass.

    def _model_begins(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if _is_recomputation():
            return
        run = self._pass
        if run.depth and _calls_on_stack(model) > 1:
            run.depth += 1  # the model calls itself
            return
        run.depth = 1
        run.begin(sys.exception())
        run.wants_graph = self._wants_gradients and torch.is_grad_enabled()
        run.situation = Situation.of(model)
        first = _first_tensor(args, kwargs)
        if first is not None:
            run.n_images = first.shape[0] if first.dim() else 1
            self._device = self._device or _device_name(first)
            if run.labels is not None:
                check_length(run.labels, run.n_images)
        if self._wants_wiring and self._n_watched < MOST_WATCHED and not _is_transformed():
            self._n_watched += 1
            run.trace = watch_this_call(model, args, kwargs)

    def _before(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        run = self._pass
        x = _first_tensor(args, kwargs)
        for_gradient = self._wants_gradients and torch.is_grad_enabled()
        origin = origin_of(x) if x is not None and for_gradient else None
        again = _is_recomputation()
        if again:
            if not for_gradient or not self._graphless.get(name):
                return
            call = self._graphless[name][0][0]
        else:
            # outside a pass of the whole model there is no end that would restart the count
            call = run.calls.get(name, 0) if run.depth else 0
            run.calls[name] = call + 1
            if run.trace is not None:
                run.trace.norm_begins((name, call), x)
        tries = self._read(name, call, module, x, for_gradient)
        if again:
            call = self._call_of(name, tries)
        run.open.append((name, call, tries, origin))

    def _call_of(self, name: str, tries: list[Before | None]) -> int:
        """Which call a recomputation repeats: of those that made no graph, the one with the nearest input.

        Checkpointed parts are recomputed in another order, and maybe in another thread, than they ran in.
        """
        seen = next((tried.reading.moments.mean for tried in tries if tried is not None), None)
        with self._lock:
            calls = self._graphless[name]
            distances = [np.inf if seen is None else float(np.abs(mean - seen).sum()) for _, mean in calls]
            nearest = int(np.argmin(distances))
            call = calls[nearest][0]
            del calls[nearest]
        return call

    def _read(
        self, name: str, call: int, module: nn.Module, x: Tensor | None, for_gradient: bool
    ) -> list[Before | None]:
        """The input, read by every plan that may fit; by the settled one after the first call."""
        if x is None or not _has_values(x):
            return []
        site = self._sites.get((name, call))
        watch = self._watches[name]
        plans = watch.plans(module)
        settled = site.settled.get(module.training) if site else None
        plans = plans if settled is None else (plans[settled[0]],)
        memory = self._memory.get(name) or self._pass.memory.get(name)
        if memory is None:
            memory = self._pass.memory[name] = watch.vectors(plans[0])
            watch.begins(plans[0])
        return [
            observe_before(
                plan,
                watch.vectors(plan),
                x,
                module.training,
                memory,
                site.reference if site else None,
                self._histograms,
                settled is None,
                for_gradient,
                share_of(site.totals.n_values, site.n_images) if site else WHOLE,
                site.last if site else None,
                self._pass.labels,
            )
            if plan.fits(x)
            else None
            for plan in plans
        ]

    def _after(self, name: str, module: nn.Module, output: Any) -> None:
        run = self._pass
        while run.open and run.open[-1][0] != name:
            run.open.pop()  # calls that an exception cut short
        if not run.open:
            return
        _, call, tries, origin = run.open.pop()
        if run.trace is not None:
            run.trace.norm_ends((name, call), _first_tensor(output))
        before = [b for b in tries if b is not None]
        if not before:
            self._n_unreadable += 1
            return
        y = _first_tensor(output)
        if _is_recomputation():
            self._await_gradient((name, call), before[0], y, origin)
            return
        site = self._sites.get((name, call))
        settled = site.settled.get(before[0].training) if site else None
        seen = observe_after(before, y, settled[1] if settled else None, self._histograms)
        self._await_gradient((name, call), seen.before, y, origin)
        # the one tensor of a call that a backward pass may need, and a site must not keep
        seen.before.inverse_var = None
        run.waiting.append(((name, call), settled or (_index_of(seen, tries), seen.output), seen))
        if run.wants_graph and not torch.is_grad_enabled():
            with self._lock:
                known = self._graphless.setdefault(name, deque(maxlen=MOST_RECOMPUTED))
                known.append((call, seen.before.reading.moments.mean))
        if not run.depth:
            self._n_outside += 1
            self._commit(run)

    def _await_gradient(
        self, site: tuple[str, int], before: Before, y: Tensor | None, origin: Origin | None
    ) -> None:
        """Hook the graph of this call, where there is one."""
        if y is None or not self._wants_gradients or not torch.is_grad_enabled() or not before.plan.fits(y):
            return
        way = route(y, origin, before.plan)
        if way is None:
            return
        BackwardCall(before, way, before.inverse_var, site, self)
        if self._scaler is None and torch.is_autocast_enabled(y.device.type):
            self._perhaps_scaled |= torch.get_autocast_dtype(y.device.type) == torch.float16

    @property
    def listening(self) -> bool:
        """Whether gradients still count: until `detach()`."""
        return bool(self._handles)

    def backward_begins(self, call: BackwardCall) -> float:
        """A backward pass has reached a norm: finish its record when the pass ends, in whatever thread."""
        task = torch._C._current_graph_task_id()
        with self._lock:
            reached = self._backward.get(task)
            if reached is None:
                reached = self._backward[task] = _Reached()
                # only the engine holds it: when a pass fails, it goes with the pass
                engine = torch.autograd.Variable._execution_engine
                engine.queue_callback(partial(self._backward_ends, reached))
            reached.calls.append(call)
        return float(self._scaler.get_scale()) if self._scaler is not None else 1.0

    def _backward_ends(self, reached: _Reached) -> None:
        with self._lock:
            for call in reached.calls:
                seen = call.finish()
                if seen is not None:
                    self._gradients.setdefault(call.site, GradientTotals()).add(seen)

    def _model_ends(self, output: Any) -> None:
        if _is_recomputation():
            return
        run = self._pass
        run.depth -= 1
        failed = sys.exception() is not run.handling
        if failed:
            run.depth = 0
            run.begin(None)
        elif run.depth == 0:
            if run.trace is not None:
                run.trace.model_ends(output)
            self._commit(run)

    def _commit(self, run: _Pass) -> None:
        with self._lock:
            self._memory = {**run.memory, **self._memory}
            for key, settled, seen in run.waiting:
                site = self._sites.get(key)
                if site is None:
                    memory, before = self._memory[key[0]], seen.before
                    first = replace(
                        before.vectors, running_mean=memory.running_mean, running_var=memory.running_var
                    )
                    site = _Site({}, seen.mismatch, before.reference, first, before.plan, last_of(before))
                    self._sites[key] = site
                site.settled.setdefault(seen.before.training, settled)
                site.add(seen, run.situation)
            self._wire(run)
            self._n_forwards += 1 if run.calls else 0
            self._n_images += run.n_images
            self._seconds += time.perf_counter() - run.started
        run.begin(None)

    def _wire(self, run: _Pass) -> None:
        """What stands around the norms that this pass has met for the first time."""
        keys = [key for key, _, _ in run.waiting]
        missing = [key for key in keys if self._sites[key].wiring is None]
        if missing and run.trace is not None:
            norms = {key: Known(self._sites[key].plan, **vars(self._sites[key].first)) for key in keys}
            for key, wiring in wirings(run.trace, norms, missing).items():
                self._sites[key].wiring = wiring
        if keys:
            self._wants_wiring = bool(missing) and run.trace is None
        if run.trace is not None:
            run.trace.forget()


class _Hook:
    """One registered hook. It copies and pickles to one that does nothing, so that neither a deepcopy
    nor a saved model records, or drags the probe along."""

    def __init__(self, probe: Probe | None, act: str, name: str = "") -> None:
        self.probe, self.act, self.name = probe, act, name

    def __call__(self, module: nn.Module, args: Any, kwargs: Any = None, output: Any = None) -> None:
        probe = self.probe
        # while a compiler traces the model there are no values to read: compiled code runs without us
        if torch.compiler.is_compiling() or probe is None or torch._C._get_tracing_state() is not None:
            return
        if self.act == "_model_begins":
            probe._model_begins(module, args, kwargs)
        elif self.act == "_model_ends":
            probe._model_ends(output)
        else:
            trace = probe._pass.trace
            with nullcontext() if trace is None else trace.aside():
                if self.act == "_before":
                    probe._before(self.name, module, args, kwargs)
                else:
                    probe._after(self.name, module, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (None, self.act, self.name)


def _index_of(seen: Seen, tries: Sequence[Before | None]) -> int:
    """Which of the plans that were tried it is."""
    return next(i for i, tried in enumerate(tries) if tried is not None and tried.plan is seen.before.plan)


def _first_tensor(args: Any, kwargs: Any = None) -> Tensor | None:
    """The first tensor in nested containers."""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, Tensor) else next(_tensors((args, kwargs)), None)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Tensors in nested containers, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _calls_on_stack(module: nn.Module) -> int:
    """How many calls of `module` are under way in this thread.

    torch's hooks cannot tell a model that calls itself from one whose last pass was interrupted
    (KeyboardInterrupt passes the always-called hooks by), and the second must not count as nested.
    """
    frame: FrameType | None = sys._getframe()
    n = 0
    while frame is not None:
        n += frame.f_code.co_name == "_call_impl" and frame.f_locals.get("self") is module
        frame = frame.f_back
    return n


def _is_recomputation() -> bool:
    """Whether gradient checkpointing is running a forward pass again, inside a backward pass."""
    return bool(torch._C._current_graph_task_id() != -1)


def _has_values(x: Tensor) -> bool:
    """Whether it is a plain floating tensor, and no transform of torch.func (vmap, grad) is under way."""
    return x.is_floating_point() and not (x.is_meta or x.is_nested or _is_transformed())


def _is_transformed() -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None


def _is_lazy(parameter: Tensor) -> bool:
    return isinstance(parameter, UninitializedParameter)


def _same(a: Any, b: Any) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b, equal_nan=True)


def _device_name(x: Tensor) -> str:
    return (
        torch.cuda.get_device_name(x.device)
        if x.is_cuda
        else f"{x.device.type}, {torch.get_num_threads()} threads"
    )


def _version() -> str:
    from importlib.metadata import version

    return version("bnprobe")
