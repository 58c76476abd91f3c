"""When a finding makes the exit code 1, and which settings apply."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from bnprobe.severity import SEVERITIES, at_least


def add_fail_on(command: argparse.ArgumentParser) -> None:
    """The option --fail-on."""
    command.add_argument(
        "--fail-on",
        choices=SEVERITIES[::-1],
        help="exit with code 1 if there is a finding of this severity or above",
    )


def add_config(command: argparse.ArgumentParser) -> None:
    """The option --config."""
    command.add_argument(
        "--config",
        metavar="FILE",
        help="settings file with findings to ignore and thresholds (default: [tool.bnprobe] in the nearest pyproject.toml)",
    )


def settings_file(options: argparse.Namespace) -> str | None:
    """The settings file that was named, or the nearest pyproject.toml with our table."""
    from pathlib import Path

    from bnprobe.rules.settings import nearest

    found = options.config or nearest(Path.cwd())
    return str(found) if found else None


def exit_code(severities: Iterable[str], fail_on: str | None) -> int:
    """1 where one of the severities is at or above `fail_on`."""
    serious = at_least(fail_on) if fail_on else ()
    return int(any(severity in serious for severity in severities))
