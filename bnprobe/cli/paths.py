"""The files that a command writes, known to be possible before minutes of work, and never those that it reads."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from bnprobe.errors import CannotWrite

PAGE = b'<body class="bnprobe'
"""What stands in every page of ours, after its style sheet."""

_HEAD = 2**18


def demand_writable(outputs: Iterable[Path | None], inputs: Iterable[str | None] = ()) -> None:
    """Raises CannotWrite for an output that cannot be written, or is one of the `inputs`; those that are None were not
    given."""
    from bnprobe.files import check_outputs, is_file, place_of

    given = [path for path in outputs if path]
    named = inputs if any(map(is_file, given)) else ()  # where nothing is, nothing is replaced
    places = [place for name in named if name and isinstance(place := place_of(name), Path)]
    read = [file for place in places for file in (*_files(place), *_images_in(place, given))]
    check_outputs(given, read)


def output_file(text: str) -> str:
    """The name of a file to write, as the type of an option: what ends in a slash names a folder, which a path forgets."""
    if text.endswith(("/", os.sep)):
        raise argparse.ArgumentTypeError(f"{text!r} is a folder. Add the name of the file to write in it")
    return text


def would_replace(path: Path, command: str) -> CannotWrite:
    """The refusal of a command that replaces no file."""
    return CannotWrite(f"{path} exists, and {command} replaces no file. Choose another path for the output.")


def default_page(name: str) -> Path:
    """reports/`name`, where no output was named. Raises CannotWrite for a file there that is no page of ours."""
    from bnprobe.files import open_input

    path = Path("reports", name)
    try:
        with open_input(path) as file:
            ours = PAGE in file.read(_HEAD)
    except OSError:  # not there, or nothing that would be replaced
        return path
    if not ours:
        raise CannotWrite(f"{path} is there, and no page of bnprobe. Name the output with -o FILE.")
    return path


def _files(path: Path) -> Iterator[Path]:
    """What is read of an argument: the file, or those of weights in a folder, or beside an index, whatever they are called
    there; and what standard input comes from."""
    from bnprobe.errors import BadCheckpoint
    from bnprobe.files import STREAM, is_file, is_folder
    from bnprobe.recording.codec import CHECKPOINTS
    from bnprobe.weights.shards import files_of

    if str(path) == STREAM:
        yield Path("/dev/stdin")  # on Windows no file
        return
    yield path
    if is_file(config := path.parent / "config.json"):
        yield config
    folder = path if is_folder(path) else path.parent if path.suffix == ".json" else None
    if folder is not None:
        with suppress(OSError):  # whoever reads it will say so
            yield from (
                file
                for file in folder.iterdir()
                if file.suffix in (*CHECKPOINTS, ".distcp") or file.name in ("config.json", ".metadata")
            )
        with suppress(OSError, BadCheckpoint):
            yield from (file for file in files_of(path) if isinstance(file, Path))


def _images_in(folder: Path, outputs: Iterable[Path]) -> Iterator[Path]:
    """Those of the outputs that are images of a folder, at any depth: the folder itself may hold millions."""
    from bnprobe.files import is_file, is_folder

    for path in outputs if is_folder(folder) else ():
        if is_file(path) and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            from bnprobe.models.image_folder import SUFFIXES  # with it comes torch

            if path.suffix.lower() in SUFFIXES:
                yield path
