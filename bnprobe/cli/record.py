"""`bnprobe record`: one recording of a model on many shards of images, by many processes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnprobe.cli.paths import demand_writable
from bnprobe.cli.shard_list import classes_of, fields_of, shards_of
from bnprobe.cli.subject import add_exemplars, add_subject, recorded, samples_of
from bnprobe.cli.workers import add_engine, add_workers
from bnprobe.errors import BadRecordingFile, BnprobeError, CannotMerge
from bnprobe.printing import note, say

if TYPE_CHECKING:
    from bnprobe.models import Subject
    from bnprobe.models.image_folder import Source as Images
    from bnprobe.recording import Recording
    from bnprobe.scaling.shards import Shard

SETTINGS = (
    *("subject", "weights", "checkpoint", "limit", "batch_size", "size", "mean", "std"),
    *("layers", "loss", "no_histograms", "exemplars", "mask", "sample_dim", "unit"),
    *("image_field", "label_field"),
)
"""Options on which a part depends: with other ones it is recorded again."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    record = commands.add_parser(
        "record",
        help="record a model on many shards of images, in many processes",
        description="Record MODEL (as in `bnprobe report`) in eval mode on every shard of a list, one process per "
        "shard, and merge the parts. A shard is a folder of images, a tar file of images (as WebDataset writes them), or a "
        "Parquet file with a column of encoded images; files may lie at an address such as https://… or s3://…. Parts "
        "are kept in DIR/parts: whatever is interrupted or killed, the same command goes on where it was. The result is the "
        "same to the last bit for any number of workers.",
    )
    record.add_argument("subject", metavar="MODEL", help="model to record")
    record.add_argument(
        "--shards",
        metavar="LIST",
        required=True,
        help="text file with one shard per line: a folder of images, FILE.tar, FILE.parquet, or the address of such a file",
    )
    record.add_argument("--out", metavar="DIR", required=True, help="folder for the parts and whole.bnp")
    record.add_argument(
        "--image-field",
        metavar="NAME",
        help="ending of the images in tar files (default: the usual ones, as jpg and png), or column of encoded images in "
        "Parquet files (default: image, or the only one of bytes)",
    )
    record.add_argument(
        "--label-field",
        metavar="NAME",
        help="ending of the files that hold the number of a class (default cls, where there are any), or column of it "
        "(default label); none for no classes",
    )
    add_subject(record, instead="not here: --shards lists the data; one folder is a list of one line")
    add_exemplars(record)
    add_workers(record, "record")
    add_engine(record, "shards")
    record.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Record what is not recorded yet, merge all parts, and say what is in the whole."""
    from bnprobe.files.address import is_address
    from bnprobe.scaling.merge import merge_files
    from bnprobe.scaling.shards import work_off

    _demand_no_other_data(options)
    shards = shards_of(options, SETTINGS)
    whole = Path(options.out) / "whole.bnp"
    listed = [shard.place for shard in shards if not is_address(shard.place)]
    demand_writable([whole], [options.checkpoint, options.shards, *listed])
    done = sum(shard.is_done for shard in shards)
    if done:
        note(f"{done:,} of {len(shards):,} shards are recorded already, in {shards[0].part.parent}.")
    classes = classes_of(shards)
    if options.engine == "ray":
        from bnprobe.scaling.on_ray import work_off_on_ray

        work_off_on_ray(shards, partial(_emitted, options, classes), options.workers)
    else:
        work_off(shards, partial(record_shard, options, classes), options.workers)
    parts, names = [shard.part for shard in shards], [shard.name for shard in shards]
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
            f"--shards names the data, so {', '.join(given)} can change nothing. Leave it out; a folder is a line "
            "of the list."
        )


def record_shard(options: argparse.Namespace, classes: tuple[str, ...], shard: Shard) -> None:
    """Record one shard into its file: what a worker process does. Raises BnprobeError, which names the shard."""
    recording_of(options, classes, shard).save(shard.part)


def _emitted(options: argparse.Namespace, classes: tuple[str, ...], shard: Shard) -> bytes:
    """The file of one shard, for a worker that may be on another machine."""
    return recording_of(options, classes, shard).to_bytes()


def recording_of(options: argparse.Namespace, classes: tuple[str, ...], shard: Shard) -> Recording:
    """The recording of one shard. Raises BnprobeError, which names the shard."""
    from bnprobe.models.image_shards import open_shard

    try:
        subject = _subject(
            *(getattr(options, name) for name in ("subject", "weights", "checkpoint", "size", "mean", "std"))
        )
        with open_shard(shard.place, fields_of(options)) as images:
            batches = _with_classes(images, classes).batches(
                subject.preprocess, options.batch_size, options.limit
            )
            recording = recorded(
                subject,
                batches,
                options.layers,
                not options.no_histograms,
                False,
                options.loss,
                exemplars=options.exemplars,
                **samples_of(options),
            )
    except BnprobeError as error:
        raise type(error)(f"shard {shard.name}: {error}") from None
    return _timeless(recording, shard, options.shards)


@cache
def _subject(
    name: str, weights: str | None, checkpoint: str | None, size: Any, mean: Any, std: Any
) -> Subject:
    """Built once in a process."""
    from bnprobe import models

    return models.subject(name, weights=weights, checkpoint=checkpoint, size=size, mean=mean, std=std)


def _with_classes(images: Images, classes: tuple[str, ...]) -> Images:
    """With the numbers that the classes of folders have in all shards; those in files are the same ones already."""
    if images.labels is None or not classes:
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
        sources=(Source(name=shard.name, kind="shard", index=shard.index, of=shard.of),),
    )
