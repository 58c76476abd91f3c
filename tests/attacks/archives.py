"""Archives that unpack to more than they are, or to somewhere else, and files that are no archives."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import torch

from attacks.pickles import STATE, bare


def deflated(folder: Path) -> Path:
    """A pickle of 256 MB of zeros in 256 kB."""
    with zipfile.ZipFile(folder / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2**28)
    return folder / "a.pt"


def overlapping(folder: Path) -> Path:
    """A thousand entries over the same bytes: stored, and a thousand times what the file holds."""
    kernel = b"\0" * 2**16
    local = _local(b"archive/data/0", kernel)
    central = b"".join(_central(b"archive/data/%d" % i, kernel, 0) for i in range(1000))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1000, 1000, len(central), len(local), 0)
    return bare(local + central + end, folder / "a.pt")


def _local(name: bytes, data: bytes) -> bytes:
    import zlib

    head = (b"PK\3\4", 20, 0, 0, 0, 0, zlib.crc32(data), len(data), len(data), len(name), 0)
    return struct.pack("<4s5H3L2H", *head) + name + data


def _central(name: bytes, data: bytes, offset: int, size: int | None = None) -> bytes:
    import zlib

    size = len(data) if size is None else size
    head = (b"PK\1\2", 20, 20, 0, 0, 0, 0, zlib.crc32(data), size, size, len(name), 0, 0, 0, 0, 0, offset)
    return struct.pack("<4s6H3L5H2L", *head) + name


def lying_sizes(folder: Path) -> Path:
    """A directory that claims 4 GB for an entry of four bytes."""
    local = _local(b"archive/data.pkl", b"\x80\x02}.")
    central = _central(b"archive/data.pkl", b"\x80\x02}.", 0, 2**32 - 2)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0)
    return bare(local + central + end, folder / "a.pt")


def traversal(folder: Path) -> Path:
    """Entries called ../ran and /…/ran beside a healthy checkpoint's."""
    torch.save(STATE, folder / "a.pt")
    with zipfile.ZipFile(folder / "a.pt", "a") as archive:
        archive.writestr("../ran", b"x")
        archive.writestr(f"{folder}/ran", b"x")
    return folder / "a.pt"


def many_entries(folder: Path) -> Path:
    """Fifty thousand empty entries."""
    with zipfile.ZipFile(folder / "a.pt", "w") as archive:
        for i in range(50_000):
            archive.writestr(f"archive/data/{i}", b"")
    return folder / "a.pt"


def twice_the_pickle(folder: Path) -> Path:
    """Two entries of one name: a program that looks and one that reads may take different ones."""
    import warnings

    torch.save(STATE, folder / "a.pt")
    with zipfile.ZipFile(folder / "a.pt", "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("a/data.pkl", f"cos\nsystem\n(S'touch {folder / 'ran'}'\ntR.".encode())
    return folder / "a.pt"


def polyglot(folder: Path) -> Path:
    """A legacy pickle with code, and a healthy zip archive behind it."""
    healthy = io.BytesIO()
    torch.save(STATE, healthy)
    return bare(
        f"cos\nsystem\n(S'touch {folder / 'ran'}'\ntR.".encode() + healthy.getvalue(), folder / "a.pt"
    )


def gzip_bomb(folder: Path) -> Path:
    return bare(gzip.compress(b"\0" * 2**26), folder / "a.pt")


def bzip2_bomb(folder: Path) -> Path:
    return bare(bz2.compress(b"\0" * 2**26), folder / "a.pt")


def xz_bomb(folder: Path) -> Path:
    return bare(lzma.compress(b"\0" * 2**26), folder / "a.pt")


def tar_links(folder: Path) -> Path:
    """A tar with a link out of itself, and a member that goes through the link."""
    with tarfile.open(folder / "a.pt", "w") as archive:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, str(folder)
        archive.addfile(link)
        member = tarfile.TarInfo("out/ran")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    return folder / "a.pt"


def pipe(folder: Path) -> Path:
    """A pipe that nobody writes to: opening it waits for ever."""
    os.mkfifo(folder / "a.pt")
    return folder / "a.pt"


def endless(folder: Path) -> Path:
    """A link to a device that never ends."""
    (folder / "a.pt").symlink_to("/dev/zero")
    return folder / "a.pt"


def link_to_itself(folder: Path) -> Path:
    (folder / "a.pt").symlink_to(folder / "a.pt")
    return folder / "a.pt"


def folder_of_pipes(folder: Path) -> Path:
    os.mkfifo(folder / "model.safetensors")
    return folder


def empty(folder: Path) -> Path:
    return bare(b"", folder / "a.pt")


def sparse_terabyte(folder: Path) -> Path:
    """A file of a terabyte that takes no room on the disk."""
    with (folder / "a.pt").open("wb") as file:
        file.truncate(2**40)
    return folder / "a.pt"


ARCHIVES = {
    deflated: "compressed archive .* Unpack it",
    overlapping: "compressed archive .* Unpack it",
    lying_sizes: "compressed archive .* Unpack it",
    many_entries: "zip archive that torch did not write.* Unpack it",
    polyglot: r"asks to run \w+\.system|not a whole checkpoint",
    gzip_bomb: "compressed by gzip. Unpack it",
    bzip2_bomb: "compressed by bzip2. Unpack it",
    xz_bomb: "compressed by xz. Unpack it",
    tar_links: "is a tar archive",
    pipe: "not a regular file.* give the file",
    endless: "not a regular file.* give the file",
    link_to_itself: "cannot read .*Check the path",
    folder_of_pipes: "without a checkpoint",
    empty: "not a whole checkpoint",
    sparse_terabyte: "not a whole checkpoint|is a tar archive",
}

HARMLESS = (traversal, twice_the_pickle)
"""Read as the checkpoint that they also are, or refused; nothing is unpacked."""
