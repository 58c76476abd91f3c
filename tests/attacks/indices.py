"""Indices of shards, and folders of them, that lead elsewhere or nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def index(folder: Path, names: Any) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(names if isinstance(names, str) else json.dumps({"weight_map": names}), encoding="utf-8")
    return path


INDICES: dict[str, Callable[[Path], Path]] = {
    "up": lambda f: index(f, {"w": "../../../etc/passwd"}),
    "absolute": lambda f: index(f, {"w": "/etc/passwd"}),
    "backslashes": lambda f: index(f, {"w": "..\\..\\secret"}),
    "a drive": lambda f: index(f, {"w": "C:secret"}),
    "nul": lambda f: index(f, {"w": "a\0.safetensors"}),
    "itself": lambda f: index(f, {"w": "model.safetensors.index.json"}),
    "the folder": lambda f: index(f, {"w": "."}),
    "numbers": lambda f: index(f, {"w": 7}),
    "lists": lambda f: index(f, {"w": [1]}),
    "a list": lambda f: index(f, [1, 2]),
    "nothing": lambda f: index(f, {}),
    "brackets": lambda f: index(f, "[" * 200_000),
    "a number of a million digits": lambda f: index(f, '{"weight_map": {"a": 1' + "0" * 10**6 + "}}"),
    "a hundred thousand files": lambda f: index(f, {f"w{i}": f"{i}.safetensors" for i in range(100_000)}),
    "no utf-8": lambda f: _raw(f, b'{"weight_map": {"\xff": "a"}}'),
}


def _raw(folder: Path, content: bytes) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_bytes(content)
    return path
