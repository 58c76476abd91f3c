"""Which changes the model's own doing explains: its updates in training mode, backward passes, dropout."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from bnprobe.norms import ModuleTree

DRAWS = ("drop", "stochastic", "noise", "gumbel")
"""Parts of the names of classes that draw random numbers in training mode."""

OWN_UPDATES = "the model's own updates in training mode"


@dataclass
class ExpectedChanges:
    """What a model did while it was probed, as far as its modes and the probe's own sites tell.

    `layers` names the probed layers by their path. `trained` are those with a recorded call in training mode,
    `updated` the paths of modules whose running statistics a functional norm was given to update, and
    `backward` says whether a backward pass reached a probed layer.
    """

    layers: Mapping[str, str]
    trained: Collection[str] = ()
    updated: Collection[str] = ()
    backward: bool = False
    _training: set[str] = field(default_factory=set)
    _lazy: set[str] = field(default_factory=set)
    _draws: bool = False

    def look(self, tree: ModuleTree) -> None:
        """Note the modes of the modules as they are now: asked before and after."""
        for path, module in tree.modules.items():
            if hasattr(module, "cls_to_become"):
                self._lazy.add(path)
            if module.training:
                self._training.add(path)
                name = type(module).__name__.lower()
                self._draws = self._draws or any(word in name for word in DRAWS)

    def explain(self, what: str, name: str) -> str:
        """Why a thing of this sort may have changed; "" where the model alone would not have changed it."""
        path = name.rpartition(".")[0] if what in ("parameters", "buffers", "gradients") else name
        if path in self._lazy:
            return "a lazy layer got its shape at its first forward pass"
        if what == "buffers" and (path in self.updated or self._updates_itself(path)):
            return OWN_UPDATES
        if what == "gradients" and self.backward:
            return "backward passes"
        if what == "random state" and name.startswith(("torch", "cuda")) and self._draws:
            return "dropout in training mode"
        return ""

    def _updates_itself(self, path: str) -> bool:
        """A probed layer does so in recorded calls; what others do is not known beyond their mode."""
        layer = self.layers.get(path)
        return path in self._training if layer is None else layer in self.trained
