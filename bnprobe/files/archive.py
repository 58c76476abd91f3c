"""The zip archives that `torch.save` writes: where in the file each of their entries lies, without unpacking one."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple, cast

from bnprobe.files.limits import TooMuch
from bnprobe.files.remote import RemoteFile

BEGINS = b"PK\3\4"
"""The first bytes, by which torch tells its archives; one behind something else is not what it seems."""

_LISTED = b"PK\1\2"
"""The first bytes of an entry in the list."""

MOST_ENTRIES = 2**18
"""Entries of an archive, one a tensor: ten times what the largest files have."""

_LOCAL = 30
"""Bytes of an entry's own header, before its name."""


class Span(NamedTuple):
    """Bytes of a file."""

    start: int
    size: int


def entries_listed(file: BinaryIO) -> list[zipfile.ZipInfo]:
    """What the list at the end of an archive says. Raises zipfile.BadZipFile for what is none, and TooMuch."""
    with zipfile.ZipFile(cast(BinaryIO, _Counted(file))) as archive:
        return archive.infolist()


class _Counted:
    """An archive whose list is counted before zipfile makes an object of each entry, whatever number it declares."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """As of any file."""
        held = self._file.read(size)
        if held.count(_LISTED) > MOST_ENTRIES:
            raise TooMuch(f"it holds more than {MOST_ENTRIES:,} entries")
        return held


def entries(file: BinaryIO) -> dict[str, Span]:
    """Every entry without the archive's own folder in front of its name.

    Raises ValueError or zipfile.BadZipFile for an archive that is damaged, compressed, encrypted, or holds a name twice.
    """
    listed = entries_listed(file)
    if isinstance(file, RemoteFile):
        file.ranges.fetch((entry.header_offset, _LOCAL) for entry in listed)
    found: dict[str, Span] = {}
    for entry in listed:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ValueError("an entry of the archive is compressed or encrypted")
        name = entry.filename.partition("/")[2]
        if name in found:
            raise ValueError(f"it holds {name[:80]} twice")
        found[name] = Span(_start(file, entry.header_offset), entry.file_size)
    _demand_apart(found.values())
    return found


def _demand_apart(spans: Iterable[Span]) -> None:
    """Raises ValueError where one entry lies in another, as no program writes them."""
    end = 0
    for span in sorted(spans):
        if span.start < end:
            raise ValueError("entries of the archive overlap")
        end = span.start + span.size


def _start(file: BinaryIO, header: int) -> int:
    """Where the content begins: behind a header, whose name and extra field may be longer here than in the list."""
    file.seek(header)
    local = file.read(_LOCAL)
    if len(local) < _LOCAL or local[:4] != BEGINS:
        raise ValueError("an entry of the archive is not where its list says")
    return header + _LOCAL + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")


def content(file: BinaryIO, span: Span, most: int) -> bytes:
    """The bytes of an entry. Raises ValueError for more than `most`, or fewer than its list says."""
    if span.size > most:
        raise ValueError(f"an entry of the archive has {span.size:,} bytes")
    file.seek(span.start)
    held = file.read(span.size)
    if len(held) < span.size:
        raise ValueError("the archive is cut short")
    return held
