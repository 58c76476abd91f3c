"""The command line: `python -m scripts.mutants planted | random | check | relocate`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scripts import mutants
from scripts.mutants import equivalent, lists, planted, random_mutants, relocate
from scripts.mutants.packages import packages
from scripts.mutants.random_mutants import Plan


def main(arguments: list[str] | None = None) -> int:
    """Do what is asked for; 1 when mutants survived, 2 when a list is wrong."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except lists.BadList as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    shaped = argparse.RawDescriptionHelpFormatter
    whole = argparse.ArgumentParser(
        prog="python -m scripts.mutants", description=mutants.__doc__, formatter_class=shaped
    )
    commands = whole.add_subparsers(required=True)
    _add_planted(commands.add_parser("planted", help="mutants that somebody wrote down"))
    _add_random(commands.add_parser("random", help="a sample of all small changes of the code"))
    checking = commands.add_parser("check", help="whether the lists fit the code; runs no test")
    checking.set_defaults(run=lambda options: check())
    moving = commands.add_parser("relocate", help="correct the paths in the lists after files were moved")
    moving.add_argument(
        "given", nargs="*", metavar="OLD=NEW", help="where a file went, if several places fit"
    )
    moving.set_defaults(run=lambda options: relocate.main(dict(pair.split("=") for pair in options.given)))
    return whole


def _add_planted(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "pattern", nargs="?", default="*", help='only mutants whose name or file matches, as "m4*"'
    )
    command.add_argument(
        "--lists",
        type=Path,
        nargs="+",
        default=lists.planted_lists(),
        metavar="TOML",
        help="lists of mutants (default: all in tests/mutants)",
    )
    _add_workers(command)
    command.set_defaults(run=lambda options: planted.main(options.pattern, options.lists, options.workers))


def _add_random(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--packages",
        nargs="+",
        default=[],
        metavar="NAME",
        help="of tests/mutants/packages.toml (default: all)",
    )
    command.add_argument("--seed", type=int, default=1, help="another seed is another sample (default 1)")
    command.add_argument("--number", type=int, default=200, metavar="N", help="mutants to try (default 200)")
    instead = command.add_mutually_exclusive_group()
    instead.add_argument("--at", metavar="FILE[:LINE]", help="instead of a sample all mutants of this place")
    instead.add_argument(
        "--every-line",
        action="store_true",
        help="instead of a sample one mutant of every line; with --nearest some thirty a minute",
    )
    command.add_argument(
        "--at-least",
        type=float,
        default=0.92,
        metavar="SHARE",
        help="exit with 1 below this share (default 0.92)",
    )
    command.add_argument(
        "--keep",
        type=Path,
        metavar="FILE",
        help="keep here which tests run which line; read while the code is the same",
    )
    command.add_argument(
        "--own-tests",
        action="store_true",
        help="ask only each package's own tests, not the rest of the suite",
    )
    command.add_argument(
        "--nearest",
        action="store_true",
        help="ask only tests that are known to run the mutant's line, for half a minute: faster, and catches a few less",
    )
    _add_workers(command)
    command.set_defaults(run=lambda options: random_mutants.main(_plan(options)))


def _add_workers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--workers", type=int, default=2, metavar="N", help="mutants tried at a time (default 2)"
    )


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        packages=options.packages,
        seed=options.seed,
        number=options.number,
        at=options.at,
        at_least=options.at_least,
        workers=options.workers,
        kept=options.keep,
        with_suite=not options.own_tests,
        nearest=options.nearest,
        every_line=options.every_line,
    )


def check() -> int:
    """Read every list and hold it against the code."""
    planted_ones, equivalent_ones = lists.read(lists.planted_lists()), equivalent.read()
    lists.check(planted_ones)
    equivalent.check(equivalent_ones)
    n_files = sum(len(package.sources()) for package in packages())
    print(
        f"{len(planted_ones)} planted mutants and {len(equivalent_ones)} equivalent ones fit the code; "
        f"packages.toml names {n_files} files"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
