"""scipy.special, also where torch was made unimportable by `sys.modules["torch"] = None`.

scipy asks of every array library it knows whether it is loaded, takes the None for a module, and fails
on import. The rooms right of the recording never need torch, so its entry steps aside for a moment.
seaborn imports scipy.stats, which takes ten times as long, and does so within `aside`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def __getattr__(name: str) -> Any:
    if name != "special":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with aside():
        from scipy import special
    globals()[name] = special  # from now on found without asking here
    return special


@contextmanager
def aside() -> Iterator[None]:
    """Without the entries that are None, which are put back: inside, scipy can be imported."""
    names = ("torch", "jax", "cupy")
    blocked = {name: sys.modules.pop(name) for name in names if sys.modules.get(name, 0) is None}
    try:
        yield
    finally:
        sys.modules.update(blocked)
