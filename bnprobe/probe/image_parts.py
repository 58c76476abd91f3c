"""Parts of a model that are given images beside text: no mask and no ids of tokens belong to their patches."""

from __future__ import annotations

import inspect

from bnprobe.norms import ModuleTree

IMAGES, IDS = frozenset({"pixel_values", "pixel_values_videos", "images"}), "input_ids"
"""Names of arguments for images, and for text."""


def image_parts(tree: ModuleTree) -> tuple[str, ...]:
    """Beginnings of the paths in such parts, each with its dot; none where no part takes text."""
    of_kinds = {id(kind): _arguments(kind) for kind in map(type, tree.modules.values())}
    takes = {path: of_kinds[id(type(part))] for path, part in tree.modules.items()}
    if not any(IDS in names for names in takes.values()):
        return ()
    return tuple(
        f"{path}."
        for path, names in takes.items()
        if path and not IMAGES.isdisjoint(names) and IDS not in names
    )


def _arguments(kind: type) -> frozenset[str]:
    """Names of the arguments of its forward; none where there is no plain one, as in modules that were traced."""
    try:
        return frozenset(inspect.signature(inspect.getattr_static(kind, "forward")).parameters)
    except Exception:  # whatever a class has there, and its own code may say of it
        return frozenset()
