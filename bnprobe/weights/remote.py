"""Tensors of remote files: those that are needed, fetched together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from bnprobe.files import Place, Url
from bnprobe.files.remote.ranges import TOGETHER, Ranges
from bnprobe.weights.stored import Stored
from bnprobe.weights.tensor import Tensor


def open_together(files: Sequence[Place]) -> None:
    """Ask for the beginnings of remote files at a time; they stay with their addresses."""
    urls = [file for file in files if isinstance(file, Url)]
    if len(urls) > 1:
        with ThreadPoolExecutor(TOGETHER) as pool:
            list(pool.map(Url.ranges, urls))


def fetch(tensors: Iterable[Tensor]) -> None:
    """Have the numbers of these tensors in RAM, where they are those of remote files; nothing else is done to the others."""
    wanted: dict[Ranges, list[tuple[int, int]]] = {}
    for tensor in tensors:
        if isinstance(tensor, Stored) and tensor.source.remote is not None:
            wanted.setdefault(tensor.source.remote.ranges, []).append(tensor.place)
    for ranges, places in wanted.items():
        ranges.fetch(places)


def remote_files(tensors: Iterable[Tensor]) -> list[Ranges]:
    """The remote files that tensors are in, each once."""
    found = (tensor.source.remote for tensor in tensors if isinstance(tensor, Stored))
    return list(dict.fromkeys(file.ranges for file in found if file is not None))
