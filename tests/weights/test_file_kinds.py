"""Files that are no checkpoint of PyTorch are called what they are."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.checkpoints import STATE, refused, same
from torch import nn

from bnprobe import models
from bnprobe.weights.file_kinds import is_safetensors
from bnprobe.weights.with_torch.load import load_with_torch

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def packed(name: str, content: bytes) -> bytes:
    """A tar archive of one file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    """A zip archive of one file, stored as torch stores."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (LFS, "Git LFS pointer, not the file itself. Run `git lfs pull`"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page.*download the file itself"),
        (b"<html><body>404</body></html>", "a web page"),
        (b'{"error": "Repository not found"}', "a text in JSON"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), r"HDF5.*Keras.*torch\.save"),
        (gzip.compress(b"x" * 99, mtime=0), "compressed by gzip. Unpack it"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:" + bytes(99), r"exported graph.*torch\.save"),
        (packed("model/weights.pt", b"x"), r"a tar archive \(it holds model/weights.pt\). Unpack it"),
        (packed("storages", b"x"), r"before its version 0\.2"),
        (zipped("model/weights.txt", b"x"), r"torch did not write \(it holds model/weights.txt\). Unpack it"),
        (zipped("model.weights.h5", b"x"), "a model of Keras"),
    ],
)  # fmt: skip
def test_known_files_are_named(content, match, ending, tmp_path):
    """Fails if one of them is called cut short, which has people download it again."""
    (tmp_path / f"a{ending}").write_bytes(content)
    assert "cut short" not in refused(tmp_path / f"a{ending}", match)


@pytest.mark.parametrize(
    ("name", "match"),
    [("net.onnx", "ONNX"), ("saved_model.pb", "TensorFlow"), ("m.ckpt.data-00000-of-00001", "TensorFlow")],
)
def test_names_tell_where_the_content_does_not(name, match, tmp_path):
    (tmp_path / name).write_bytes(b"\x01\x02\x03" * 99)
    refused(tmp_path / name, match)


def test_pickles_that_are_not_torchs(tmp_path):
    """Fails if a pickle of arrays is called damaged."""
    with Path(tmp_path / "a.pth").open("wb") as file:
        pickle.dump({"weight": [1.0, 2.0]}, file)
    refused(
        tmp_path / "a.pth",
        r"a pickle that torch.save did not write.*torch\.save\(model\.state_dict\(\), FILE\)",
    )
    np.save(tmp_path / "a.npy", np.ones(3))
    refused(tmp_path / "a.npy", "an array of numpy")


def test_a_pickled_module_is_named_by_its_class(tmp_path):
    """Fails if the message does not tell that a whole module was saved."""
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "a.pt")
    refused(
        tmp_path / "a.pt", r"object of the class torch\.nn\.modules\.container\.Sequential.*a whole module"
    )


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.pt"])
def test_safetensors_under_another_name_are_read(name, tmp_path):
    """Fails if the ending decides about what a file holds."""
    save_file(STATE, tmp_path / name)
    assert same(models.load_checkpoint(tmp_path / name), STATE)


def test_a_checkpoint_is_no_other_file(tmp_path):
    """Fails if a first byte of a real file is taken for another format: both of torch's formats."""
    for protocol in (2, 3):
        for new in (True, False):
            torch.save(STATE, tmp_path / "a.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=new)
            assert same(models.load_checkpoint(tmp_path / "a.pt"), STATE)


def test_a_tar_archive_without_a_magic_number_is_one(tmp_path):
    """Fails if an archive of the oldest tar format, or one of zeros, reaches torch's reader, which unpacks it."""
    old = bytearray(packed("model/weights.pt", b"x"))
    old[257:265] = bytes(8)
    old[148:156] = b"        "
    old[148:156] = b"%06o\0 " % sum(old[:512])
    for name, content in (("old.pt", bytes(old)), ("zeros.pt", bytes(4096))):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "a tar archive")


@pytest.mark.parametrize(("longer_by", "expected"), [(-1, True), (0, False), (1, False)])
def test_a_header_as_long_as_its_file_is_none(tmp_path: Path, longer_by: int, expected: bool) -> None:
    """Fails if eight bytes that happen to be followed by a brace make a file safetensors."""
    size = 40
    path = tmp_path / "weights.bin"
    path.write_bytes((size + longer_by).to_bytes(8, "little") + b"{" + bytes(size - 9))
    assert is_safetensors(path) is expected


def test_torchs_own_reader_runs_no_program(tmp_path: Path) -> None:
    """Fails if a file that torch alone can read is opened as a program."""
    ran = tmp_path / "ran"
    content = io.BytesIO()
    torch.save({"a": _Program(ran)}, content)
    content.seek(0)
    with pytest.raises(pickle.UnpicklingError):
        load_with_torch(content, tmp_path / "program.pth")
    assert not ran.exists()


class _Program:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)
