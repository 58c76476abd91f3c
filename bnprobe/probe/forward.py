"""What the hooks call, in the order of a forward pass: the model starts, norms are read, the model ends.

What one forward pass of the whole model saw is added only when that pass has ended well: an exception
in the middle leaves no trace.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from bnprobe.graph.trace import set_aside, watch_this_call
from bnprobe.norms import ModuleTree, NormLayer
from bnprobe.probe.backward.autograd_route import origin_of
from bnprobe.probe.backward.gradients import Gradients
from bnprobe.probe.calls import CallStats, InputReading, observe_after
from bnprobe.probe.calls.call_log import PassContext
from bnprobe.probe.captions import check_captions
from bnprobe.probe.exemplars import PhaseExemplars
from bnprobe.probe.generation import Masks, Rows, Taken
from bnprobe.probe.image_parts import image_parts
from bnprobe.probe.input_reader import InputReader
from bnprobe.probe.integrity.drawn_outside import DrawnOutside
from bnprobe.probe.labels import check_length
from bnprobe.probe.masking import DECODED, Masking
from bnprobe.probe.masks import USUAL, Kept, MaskArgument, usual_argument
from bnprobe.probe.options import AttachOptions
from bnprobe.probe.passes import OUTSIDE, RECORDED, SKIPPED, OpenCall, Pass
from bnprobe.probe.phases import DECODE, PREFILL, Phase
from bnprobe.probe.places import CountedCaches, Earlier, earlier, places_of, tokens_in
from bnprobe.probe.schedule import MODEL, Called, Turns
from bnprobe.probe.sites import PendingCall
from bnprobe.probe.tensors import (
    calls_on_stack,
    device_name,
    first_tensor,
    has_values,
    held_here,
    is_recomputation,
    is_transformed,
    n_samples,
    unreadable,
)
from bnprobe.probe.timesteps import TimestepArgument
from bnprobe.recording import NO_PHASE

MOST_WATCHED = 4
"""At most this many forward passes of the model, or of a part, are traced: the first, and those after one in which a
norm was new."""


class Forward:
    """Follows the forward passes of one model, in any number of threads, and adds what was read to its phase."""

    def __init__(self, options: AttachOptions, tree: ModuleTree) -> None:
        model = tree.model
        self.run = Pass()
        self._model = ref(model)
        self.phases: dict[str, Phase] = {}
        self.device = ""
        self.shares = False
        """Whether another probe was attached to the model meanwhile."""
        self.outside = DrawnOutside()
        given = options.mask
        self._mask_argument = usual_argument(model) if given is None else MaskArgument(given, model)
        self._options = options
        self._images = image_parts(tree)
        self._masks_tokens = self._mask_argument is not None and self._mask_argument.name == USUAL
        self._timesteps = TimestepArgument.of_model(model)
        self.follow_layers: Callable[[nn.Module, set[str]], None] | None = None
        """Hooks layers of the model by their paths, so that `modulates` is called."""
        self._reader = InputReader(options, self.run)
        self._counted, self._taken, self._rows, self._masks = CountedCaches(), Taken(), Rows(), Masks()
        self.begin(NO_PHASE)

    def begin(self, name: str) -> None:
        """From now on passes of this thread belong to the phase of this name."""
        if name not in self.phases:
            takes_all = self._options.schedule.takes_all
            gradients = Gradients(self._options.gradients, self._options.scaler, takes_all)
            # another thread may have been faster
            kept = self._options.exemplars
            exemplars = PhaseExemplars(kept) if kept else None
            masking, turns = Masking(self._mask_argument), Turns(self._options.schedule)
            self.phases.setdefault(name, Phase(gradients, masking, turns, exemplars))
        self.run.phase = name

    def _choose_phase(self, past: Earlier) -> bool:
        """Choose the phase of the pass that begins now, where passes do so; whether its sequences are new to that phase."""
        run, continues = self.run, past.continues
        if self._options.phase is None or (run.phase != NO_PHASE and not run.chosen):
            return False
        self.begin(DECODE if continues else PREFILL)
        known = run.decodes if past.cache is None else self.phase.begun.knows(past.cache)
        begins, run.chosen, run.decodes = continues and not known, True, continues
        return begins

    @property
    def phase(self) -> Phase:
        """That of this thread."""
        return self.phases[self.run.phase]

    def stop(self) -> None:
        """Nothing comes any more: drop every reference to the model."""
        self._reader.forget()
        for phase in self.phases.values():
            phase.gradients.stop()
            phase.sites.forget()

    def aside(self) -> AbstractContextManager[None]:
        """Operations inside are the probe's and are left out of the trace."""
        return set_aside(self.run.trace)

    def _wants(self, called: Called, kwargs: Mapping[str, Any]) -> bool:
        """Whether to record the pass that starts now. The others are `SKIPPED`."""
        run = self.run
        if self._options.schedule.takes_all:
            return True
        past = earlier(kwargs)
        if past.continues:
            run.takes = self._taken.of(past, run.takes)
        else:
            run.takes = self.phase.turns.next(called)
            self._taken.began(past, run.takes)
        return run.takes

    def model_begins(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call of the whole model starts, possibly inside another."""
        if is_recomputation():
            return
        run = self.run
        if run.state is OUTSIDE:
            self.outside.ends()
        if run.state is not OUTSIDE and calls_on_stack(model) > 1:
            run.depth += run.entry == id(model)  # the model calls itself
            return
        past = self._counted.earlier(args, kwargs)
        if not past.continues:
            for phase in self.phases.values():
                phase.begun.forget(past.cache)
        begins = self._choose_phase(past)
        if not self._enters(model, MODEL, args, kwargs):
            return
        first = held_here(first_tensor(args, kwargs))
        if first is not None:
            run.n_images = n_samples(args, first, self._options.sample_dim)
        if run.mask is None and not is_transformed():
            found = self.phase.masking.of_call(args, kwargs, run.n_images)
            tokens = None if DECODED[0] in kwargs else tokens_in(args, kwargs)
            run.called_with = self._masks.of(past.cache, found, tokens, past.continues)
        if first is not None:
            if run.mask is not None:
                run.n_images = run.mask.samples_of(first, run.n_images)
            if run.labels is not None:
                check_length(len(run.labels), run.n_images)
            if run.captions is not None:
                check_captions(run.captions, run.n_images)
            run.places = places_of(args, kwargs, run.mask, self._options.sample_dim, past)
            run.places.continues &= not begins
            run.places.images = self._images
            run.places.rows = self._rows.of_one_prompt(args, kwargs, past, run.n_images)
            run.cache = past.cache
            run.context = replace(run.context, continues=run.places.continues)
            if run.places.continues:
                run.places.since = self.phase.begun.since(past.cache)
            if run.places.continues or not first.numel():
                run.n_images = 0
            if run.trace is not None and run.places.positions is not None and run.places.packing is None:
                run.trace.look_for_order(*run.places.positions.shape)
            self._place_in_time(args, kwargs)

    def _place_in_time(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Take the timesteps of the pass that begins, where the model is given them."""
        run = self.run
        if self._timesteps is None or not run.n_images:
            return
        run.timesteps = self._timesteps.of_call(args, kwargs, run.n_images)
        if run.timesteps is not None and run.trace is not None:
            run.trace.look_for_modulation(run.n_images)

    def modulates(self, path: str, output: Any) -> None:
        """A layer has returned that modulates norms: keep a copy until the pass has ended."""
        run = self.run
        if run.timesteps is None:
            return
        made = held_here(first_tensor(output))
        readable = made is not None and has_values(made)
        run.modulating.setdefault(path, []).append(made.detach().clone() if readable else None)

    def part_begins(self, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call of a part starts. It is a pass of its own if no pass is under way: where a training step calls the
        parts of a model, and never the model."""
        run = self.run
        if run.state is not OUTSIDE and (run.entry != id(part) or calls_on_stack(part) > 1):
            run.depth += run.entry == id(part)
        elif not is_recomputation() and self._enters(part, id(part), args, kwargs):
            if run.mask is None and not is_transformed():
                run.called_with = self.phase.masking.of_part(part, args, kwargs)
            if run.mask is not None:
                run.places = places_of(args, kwargs, run.mask, self._options.sample_dim, Earlier())

    def _enters(
        self, module: nn.Module, called: Called, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """A pass of the model or of a part starts; whether it is recorded."""
        run = self.run
        recorded = self._wants(called, kwargs)
        run.enter(RECORDED if recorded else SKIPPED, sys.exception(), id(module), called)
        run.context = self._context()
        if not recorded:
            return False
        phase = self.phase
        run.wants_graph = phase.gradients.now
        first = first_tensor(args, kwargs)
        if first is not None:
            self.device = self.device or device_name(first)
        if phase.wants_graph[called] and phase.n_watched[called] < MOST_WATCHED and not is_transformed():
            phase.n_watched[called] += 1
            run.trace = watch_this_call(module, args, kwargs)
        return True

    def _context(self) -> PassContext:
        """The circumstances now."""
        return PassContext.of(self._model(), self.phase.n_skipped_training)

    def before(
        self,
        name: str,
        norm: nn.Module | NormLayer,
        training: bool,
        x: Tensor | None,
        gate: Tensor | None = None,
    ) -> None:
        """A norm is called with x, and a gate where it takes one: read it. `norm` is a module, or the plan of a function."""
        run = self.run
        if run.state is SKIPPED:
            return
        again = is_recomputation()
        phase = self._phase_of_repeated(name) if again else self.phase
        for_gradient = phase.gradients.now
        origin = origin_of(x, gate) if x is not None and for_gradient else None
        if again:
            awaited = phase.gradients.awaited_call(name) if for_gradient else None
            if awaited is None:
                return
            call, mask = awaited
        else:
            if run.state is OUTSIDE and not self._wants(name, {}):
                # begun nevertheless: functions that the norm calls are part of it
                run.open.append(OpenCall((name, 0), None, None, phase.gradients))
                return
            call, mask = run.next_call(name), self._mask_of(name)
            if run.trace is not None:
                run.trace.norm_begins((name, call), x)
        try:
            tries = self._reader.read(phase, (name, call), norm, training, x, gate, for_gradient, mask)
        except Exception as error:
            raise unreadable(name, error) from error
        if again:
            repeated = phase.gradients.repeated_call(name, tries)
            if repeated is None:
                return
            call = repeated
        run.open.append(OpenCall((name, call), tries, origin, phase.gradients))

    def _mask_of(self, layer: str) -> Kept | None:
        """The mask of the inputs of a layer. That of tokens, in the model's arguments, is none of images."""
        run = self.run
        of_tokens = self._masks_tokens and layer.startswith(self._images)
        return run.given_mask if of_tokens else run.mask

    def _phase_of_repeated(self, name: str) -> Phase:
        """The phase with a call of this layer that a checkpoint may run again: a backward pass may come after its block."""
        return next((one for one in self.phases.values() if one.gradients.awaited_call(name)), self.phase)

    def after(self, name: str, output: Any) -> None:
        """A norm has returned: complete its call, which counts at the end of the pass."""
        run = self.run
        begun = run.close(name)
        if begun is None or begun.tries is None:
            return
        y, phase, gradients = first_tensor(output), self.phase, begun.gradients
        if run.trace is not None:
            run.trace.norm_ends(begun.key, y)
        before = [b for b in begun.tries if b is not None]
        if not before:
            phase.n_unreadable += 1
            return
        if is_recomputation():
            gradients.await_call(begun.key, before[0], y, begun.origin)
            return
        site = phase.sites.get(begun.key)
        settled = site.settled.get(before[0].training) if site else None
        floor = None if phase.exemplars is None else phase.exemplars.floor(begun.key)
        try:
            shown = held_here(y)
            seen = observe_after(
                before, shown, settled[1] if settled else None, self._options.histograms, floor
            )
        except Exception as error:
            raise unreadable(name, error) from error
        gradients.await_call(begun.key, seen.before, y, begun.origin)
        # the one tensor of a call that a backward pass may need, and a site must not keep
        seen.before.inverse_var = None
        run.waiting.append(
            PendingCall(begun.key, settled or (_index_of(seen, begun.tries), seen.output), seen)
        )
        if run.wants_graph and not torch.is_grad_enabled():
            mask = self._mask_of(name)
            gradients.will_be_recomputed(*begun.key, seen.before.reading.moments.mean, mask)
        if run.state is OUTSIDE:
            run.context, run.called = self._context(), name
            self.phase.add(run)

    def model_ends(self, model: nn.Module, output: Any) -> None:
        """A call of the whole model, or of a part, has returned or raised."""
        if is_recomputation():
            return
        run = self.run
        if run.entry != id(model):
            return  # it began before the probe was attached, or is inside a pass
        run.depth -= 1
        if not run.depth:
            self.outside.begins()
        if sys.exception() is not run.handling:
            self.phase.turns.failed(run.called)
            run.leave()
        elif not run.depth and run.state is SKIPPED:
            self.phase.skip(run)
        elif not run.depth:
            if run.trace is not None:
                run.trace.model_ends(output)
            self.phase.add(run)
            if self.follow_layers is not None:
                self.follow_layers(model, self.phase.sites.modulating)
        if run.chosen and run.state is OUTSIDE:
            run.phase, run.chosen = NO_PHASE, False


def _index_of(seen: CallStats, tries: Sequence[InputReading | None]) -> int:
    """The index of the plan that was used among those that were tried."""
    return next(i for i, tried in enumerate(tries) if tried is not None and tried.plan is seen.before.plan)
