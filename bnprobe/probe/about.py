"""Facts about a run beside its statistics: the model, the machine and the notes for the reader."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from bnprobe.errors import class_name
from bnprobe.norms import ModuleTree
from bnprobe.probe.phases import Phase
from bnprobe.probe.sites import Site
from bnprobe.probe.tensors import is_lazy
from bnprobe.recording import About, Normalize
from bnprobe.version import __version__


@dataclass(frozen=True)
class Subject:
    """The model as it was when the probe was attached."""

    model: str
    n_parameters: int
    n_learning: int
    started: str
    normalize: Normalize | None
    unit: str

    @classmethod
    def of(cls, tree: ModuleTree, normalize: Normalize | None, unit: str | None) -> Subject:
        """As it is now."""
        sizes = [(p.numel(), p.requires_grad) for p in tree.parameters().values() if not is_lazy(p)]
        n_parameters, n_learning = sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(class_name(tree.model), n_parameters, n_learning, started, normalize, unit or "")

    def about(
        self, device: str, phase: Phase, name: str, sites: Collection[Site], notes: Iterable[str]
    ) -> About:
        """The facts after these passes."""
        # parts that were called outside a pass of the model have no batch of their own
        most_calls = max((site.n_calls for site in sites), default=0)
        most_images = max((site.n_images for site in sites), default=0)
        return About(
            model=self.model,
            device=device or "none",
            versions=f"bnprobe {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
            started=self.started,
            n_parameters=self.n_parameters,
            n_learning=self.n_learning,
            n_forwards=phase.n_forwards or most_calls,
            n_skipped=phase.n_skipped,
            n_images=phase.n_images or most_images,
            n_positions=phase.masking.n_valid,
            n_masked=phase.masking.n_left_out,
            seconds=phase.seconds,
            notes=tuple(notes),
            normalize=self.normalize,
            phase=name,
            unit=self.unit,
        )
