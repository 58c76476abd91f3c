"""Pickles that ask for code, memory or patience, in each of the formats that torch.save ever wrote."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

STATE = {"bn.weight": torch.ones(4), "bn.running_mean": torch.zeros(4), "bn.running_var": torch.ones(4)}


class Calls:
    """Pickled, it is a call of `function` with `arguments` when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def zipped(content: bytes, path: Path, more: dict[str, bytes] | None = None) -> Path:
    """A zip archive as torch.save writes it, around any pickle."""
    members = {"data.pkl": content, "byteorder": b"little", "version": b"3\n", **(more or {})}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)
    return path


def bare(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path


# Code


def _mark(folder: Path) -> str:
    return f"touch {folder / 'ran'}"


def os_system(folder: Path) -> Path:
    torch.save({**STATE, "x": Calls(os.system, _mark(folder))}, folder / "a.pt")
    return folder / "a.pt"


def os_system_legacy(folder: Path) -> Path:
    payload = {**STATE, "x": Calls(os.system, _mark(folder))}
    torch.save(payload, folder / "a.pt", _use_new_zipfile_serialization=False)
    return folder / "a.pt"


def os_system_plain(folder: Path) -> Path:
    return bare(pickle.dumps(Calls(os.system, _mark(folder)), 2), folder / "a.pth")


def os_system_before_torchs_own(folder: Path) -> Path:
    """Legacy files are several pickles in a row: code in the first, and a healthy checkpoint after it."""
    whole = io.BytesIO()
    torch.save(STATE, whole, _use_new_zipfile_serialization=False)
    return bare(pickle.dumps(Calls(os.system, _mark(folder)), 2) + whole.getvalue(), folder / "a.pt")


def evaluated(folder: Path) -> Path:
    code = f"open({str(folder / 'ran')!r}, 'w')"
    return zipped(pickle.dumps({"state_dict": Calls(eval, code)}, 2), folder / "a.ckpt")


def by_stack_global(folder: Path) -> Path:
    """Names put together on the stack, as protocol 4 does, so that no GLOBAL opcode holds them."""
    command = _mark(folder).encode()
    made = b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + b"B" + struct.pack("<I", len(command)) + command
    return zipped(made + b"\x85R.", folder / "a.pt")


def by_a_dotted_name(folder: Path) -> Path:
    """A name that starts in torch and walks out of it."""
    command = _mark(folder)
    return zipped(
        f"\x80\x02ctorch.serialization\nos.system\nX{''}".encode("latin1") + _text(command) + b"\x85R.",
        folder / "a.pt",
    )


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()


def by_inst(folder: Path) -> Path:
    """The INST opcode of protocol 0."""
    return bare(f"(S'{_mark(folder)}'\nios\nsystem\n.".encode(), folder / "a.pt")


def by_build(folder: Path) -> Path:
    """A state set on an allowed class, with an attribute that is called later."""
    made = b"\x80\x02ccollections\nOrderedDict\n)R}X\x08\x00\x00\x00__call__cos\nsystem\nsb."
    return zipped(made, folder / "a.pt")


def by_hub(folder: Path) -> Path:
    """torch's own loader of other people's programs."""
    return zipped(pickle.dumps(Calls(torch.hub.load, str(folder), "ran", "local"), 2), folder / "a.pt")


def by_torch_load(folder: Path) -> Path:
    """A harmless-looking file that has torch load another one without care."""
    inner = bare(pickle.dumps(Calls(os.system, _mark(folder)), 2), folder / "inner.bin")
    return zipped(pickle.dumps(Calls(torch.load, str(inner)), 2), folder / "a.pt")


def in_a_shard(folder: Path) -> Path:
    torch.save(STATE, folder / "a-1.bin")
    torch.save({"y": Calls(os.system, _mark(folder))}, folder / "a-2.bin")
    return folder


def program(folder: Path) -> Path:
    """TorchScript: code by design."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), folder / "a.pt")
    return folder / "a.pt"


def in_a_tar(folder: Path) -> Path:
    """torch's oldest format, with a pickle that runs and a member that climbs out of the folder."""
    path = folder / "a.pt"
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors", "../ran", f"{folder}/ran"):
            data = pickle.dumps(Calls(os.system, _mark(folder)))
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


CODE = {
    os_system: r"asks to run \w+\.system, so it was not loaded.*torch\.save\(model\.state_dict\(\), FILE\)",
    os_system_legacy: r"asks to run \w+\.system, so it was not loaded",
    os_system_plain: r"asks to run \w+\.system, so it was not loaded",
    os_system_before_torchs_own: r"asks to run \w+\.system, so it was not loaded",
    evaluated: r"asks to run (\w+\.)?eval, so it was not loaded",
    by_stack_global: "not a whole checkpoint|asks to run",
    by_a_dotted_name: r"asks to run torch\.serialization\.os\.system, so it was not loaded",
    by_inst: "not a whole checkpoint|asks to run",
    by_build: r"asks to run \w+\.system|not a whole checkpoint",
    by_hub: r"asks to run torch\.hub\.load, so it was not loaded",
    by_torch_load: r"asks to run torch\.serialization\.load, so it was not loaded",
    in_a_shard: r"asks to run \w+\.system, so it was not loaded",
    program: "TorchScript program, not a state dict",
    in_a_tar: r"is a tar archive.*torch\.save\(model\.state_dict\(\), FILE\)",
}


# Memory and patience


def bytearray_of(folder: Path) -> Path:
    """A call that weights_only allows, of a size that it does not look at."""
    return zipped(pickle.dumps({"x": Calls(bytearray, 2**36)}, 2), folder / "a.pt")


def declared_length(folder: Path) -> Path:
    """A text of 2^62 bytes, of which nine are there."""
    return zipped(b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"nine byte.", folder / "a.pt")


def declared_integer(folder: Path) -> Path:
    """An integer of 2^31 - 1 bytes."""
    return zipped(b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01.", folder / "a.pt")


def laughs(folder: Path) -> Path:
    """Tuples of the same tuple, 60 levels: 2^60 leaves for whoever walks them."""
    return zipped(b"\x80\x02K\x01" + b"q\x00h\x00\x86" * 60 + b".", folder / "a.pt")


def laughing_dicts(folder: Path) -> Path:
    """Dicts that hold the one before under eight names, 40 levels."""
    tree: dict[str, Any] = {"bn.running_mean": torch.zeros(3)}
    for _ in range(40):
        tree = {f"{i}": tree for i in range(8)}
    torch.save(tree, folder / "a.pt")
    return folder / "a.pt"


def nested_lists(folder: Path) -> Path:
    """A list in a list in a list, a million deep."""
    return zipped(b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".", folder / "a.pt")


def nested_dicts(folder: Path) -> Path:
    """A dict in a dict, a hundred thousand deep."""
    return zipped(b"\x80\x02" + b"}K\x01" * 10**5 + b"}" + b"s" * 10**5 + b".", folder / "a.pt")


def _tensor_pickle(sizes: tuple[int, ...], numel: int, strides: tuple[int, ...] | None = None) -> bytes:
    """A state dict of running statistics that claim any size, over a storage that claims `numel` floats."""

    class Storages(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", numel) if value is Storages else None

    steps = strides if strides is not None else (1,) * len(sizes)
    made = io.BytesIO()
    tensor = Calls(torch._utils._rebuild_tensor_v2, Storages, 0, sizes, steps, False, OrderedDict())
    Storages(made, 2).dump({"bn.running_mean": tensor, "bn.running_var": tensor})
    return made.getvalue()


def huge_storage(folder: Path) -> Path:
    return zipped(_tensor_pickle((2**40,), 2**40), folder / "a.pt", {"data/0": b"\0" * 64})


def huge_shape(folder: Path) -> Path:
    return zipped(_tensor_pickle((2**40,), 16), folder / "a.pt", {"data/0": b"\0" * 64})


def huge_by_strides(folder: Path) -> Path:
    """2^40 numbers that are all the same one: legal for torch, fatal for whoever copies them."""
    return zipped(_tensor_pickle((2**40,), 16, (0,)), folder / "a.pt", {"data/0": b"\0" * 64})


def negative_shape(folder: Path) -> Path:
    return zipped(_tensor_pickle((-5,), 16), folder / "a.pt", {"data/0": b"\0" * 64})


def huge_legacy(folder: Path) -> Path:
    """A legacy file whose storage claims 2^38 floats."""
    whole = io.BytesIO()
    torch.save(STATE, whole, _use_new_zipfile_serialization=False)
    content = whole.getvalue().replace(b"\x04\x00\x00\x00\x00\x00\x00\x00", struct.pack("<q", 2**38))
    return bare(content, folder / "a.pt")


COSTLY = {
    bytearray_of: "not a whole checkpoint|no state dict",
    declared_length: "not a whole checkpoint",
    declared_integer: "not a whole checkpoint",
    laughs: "no state dict",
    laughing_dicts: "repeats what it holds|views of one another|no state dict|several state dicts|no norm",
    nested_lists: "no state dict|not a whole checkpoint",
    nested_dicts: "no state dict|not a whole checkpoint",
    huge_storage: "not a whole checkpoint",
    huge_shape: "not a whole checkpoint",
    huge_by_strides: "views of one another|no norm",
    negative_shape: "not a whole checkpoint",
    huge_legacy: "not a whole checkpoint",
}


# Tensors that are none


def _saved(folder: Path, **tensors: torch.Tensor) -> Path:
    torch.save({f"bn.{name}": tensor for name, tensor in tensors.items()}, folder / "a.pt")
    return folder / "a.pt"


def on_meta(folder: Path) -> Path:
    """Tensors with a shape of any size and no numbers."""
    empty = torch.empty(2**40, device="meta")
    return _saved(folder, running_mean=empty, running_var=empty)


def sparse(folder: Path) -> Path:
    wide = torch.sparse_coo_tensor(torch.tensor([[1]]), torch.ones(1), (2**40,))
    return _saved(folder, running_mean=wide, running_var=wide)


def quantized(folder: Path) -> Path:
    eight = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)
    return _saved(folder, running_mean=eight, running_var=eight)


def complex_numbers(folder: Path) -> Path:
    return _saved(folder, running_mean=torch.ones(4) * 1j, running_var=torch.ones(4) * 1j)


def booleans(folder: Path) -> Path:
    return _saved(folder, running_mean=torch.ones(4).bool(), running_var=torch.ones(4).bool())


def no_channels(folder: Path) -> Path:
    return _saved(folder, running_mean=torch.ones(0), running_var=torch.ones(0), weight=torch.ones(0))


def scalars(folder: Path) -> Path:
    return _saved(folder, running_mean=torch.tensor(1.0), running_var=torch.tensor(1.0))


def matrices(folder: Path) -> Path:
    return _saved(folder, running_mean=torch.ones(4, 4), running_var=torch.ones(4, 4))


def nested(folder: Path) -> Path:
    rows = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    return _saved(folder, running_mean=rows, running_var=rows)


def jagged(folder: Path) -> Path:
    """The other form of nested tensors, a class of its own that torch.load takes for harmless."""
    rows = torch.nested.nested_tensor([torch.ones(2, 4), torch.ones(3, 4)], layout=torch.jagged)
    return _saved(folder, running_mean=rows, running_var=rows)


def compressed(folder: Path) -> Path:
    matrix = torch.ones(4, 4).to_sparse_csr()
    return _saved(folder, running_mean=matrix, running_var=matrix, weight=matrix)


def a_counter_without_a_number(folder: Path) -> Path:
    statistics = {"running_mean": torch.zeros(4), "running_var": torch.ones(4)}
    return _saved(folder, **statistics, num_batches_tracked=torch.empty((), dtype=torch.int64, device="meta"))


def a_nested_counter(folder: Path) -> Path:
    statistics = {"running_mean": torch.zeros(4), "running_var": torch.ones(4)}
    return _saved(folder, **statistics, num_batches_tracked=torch.nested.nested_tensor([torch.ones(1)]))


def a_sparse_counter(folder: Path) -> Path:
    statistics = {"running_mean": torch.zeros(4), "running_var": torch.ones(4)}
    return _saved(folder, **statistics, num_batches_tracked=torch.tensor([7]).to_sparse())


def half_a_character(folder: Path) -> Path:
    """A name that no file can be written with."""
    torch.save(
        {f"\ud800.{name.partition('.')[2]}": tensor for name, tensor in STATE.items()}, folder / "a.pt"
    )
    return folder / "a.pt"


NO_NUMBERS = (
    half_a_character,
    on_meta,
    sparse,
    quantized,
    complex_numbers,
    booleans,
    no_channels,
    scalars,
    matrices,
    nested,
    jagged,
    compressed,
    a_counter_without_a_number,
    a_nested_counter,
    a_sparse_counter,
)
"""Refused, or checked like any other: never a traceback."""


def not_finite(folder: Path) -> Path:
    bad = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0])
    return _saved(folder, running_mean=bad, running_var=bad, weight=bad, bias=bad)


def largest(folder: Path) -> Path:
    top = torch.full((4,), 1.7e308, dtype=torch.float64)
    return _saved(folder, running_mean=-top, running_var=top, weight=top, bias=-top)


def negative_variance(folder: Path) -> Path:
    return _saved(folder, running_mean=torch.ones(4), running_var=-torch.ones(4))


def subnormal(folder: Path) -> Path:
    tiny = torch.full((4,), 5e-324, dtype=torch.float64)
    return _saved(folder, running_mean=tiny, running_var=tiny, weight=tiny, bias=tiny)


ODD_NUMBERS = (not_finite, largest, negative_variance, subnormal)
"""Numbers that training can leave behind: judged, not refused."""
