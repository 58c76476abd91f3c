"""How addresses are known and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnprobe.files import Url
from bnprobe.files.address import is_address, local_path, shown


@pytest.mark.parametrize("name", ["s3://bucket/a.tar", "HTTPS://host/a", "git+ssh://host/a"])
def test_addresses_begin_with_a_protocol(name):
    """Fails if an address is looked for on the disk."""
    assert is_address(name)


@pytest.mark.parametrize("name", ["C:/a.tar", "C://a.tar", "a/https://b", "://a", "7z://a", "a.tar", ""])
def test_everything_else_is_a_path(name):
    """Fails if a folder whose name holds a colon is asked of a server."""
    assert not is_address(name)
    assert shown(name) == name


@pytest.mark.parametrize(
    ("address", "as_shown"),
    [
        ("https://me:word@host:8/a.tar?token=x#y", "https://host:8/a.tar"),
        ("https://me@word@host/a@b.tar", "https://host/a@b.tar"),
        ("https://host/a#token=x?y", "https://host/a"),
        ("s3://bucket", "s3://bucket"),
        ("https://[::1/a?token=x", "https://[::1/a"),  # no host: refused elsewhere, in words
    ],
)
def test_secrets_are_not_shown(address, as_shown):
    """Fails if a token stands in a message, a page or a recording."""
    assert shown(address) == as_shown


def test_a_checkpoint_is_shown_like_images():
    """Fails if one of the two ways to a remote file shows what the other hides."""
    address = "https://me:word@host:8/a.bin?token=x"
    assert str(Url(address)) == shown(address)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("file:///tmp/a%20b.tar", Path("/tmp/a b.tar")),
        ("FILE:///a?x#y", Path("/a")),
        ("file://host/a", None),
        ("https://host/a", None),
    ],
)
def test_files_of_this_machine(address, path):
    """Fails if a file of another machine is looked for on this one."""
    assert local_path(address) == path
