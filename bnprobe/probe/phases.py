"""What a probe has recorded in one phase, such as training or validation; each is kept apart from the others."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping

from bnprobe.errors import BnprobeError
from bnprobe.graph.order import out_of_order
from bnprobe.probe.backward.gradients import Gradients
from bnprobe.probe.calls import Key
from bnprobe.probe.exemplars import PhaseExemplars
from bnprobe.probe.generation import Begun
from bnprobe.probe.masking import Masking
from bnprobe.probe.passes import Pass
from bnprobe.probe.schedule import MODEL, Called, Turns
from bnprobe.probe.sites import Sites
from bnprobe.recording import NO_PHASE

GENERATION = "generation"
"""The option by which passes choose their phase: those that begin sequences, and those that continue them with a cache."""

PREFILL, DECODE = "prefill", "decode"


class Phase:
    """The totals of one phase: its sites, its gradients, and its passes.

    `counted` is num_batches_tracked of a layer before its first call in the phase, None where it is not kept.
    `wants_graph` and `n_watched` say of the model, and of each part, whether its next pass is to be traced, and how many
    were. `n_skipped_training` and `n_skipped_learning` passes that were not recorded ran in train mode, and computed
    gradients. `exemplars` is None where none are kept. `out_of_order` are layers whose tokens stand elsewhere than the model
    was given them.
    """

    def __init__(
        self, gradients: Gradients, masking: Masking, turns: Turns, exemplars: PhaseExemplars | None
    ) -> None:
        self.sites = Sites()
        self.begun = Begun()
        self.exemplars = exemplars
        self.gradients = gradients
        self.masking = masking
        self.turns = turns
        self.seconds = 0.0
        self.n_forwards = self.n_images = 0
        self.n_training = 0
        self.n_skipped_training = self.n_skipped_learning = 0
        self.n_unreadable = self.n_outside = 0
        self.out_of_order: set[str] = set()
        self.unreadable: set[str] = set()
        self.counted: dict[Key, int | None] = {}
        self.wants_graph: defaultdict[Called, bool] = defaultdict(lambda: True)
        self.n_watched: Counter[Called] = Counter()

    @property
    def n_skipped(self) -> int:
        """Passes that were not recorded: of the model, or where only parts of it are called, of the part called most."""
        skipped = self.turns.skipped
        return skipped[MODEL] if self.n_forwards else max(skipped.values(), default=0)

    def skip(self, run: Pass) -> None:
        """Count a pass of which nothing was recorded."""
        with self.sites.lock:
            self.turns.skipped[run.called] += 1
            self.n_skipped_training += run.context.training
            self.n_skipped_learning += run.context.learning
        run.leave()

    def add(self, run: Pass) -> None:
        """Add everything that was read in this pass, of the whole model or a part, to the totals."""
        whole = run.called == MODEL
        with self.sites.lock:
            if self.exemplars is not None:
                self.exemplars.add(run.waiting, run.n_images, run.captions, run.labels, run.places)
            self.sites.add(run.waiting, run.initial, run.context)
            if run.waiting:
                keys = [call.key for call in run.waiting]
                self.wants_graph[run.called] = self.sites.wire(keys, run.trace)
                if run.trace is not None:
                    moved, undecided = out_of_order(run.trace.graph, keys)
                    self.out_of_order |= {layer for layer, _ in moved}
                    self.wants_graph[run.called] |= undecided
                if run.timesteps is not None:
                    self.sites.add_timesteps(run.waiting, run.timesteps, run.modulating, run.trace)
                self.sites.add_tokens(run.waiting, run.places)
            self.turns.recorded[run.called] += 1 if run.calls else 0
            self.n_forwards += 1 if whole and run.calls else 0
            self.n_training += 1 if whole and run.calls and run.context.training else 0
            self.n_outside += 1 if run.waiting and not whole else 0
            n_sequences = run.n_images // run.places.rows
            self.n_images += n_sequences
            if n_sequences:
                self.begun.add(run.cache, n_sequences)
            if run.mask is not None:
                self.masking.add(run.mask, {call.key[0]: call.seen.before for call in run.waiting})
            self.seconds += time.perf_counter() - run.started
        if run.trace is not None:
            run.trace.forget()
        run.leave()


def checked_name(name: object, within: str) -> str:
    """The name of a phase. Raises BnprobeError where it is none, or begins inside another."""
    if not isinstance(name, str) or not name.strip():
        raise BnprobeError(f"a phase has a name, got {name!r:.60}. Pass a word, such as probe.phase('val').")
    if within != NO_PHASE:
        raise BnprobeError(f"phase {name!r} begins inside phase {within!r}. End that block first.")
    return name


def trained_elsewhere(phases: Mapping[str, Phase], name: str) -> set[str]:
    """The layers that were in training in another phase, where their running statistics may have changed."""
    return {
        layer
        for other, phase in phases.items()
        if other != name
        for layer, site in phase.sites.by_layer()
        if site.n_calls_training
    }
