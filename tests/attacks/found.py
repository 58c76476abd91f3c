"""Attacks that once got through: a folder is prepared, and the arguments of a command returned."""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from attacks import recordings
from attacks.headers import written
from attacks.pickles import STATE, zipped

Attack = Callable[[Path], Sequence[str | Path]]


def checkpoint(folder: Path, **more: Any) -> Path:
    statistics = {**STATE, "bn.bias": torch.zeros(4)}
    torch.save(
        {**statistics, **{name.replace("__", "."): value for name, value in more.items()}}, folder / "a.pt"
    )
    return folder / "a.pt"


def with_pipe(name: str, *arguments: str) -> Attack:
    """A pipe called `name`, which an argument names or which lies in the way."""

    def attack(folder: Path) -> Sequence[str | Path]:
        os.mkfifo(folder / name)
        places = [
            folder / argument if argument in ("a.pt", "f", "o.json") else argument for argument in arguments
        ]
        checkpoint(folder)
        return places

    return attack


def with_settings(text: str) -> Attack:
    def attack(folder: Path) -> Sequence[str | Path]:
        (folder / "c.toml").write_text(text)
        return "check", checkpoint(folder), "--config", folder / "c.toml"

    return attack


def device_replaced(folder: Path) -> Sequence[str | Path]:
    """An output that is a device: here a null device of its own."""
    os.mknod(folder / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    return "check", checkpoint(folder), "--format", "json", "-o", folder / "null"


def slow_refusal(folder: Path) -> Sequence[str | Path]:
    """A name of a hundred thousand letters, about which a message took minutes."""
    return "check", zipped(b"\x80\x02c" + b"m" * 100_000 + b"\nf\n.", folder / "a.pt")


def wide_memory(folder: Path) -> Sequence[str | Path]:
    """Ten norms of half a million channels, all zero."""
    header, size = {}, 4 * 500_000
    for i in range(20):
        end = ("mean", "var")[i % 2]
        header[f"l{i // 2}.running_{end}"] = {
            "dtype": "F32",
            "shape": [500_000],
            "data_offsets": [size * i, size * (i + 1)],
        }
    return "check", written(folder, header, bytes(20 * size))


def escape_compare(folder: Path) -> Sequence[str | Path]:
    for name, value in (("s", 0.0), ("t", 1.0)):
        tensors = {f"a\x1b]0;pwned\x07.running_{end}": torch.ones(4) + value for end in ("mean", "var")}
        torch.save(tensors, folder / f"{name}.pt")
    return "compare", folder / "s.pt", folder / "t.pt", "--format", "text"


def escape_json(folder: Path) -> Sequence[str | Path]:
    tensors = {f"a\x9b31m\u202e.running_{end}": torch.full((4,), 1e-12) for end in ("mean", "var")}
    torch.save(tensors, folder / "a.pt")
    return "check", folder / "a.pt", "--format", "json"


def escape_image(folder: Path) -> Sequence[str | Path]:
    """An image whose name clears the screen and writes a line of ours."""
    (folder / "i").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "i" / "ok.png")
    (folder / "i" / "a\x1b[2J\nbnprobe: fine.png").write_bytes(b"x")
    model = ("report", "attacks.sandbox:tiny", "--data", folder / "i", "--size", "32")
    return *model, "-o", folder / "out\x1b[2J.html"


def nested_feeder(folder: Path) -> Sequence[str | Path]:
    rows = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    return "check", checkpoint(folder, conv__weight=rows)


def counter_u64(folder: Path) -> Sequence[str | Path]:
    return "check", checkpoint(folder, bn__num_batches_tracked=torch.tensor(2**64 - 1, dtype=torch.uint64))


def counter_meta(folder: Path) -> Sequence[str | Path]:
    empty = torch.empty((), dtype=torch.int64, device="meta")
    return "check", checkpoint(folder, bn__num_batches_tracked=empty)


def tensor_attribute(folder: Path) -> Sequence[str | Path]:
    """An attribute in place of a method."""
    tensor = torch.ones(4)
    tensor.detach = 5  # type: ignore[method-assign, assignment]
    return "check", checkpoint(folder, bn__weight=tensor)


def table_attribute(folder: Path) -> Sequence[str | Path]:
    from collections import OrderedDict

    table = OrderedDict(STATE)
    table.get = table.values = 7  # type: ignore[method-assign, assignment]
    torch.save({"state_dict": table}, folder / "a.pt")
    return "check", folder / "a.pt"


