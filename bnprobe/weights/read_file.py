"""One file of tensors, of either format: its tables read as data, and its tensors declared, to be read when needed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from bnprobe.errors import BadCheckpoint
from bnprobe.files import Place, archive, open_input
from bnprobe.files.archive import Span
from bnprobe.files.gguf import Fact, Packed, read_gguf
from bnprobe.files.header import Entry, read_header
from bnprobe.files.pickle_scan import LARGEST, demand_harmless
from bnprobe.files.pickles import BYTES, Declared, UnknownName, read_plain
from bnprobe.weights.messages import damaged, refusal
from bnprobe.weights.quantized import Quantized
from bnprobe.weights.stored import Source, Stored
from bnprobe.weights.tensor import Tensor

TensorOf = Callable[[Any], Tensor | None]
"""A value of a table as a tensor; None for what is none."""

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


def read_safetensors(path: Place) -> dict[str, Tensor]:
    """The tensors of a file. Raises BadCheckpoint where it is damaged."""
    try:
        source = Source(path)
        found = read_header(source.file).entries
        # files are written in the order of types, which says nothing of the model's
        return {name: _of_entry(source, found[name]) for name in sorted(found)}
    except (OSError, ValueError, RuntimeError) as error:
        raise damaged(path, error) from None


def read_packed(path: Place) -> dict[str, Tensor]:
    """The tensors of a GGUF file. Raises BadCheckpoint where it is damaged."""
    try:
        source = Source(path)
        found = read_gguf(source.file).entries
        return {name: _of_packed(source, entry) for name, entry in found.items()}
    except (OSError, ValueError, OverflowError) as error:
        raise damaged(path, error) from None


def facts_of(path: Place) -> dict[str, Fact]:
    """What a GGUF file says of its model; nothing where it is damaged."""
    try:
        with open_input(path) as file:
            return read_gguf(file).facts
    except (OSError, ValueError, OverflowError):
        return {}


def _of_packed(source: Source, entry: Packed) -> Tensor:
    if entry.dtype not in DTYPES:
        return Quantized(source, entry)
    span = Span(entry.start, entry.n_bytes)
    return Stored(source, span, DTYPES[entry.dtype], entry.shape, _dense(entry.shape))


def _of_entry(source: Source, entry: Entry) -> Tensor:
    dtype = DTYPES.get(entry.dtype, entry.dtype)
    return Stored(source, Span(entry.start, entry.n_bytes), dtype, entry.shape, _dense(entry.shape))


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The steps of a tensor whose numbers lie one behind another."""
    return (*itertools.accumulate(reversed(shape[1:]), lambda a, b: a * b, initial=1),)[::-1] if shape else ()


def read_pickle(path: Place) -> tuple[Any, TensorOf]:
    """The content of a file, and what its tensors are known by, if it holds only tensors and plain data; BadCheckpoint
    else."""
    try:
        source = Source(path)
        if source.file.read(4) == archive.BEGINS:
            try:
                return _read_archive(source), plain
            except UnknownName:
                pass  # torch knows more kinds of tensors, and refuses the rest in words that people search for
        else:
            source.file.seek(0)
            demand_harmless(source.file, LEGACY)
        source.file.seek(0)
        from bnprobe.weights.with_torch.load import load_with_torch
        from bnprobe.weights.with_torch.ram import in_ram

        return load_with_torch(source.file, path), in_ram
    except BadCheckpoint:
        raise
    except Exception as error:  # damage can raise nearly anything: EOFError, KeyError, RuntimeError, OSError
        raise refusal(path, error) from None


def plain(value: Any) -> Tensor | None:
    """What was read here is known by its class."""
    return value if isinstance(value, Tensor) else None


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
    return Stored(source, span, tensor.dtype, tensor.shape, tensor.stride, tensor.offset)
