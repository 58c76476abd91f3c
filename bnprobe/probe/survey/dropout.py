"""Modules that drop values in train mode, and the norm that follows each in the module tree."""

from __future__ import annotations

from torch import nn

from bnprobe.errors import class_name
from bnprobe.probe.survey.survey import ModelSurvey
from bnprobe.recording import Dropout

NAMES = ("dropout", "droppath", "stochasticdepth", "dropblock")
"""What classes that drop values are called, torch's, torchvision's and timm's."""


def dropouts(survey: ModelSurvey) -> tuple[Dropout, ...]:
    """In the order of the module tree; those that drop nothing are left out."""
    norms = {id(module): name for name, module in survey.layers.items()}
    found: list[Dropout] = []
    following = ""
    for path, module in reversed(list(survey.named())):
        following = norms.get(id(module), following)
        p = _share(module)
        if p > 0:
            found.append(Dropout(path, p, following))
    return tuple(reversed(found))


def _share(module: nn.Module) -> float:
    """The share of values that a module drops; 0 for any other."""
    if not any(name in class_name(module).lower() for name in NAMES):
        return 0.0
    p = getattr(module, "p", getattr(module, "drop_prob", 0.0))
    return float(p) if isinstance(p, int | float) and 0 < p <= 1 else 0.0
