"""One file of tensors, of either format: its tables read as data, and its tensors declared, to be read when needed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bnprobe.files import archive
from bnprobe.files.archive import Span
from bnprobe.files.header import Entry, read_header
from bnprobe.files.pickles import BYTES, LARGEST, Declared, UnknownName, demand_harmless, read_plain
from bnprobe.models.messages import damaged, refusal
from bnprobe.models.stored import Source, Stored

DTYPES = {
    "BOOL": "bool",
    "BF16": "bfloat16",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
"""Torch's names of the format's types; the others are narrower than a byte, and nothing can be computed with them."""

LEGACY = 5
"""Pickles at the beginning of a file before torch 1.6: a number, the version, the machine, the content, and the storages."""


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file. Raises BadCheckpoint where it is damaged."""
    try:
        source = Source(path)
        found = read_header(source.file).entries
        # files are written in the order of types, which says nothing of the model's
        return {name: _of_entry(source, found[name]) for name in sorted(found)}
    except (OSError, ValueError, RuntimeError) as error:
        raise damaged(path, error) from None


def _of_entry(source: Source, entry: Entry) -> Tensor:
    dtype = getattr(torch, DTYPES.get(entry.dtype, ""), None)
    if dtype is None:
        return torch.empty(entry.shape, device="meta")
    strides = torch.empty(entry.shape, device="meta").stride()
    return Stored(source, Span(entry.start, entry.n_bytes), dtype, entry.shape, strides)


def read_pickle(path: Path) -> Any:
    """The content of a file, if it holds only tensors and plain data; BadCheckpoint else."""
    try:
        source = Source(path)
        if source.file.read(4) == archive.BEGINS:
            try:
                return _read_archive(source)
            except UnknownName:
                pass  # torch knows more kinds of tensors, and refuses the rest in words that people search for
        else:
            source.file.seek(0)
            demand_harmless(source.file, LEGACY)
        source.file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings about old or foreign formats
            return torch.load(source.file, map_location="cpu", weights_only=True)
    except Exception as error:  # damage can raise nearly anything: EOFError, KeyError, RuntimeError, OSError
        raise refusal(path, error) from None


def _read_archive(source: Source) -> Any:
    """As torch writes them since version 1.6: a pickle, and an entry for every storage."""
    there = archive.entries(source.file)
    if "byteorder" in there and archive.content(source.file, there["byteorder"], 16) != b"little":
        raise UnknownName("numbers of another machine")
    saved = read_plain(archive.content(source.file, there["data.pkl"], LARGEST))
    return _placed(saved, source, there)


def _placed(saved: Any, source: Source, there: Mapping[str, Span]) -> Any:
    """The same tables with every declared tensor in its place in the file."""
    whole = {"": saved}
    met, todo = {id(whole)}, [whole]
    while todo:  # not by recursion: tables may lie in one another to any depth, and in themselves
        table = todo.pop()
        for key, value in table.items():
            if isinstance(value, Declared):
                table[key] = _of_declared(value, source, there)
            elif isinstance(value, dict) and id(value) not in met:
                met.add(id(value))
                todo.append(value)
    return whole[""]


def _of_declared(tensor: Declared, source: Source, there: Mapping[str, Span]) -> Tensor:
    """Raises ValueError where the archive does not hold as many bytes as the tensor's storage is said to have."""
    span = there.get(f"data/{tensor.storage.key}")
    declared = tensor.storage.numel * BYTES[tensor.storage.dtype]
    if span is None or span.size != declared:
        held = "no" if span is None else f"{span.size:,}"
        raise ValueError(f"a storage of {declared:,} bytes has {held} bytes in the archive")
    dtype = getattr(torch, tensor.dtype)
    return Stored(source, span, dtype, tensor.shape, tensor.stride, tensor.offset)