def safetensors_f4(folder: Path) -> Sequence[str | Path]:
    header = {
        f"bn.running_{end}": {"dtype": "F4", "shape": [4], "data_offsets": [2 * i, 2 * i + 2]}
        for i, end in enumerate(("mean", "var"))
    }
    return "check", written(folder, header, bytes(4))


def bnp_f8(folder: Path) -> Sequence[str | Path]:
    """A recording one of whose arrays says that it is of eight bits."""
    content = recordings.forged(folder, lambda tree, arrays: None).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entry = next(value for name, value in header.items() if name != "__metadata__" and value["shape"] != [0])
    entry.update(dtype="F8_E4M3", shape=[8 * entry["shape"][0], *entry["shape"][1:]])
    text = json.dumps(header).encode()
    (folder / "b.bnp").write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return "report", folder / "b.bnp", "-o", folder / "o.html"


def named(name: str) -> Attack:
    def attack(folder: Path) -> Sequence[str | Path]:
        torch.save({f"{name}.running_{end}": torch.ones(3) for end in ("mean", "var")}, folder / "a.pt")
        return "check", folder / "a.pt"

    return attack


def index_long(folder: Path) -> Sequence[str | Path]:
    (folder / "a.index.json").write_text(json.dumps({"weight_map": {"x": "n" * 300}}))
    return "check", folder / "a.index.json"


def baseline_surrogate(folder: Path) -> Sequence[str | Path]:
    """A finding about a layer with half a character in its name."""
    tensors = {f"\udcff.running_{end}": torch.full((4,), 1e-12) for end in ("mean", "var")}
    torch.save(tensors, folder / "a.pt")
    return "check", folder / "a.pt", "--write-baseline", folder / "b.json"


def short_storage(folder: Path) -> Sequence[str | Path]:
    """A storage of which the archive holds less than it declares, so that neighboring bytes would be weights."""
    from attacks.pickles import _tensor_pickle

    return "check", zipped(_tensor_pickle((16,), 16), folder / "a.pt", {"data/0": bytes(60)})


REFUSED: dict[str, tuple[Attack, str]] = {
    "config_fifo": (with_pipe("f", "check", "a.pt", "--config", "f"), "not a regular file but a pipe"),
    "baseline_fifo": (with_pipe("f", "check", "a.pt", "--baseline", "f"), "not a regular file but a pipe"),
    "compare_fifo": (
        with_pipe("f", "compare", "a.pt", "f", "--format", "text"),
        "not a regular file but a pipe",
    ),
    "slow_refusal": (slow_refusal, "a name of 100,002 characters"),
    "config_endless": (
        lambda folder: ("check", checkpoint(folder), "--config", "/dev/zero"),
        "not a regular file but a device",
    ),
    "wide_memory": (wide_memory, "5,000,000 channels in all, and 4,194,304 are the most"),
    "safetensors_f4": (safetensors_f4, "cannot be read"),
    "bnp_f8": (bnp_f8, "expected float64, found F8_E4M3"),
    "threshold_1e400": (
        with_settings("[thresholds]\nshift = 1" + "0" * 400),
        "is not a number of at least 0",
    ),
    "threshold_5000_digits": (with_settings("[thresholds]\nshift = 1" + "0" * 5000), "is not TOML"),
    "path_nul": (
        lambda folder: ("check", checkpoint(folder), "--config", "a\0b"),
        "no file can have this name",
    ),
    "path_long": (lambda folder: ("check", folder / ("x" * 300 + ".pt")), "File name too long"),
    "out_long": (
        lambda folder: ("check", checkpoint(folder), "--format", "json", "-o", folder / ("x" * 300)),
        "File name too long",
    ),
    "index_long": (index_long, "1 are missing"),
    "short_storage": (short_storage, "a storage of 64 bytes has 60 bytes in the archive"),
}
"""Each ends in one line that says so."""

JUDGED: dict[str, Attack] = {
    "part_fifo": with_pipe(".o.json.x.part", "check", "a.pt", "--format", "json", "-o", "o.json"),
    "escape_compare": escape_compare,
    "escape_json": escape_json,
    "escape_image": escape_image,
    "counter_u64": counter_u64,
    "counter_meta": counter_meta,
    "tensor_attribute": tensor_attribute,
    "table_attribute": table_attribute,
    "nested_feeder": nested_feeder,
    "digits": named(f"9{'9' * 5000}"),
    "digits_superscript": named("²9"),
    "baseline_surrogate": baseline_surrogate,
}
"""Each is worked on like any other file, and what is printed can be seen."""
