"""Attacks of kinds that were closed before, made anew: shared values, archives that contradict themselves, numbers of
dimensions, files beside the weights, images, settings, and places where no file can be written."""

from __future__ import annotations

import json
import os
import pickle
import socket
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attacks import headers
from attacks.archives import _central, _local
from attacks.found import Attack, checkpoint
from attacks.pickles import _tensor_pickle, bare, zipped

LAUGHS = b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x000" * 40
"""Forty tuples, each of the one before twice: 2^40 values for whoever hashes or prints the last."""


def pickled(content: bytes) -> Attack:
    return lambda folder: ("check", zipped(content, folder / "a.pt"))


def laughing_in_a_legacy_file(folder: Path) -> Sequence[str | Path]:
    before = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    return "check", bare(before + LAUGHS + b"}h\x00K\x01s.", folder / "a.pt")


def one_list_again_and_again(folder: Path) -> Sequence[str | Path]:
    """A list of twenty thousand keys that is made into a set twenty thousand times: linear text, square work."""
    keys = b"(" + b"K\x01" * 20_000 + b"e"
    made = b"\x80\x02]q\x00" + keys + b"cbuiltins\nset\nq\x01" + b"h\x01h\x00\x85R0" * 20_000 + b"."
    return "check", zipped(made, folder / "a.pt")


def a_key_of_millions_of_digits(folder: Path) -> Sequence[str | Path]:
    digits = b"\x8b" + struct.pack("<i", 3_000_000) + b"\x7f" * 3_000_000
    return "check", zipped(b"\x80\x02}" + digits + b"K\x01s.", folder / "a.pt")


def a_steep_view(folder: Path) -> Sequence[str | Path]:
    """Sizes and steps whose products no 64 bits hold."""
    made = _tensor_pickle((2**62, 2**62), 16, (2**62, 1))
    return "check", zipped(made, folder / "a.pt", {"data/0": bytes(64)})


def many_dimensions(folder: Path) -> Sequence[str | Path]:
    made = _tensor_pickle((1,) * 70 + (4,), 16, (0,) * 70 + (1,))
    return "check", zipped(made, folder / "a.pt", {"data/0": bytes(64)})


def many_dimensions_in_a_header(folder: Path) -> Sequence[str | Path]:
    one, other = headers.entry([1] * 50_000 + [4], 0, 16), headers.entry([4], 16, 32)
    return "check", headers.written(folder, headers.pair(one, other), bytes(32))


def _archive(parts: list[tuple[bytes, bytes]], listed: bytes, n: int) -> bytes:
    body = b"".join(_local(name, data) for name, data in parts)
    return body + listed + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, n, n, len(listed), len(body), 0)


def one_storage_in_another(folder: Path) -> Sequence[str | Path]:
    """Two entries over the same bytes, of sizes that the file could hold."""
    content, numbers = _tensor_pickle((16,), 16), bytes(64)
    at = len(_local(b"archive/data.pkl", content))
    listed = _central(b"archive/data.pkl", content, 0)
    listed += _central(b"archive/data/0", numbers, at) + _central(b"archive/data/1", numbers, at)
    parts = [(b"archive/data.pkl", content), (b"archive/data/0", numbers), (b"archive/pad", bytes(200))]
    return "check", bare(_archive(parts, listed, 3), folder / "a.pt")


