"""The colours of the page's pictures: the same quantity has the same one everywhere.

The first five are replaced by the page's own (see `figures.to_svg`), so that one drawing serves light
and dark; the others are of middle lightness and are seen on both.
"""

from __future__ import annotations

INK, MUTED, PAPER = "#1b1e23", "#7d828a", "#fefefd"
SEEN, MEMORY = "#3f8fb5", "#d1702f"
"""What was seen is blue, what the norm remembers or aims at is orange, on every picture."""

VIOLET, GREEN, SAND, ROSE, PALE = "#8466b3", "#2c9c7c", "#c2a83e", "#c9567f", "#b4b8be"

ROLES = {
    "dead": INK,
    "constant": MUTED,
    "rare": VIOLET,
    "mixed": GREEN,
    "linear": SAND,
    "saturated": ROSE,
    "unknown": PALE,
}
"""By the role of a channel; dead is ink, which stands out on light and dark."""

COMPONENTS = {"class": VIOLET, "image": GREEN, "within": PALE}
"""By the part of a variance."""
