"""What is printed and saved when a run is interrupted."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnprobe.models.image_folder import Batches
    from bnprobe.models.user_batches import UserBatches
    from bnprobe.recording import Recording


def add_save_partial(command: argparse.ArgumentParser) -> None:
    """The option --save-partial."""
    command.add_argument(
        "--save-partial",
        action="store_true",
        help="if interrupted, save what was recorded so far, as NAME.partial.bnp next to the recording or the page",
    )


def partial_path(options: argparse.Namespace, out: Path) -> Path | None:
    """Where a partial recording goes; None where none was asked for."""
    return Path(options.save or out).with_suffix(".partial.bnp") if options.save_partial else None


def stopped(recording: Recording, batches: Batches | UserBatches, path: Path | None) -> str:
    """Save what an interrupted run has seen, if it has and is asked to, and say so in one line."""
    n, most = recording.about.n_images, batches.n_images
    if not recording.about.n_forwards:
        return "interrupted before the first batch ended, so there is nothing to save."
    seen = f"{n:,} samples" if most is None else f"{n:,} of {most:,} images"
    far = f"interrupted after {seen}"
    if path is None:
        return f"{far}; nothing was saved. Use --save-partial to keep the recording of an interrupted run."
    note = f"The run was interrupted after {seen}."
    about = replace(
        recording.about,
        data=f"the first {n:,} of {recording.about.data}",
        notes=(*recording.about.notes, note),
    )
    replace(recording, about=about).save(path)
    return f"{far}, which are saved: `bnprobe report {path}` writes their page."
