"""Files in the safetensors layout whose header lies: eight bytes of its length, JSON, then numbers."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any


def written(
    folder: Path, header: bytes | dict[str, Any], data: bytes = b"", length: int | None = None
) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(shape: Any, start: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def pair(one: dict[str, Any], other: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"bn.running_mean": one, "bn.running_var": other or one}


NAN = b'{"bn.running_mean":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}'
TWICE = b'{"bn.running_mean":%b,"bn.running_mean":%b}' % ((json.dumps(entry([2], 0, 8)).encode(),) * 2)

HEADERS: dict[str, Callable[[Path], Path]] = {
    "not a number for a size": lambda f: written(f, NAN, b"\0" * 16),
    "infinity for an offset": lambda f: written(
        f, NAN.replace(b"NaN", b"4").replace(b"16]", b"Infinity]"), b"\0" * 16
    ),
    "a length of 2^60": lambda f: written(f, b"{}", length=2**60),
    "a length of -1": lambda f: written(f, b"{}", length=2**64 - 1),
    "a length of one more": lambda f: written(f, b"{}", length=3),
    "90 MB of spaces": lambda f: written(f, b"{" + b" " * 90_000_000),
    "a hundred thousand brackets": lambda f: written(f, b"[" * 100_000),
    "a hundred thousand objects": lambda f: written(f, b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "2^40 numbers in 64 bytes": lambda f: written(f, pair(entry([2**40], 0, 2**42)), b"\0" * 64),
    "a product that overflows": lambda f: written(f, pair(entry([2**32, 2**32, 2**32], 0, 64)), b"\0" * 64),
    "a negative size": lambda f: written(f, pair(entry([-4], 0, 16)), b"\0" * 16),
    "offsets backwards": lambda f: written(f, pair(entry([4], 16, 0)), b"\0" * 16),
    "offsets past the end": lambda f: written(f, pair(entry([4], 2**50, 2**50 + 16)), b"\0" * 16),
    "two over the same bytes": lambda f: written(f, pair(entry([4], 0, 16)), b"\0" * 16),
    "a hole": lambda f: written(f, pair(entry([4], 0, 16), entry([4], 20, 36)), b"\0" * 36),
    "an unknown type": lambda f: written(f, pair(entry([4], 0, 16, "EVIL")), b"\0" * 16),
    "a number for a type": lambda f: written(f, pair(entry([4], 0, 16, 7)), b"\0" * 16),
    "a text for a shape": lambda f: written(f, pair(entry("4", 0, 16)), b"\0" * 16),
    "a name twice": lambda f: written(f, TWICE, b"\0" * 8),
    "a list": lambda f: written(f, b"[1, 2]"),
    "half a character": lambda f: written(f, b'{"\xff":1}'),
    "numbers in the metadata": lambda f: written(f, b'{"__metadata__":{"a":1}}'),
    "a pickle": lambda f: written(f, b"\x80\x02cos\nsystem\n."),
    "a tail": lambda f: written(f, pair(entry([1], 0, 4), entry([1], 4, 8)), b"\0" * 8 + b"tail"),
    "nothing": lambda f: written(f, b"{}"),
}
"""Each is refused."""

NAMES = {
    "a script": "<script>alert(1)</script>",
    "a closing tag": "</style></script><img src=x onerror=alert(1)>",
    "the terminal's escape": "\x1b[2J\x1b]0;gone\x07",
    "line breaks": "one\r\ntwo\u2028three",
    "nothing": "",
    "a path": "../../../../etc/passwd",
    "right to left": "\u202egnp.exe",
    "a formula": "=cmd|'/c calc'!A1",
    "a template": "{{ 7 * 7 }}{% raw %}",
    "a long one": "x" * 100_000,
    "a deep one": ".".join("a" * 20_000),
}
"""Names of layers, which must reach neither a terminal nor a page as they are."""


def named(folder: Path, name: str) -> Path:
    """A healthy norm called `name`, with dead channels so that findings repeat the name."""
    tensors = {f"{name}.{leaf}": entry([8], 32 * i, 32 * (i + 1)) for i, leaf in enumerate(_LEAVES)}
    ones, zeros = struct.pack("<8f", *[1.0] * 8), struct.pack("<8f", *[0.0] * 8)
    return written(folder, tensors, zeros + zeros + zeros + ones)


_LEAVES = ("weight", "bias", "running_mean", "running_var")


def unfinished(folder: Path, name: str) -> Path:
    """Half a norm of that name, so that the refusal must repeat it."""
    return written(folder, {f"{name}.running_mean": entry([2], 0, 8)}, b"\0" * 8)


def many(folder: Path) -> Path:
    """A thousand norms of one channel."""
    n = 1000
    header = {
        f"l{i}.running_{leaf}": entry([1], 8 * i + 4 * j, 8 * i + 4 * j + 4)
        for i in range(n)
        for j, leaf in enumerate(("mean", "var"))
    }
    return written(folder, header, struct.pack("<f", 1.0) * (2 * n))


def no_numbers(folder: Path) -> Path:
    """Shapes of 2^40 rows of nothing, which take no bytes."""
    return written(folder, pair(entry([0], 0, 0)) | {"conv.weight": entry([0, 2**40], 0, 0)})
