"""The colors of the page's pictures: the same quantity has the same one everywhere.

The first seven are replaced by the page's own (see `figures.to_svg`), so that one drawing serves light
and dark; the others are of middle lightness and can be seen on both.
"""

from __future__ import annotations

INK, MUTED, PAPER = "#1b1e23", "#7d828a", "#fefefd"
WARNING, CRITICAL = "#8a5c01", "#b3261f"
"""Of zones that are visibly off, and that a rule warns of."""
MEASURED, EXPECTED = "#3f8fb5", "#d1702f"
"""What was measured is blue; what is expected, from running statistics or β and γ, is orange: on every picture."""

VIOLET, GREEN, SAND, ROSE = "#8466b3", "#2c9c7c", "#c2a83e", "#c9567f"

FAINT = 0.3
"""Opacity of what is not known, or is only the rest: light on light, dark on dark."""

ROLES = {
    "dead": INK,
    "constant": MUTED,
    "rare": VIOLET,
    "mixed": GREEN,
    "linear": SAND,
    "saturated": ROSE,
    "unknown": MUTED,
}
"""By the role of a channel; dead is ink, which stands out on light and dark; unknown is drawn FAINT."""

COMPONENTS = {"class": VIOLET, "image": GREEN, "within": MUTED}
"""By the part of a variance; what lies within an image is drawn FAINT."""
