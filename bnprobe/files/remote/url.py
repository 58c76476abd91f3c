"""Addresses of remote files, where a path may stand: https://..., hf://owner/repo/file, s3://bucket/key, ..."""

from __future__ import annotations

import re
import threading
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from bnprobe.errors import CannotFetch
from bnprobe.files.address import is_address, shown
from bnprobe.files.remote.hub import hub
from bnprobe.files.remote.ranges import Fetcher, Ranges
from bnprobe.files.remote.store import STORES, Store


class Url:
    """An address as far as it is used like a path. It is shown without its query and password, which may be secrets."""

    def __init__(self, address: str) -> None:
        """Raises CannotFetch for an address of a kind that cannot be read."""
        self.address = address
        before, mark, after = address.partition("?")
        self._before, self._query = before.rstrip("/"), mark + after
        self.scheme = address.partition("://")[0].lower()
        if self.scheme not in (*_HTTP, "hf", *STORES):
            known = ", ".join((*_HTTP, "hf", *STORES))
            raise CannotFetch(f"{self}: there is no way to read {self.scheme}:// addresses. Known: {known}.")
        self._lock = threading.Lock()
        self._ranges: Ranges | None = None

    @property
    def name(self) -> str:
        """The last part of the address."""
        return unquote(self._before.rpartition("/")[2])

    @property
    def suffix(self) -> str:
        """The ending of its name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Url:
        """The folder it is in."""
        return Url(self._before.rpartition("/")[0] + self._query)

    def __truediv__(self, name: str) -> Url:
        return Url(f"{self._before}/{quote(name)}{self._query}")

    def __str__(self) -> str:
        return shown(self._before)

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"

    def ranges(self) -> Ranges:
        """Its bytes; asked for once, however often the file is opened. Raises CannotFetch."""
        with self._lock:
            if self._ranges is None:
                self._ranges = Ranges(self._fetcher(), str(self))
            return self._ranges

    def _fetcher(self) -> Fetcher:
        # with it come clients, encryption and mail, and most files are local
        from bnprobe.files.remote.http import Http

        if self.scheme == "hf":
            return Http(*hub(self.address, str(self)), str(self))
        if self.scheme in _HTTP:
            _demand_host(self.address, str(self))
            return Http(self.address, {}, str(self))
        return Store(self.address, str(self))


_HTTP = ("http", "https")


def place_of(name: str | Path) -> Path | Url:
    """What an argument names: an address where it begins like one, else a path."""
    return Url(name) if isinstance(name, str) and is_address(name) else Path(name)


def _demand_host(address: str, shown: str) -> None:
    try:
        parts = urlsplit(address)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:  # also of a port that is no number
        host = None
    if not host or re.search(r"[\s\x00-\x1f\x7f]", address):
        raise CannotFetch(f"{shown} is no address of a file. Give one as https://HOST/FILE.")
