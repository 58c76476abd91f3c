"""The gate in: regular files under a limit, and never a wait."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from bnprobe.files import is_file, is_folder, open_input, read_input


def test_what_is_read(tmp_path):
    """Fails if a file, or a link to one, is not read to its last byte."""
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "link").symlink_to("a")
    assert read_input(tmp_path / "a", 7) == b"content"
    with open_input(tmp_path / "link") as file:
        assert file.read() == b"content"


def test_pipes_devices_sockets_and_folders_are_refused(tmp_path):
    """Fails if anything that may keep its reader waiting, or never ends, is opened."""
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    (tmp_path / "link").symlink_to("/dev/zero")
    here = Path.cwd()
    os.chdir(tmp_path)  # the name of a socket may not be long
    try:
        server.bind("socket")
    finally:
        os.chdir(here)
        server.close()
    for name, kind in {"pipe": "a pipe", "link": "a device", "socket": "a socket"}.items():
        with pytest.raises(OSError, match=f"not a regular file but {kind}"):
            open_input(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        open_input(tmp_path)


def test_the_cap_holds_whatever_size_the_file_claims(tmp_path):
    """Fails if a sparse file, or one that claims no size at all as those of /proc do, is read into RAM."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    for path in (tmp_path / "sparse", Path("/proc/self/status")):
        with pytest.raises(OSError, match="larger than the") as caught:
            read_input(path, 100)
        assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\ud800"])
def test_names_that_no_file_can_have(name, tmp_path):
    """Fails if a name that the system refuses ends in another error than OSError, or in none of the two answers."""
    with pytest.raises(OSError, match=r"name|No such"):
        open_input(tmp_path / name)
    assert not is_file(tmp_path / name)
    assert not is_folder(tmp_path / name)
