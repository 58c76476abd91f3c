"""Recordings in files merged into one, with no more of them in RAM than it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from bnprobe.errors import BnprobeError, CannotMerge
from bnprobe.files import files_in, is_folder
from bnprobe.printing import progress
from bnprobe.recording import Recording, Source, load, named
from bnprobe.scaling.join import join
from bnprobe.scaling.processes import processes
from bnprobe.scaling.tree import merge_in_order

BLOCK = 8
"""Parts that a process merges by itself before it hands over their sum: a power of two, as the order of merging asks for."""

MOST_WORDS = 4
"""Descriptions of data that stand side by side; of more the first and the number are given."""


Part = tuple[Path, str]
"""A file, and what messages call it."""


def merge_files(paths: Sequence[Path | str], workers: int = 1, names: Sequence[str] = ()) -> Recording:
    """The recordings of files, and of those in folders, as one recording. The result does not depend on `workers`.

    Messages call the files by `names`, or else by their own.
    Raises CannotMerge where a part holds the same samples as another, or was recorded of another model or with other
    settings, and BadRecordingFile where one cannot be read.
    """
    files = part_files(paths)
    parts = list(zip(files, names or [path.name for path in files], strict=True))
    with progress(len(parts), "merging", "parts") as bar:
        whole = merge_in_order(_counted(_sums(parts, workers), bar), join)
    if whole is None:
        raise CannotMerge("there is nothing to merge. Name recordings, or a folder of them.")
    return _shortened(whole)


def part_files(paths: Iterable[Path | str]) -> list[Path]:
    """The files themselves, and those that end in .bnp in folders, by name."""
    files: list[Path] = []
    for path in map(Path, paths):
        inside = files_in(path, ".bnp") if is_folder(path) else [path]
        if not inside:
            raise BnprobeError(f"{path}: no recordings (*.bnp) in this folder. Name the parts to merge.")
        files += inside
    return files


def _sums(parts: Sequence[Part], workers: int) -> Iterator[Recording]:
    """Parts one by one, or the sums of blocks, which several processes make."""
    if workers == 1 or len(parts) <= BLOCK:
        yield from map(_part, parts)
        return
    blocks = [parts[start : start + BLOCK] for start in range(0, len(parts), BLOCK)]
    with processes(min(workers, len(blocks))) as pool:
        ahead = iter(blocks)
        running = [pool.submit(_block, block) for block in islice(ahead, workers)]
        while running:
            done = running.pop(0).result()
            running += [pool.submit(_block, block) for block in islice(ahead, 1)]
            yield done


def _block(parts: Sequence[Part]) -> Recording:
    whole = merge_in_order(map(_part, parts), join)
    assert whole is not None
    return whole


def _part(part: Part) -> Recording:
    """What a file holds, with a digest of its samples."""
    path, name = part
    recording = load(path)
    return replace(recording, sources=named(recording.seen or (Source(),), name))


def _counted(sums: Iterable[Recording], bar: Any) -> Iterator[Recording]:
    for one in sums:
        bar.update(len(one.sources))
        yield one


def _shortened(whole: Recording) -> Recording:
    """Without a sentence for each of a thousand shards."""
    words = whole.about.data.split(" + ")
    if len(words) <= MOST_WORDS:
        return whole
    data = f"{' + '.join(words[:2])} and {len(words) - 2:,} more"
    return replace(whole, about=replace(whole.about, data=data))