def zip64(*values: int, at: int = 0) -> Attack:
    """An archive whose list says that sizes and places are in its field for large files, which says `values`."""

    def attack(folder: Path) -> Sequence[str | Path]:
        content, name = _tensor_pickle((16,), 16), b"archive/data.pkl"
        extra = struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values)
        sizes = (zlib.crc32(content), 2**32 - 1, 2**32 - 1, len(name), len(extra))
        head = struct.pack("<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 0, *sizes, 0, 0, 0, 0, at)
        return "check", bare(_archive([(name, content)], head + name + extra, 1), folder / "a.pt")

    return attack


def an_end_elsewhere(folder: Path) -> Sequence[str | Path]:
    """A list of entries that is said to lie 2^62 bytes into the file."""
    body = _local(b"archive/data.pkl", b"\x80\x02}.")
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2**63, 2**63, 2**63, 2**62)
    place = struct.pack("<4sLQL", b"PK\6\7", 0, len(body), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
    return "check", bare(body + large + place + end, folder / "a.pt")


def wrong_sums(folder: Path) -> Sequence[str | Path]:
    """Checksums that fit nothing: torch looks at none either, and the numbers are those of the file."""
    content, at = bytearray(checkpoint(folder).read_bytes()), 0
    while (at := content.find(b"PK\1\2", at)) >= 0:
        content[at + 16 : at + 20] = b"\xde\xad\xbe\xef"
        at += 4
    return "check", bare(bytes(content), folder / "a.pt")


def packed_numbers(folder: Path) -> Sequence[str | Path]:
    """An archive of numpy's: 128 MB of zeros in 128 kB."""
    np.savez_compressed(folder / "a.npz", x=np.zeros(2**27, np.uint8))
    return "check", folder / "a.npz"


def another_programs_file(name: str) -> Attack:
    """A header of llama.cpp that declares 2^63 tensors, under any name."""
    content = b"GGUF" + struct.pack("<IQQ", 3, 2**63, 2**63) + b"\xff" * 64
    return lambda folder: ("check", bare(content, folder / name))


def declared(facts: int, tensors: int, body: bytes, size: int = 0) -> Attack:
    """A GGUF file of facts and tensors, of any size, which takes no room on the disk."""

    def attack(folder: Path) -> Sequence[str | Path]:
        path = bare(b"GGUF" + struct.pack("<IQQ", 3, tensors, facts) + body, folder / "a.gguf")
        os.truncate(path, max(size, path.stat().st_size))
        return "check", path

    return attack


EMPTY_TEXTS = struct.pack("<Q", 1) + b"x" + struct.pack("<IIQ", 9, 8, 2**28)
"""A fact: a list of 2^28 texts, all of them empty where zeros follow."""

ONE_TENSOR = struct.pack("<Q", 6) + b"b.norm" + struct.pack("<IQIQ", 1, 4, 0, 0)


def two_million_entries(folder: Path) -> Sequence[str | Path]:
    """A list that names one empty entry again and again, for which zipfile would make an object each."""
    body, listed, n = _local(b"a/0", b""), _central(b"a/0", b"", 0) * 2_000_000, 2_000_000
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, n, n, len(listed), len(body))
    place = struct.pack("<4sLQL", b"PK\6\7", 0, len(body) + len(listed), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
    return "check", bare(body + listed + large + place + end, folder / "a.pt")


def beside(content: bytes | None) -> Attack:
    """A config.json next to the weights; a pipe where there is no content."""

    def attack(folder: Path) -> Sequence[str | Path]:
        headers.named(folder, "bn").rename(folder / "model.safetensors")
        config = folder / "config.json"
        os.mkfifo(config) if content is None else config.write_bytes(content)
        return "check", folder

    return attack


def settings(text: str) -> Attack:
    def attack(folder: Path) -> Sequence[str | Path]:
        (folder / "c.toml").write_text(text)
        return "check", headers.named(folder, "a" * 3000), "--config", folder / "c.toml"

    return attack


def written_to(place: str) -> Attack:
    return lambda folder: ("check", checkpoint(folder), "--format", "json", "-o", place.format(folder))


def a_socket(folder: Path) -> Sequence[str | Path]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "s"))
    return written_to("{}/s")(folder)


def a_link_to_nothing(folder: Path) -> Sequence[str | Path]:
    (folder / "l").symlink_to(folder / "nothing")
    return written_to("{}/l")(folder)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def image(side: int, text: bytes = b"") -> Attack:
    """A PNG that declares any size, and may carry a text that unpacks to 20 MB."""

    def attack(folder: Path) -> Sequence[str | Path]:
        (folder / "i").mkdir()
        head = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        body = _chunk(b"zTXt", b"a\0\0" + zlib.compress(text)) if text else b""
        rows = _chunk(b"IDAT", zlib.compress(bytes(1000)))
        png = b"\x89PNG\r\n\x1a\n" + head + body + rows + _chunk(b"IEND", b"")
        (folder / "i" / "a.png").write_bytes(png)
        out = ("--size", "32", "-o", folder / "o.html")
        return "report", "attacks.sandbox:tiny", "--data", folder / "i", *out

    return attack


