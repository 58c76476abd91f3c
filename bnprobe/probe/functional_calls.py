"""Norms that call no hook: functions, and modules whose `forward` is called directly.

A functional norm becomes a site named after the module in whose code it stands, and the line:
"encoder.0.layer_norm:57"; with another number of channels it is a site of its own, "encoder.0.layer_norm:57[96]".
A norm module whose `forward` is called directly is recorded under its own name, with a note.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from fnmatch import fnmatchcase
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from torch import Tensor, nn

from bnprobe.norms import ModuleTree, NormLayer, is_norm
from bnprobe.norms.functional import plan_of
from bnprobe.norms.module_tree import buffers_of
from bnprobe.probe.forward import Forward
from bnprobe.probe.passes import SKIPPED
from bnprobe.probe.survey.call_site import Places
from bnprobe.probe.survey.survey import ModelSurvey
from bnprobe.probe.tensors import first_tensor, is_recomputation

FRAMES_UP = 3
"""From `function_called` to the line that calls the function: through `functional.called`, and the function."""

MOST_SIZES = 16
"""At most this many numbers of channels of one functional norm are recorded, each as a site of its own."""


def standardizes_weights(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a batch norm is given a parameter, as networks do that standardize their convolutions' weights.

    Qiao et al. 2019, arXiv:1903.10520; timm does so by F.batch_norm, with the filters as channels.
    """
    x = first_tensor(args)
    return name == "batch_norm" and isinstance(x if x is None or x._base is None else x._base, nn.Parameter)


class Unhooked:
    """Listens to functional norms on behalf of a probe of a model.

    `classes` names the function of each functional site by its path, `inside` the modules in which they
    stand, `direct` how often each probed layer's `forward` was called directly, `crowded` the functional sites
    that had more numbers of channels than are kept apart, and `n_standardized` how often weights were standardized.
    """

    def __init__(
        self,
        survey: ModelSurvey,
        patterns: Collection[str] | None,
        forward: Forward,
    ) -> None:
        self.classes: dict[str, str] = {}
        self.inside: set[str] = set()
        self.direct: dict[str, int] = {}
        self.crowded: set[str] = set()
        self.n_standardized = 0
        self._places = Places(survey.tree)
        self._sizes: dict[str, list[int]] = {}
        self._updated: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
        self._layers = WeakKeyDictionary({module: name for name, module in survey.layers.items()})
        self._patterns = patterns
        self._forward = forward

    def function_called(self, name: str, args: tuple[Any, ...]) -> Callable[[Any], None] | None:
        """A functional norm is called. Inside the call of a norm module it is that module's computation."""
        run = self._forward.run
        if run.open or run.state is SKIPPED:
            return None
        if standardizes_weights(name, args):
            self.n_standardized += 1
            return None
        at = self._places.caller(FRAMES_UP)
        if at is None:
            return None
        module, path, line = at
        if module in self._layers:
            site = self._layers[module]
            if not is_recomputation():  # what a checkpoint reruns was called by its hooks the first time
                self.direct[site] = self.direct.get(site, 0) + 1
            return self._begin(site, module, bool(module.training), args)
        plan = plan_of(name, args)
        site = f"{path}.{name}:{line}".removeprefix(".")
        if plan is None or is_norm(module):
            return None
        if plan.running_mean is not None and not plan.uses_running:
            self._updated[id(plan.running_mean)] = plan.running_mean
        if not self._wants(site):
            return None
        sizes = self._sizes.setdefault(site, [])
        if plan.n_channels not in sizes:
            if len(sizes) == MOST_SIZES:
                self.crowded.add(site)
                return None
            sizes.append(plan.n_channels)
        # statistics per channel cannot be added across different numbers of channels
        site = site if plan.n_channels == sizes[0] else f"{site}[{plan.n_channels}]"
        self.classes.setdefault(site, f"F.{name}")
        self.inside.add(path)
        training = not plan.uses_running if plan.running_mean is not None else bool(module.training)
        return self._begin(site, plan, training, args)

    def updated(self, tree: ModuleTree) -> set[str]:
        """The paths of modules whose running statistics were passed to a functional norm to be updated."""
        return {
            path
            for path, module in tree.modules.items()
            if any(self._updated.get(id(buffer)) is buffer for _, buffer in buffers_of(module))
        }

    def _wants(self, site: str) -> bool:
        return self._patterns is None or any(fnmatchcase(site, pattern) for pattern in self._patterns)

    def _begin(
        self, site: str, norm: nn.Module | NormLayer, training: bool, args: tuple[Any, ...]
    ) -> Callable[[Any], None]:
        with self._forward.aside():
            self._forward.before(site, norm, training, first_tensor(args))
        return partial(self._end, site)

    def _end(self, site: str, output: Any) -> None:
        with self._forward.aside():
            self._forward.after(site, output)
