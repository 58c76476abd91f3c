"""A file that is sound, as far as one can see, and more than is read."""

from __future__ import annotations


class TooMuch(ValueError):
    """A file holds more than is read of one; its message says what, and how much is read."""