REFUSED: dict[str, tuple[Attack, str]] = {
    "laughing_key": (pickled(LAUGHS + b"}h\x00K\x01s."), "repeats what it holds"),
    "laughing_set": (pickled(LAUGHS + b"cbuiltins\nset\n]h\x00a\x85R."), "repeats what it holds"),
    "laughing_bytes": (pickled(LAUGHS + b"c_codecs\nencode\nh\x00N\x86R."), "repeats what it holds"),
    "laughing_device": (pickled(LAUGHS + b"ctorch\ndevice\nh\x00\x85R."), "repeats what it holds"),
    "laughing_storage": (
        pickled(LAUGHS + b"(X\x07\x00\x00\x00storageh\x00NNK\x04tQ."),
        "repeats what it holds",
    ),
    "laughing_in_a_legacy_file": (laughing_in_a_legacy_file, "repeats what it holds"),
    "one_list_again_and_again": (one_list_again_and_again, "repeats what it holds"),
    "bytes_of_a_number": (pickled(b"\x80\x02c_codecs\nencode\nK\x05\x85R."), "encodes what is no text"),
    "a_size_of_texts": (
        pickled(b"\x80\x02ctorch\nSize\nX\x01\x00\x00\x00a\x85\x85R."),
        "size is declared without whole",
    ),
    "a_key_of_millions_of_digits": (a_key_of_millions_of_digits, "it has: a key of type int"),
    "a_steep_view": (a_steep_view, "beyond the end of its storage"),
    "many_dimensions": (many_dimensions, "a tensor of 71 dimensions, so this norm cannot be read"),
    "many_dimensions_in_a_header": (many_dimensions_in_a_header, "a tensor of 50001 dimensions"),
    "one_storage_in_another": (one_storage_in_another, "entries of the archive overlap"),
    "zip64_sizes": (zip64(2**63, 2**63), "compressed archive"),
    "zip64_place": (zip64(99, 99, 2**63, at=2**32 - 1), "not a whole checkpoint"),
    "zip64_cut": (zip64(1), "not a whole checkpoint"),
    "an_end_elsewhere": (an_end_elsewhere, "not a whole checkpoint"),
    "packed_numbers": (packed_numbers, "compressed archive"),
    "gguf": (another_programs_file("a.gguf"), "9,223,372,036,854,775,808 tensors"),
    "gguf_by_another_name": (another_programs_file("a.safetensors"), "9,223,372,036,854,775,808 tensors"),
    "gguf_empty_texts": (declared(1, 0, EMPTY_TEXTS, 2**32), "lists hold more than 2,097,152 texts"),
    "gguf_a_name_twice": (declared(0, 2, 2 * ONE_TENSOR, 2**10), "it holds b.norm twice"),
    "two_million_entries": (two_million_entries, "more than 262,144 entries"),
    "settings_in_brackets": (settings("a=" + "[" * 100_000), "is not TOML"),
    "settings_in_tables": (settings(f"[{'.'.join('a' * 20_000)}]"), "no setting is called"),
    "a_socket": (a_socket, "not a regular file but a socket"),
    "a_link_to_nothing": (a_link_to_nothing, "is a link to .*, which is not there"),
    "a_full_device": (written_to("/dev/full"), "not a regular file but a device"),
    "below_a_file": (written_to("{}/a.pt/x.json"), "Not a directory"),
    "a_page_to_standard_output": (
        lambda folder: ("check", checkpoint(folder), "--format", "html", "-o", "-"),
        "standard output takes text, json and sarif",
    ),
    "image_of_gigapixels": (image(60_000), "could be read"),
    "image_with_a_text": (image(8, bytes(20_000_000)), "could be read"),
}
"""Each ends in one line that says so."""

JUDGED: dict[str, Attack] = {
    "wrong_sums": wrong_sums,
    "config_brackets": beside(b'{"a":' * 200_000),
    "config_pipe": beside(None),
    "config_digits": beside(b'{"layer_norm_eps": 1' + b"0" * 6000 + b"}"),
    "config_kinds": beside(
        json.dumps({"model_type": [1] * 99, "eps": -1, "a_config": {"eps": True}}).encode()
    ),
    "settings_of_stars": settings(f'ignore = ["statistics-lost:{"*a" * 200}b"]\n'),
}
"""Each is worked on like any other file."""
