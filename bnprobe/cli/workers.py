"""The options of who does the work: how many processes, of this machine or of a cluster."""

from __future__ import annotations

import argparse

from bnprobe.cli.subject import positive


def add_workers(command: argparse.ArgumentParser, do: str) -> None:
    """The option --workers."""
    command.add_argument(
        "--workers", type=positive, default=1, metavar="N", help=f"processes that {do} at a time (default 1)"
    )


def add_engine(command: argparse.ArgumentParser, what: str) -> None:
    """The option --engine; `what` is what every machine of a cluster must find."""
    command.add_argument(
        "--engine",
        choices=("processes", "ray"),
        default="processes",
        help="what runs the workers: processes of this machine (default), or Ray (pip install ray): the cluster that "
        f"RAY_ADDRESS names, or one of --workers processors on this machine; every machine must see the {what}",
    )
