"""The command line: parse, call, print, exit code. No arithmetic.

Exit codes: 0 fine, 1 a finding at or above --fail-on, 2 bad input or an unexpected error, in one line without a traceback,
130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from bnprobe.cli import (
    ablate,
    audit,
    check,
    compare,
    invariances,
    merge,
    recalibrate,
    record,
    report,
    rules,
    surgery,
    synthesize,
)
from bnprobe.errors import BnprobeError, UnknownModel
from bnprobe.printing import escaped, note, one_exit, say_lines
from bnprobe.report.numbers import shorten
from bnprobe.version import __version__

EXIT_CODES = (
    "Exit codes: 0 fine, 1 a finding at or above --fail-on, 2 bad input (one line says what to do), "
    "130 interrupted."
)

LONGEST = 1500
"""Characters of a complaint; of a longer one the middle is left out, since what to do stands at its end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with one_exit():
            return _answered(given)
    except BnprobeError as error:  # nothing more can be printed there
        with one_exit():
            _complain(error)
        return 2


def _answered(given: list[str]) -> int:
    """The exit code of a command that may fail in any way."""
    try:
        options = _parser().parse_args(given)
        return int(options.run(options))
    except BnprobeError as error:
        _complain(error)
    except KeyboardInterrupt as stop:
        note(str(stop) or "interrupted.")
        return 130
    except MemoryError:
        note("there was not enough RAM. Close other programs, or take a smaller file or --batch-size.")
    except Exception as error:
        if "--debug" in given:
            raise
        if _in_no_folder():
            note("the folder that this runs in was deleted. Change to one that is there.")
            return 2
        note(
            shorten(f"{_unforeseen(error)}. Run it again with --debug, and report what is printed.", LONGEST)
        )
    return 2


def _complain(error: BnprobeError) -> None:
    note(shorten(_one_line(error), LONGEST))


def _one_line(error: Exception) -> str:
    """What an error says, with names spelled out before anything of them is left out."""
    return escaped(" ".join(str(error).split()))


def _unforeseen(error: Exception) -> str:
    """What nobody thought of, and where it happened."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = shorten(_one_line(error).rstrip("."), LONGEST // 3)
    return f"unexpected {type(error).__name__} in {Path(last.filename).name}:{last.lineno}: {said}"


def _in_no_folder() -> bool:
    """Whether the current folder is gone, so that no path can be completed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


class _Parser(argparse.ArgumentParser):
    """An argument error is bad input like any other: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise BnprobeError(f"{message}. See {self.prog} --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bnprobe", description="What did normalization learn from the data?", epilog=EXIT_CODES
    )
    parser.add_argument(
        "--version", action="version", version=f"bnprobe {__version__}", help="print the version and exit"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    report.add_demo(commands)
    report.add(commands)
    check.add(commands)
    audit.add(commands)
    compare.add(commands)
    record.add(commands)
    merge.add(commands)
    recalibrate.add(commands)
    ablate.add(commands)
    synthesize.add(commands)
    invariances.add(commands)
    surgery.add(commands)
    rules.add(commands)
    _add_list(commands)
    for one in (parser, *commands.choices.values()):
        one.add_argument("--debug", action="store_true", help="show where an unexpected error happened")
    return parser


def _add_list(commands: Any) -> None:
    listing = commands.add_parser(
        "list",
        help="print the models that can be built by name",
        description="Print the models that can be built by name.",
    )
    listing.add_argument("pattern", nargs="?", metavar="PATTERN", help="part of a name, or a shell pattern")
    listing.set_defaults(run=_list)


def _list(options: argparse.Namespace) -> int:
    from bnprobe import models

    names = models.names(options.pattern)
    if not names:
        raise UnknownModel(f"no model matches {options.pattern!r}. `bnprobe list` shows all.")
    say_lines("\n".join(names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
