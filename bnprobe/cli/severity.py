"""When a finding makes the exit code 1, and which settings apply."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from bnprobe.severity import SEVERITIES, at_least


def add_fail_on(command: argparse.ArgumentParser) -> None:
    """The option --fail-on."""
    command.add_argument(
        "--fail-on", choices=SEVERITIES[::-1], help="exit with 1 on a finding of this severity or above"
    )


def add_config(command: argparse.ArgumentParser) -> None:
    """The option --config."""
    command.add_argument(
        "--config",
        metavar="FILE",
        help="settings: findings to leave out, thresholds (default: [tool.bnprobe] of the nearest pyproject.toml)",
    )


def settings_file(options: argparse.Namespace) -> str | None:
    """The file of settings that is named, or the nearest there is."""
    from pathlib import Path

    from bnprobe.rules.settings import nearest

    found = options.config or nearest(Path.cwd())
    return str(found) if found else None


def exit_code(severities: Iterable[str], fail_on: str | None) -> int:
    """1 where one of the severities is at or above `fail_on`."""
    serious = at_least(fail_on) if fail_on else ()
    return int(any(severity in serious for severity in severities))
