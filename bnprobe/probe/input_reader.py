"""Reading the input of a norm: at its first call by every plan that may fit, and from then on by the one that did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from bnprobe.norms import NormLayer
from bnprobe.probe.calls import InputReading, Key, observe_before, share_of
from bnprobe.probe.calls.call_log import count_of
from bnprobe.probe.calls.plan_cache import PlanCache
from bnprobe.probe.calls.row_values import why_no_exemplars
from bnprobe.probe.masks import Kept
from bnprobe.probe.options import AttachOptions
from bnprobe.probe.passes import Pass
from bnprobe.probe.phases import Phase
from bnprobe.probe.tensors import has_values, held_here, why_no_values
from bnprobe.reductions import WHOLE


class InputReader:
    """Reads the inputs of one model's norms in the pass that a thread is in."""

    def __init__(self, options: AttachOptions, run: Pass) -> None:
        self._options, self._run = options, run
        self._caches: defaultdict[Key, PlanCache] = defaultdict(PlanCache)

    def forget(self) -> None:
        """Drop every reference to the model."""
        self._caches.clear()

    def read(
        self,
        phase: Phase,
        key: Key,
        norm: nn.Module | NormLayer,
        training: bool,
        x: Tensor | None,
        gate: Tensor | None,
        for_gradient: bool,
        mask: Kept | None,
    ) -> Sequence[InputReading | None]:
        """The input, read by every plan that may fit; after the first call, by the plan that did."""
        if x is None or not has_values(x):
            phase.unreadable.add(why_no_values(x))
            return []
        x, gate, site = held_here(x), held_here(gate), phase.sites.get(key)
        # one module is the same at all its calls; each call of a function has tensors of its own
        owner = key if isinstance(norm, NormLayer) else (key[0], 0)
        cache = self._caches[owner]
        plans = (norm,) if isinstance(norm, NormLayer) else cache.plans(norm)
        if self._options.sample_dim:
            plans = tuple(
                replace(plan, sample_dim=plan.sample_dim or self._options.sample_dim) for plan in plans
            )
        settled = site.settled.get(training) if site else None
        plans = plans if settled is None else (plans[settled[0]],)
        initial = phase.sites.initial.get(owner) or self._run.initial.get(owner)
        if initial is None:
            initial = self._run.initial[owner] = cache.vectors(plans[0])
            phase.counted[owner] = count_of(plans[0])
        return [
            observe_before(
                plan,
                cache.vectors(plan),
                x,
                training,
                initial,
                site.reference if site else None,
                self._options.histograms,
                settled is None,
                for_gradient,
                share_of(site.totals.n_values, site.n_images) if site else WHOLE,
                site.last if site else None,
                self._run.labels,
                mask,
                phase.exemplars is not None and not why_no_exemplars(plan),
                gate,
                self._run.timesteps is not None,
            )
            if plan.fits(x)
            else None
            for plan in plans
        ]
