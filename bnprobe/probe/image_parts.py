"""Parts of a model that are given images beside text: no mask and no ids of tokens belong to their patches."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import nn

from bnprobe.norms import ModuleTree

IMAGES, IDS = frozenset({"pixel_values", "pixel_values_videos", "images"}), "input_ids"
"""Names of arguments for images, and for text."""


def image_parts(model: nn.Module) -> tuple[str, ...]:
    """Beginnings of the paths in such parts, each with its dot; none where no part takes text."""
    takes = {path: _arguments(type(part).forward) for path, part in ModuleTree.of(model).modules.items()}
    if not any(IDS in names for names in takes.values()):
        return ()
    return tuple(
        f"{path}."
        for path, names in takes.items()
        if path and not IMAGES.isdisjoint(names) and IDS not in names
    )


@lru_cache(maxsize=1024)
def _arguments(forward: Callable[..., Any]) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(forward).parameters)
    except (TypeError, ValueError):  # a forward without a signature
        return frozenset()
