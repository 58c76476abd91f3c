"""Addresses of files that are elsewhere, as https://…: how one is known from a path, and how it is shown."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_address(name: str) -> bool:
    """Whether this names a file by protocol and place, instead of by its path on this machine."""
    return _ADDRESS.match(name) is not None


def shown(name: str) -> str:
    """An address as messages and pages show it, without user, password and query, which may hold tokens; a path as it is."""
    if not is_address(name):
        return name
    protocol, mark, rest = re.split(r"[?#]", name, maxsplit=1)[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{protocol}{mark}{host.rpartition('@')[2]}{slash}{path}"


def local_path(address: str) -> Path | None:
    """The file of this machine that an address with file:/// stands for; None for other addresses."""
    protocol, _, rest = address.partition("://")
    return (
        Path(unquote(re.split(r"[?#]", rest)[0])) if protocol.lower() == "file" and rest[:1] == "/" else None
    )
