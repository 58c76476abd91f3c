"""`bnprobe check`: what checkpoints reveal without data, for people and for machines."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnprobe.cli.light_imports import import_light
from bnprobe.cli.paths import default_page, demand_writable, output_file
from bnprobe.cli.severity import add_config, add_fail_on, exit_code, settings_file
from bnprobe.errors import BnprobeError
from bnprobe.files import STREAM, Url, place_of, standard_input
from bnprobe.garbage import collector_paused
from bnprobe.printing import say, say_lines

if TYPE_CHECKING:
    import pandas as pd

    from bnprobe.models.user_batches import UserBatches
    from bnprobe.report.formats.check import Checked


@dataclass(frozen=True)
class Format:
    """What `make` makes of all checked files together; without it, a page is written for each. An output file with one of
    the `suffixes` asks for it."""

    make: Callable[[list[Checked]], str] | None = None
    suffixes: tuple[str, ...] = ()


def _text(checked: list[Checked]) -> str:
    from bnprobe.report.formats.check import to_text

    return to_text(checked)


def _json(checked: list[Checked]) -> str:
    from bnprobe.report.formats.check import to_json

    return to_json(checked)


def _sarif(checked: list[Checked]) -> str:
    from bnprobe.report.formats.sarif import to_sarif

    return to_sarif(checked)


FORMATS = {
    "text": Format(_text),
    "json": Format(_json, (".json",)),
    "sarif": Format(_sarif, (".sarif",)),
    "html": Format(suffixes=(".html", ".htm")),
}
"""Their modules are imported when they are needed: with them comes pandas, which the help can do without."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    check = commands.add_parser(
        "check",
        help="check weight files: no architecture, no data, nothing executed",
        description="Report what the norms of a checkpoint reveal without data: running statistics that were never updated, "
        "dead channels, numbers that half precision cannot hold. FILE is a checkpoint (.pt .pth .th .bin .ckpt "
        ".safetensors .gguf), an index (*.index.json) or a folder of shards, or the address of a file or an "
        "index (https:// hf:// s3:// gs://), of which only what is needed is fetched. Pickled code is refused, not run.",
    )
    check.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="checkpoint, index, folder of shards or address; - is standard input",
    )
    check.add_argument(
        "--arch",
        metavar="NAME",
        help="architecture to build, torchvision:resnet50 or package.module:function, so that eps, kinds and neighbors of "
        "norms are exact",
    )
    check.add_argument(
        "--batches",
        metavar="NAME",
        help="with --arch: package.module:function that returns batches, for models that no blank input suits",
    )
    check.add_argument(
        "--format", choices=FORMATS, help="output format (default: by the suffix of -o FILE, else text)"
    )
    check.add_argument(
        "-o",
        "--out",
        type=output_file,
        metavar="FILE",
        help="output file (default, and -: print; html: reports/NAME.check.html)",
    )
    add_fail_on(check)
    check.add_argument("--baseline", metavar="FILE", help="ignore findings listed in FILE")
    check.add_argument(
        "--write-baseline",
        type=output_file,
        metavar="FILE",
        help="write the current findings to FILE, for a later --baseline",
    )
    check.add_argument(
        "--against",
        metavar="TABLE",
        help="also say where γ stands among the checkpoints of a table of `bnprobe audit`",
    )
    add_config(check)
    check.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check every file, write what is asked for, and say by the exit code whether a new finding is serious."""
    import_light("bnprobe.checkpoints.check", "bnprobe.report.result", "bnprobe.report.formats.check")
    options.format = options.format or _asked_for(Path(options.out or "").suffix.lower())
    outs = _outs(options)
    others = _others(options)
    checked = _checked(options)
    _write(checked, options, outs)
    if others is not None:
        from bnprobe.report.audit import standing

        for one in checked:
            say_lines(standing(one.report.recording, one.file, others, options.against))
    if options.write_baseline:
        from bnprobe.rules.baseline import write_baseline

        write_baseline([one.report.findings for one in checked], Path(options.write_baseline))
    severities = (severity for one in checked for severity in one.report.findings["severity"][list(one.new)])
    return exit_code(severities, options.fail_on)


def _others(options: argparse.Namespace) -> pd.DataFrame | None:
    """The table to compare with, known to be one before the work."""
    if not options.against:
        return None
    if options.format != "text" or options.out:
        raise BnprobeError("--against adds lines to the text that is printed. Leave --format and -o out.")
    from bnprobe.report.audit import NAMES, WORDS, demand_audit
    from bnprobe.report.formats.read_table import read_table

    return demand_audit(read_table(Path(options.against), NAMES, WORDS), options.against)


def _asked_for(suffix: str) -> str:
    return next((name for name, form in FORMATS.items() if suffix in form.suffixes), "text")


def _outs(options: argparse.Namespace) -> list[Path]:
    """Where the pages or the text go, known to be writable before the work; none where it is printed."""
    if options.out and options.format == "html" and len(options.files) > 1:
        raise BnprobeError(
            "html writes one page per file, but -o names a single one. Leave -o out, or check one file at a time."
        )
    printed = options.out == STREAM and options.format != "html"
    outs = [Path(options.out)] if options.out and not printed else []
    if options.format == "html" and not outs:
        outs = [default_page(f"{_stem(file)}.check.html") for file in options.files]
        if len(set(outs)) < len(outs):
            raise BnprobeError(
                "two files have the same name, and so would their pages. Check them one at a time."
            )
    baseline = Path(options.write_baseline) if options.write_baseline else None
    demand_writable(
        (*outs, baseline), (*options.files, options.baseline, options.against, settings_file(options))
    )
    return outs


def _shown(file: str) -> str:
    """An address without what may be secret in it."""
    place = place_of(file)
    return str(place) if isinstance(place, Url) else file


def _stem(file: str) -> str:
    if file == STREAM:
        return "standard-input"
    place = place_of(file)
    return Path(place.name if isinstance(place, Url) else os.path.abspath(file)).stem


def _checked(options: argparse.Namespace) -> list[Checked]:
    from bnprobe.checkpoints.check import check
    from bnprobe.report.formats.check import Checked
    from bnprobe.rules.baseline import new_ones, read_baseline

    known = read_baseline(Path(options.baseline)) if options.baseline else None
    config = settings_file(options)
    if options.batches and not options.arch:
        raise BnprobeError(
            "--batches needs a model to run. Give --arch NAME as well, or leave --batches out."
        )
    if options.files.count(STREAM) > 1:
        raise BnprobeError("standard input was named twice, and can be read once. Name it once.")
    reports = []
    for file in options.files:
        with _path(file) as path, collector_paused():
            report = check(path, arch=options.arch, batches=_batches(options), config=config)
            reports.append(report)
            _ = report.findings  # which are computed when first asked for
    new = new_ones([report.findings for report in reports], known or [])
    return [
        Checked(_shown(file), report, tuple(flags), known is not None)
        for file, report, flags in zip(options.files, reports, new, strict=True)
    ]


@contextmanager
def _path(file: str) -> Iterator[str]:
    """The file that an argument stands for."""
    if file != STREAM:
        yield file
        return
    try:
        with standard_input() as path:
            yield str(path)
    except OSError as error:
        raise BnprobeError(
            f"standard input: {error.strerror or error}. Pipe a checkpoint into bnprobe check -, or name its file."
        ) from None


def _batches(options: argparse.Namespace) -> UserBatches | None:
    """Made for each file, since a generator ends."""
    if not options.batches:
        return None
    from bnprobe.models.user_batches import user_batches  # with it comes torch

    return user_batches(options.batches)


def _write(checked: list[Checked], options: argparse.Namespace, outs: list[Path]) -> None:
    from bnprobe.files import write_output

    make = FORMATS[options.format].make
    if make is None:
        for one, out in zip(checked, outs, strict=True):
            say(f"page: {one.report.to_html(out)}")
        return
    text = make(checked)
    if outs:
        write_output(outs[0], text.encode())
    else:
        say_lines(text)
