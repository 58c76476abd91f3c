"""A user's settings, findings to ignore and thresholds: `[tool.bnprobe]` in pyproject.toml, or a file of its own.

    [tool.bnprobe]
    ignore = ["channels-constant", "data-shifted:backbone.*"]   # a rule, or a rule in some layers

    [tool.bnprobe.thresholds]
    shift = 0.3

A file that is named may also hold `ignore` and `[thresholds]` at its top.
"""

from __future__ import annotations

import difflib
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bnprobe.errors import BadSettings
from bnprobe.files import is_file, read_input
from bnprobe.rules import COMPARED, RULES, Limits
from bnprobe.rules.thresholds import DEFAULT

KEYS = ("ignore", "thresholds")

LARGEST_LIMIT = sys.float_info.max

LARGEST = 4 * 2**20
"""Bytes of a settings file that are read: a thousand times what one has."""


@dataclass(frozen=True)
class Settings:
    """Findings to leave out, as "rule" or "rule:pattern of layers", and the thresholds; `source` names the file."""

    ignore: tuple[str, ...] = ()
    limits: Limits = DEFAULT
    source: str = ""

    def ignores(self, rule: str, layer: str) -> bool:
        """Whether a finding of this rule in this layer is left out."""
        return any(
            rule == entry.partition(":")[0] and fnmatchcase(layer, entry.partition(":")[2] or "*")
            for entry in self.ignore
        )


def settings(file: str | Path | None = None) -> Settings:
    """The settings in `file`, or the defaults. Raises BadSettings for what it does not know, with the nearest name."""
    if file is None:
        return Settings()
    if not isinstance(file, str | Path):
        raise BadSettings(
            f"config takes the path of a TOML file, got {type(file).__name__}. Write the settings to a file."
        )
    path = Path(file)
    return _settings(_own(_toml(path)), str(path))


def nearest(folder: Path) -> Path | None:
    """The pyproject.toml in `folder` or above it that has a table [tool.bnprobe]; None where there is none."""
    for place in (folder, *folder.absolute().parents):
        path = place / "pyproject.toml"
        if is_file(path) and "bnprobe" in _table(_toml(path).get("tool")):
            return path
    return None


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_input(path, LARGEST).decode("utf-8"))
    except OSError as error:
        raise BadSettings(
            f"{path}: {error.strerror or error}. Check the path of the settings file."
        ) from None
    except (ValueError, RecursionError) as error:
        raise BadSettings(f"{path} is not TOML ({' '.join(str(error).split())}). Fix it there.") from None


def _own(document: dict[str, Any]) -> dict[str, Any]:
    """Our table of a pyproject.toml, or the whole of a file of our own."""
    return _table(_table(document["tool"]).get("bnprobe")) if "tool" in document else document


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _settings(table: Mapping[str, Any], source: str) -> Settings:
    for key in table:
        _demand_known(key, KEYS, "setting", source)
    ignore, thresholds = table.get("ignore", []), table.get("thresholds", {})
    if not isinstance(ignore, list) or not all(isinstance(entry, str) for entry in ignore):
        raise BadSettings(
            f'{source}: ignore is a list of names. Write it like ignore = ["channels-constant"].'
        )
    if not isinstance(thresholds, dict):
        raise BadSettings(
            f"{source}: thresholds is a table of numbers. Write them below [thresholds], like shift = 0.3."
        )
    for entry in ignore:
        _demand_known(entry.partition(":")[0], [rule.id for rule in (*RULES, *COMPARED)], "rule", source)
    return Settings(tuple(ignore), _limits(thresholds, source), source)


def _limits(thresholds: Mapping[str, Any], source: str) -> Limits:
    for name, value in thresholds.items():
        _demand_known(name, [field.name for field in fields(Limits)], "threshold", source)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST_LIMIT:
            raise BadSettings(
                f"{source}: threshold {name} = {value!r:.40} is not a number of at least 0. "
                f"Give one, like {name} = {getattr(DEFAULT, name):g}."
            )
    return replace(DEFAULT, **{name: float(value) for name, value in thresholds.items()})


def _demand_known(name: str, known: Iterable[str], what: str, source: str) -> None:
    known = list(known)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        advice = f"Did you mean {close[0]}?" if close else f"Known names: {', '.join(known)}."
        raise BadSettings(f'{source}: no {what} is called "{name}". {advice}')
