"""scipy.stats, also where torch was made unimportable by `sys.modules["torch"] = None`.

scipy asks of every array library it knows whether it is loaded, takes the None for a module, and fails
on import. The rooms right of the recording never need torch, so its entry steps aside for a moment.
seaborn imports scipy.stats too, and must come after this.
"""

import sys

_blocked = {
    name: sys.modules.pop(name) for name in ("torch", "jax", "cupy") if sys.modules.get(name, 0) is None
}
try:
    from scipy import stats
finally:
    sys.modules.update(_blocked)

__all__ = ["stats"]
