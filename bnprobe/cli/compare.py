"""`bnprobe compare`: what changed from A to B, of two files or of one model recorded twice."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnprobe.cli.paths import default_page, demand_writable, output_file
from bnprobe.cli.severity import add_config, add_fail_on, exit_code, settings_file
from bnprobe.cli.subject import add_subject, recorded, samples_of, subject_and_batches
from bnprobe.errors import BnprobeError
from bnprobe.files import STREAM
from bnprobe.printing import say, say_lines

if TYPE_CHECKING:
    from bnprobe.comparison.result import Comparison
    from bnprobe.recording import Recording

FORMATS = ("html", "text", "json")
TWICE = ("weights", "checkpoint", "data", "batches")
"""Options that are given twice where they make the two sides."""
ONCE = (
    *TWICE,
    "limit",
    "size",
    "mean",
    "std",
    "layers",
    "loss",
    "no_histograms",
    "modes",
    "mask",
    "sample_dim",
    "unit",
)
"""Options of a model: two files were recorded already."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    compare = commands.add_parser(
        "compare",
        help="compare two recordings or checkpoints, or one model on two sets of data or in two modes",
        description="Report what changed from A to B and where it begins. A and B are recordings (FILE.bnp) or checkpoints, "
        "of which only stored values are compared; or A alone is a model, as in `bnprobe report`, that is recorded twice: "
        "give the option that differs twice (--data A --data B, --batches A --batches B, --checkpoint A --checkpoint B, "
        "--weights A --weights B), or --modes for eval and train mode on the same data.",
    )
    compare.add_argument("sides", metavar="A", nargs="+", help="A and B, or one model to record twice")
    compare.add_argument("--modes", action="store_true", help="record A in eval mode and B in train mode")
    add_subject(compare, twice=True)
    compare.add_argument(
        "--format",
        choices=FORMATS,
        default="html",
        help="output format: html, a page with a printed summary (default), text or json",
    )
    compare.add_argument(
        "-o",
        "--out",
        type=output_file,
        metavar="FILE",
        help="output file (default: reports/A-vs-B.html; text and json, and -: print)",
    )
    add_fail_on(compare)
    add_config(compare)
    compare.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Get both sides, compare, write, and say by the exit code whether a finding is serious."""
    from bnprobe.comparison.compare import compare

    out = _out(options)
    demand_writable(
        [out], (*options.sides, *(options.checkpoint or ()), *(options.data or ()), settings_file(options))
    )
    a, b = _two_files(options) if len(options.sides) > 1 else _recorded_twice(options)
    comparison = compare(a, b, config=settings_file(options))
    _write(comparison, options.format, out)
    return exit_code(comparison.findings["severity"], options.fail_on)


def _out(options: argparse.Namespace) -> Path | None:
    if options.format != "html" and options.out in (None, STREAM):
        return None
    if options.out:
        return Path(options.out)
    names = _distinct_names([Path(side.rpartition(":")[2]) for side in options.sides])
    return default_page(f"{'-vs-'.join(names)}{'' if len(names) > 1 else '.compared'}.html")


def _distinct_names(sides: list[Path]) -> list[str]:
    """Names for a page: without suffix where these differ, else with it, else with folders."""
    stems = [side.name.partition(".")[0] or "side" for side in sides]
    parts = [Path(os.path.abspath(side)).parts[1:] for side in sides]
    if len(set(stems)) == len(set(parts)):
        return stems
    if len({side.name for side in sides}) > 1:
        return [side.name for side in sides]
    # as many folders as it takes: runs/1/best.pt and runs/2/best.pt are 1-best and 2-best
    depth = next(n for n in range(2, max(map(len, parts)) + 1) if len({part[-n:] for part in parts}) > 1)
    folders = ["-".join(part[-depth:-1]) for part in parts]
    return [f"{folder}-{stem}".lstrip("-") for folder, stem in zip(folders, stems, strict=True)]


def _two_files(options: argparse.Namespace) -> tuple[Any, Any]:
    if len(options.sides) != 2:
        raise BnprobeError(f"compare takes two sides, got {len(options.sides)}. Compare them two by two.")
    given = [f"--{name.replace('_', '-')}" for name in ONCE if getattr(options, name)]
    if given:
        raise BnprobeError(
            f"two sides were given, so {', '.join(given)} can change nothing. Leave them out, or name one model to record "
            "twice."
        )
    return options.sides[0], options.sides[1]


def _recorded_twice(options: argparse.Namespace) -> tuple[Recording, Recording]:
    """One model, with what differs between the sides given twice."""
    values = {name: list(getattr(options, name) or [None]) for name in TWICE}
    twice = [name for name, given in values.items() if len(given) > 1]
    too_many = [name for name in twice if len(values[name]) > 2]
    if too_many:
        raise BnprobeError(f"--{too_many[0]} was given {len(values[too_many[0]])} times. Compare two by two.")
    if len(twice) + options.modes != 1:
        raise BnprobeError(
            f"{options.sides[0]} is one side. Give a second file, or the one option that differs twice (--data A --data B, "
            "--checkpoint A --checkpoint B, --weights A --weights B), or --modes."
        )
    a, b = (
        argparse.Namespace(
            **{
                **vars(options),
                **{name: given[min(side, len(given) - 1)] for name, given in values.items()},
                "subject": options.sides[0],
            }
        )
        for side in (0, 1)
    )
    return _record(a, train=False), _record(b, train=options.modes)


def _record(options: argparse.Namespace, train: bool) -> Recording:
    """One side, of a freshly built model, since train mode changes buffers; both sides use the same random seed."""
    from bnprobe.models.subject import seeded

    subject, batches = subject_and_batches(options)
    with seeded():
        histograms, samples = not options.no_histograms, samples_of(options)
        return recorded(subject, batches, options.layers, histograms, train, options.loss, **samples)


def _write(comparison: Comparison, form: str, out: Path | None) -> None:
    from bnprobe.files import write_output

    if form == "html" and out:
        say_lines(f"{comparison.summary()}\n")
        say(f"page: {comparison.to_html(out)}")
        return
    text = comparison.to_json() if form == "json" else comparison.to_text()
    if out:
        write_output(out, text.encode())
    else:
        say_lines(text)
