"""scipy.stats and scipy.special, also where torch was made unimportable by `sys.modules["torch"] = None`.

scipy asks of every array library it knows whether it is loaded, takes the None for a module, and fails
on import. The rooms right of the recording never need torch, so its entry steps aside for a moment.
seaborn imports scipy.stats too, and does so within `aside`. Each part is imported when it is first asked
for: the statistics take ten times as long as the special functions.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def __getattr__(name: str) -> Any:
    with aside():
        if name == "stats":
            from scipy import stats

            return stats
        if name == "special":
            from scipy import special

            return special
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@contextmanager
def aside() -> Iterator[None]:
    """Without the entries that are None, which are put back: inside, scipy can be imported."""
    names = ("torch", "jax", "cupy")
    blocked = {name: sys.modules.pop(name) for name in names if sys.modules.get(name, 0) is None}
    try:
        yield
    finally:
        sys.modules.update(blocked)
