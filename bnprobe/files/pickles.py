"""What `torch.save` pickles, read as plain data: an unpickler that can make nothing but tables, lists and declared tensors.

The operations are looked at first, before any of them is carried out. A pickle asks for everything by a name; the names
that are known stand for makers of ours, which look at what they are given, and no other name is looked up anywhere.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn, cast

from bnprobe.files.pickle_scan import demand_harmless, demand_short

BYTES = {
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("uint8", "int8", "bool", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"), 1),
    **dict.fromkeys(("float8_e5m2fnuz", "float8_e8m0fnu"), 1),
    "complex128": 16,
}
"""Of one number, by torch's name of its type."""

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}


class UnknownName(Exception):
    """A pickle asks for something that is not plain; its message is the name."""


class Storage(NamedTuple):
    """Numbers somewhere in the archive: their type, the name of their entry, and how many there are said to be."""

    dtype: str
    key: str
    numel: int

    def __setstate__(self, state: object) -> None:
        """No attribute comes from a file."""


class Declared:
    """A tensor as a file describes it: a view of a storage, within its bounds."""

    __slots__ = ("dtype", "offset", "shape", "storage", "stride")

    def __init__(
        self, storage: Storage, dtype: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        self.storage, self.dtype, self.offset, self.shape, self.stride = storage, dtype, offset, shape, stride

    @property
    def extent(self) -> int:
        """Numbers from its first to its last one in the storage."""
        return extent(self.shape, self.stride)

    def __setstate__(self, state: object) -> None:
        """No attribute comes from a file: one could hide a method."""


class Table(OrderedDict[Any, Any]):
    """An OrderedDict without attributes of its own, which could hide its methods."""

    def __setstate__(self, state: object) -> None:
        """A state dict's versions of modules; nothing here asks for them."""


def extent(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Numbers from the first to the last one of a view."""
    if not math.prod(shape):
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def read_plain(content: bytes, makers: Mapping[tuple[str, str], Any] | None = None) -> Any:
    """Whatever a pickle holds, its tensors as `Declared`; `makers` are all that it may ask for, those of checkpoints else.

    Raises UnknownName where it asks for something else, and other errors of any kind where it is damaged.
    """
    demand_harmless(io.BytesIO(content))
    return _Unpickler(io.BytesIO(content), MAKERS if makers is None else makers).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, makers: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self._makers = makers

    def find_class(self, module: str, name: str) -> Any:
        """A maker of ours."""
        demand_short(module, name)
        maker = self._makers.get((module, name))
        if maker is None:
            raise UnknownName(f"{module}.{name}")
        return maker

    def persistent_load(self, pid: Any) -> Storage:
        """What stands for a storage: ("storage", its class, the name of its entry, its device, how many numbers)."""
        kind, made_by, key, _, numel = pid
        dtype = STORAGE_TYPES.get(made_by) if kind == "storage" else None
        if dtype is None or not isinstance(key, str) or type(numel) is not int or numel < 0:
            raise ValueError("what stands for a storage is none")
        return Storage(dtype, key, numel)


class Maker:
    """What a name stands for; it takes no state, so that a file cannot change it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        """What it makes of arguments of a file."""
        return self._make(*arguments)

    def __setstate__(self, state: object) -> None:
        raise ValueError("its pickle would change a function")


def _tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Declared:
    """As torch's `_rebuild_tensor_v2`."""
    return _declared(storage, storage.dtype if isinstance(storage, Storage) else "", offset, shape, stride)


def _tensor_of_type(
    storage: Any, offset: Any, shape: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Declared:
    """As torch's `_rebuild_tensor_v3`, whose storage is one of bytes."""
    return _declared(storage, DTYPES[dtype], offset, shape, stride)


def _declared(storage: Any, dtype: str, offset: Any, shape: Any, stride: Any) -> Declared:
    if not isinstance(storage, Storage) or not _whole((offset,)) or not _whole(shape) or not _whole(stride):
        raise ValueError("a tensor is declared without whole numbers for its shape")
    if len(shape) != len(stride):
        raise ValueError("a tensor is declared with steps that do not fit its shape")
    end = (offset + extent(shape, stride)) * BYTES[dtype] if math.prod(shape) else 0
    if end > storage.numel * BYTES[storage.dtype]:
        raise ValueError("a tensor is declared beyond the end of its storage")
    return Declared(storage, dtype, offset, tuple(shape), tuple(stride))


def _whole(numbers: Any) -> bool:
    return isinstance(numbers, tuple) and all(type(n) is int and 0 <= n < 2**63 for n in numbers)


def _of_type(make: Any, cls: Any, arguments: Any, state: Any) -> Any:
    """As torch's `_rebuild_from_type_v2`, for tensors and parameters with attributes, which are left out."""
    if not isinstance(make, Maker) or cls not in TENSORS:
        raise ValueError("a tensor of a class that torch does not have")
    return make(*arguments)


def _sizes(sizes: Any = ()) -> tuple[int, ...]:
    if not _whole(sizes):
        raise ValueError("a size is declared without whole numbers")
    return cast(tuple[int, ...], sizes)


def _encoded(text: Any, *_: Any) -> bytes:
    """Bytes as protocol 2 writes them."""
    if not isinstance(text, str):
        raise ValueError("its pickle encodes what is no text")
    return text.encode("latin-1")


def _no_maker(*_: Any) -> NoReturn:
    raise ValueError("its pickle makes something out of a type")


STORAGE_TYPES = {Maker(_no_maker): dtype for dtype in STORAGES.values()}
DTYPES = {Maker(_no_maker): dtype for dtype in BYTES}
TENSORS = (Maker(_no_maker), Maker(_no_maker))
BYTES_OF_ANYTHING = Maker(_no_maker)
STORAGE_TYPES[BYTES_OF_ANYTHING] = "uint8"

MAKERS: dict[tuple[str, str], Maker] = {
    **{("torch", name): maker for name, maker in zip(STORAGES, STORAGE_TYPES, strict=False)},
    **{("torch", dtype): maker for maker, dtype in DTYPES.items()},
    ("torch.storage", "UntypedStorage"): BYTES_OF_ANYTHING,
    ("torch", "Tensor"): TENSORS[0],
    ("torch.nn.parameter", "Parameter"): TENSORS[1],
    ("torch", "Size"): Maker(_sizes),
    ("torch", "device"): Maker(lambda *_: "device"),
    ("torch._utils", "_rebuild_tensor"): Maker(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Maker(_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): Maker(_tensor_of_type),
    ("torch._utils", "_rebuild_parameter"): Maker(lambda tensor, *_: tensor),
    ("torch._utils", "_rebuild_parameter_with_state"): Maker(lambda tensor, *_: tensor),
    ("torch._tensor", "_rebuild_from_type_v2"): Maker(_of_type),
    ("collections", "OrderedDict"): Maker(Table),
    ("_codecs", "encode"): Maker(_encoded),
    ("builtins", "set"): Maker(lambda items=(): set(items)),
    ("__builtin__", "set"): Maker(lambda items=(): set(items)),
}
"""What a checkpoint may ask for, and what it gets."""
