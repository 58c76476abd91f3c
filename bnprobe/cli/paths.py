"""The files that a command writes, known to be possible before minutes of work, and never those that it reads."""

from __future__ import annotations

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
    from bnprobe.files import check_outputs, place_of

    places = [place_of(name) for name in inputs if name]
    read = [file for place in places if isinstance(place, Path) for file in _files(place)]
    check_outputs([path for path in outputs if path], read)


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
    """What is read of an argument: the file, or those of weights in a folder, or beside an index."""
    from bnprobe.files import is_folder
    from bnprobe.recording.codec import CHECKPOINTS

    yield path
    folder = path if is_folder(path) else path.parent if path.suffix == ".json" else None
    if folder is not None:
        with suppress(OSError):  # whoever reads it will say so
            yield from (
                file for file in folder.iterdir() if file.suffix in CHECKPOINTS or file.name == "config.json"
            )
