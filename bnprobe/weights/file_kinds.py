"""What a file is that torch cannot read, by its first bytes: people download, rename and export many things."""

from __future__ import annotations

import re
import tarfile
import zipfile
from typing import BinaryIO

from bnprobe.errors import BadCheckpoint
from bnprobe.files import Place, open_input, size_and_time
from bnprobe.files.archive import entries_listed
from bnprobe.files.gguf import BEGINS
from bnprobe.weights.messages import SAVE_AGAIN, program, what_it_is

HEAD = 512
"""Bytes of the beginning that are looked at."""

EXPORTED = f"bnprobe reads the weights of PyTorch: {SAVE_AGAIN}"
UNPACK = "Unpack it, and give the checkpoint inside"

MAGIC: tuple[tuple[re.Pattern[bytes], str, str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), what, advice)
    for pattern, what, advice in (
        (rb"version https://git-lfs", "a Git LFS pointer, not the file itself", "Run `git lfs pull` in its repository"),
        (
            rb"\s*(<!doctype html|<html|<\?xml|<head)",
            "a web page, as servers send in place of a file (a login, an error)",
            "Open the address in a browser, and download the file itself",
        ),
        (rb"\s*\{\s*\"", "a text in JSON, not tensors", "Give the file of the weights; servers also send errors like this"),
        (rb"\x89HDF\r\n", "an HDF5 file, as Keras and TensorFlow write it", EXPORTED),
        (rb"\x1f\x8b", "compressed by gzip", UNPACK),
        (rb"BZh[1-9]", "compressed by bzip2", UNPACK),
        (rb"\xfd7zXZ\0", "compressed by xz", UNPACK),
        (rb"\x28\xb5\x2f\xfd", "compressed by zstd", UNPACK),
        (rb"7z\xbc\xaf\x27\x1c|Rar!", "a packed archive", UNPACK),
        (rb".{4}TFL3", "a TensorFlow Lite model", EXPORTED),
        (rb"\x93NUMPY", "an array of numpy", f"Put it into a state dict; {SAVE_AGAIN}"),
        # protobuf: ir_version, a small number, and then the producer, the graph or the like
        (rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]", "an exported graph (ONNX or TensorFlow)", EXPORTED),
    )
)  # fmt: skip
"""Regular expressions for the beginning of a file, what that is, and what to do."""

NAMES: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"\.onnx$"), "an ONNX graph, not a state dict", EXPORTED),
    (re.compile(r"\.(pb|tflite|meta)$|\.data-\d+-of-\d+$|\.ckpt\.index$"), "of TensorFlow", EXPORTED),
)
"""Where the name says more than the content, which may be raw numbers."""


def demand_checkpoint(path: Place) -> None:
    """Raises BadCheckpoint where a file is known to be something else than tensors of PyTorch."""
    named = next((known for known in NAMES if known[0].search(path.name.lower())), None)
    with open_input(path) as file:
        head = file.read(HEAD)
        if _begins_with_header(head, size_and_time(file)[0]):
            return  # read as safetensors, whatever it ends with
        known = named or next((known for known in MAGIC if known[0].match(head)), None)
        if known is not None:
            raise what_it_is(path, known[1], known[2])
        if zipfile.is_zipfile(file):
            _demand_tensors(path, file)
        else:
            _demand_no_tar(path, file)


def is_gguf(path: Place) -> bool:
    """By what it begins with."""
    with open_input(path) as file:
        return file.read(len(BEGINS)) == BEGINS


def is_safetensors(path: Place) -> bool:
    """By name, or by what it begins with: the length of a header, and the header in JSON."""
    if path.suffix.lower() == ".safetensors":
        return True
    with open_input(path) as file:
        return _begins_with_header(file.read(9), size_and_time(file)[0])


def _begins_with_header(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size


def _demand_tensors(path: Place, file: BinaryIO) -> None:
    """Refuse a program, other contents, and an archive that would unpack to more than the file holds; torch compresses
    no tensors."""
    try:
        entries = entries_listed(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # the reader will say what is wrong
    names = [entry.filename for entry in entries]
    if any(name.partition("/")[2] == "constants.pkl" for name in names):
        raise program(path)
    whole = sum(entry.file_size for entry in entries)
    if "model.weights.h5" in names:
        raise what_it_is(path, "a model of Keras", EXPORTED)
    if whole > size_and_time(file)[0] or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise BadCheckpoint(
            f"{path} is a compressed archive ({whole:,} bytes unpacked), which torch does not write, so it was not "
            "opened. Unpack it, and use the checkpoint inside."
        )
    if names and not any(name.endswith("data.pkl") for name in names):
        raise what_it_is(
            path, f"a zip archive that torch did not write (it holds {', '.join(names[:3])})", UNPACK
        )


def _demand_no_tar(path: Place, file: BinaryIO) -> None:
    """Refuse a tar archive: one of torch's oldest format would be unpacked into a folder.

    Old tar archives have no magic number, and one without a member is zeros: only its reader tells.
    """
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:  # is_tarfile would try to decompress it first
            names = [member.name for member, _ in zip(archive, range(4), strict=False)]
    except (tarfile.TarError, OSError, ValueError):
        return
    if not {"pickle", "storages", "tensors", "sys_info"} & set(names):
        raise what_it_is(path, f"a tar archive (it holds {', '.join(names[:3]) or 'nothing'})", UNPACK)
    raise BadCheckpoint(
        f"{path} is a tar archive, as torch wrote them before its version 0.2, and those cannot be read without running "
        f"them; {SAVE_AGAIN}."
    )
