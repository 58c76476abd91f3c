"""The bytes of a remote file: fetched when they are asked for, in few requests, and kept while the file is in use."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

from bnprobe.errors import CannotFetch
from bnprobe.files.span import ReadAnywhere

FIRST = 2**16
"""Bytes that the first request asks for, and those at the end that are fetched together: headers and tables."""

LEAST = 2**14
"""Bytes of a request for something that was not foreseen."""

GAP = 2**16
"""Bytes that nobody asked for, up to which two spans are fetched together: a request takes as long as these."""

MOST_AT_ONCE = 2**23
"""Bytes of one request."""

MOST_KEPT = 2**30
"""Bytes of one file that are fetched."""

TOGETHER = 8
"""Requests at a time."""


class Beginning(NamedTuple):
    """What the first request tells: the size of the whole, and its first bytes."""

    size: int
    content: bytes


class Fetcher(Protocol):
    """Whoever asks a server. All raise CannotFetch, also where the file is no longer the one of the first request."""

    def beginning(self, n: int) -> Beginning:
        """The first `n` bytes, or all where the server sends no parts of a small file."""

    def part(self, start: int, n: int) -> bytes:
        """Exactly these bytes."""

    def confirm(self) -> None:
        """Raises CannotFetch where the parts so far are not all of one file."""

    @property
    def version(self) -> str:
        """What the server says of the version of the file, such as its etag; may be empty."""


class Ranges:
    """A remote file as far as it was fetched."""

    def __init__(self, fetcher: Fetcher, shown: str) -> None:
        self._fetcher, self._shown = fetcher, shown
        self.size, content = fetcher.beginning(FIRST)
        self._starts, self._parts = [0], [content]
        self.n_fetched = len(content)

    @property
    def version(self) -> str:
        """What the server says of its version, such as its etag; may be empty."""
        return self._fetcher.version

    def read(self, start: int, n: int) -> bytes:
        """Up to `n` bytes, fewer at the end of the file."""
        end = min(start + n, self.size)
        if start >= end:
            return b""
        held = self._held(start, end)
        if held is None:
            begin, stop = start, min(max(end, start + LEAST), self.size)
            if stop > self.size - FIRST:
                begin, stop = min(start, max(0, self.size - FIRST)), self.size
            self._fetch([(begin, stop)])
            held = self._held(start, end)
            assert held is not None
        return held

    def holds(self, start: int, n: int) -> bool:
        """Whether these bytes are here."""
        return self._held(start, start + n) is not None

    def fetch(self, spans: Iterable[tuple[int, int]]) -> None:
        """Have these bytes, (start, number), here before they are read; neighbors come together, and many at a time."""
        ends = ((start, min(start + n, self.size)) for start, n in spans)
        self._fetch(_joined(sorted((a, b) for a, b in ends if a < b and self._held(a, b) is None)))

    def _fetch(self, pieces: Iterable[tuple[int, int]]) -> None:
        pieces = list(pieces)
        self.n_fetched += sum(end - start for start, end in pieces)
        if self.n_fetched > MOST_KEPT:
            raise CannotFetch(
                f"{self._shown}: more than {MOST_KEPT / 2**30:,.0f} GB of it would have to be fetched. "
                "Download the file, and check that."
            )
        requests = [
            (start, at, min(at + MOST_AT_ONCE, end) - at)
            for start, end in pieces
            for at in range(start, end, MOST_AT_ONCE)
        ]
        if len(requests) == 1:
            found = [self._fetcher.part(*requests[0][1:])]
        else:
            with ThreadPoolExecutor(TOGETHER) as pool:
                found = list(pool.map(lambda request: self._fetcher.part(*request[1:]), requests))
        self._fetcher.confirm()
        for start, end in pieces:
            whole = b"".join(part for part, (of, *_) in zip(found, requests, strict=True) if of == start)
            assert len(whole) == end - start
            self._keep(start, whole)

    def _keep(self, start: int, content: bytes) -> None:
        """Without what lies inside it, so that parts are in the order of their ends, too."""
        first = after = bisect_left(self._starts, start)
        while after < len(self._starts) and self._end(after) <= start + len(content):
            after += 1
        self._starts[first:after], self._parts[first:after] = [start], [content]

    def _end(self, i: int) -> int:
        return self._starts[i] + len(self._parts[i])

    def _held(self, start: int, end: int) -> bytes | None:
        i = bisect_right(self._starts, start) - 1
        begin, part = self._starts[i], self._parts[i]
        return part[start - begin : end - begin] if end <= begin + len(part) else None


def _joined(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(start, end) in order, with those that lie close together as one."""
    begin = stop = -1
    for start, end in spans:
        if stop >= 0 and start <= stop + GAP:
            stop = max(stop, end)
            continue
        if stop >= 0:
            yield begin, stop
        begin, stop = start, end
    if stop >= 0:
        yield begin, stop


class RemoteFile(ReadAnywhere):
    """A remote file as an opened one, with a place of its own."""

    def __init__(self, ranges: Ranges) -> None:
        super().__init__()
        self.ranges = ranges

    @property
    def size(self) -> int:
        """As the server says."""
        return self.ranges.size

    def read_at(self, start: int, n: int) -> bytes:
        """What is not there yet is fetched."""
        return self.ranges.read(start, n)
