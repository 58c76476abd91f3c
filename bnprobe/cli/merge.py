"""`bnprobe merge`: recordings of ranks, shards or days as one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bnprobe.cli.paths import demand_writable, output_file, would_replace
from bnprobe.cli.workers import add_workers
from bnprobe.printing import note, say


def add(commands: Any) -> None:
    """Add the command to the parser."""
    merge = commands.add_parser(
        "merge",
        help="merge recordings of ranks, shards or days into one",
        description="Merge recordings (PART.bnp) of one model on different samples, as if all had been recorded in one go. "
        "A part that was recorded of another model or with other settings, or that holds the same samples as another, is "
        "refused. Parts are merged in the order given; the result does not depend on --workers. No file is replaced.",
    )
    merge.add_argument(
        "parts", metavar="PART", nargs="+", help="recording, or a folder of recordings (*.bnp)"
    )
    merge.add_argument(
        "-o",
        "--out",
        type=output_file,
        metavar="WHOLE",
        required=True,
        help="the recording to write, e.g. whole.bnp",
    )
    add_workers(merge, "read and merge")
    merge.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Merge the files, write the whole, and say what is in it and what is missing."""
    from bnprobe.files import is_file
    from bnprobe.scaling.merge import merge_files, part_files

    parts, out = part_files(options.parts), Path(options.out)
    demand_writable([out], map(str, parts))
    if is_file(out):
        raise would_replace(out, "merge")
    whole = merge_files(parts, options.workers)
    if whole.missing:
        note(whole.missing)
    n = len(whole.sources)
    say(f"recording: {whole.save(out)} ({n:,} part{'s' * (n != 1)}, {whole.about.n_images:,} samples)")
    return 0
