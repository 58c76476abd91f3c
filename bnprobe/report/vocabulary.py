"""Words for values that stand in tables: roles of channels, and what rules found of them."""

from __future__ import annotations

from bnprobe.rules.wording import ACTIVATIONS

ROLES = {
    "dead": "dead",
    "constant": "nearly constant",
    "rare": "rarely on",
    "mixed": "active",
    "linear": "always on",
    "saturated": "saturated",
    "unknown": "unknown",
}
"""Roles of channels as sentences call them."""

EVIDENCE = {
    "channels-constant": "γ near 0",
    "filters-decayed": "filters near 0",
    "channels-dead": "always off by γ and β",
    "channels-silent": "off on these data",
}
"""What the rules about channels that pass nothing on have found, as heads of columns."""

UNGATED = "without an activation"
"""As sentences call linear channels that nothing follows which could be off."""

NO_ACTIVATION = "no activation"
"""The same in a legend."""

IN_CHANNELS = ", ".join(f"“{value}” is {words}" for value, words in ROLES.items() if value != words)
"""What the column `role` of `report.channels` calls them."""


def role_label(role: str) -> str:
    """A role in a legend, in words."""
    return f"{ROLES[role]}, or {UNGATED}" if role == "linear" else ROLES[role]


_OPERATIONS = {**ACTIVATIONS, "silu": "SiLU", "gelu": "GELU"}


def written(operations: str) -> str:
    """Operations, with " | " between those of several ways, and activations among them as torch writes them: ReLU."""
    return " | ".join(_OPERATIONS.get(way, way) for way in operations.split(" | "))
