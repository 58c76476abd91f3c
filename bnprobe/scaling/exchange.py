"""Recordings of ranks exchanged: sent as bytes up a tree of ranks, merged on the way, and the whole down again.

Sums are merged in the order in which `merge_in_order` merges files, so the ranks' recordings written to files and merged
later are the same to the last bit. Whatever fails on one rank is said by all, since a
rank that waits for another would wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from typing import Protocol

from bnprobe.errors import BnprobeError, CannotMerge
from bnprobe.recording import Recording, Source, from_bytes
from bnprobe.scaling.join import join

WHOLE, FAILED = b"+", b"-"
"""First byte of what is sent: a recording follows, or the words of an error."""


class Link(Protocol):
    """What connects a rank to the others of its group."""

    rank: int
    n_ranks: int

    def send(self, content: bytes, to: int) -> None:
        """Hand bytes to another rank. Raises ConnectionError where it is gone."""

    def receive(self, source: int) -> bytes:
        """Wait for the bytes of another rank. Raises ConnectionError where it is gone."""


def gather_over(link: Link, recording: Recording) -> Recording:
    """The recordings of all ranks of a link as one. Raises CannotMerge, on every rank, where one of them fails."""
    children = list(_children(link.rank, link.n_ranks))
    content = _sum(_numbered(recording, link), (_received(link, child) for child in children))
    if link.rank:
        parent = link.rank & (link.rank - 1)
        _send(link, content, parent)
        content = _received(link, parent)
    for child in reversed(children):
        _send(link, content, child)
    return _unpacked(content)


def _children(rank: int, n_ranks: int) -> Iterator[int]:
    """The ranks whose sums a rank adds to its own, in this order: its neighbor, the neighbor of both, ..."""
    step = 1
    while not rank & step and rank + step < n_ranks:
        yield rank + step
        step *= 2


def _numbered(recording: Recording, link: Link) -> Recording:
    """With its rank in the group, by which messages call it."""
    of = Source.rank(link.rank, link.n_ranks)
    return replace(
        recording, sources=tuple(replace(of, samples=one.samples) for one in recording.seen or (of,))
    )


def _sum(mine: Recording, others: Iterable[bytes]) -> bytes:
    """What is sent on: a rank's own part with those that it was sent, or why they cannot be merged."""
    contents = list(others)  # all of them, also after a failure: whoever sends waits until it is received
    try:
        return WHOLE + reduce(join, map(_unpacked, contents), mine).to_bytes()
    except BnprobeError as error:
        return FAILED + str(error).encode()


def _unpacked(content: bytes) -> Recording:
    if content[:1] == FAILED:
        raise CannotMerge(content[1:].decode())
    return from_bytes(memoryview(content)[1:], "what another rank sent")


def _received(link: Link, source: int) -> bytes:
    try:
        return link.receive(source)
    except ConnectionError as error:
        ended = f"rank {source} ended before it handed over its recording ({error})"
        return FAILED + f"{ended}. Look for what it says, and let every rank call gather.".encode()


def _send(link: Link, content: bytes, to: int) -> None:
    with suppress(ConnectionError):  # whoever waits for that rank will say so
        link.send(content, to)
