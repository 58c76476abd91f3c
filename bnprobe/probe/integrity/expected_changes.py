"""Changes that the model makes by itself: running statistics in training mode, gradients, random numbers of dropout."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from bnprobe.errors import class_name
from bnprobe.norms import ModuleTree
from bnprobe.norms.classes import names_of_bases
from bnprobe.probe.integrity.fingerprint import STATE_DICT_HOOKS

DRAWS = ("drop", "stochastic", "noise", "gumbel")
"""Parts of the names of classes that draw random numbers in training mode."""

OWN_UPDATES = "the model's own updates in training mode"


@dataclass
class ExpectedChanges:
    """What a model did while it was probed, as far as its modes and the recorded sites show.

    `layers` names the probed layers by their path. `trained` are those with a recorded call in training mode,
    `updated` the paths of modules whose running statistics a functional norm was given to update,
    `backward` says whether a backward pass reached a probed layer, and `drawn_outside` are the generators of random numbers
    that changed between two forward passes, where only the user's loop runs.
    """

    layers: Mapping[str, str]
    trained: Collection[str] = ()
    updated: Collection[str] = ()
    backward: bool = False
    drawn_outside: Collection[str] = ()
    _training: set[str] = field(default_factory=set)
    _lazy: set[str] = field(default_factory=set)
    _draws: bool = False
    _sharded: bool = False

    def look(self, tree: ModuleTree) -> None:
        """Note the modes of the modules; called before and after the run."""
        for path, module in tree.modules.items():
            if hasattr(module, "cls_to_become"):
                self._lazy.add(path)
            self._sharded = self._sharded or "FSDPModule" in names_of_bases(module)
            if module.training:
                self._training.add(path)
                name = class_name(module).lower()
                self._draws = self._draws or any(word in name for word in DRAWS)

    def reason_for(self, what: str, name: str) -> str:
        """Why the model itself may have changed this; "" if it would not have."""
        path = name.rpartition(".")[0] if what in ("parameters", "buffers", "gradients") else name
        if path in self._lazy:
            return "a lazy layer got its shape at its first forward pass"
        if what == "buffers" and (path in self.updated or self._updates_itself(path)):
            return OWN_UPDATES
        if what == "gradients" and self.backward:
            return "backward passes"
        if what == "random state" and name in self.drawn_outside:
            return "random numbers drawn between the passes, as by a data loader"
        if what == STATE_DICT_HOOKS and self._sharded:
            return "FSDP sets its own at the first pass"
        if what == "random state" and name.startswith(("torch", "cuda")) and self._draws:
            return "dropout in training mode"
        return ""

    def _updates_itself(self, path: str) -> bool:
        """Whether the module at this path updated its buffers; of modules that are not recorded only the mode is known."""
        layer = self.layers.get(path)
        return path in self._training if layer is None else layer in self.trained
