"""The version of the code that runs, which is not always the one that is installed."""

from __future__ import annotations

__version__ = "0.2.0.dev0"
"""The same as in pyproject.toml; a literal, because a checkout on the path has no metadata to ask."""
