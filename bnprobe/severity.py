"""How serious a finding is, in words: the command line lists them, and rules, baselines and tables sort by them."""

from __future__ import annotations

SEVERITIES = ("critical", "warning", "info")
"""The most severe first."""


def at_least(severity: str) -> tuple[str, ...]:
    """This severity and every worse one."""
    return SEVERITIES[: SEVERITIES.index(severity) + 1]
