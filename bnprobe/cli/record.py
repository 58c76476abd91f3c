"""`bnprobe record`: one recording of a model on many shards of images, by many processes."""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnprobe.cli.listed import lines_of
from bnprobe.cli.merge import add_workers
from bnprobe.cli.paths import demand_writable
from bnprobe.cli.subject import add_exemplars, add_subject, recorded, samples_of
from bnprobe.errors import BadImages, BadRecordingFile, BnprobeError, CannotMerge
from bnprobe.files import files_in, folders_in, is_folder
from bnprobe.printing import note, say

if TYPE_CHECKING:
    from bnprobe.models import Subject
    from bnprobe.models.image_folder import Source as Images
    from bnprobe.recording import Recording
    from bnprobe.scaling.shards import Shard

SETTINGS = (
    *("subject", "weights", "checkpoint", "limit", "batch_size", "size", "mean", "std"),
    *("layers", "loss", "no_histograms", "exemplars", "mask", "sample_dim", "unit"),
)
"""Options on which a part depends: with other ones it is recorded again."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    record = commands.add_parser(
        "record",
        help="record a model on many shards of images, in many processes",
        description="Record MODEL (as in `bnprobe report`) in eval mode on every shard of a list, one process per "
        "shard, and merge the parts. A shard is a folder of images. Parts are kept in DIR/parts: whatever is interrupted or "
        "killed, the same command goes on where it was. The result is the same to the last bit for any number of workers.",
    )
    record.add_argument("subject", metavar="MODEL", help="model to record")
    record.add_argument(
        "--shards", metavar="LIST", required=True, help="text file with one folder of images per line"
    )
    record.add_argument("--out", metavar="DIR", required=True, help="folder for the parts and whole.bnp")
    add_subject(record)
    add_exemplars(record)
    add_workers(record, "record")
    record.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Record what is not recorded yet, merge all parts, and say what is in the whole."""
    from bnprobe.scaling.merge import merge_files
    from bnprobe.scaling.shards import work_off

    _demand_no_other_data(options)
    shards = _shards(options)
    whole = Path(options.out) / "whole.bnp"
    demand_writable([whole], [options.checkpoint, options.shards])
    done = sum(shard.is_done for shard in shards)
    if done:
        note(f"{done:,} of {len(shards):,} shards are recorded already, in {shards[0].part.parent}.")
    work_off(shards, partial(record_shard, options, _classes(shards)), options.workers)
    parts, names = [shard.part for shard in shards], [str(shard.path) for shard in shards]
    try:
        recording = merge_files(parts, options.workers, names)
    except (BadRecordingFile, CannotMerge) as error:
        raise type(error)(
            f"{error} Remove that part from {parts[0].parent}, and run the command again: its shard is recorded again."
        ) from None
    say(
        f"recording: {recording.save(whole)} ({len(shards):,} shard{'s' * (len(shards) != 1)}, "
        f"{recording.about.n_images:,} samples)"
    )
    return 0


def _demand_no_other_data(options: argparse.Namespace) -> None:
    given = [f"--{name}" for name in ("data", "batches") if getattr(options, name)]
    if given:
        raise BnprobeError(
            f"--shards names the data, so {', '.join(given)} can change nothing. Leave it out."
        )


def _shards(options: argparse.Namespace) -> list[Shard]:
    """The shards of the list, in its order. Raises BnprobeError where it is none, or the folder has parts of others."""
    from bnprobe.scaling.shards import Shard

    paths = _listed(Path(options.shards))
    folder = Path(options.out) / "parts"
    settings = repr([getattr(options, name) for name in SETTINGS])
    names = [
        f"{i:06}-{hashlib.sha256(f'{settings} {path} {len(paths)}'.encode()).hexdigest()[:8]}.bnp"
        for i, path in enumerate(paths)
    ]
    others = sorted({path.name for path in files_in(folder, ".bnp")} - set(names))
    if others:
        raise BnprobeError(
            f"{folder} holds parts of another list or of other settings ({len(others):,}, the first is {others[0]}). Choose "
            "another --out, or remove them."
        )
    return [Shard(path, i, len(paths), folder / names[i]) for i, path in enumerate(paths)]


def _listed(path: Path) -> list[Path]:
    paths = [Path(line) for line in lines_of(path, "folder of images")]
    if not paths:
        raise BnprobeError(f"{path} lists no shards. Write one folder of images per line.")
    ((often, n),) = Counter(paths).most_common(1)
    if n > 1:
        raise BnprobeError(f"{path} lists {often} {n} times. Leave one of these lines.")
    lacking = next((one for one in paths if not is_folder(one)), None)
    if lacking is not None:
        raise BadImages(f"{path} lists {lacking}, and there is no such folder. Correct the list.")
    return paths


def _classes(shards: list[Shard]) -> tuple[str, ...]:
    """The class folders of all shards together, so that a class has one number in all of them."""
    return tuple(sorted({folder.name for shard in shards for folder in folders_in(shard.path)}))


def record_shard(options: argparse.Namespace, classes: tuple[str, ...], shard: Shard) -> None:
    """Record one shard into its file: what a worker process does. Raises BnprobeError, which names the shard."""
    from bnprobe.models.image_folder import find_images

    try:
        subject = _subject(
            *(getattr(options, name) for name in ("subject", "weights", "checkpoint", "size", "mean", "std"))
        )
        images = _with_classes(find_images(shard.path), classes)
        batches = images.batches(subject.preprocess, options.batch_size, options.limit)
        histograms = not options.no_histograms
        recording = recorded(
            subject,
            batches,
            options.layers,
            histograms,
            False,
            options.loss,
            exemplars=options.exemplars,
            **samples_of(options),
        )
    except BnprobeError as error:
        raise type(error)(f"shard {shard.path}: {error}") from None
    _timeless(recording, shard, options.shards).save(shard.part)


@cache
def _subject(
    name: str, weights: str | None, checkpoint: str | None, size: Any, mean: Any, std: Any
) -> Subject:
    """Built once in a process."""
    from bnprobe import models

    return models.subject(name, weights=weights, checkpoint=checkpoint, size=size, mean=mean, std=std)


def _with_classes(images: Images, classes: tuple[str, ...]) -> Images:
    """With the numbers that classes have in all shards."""
    if images.labels is None:
        return images
    number = {name: i for i, name in enumerate(classes)}
    labels = tuple(number[images.classes[label]] for label in images.labels)
    return replace(images, labels=labels, classes=classes)


def _timeless(recording: Recording, shard: Shard, listed: str) -> Recording:
    """Without times, so that a shard gives the same file whenever and wherever it is recorded."""
    from bnprobe.recording import Source

    about, integrity = recording.about, recording.integrity
    return replace(
        recording,
        about=replace(
            about, data=f"{shard.of:,} shards listed in {Path(listed).name}", started="", seconds=0.0
        ),
        integrity=None if integrity is None else replace(integrity, seconds=0.0),
        sources=(Source(name=str(shard.path), kind="shard", index=shard.index, of=shard.of),),
    )
