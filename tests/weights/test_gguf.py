"""GGUF files: every kind of block against ggml's own unpacking, and files that are cut or damaged."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bnprobe
from bnprobe.errors import BadCheckpoint
from bnprobe.files.gguf import TYPES
from bnprobe.weights import load
from bnprobe.weights.quantized import UNPACK

C, HEADS, KEYS, D = 256, 4, 2, 64

NUMBERS = {name: number for number, (name, *_) in TYPES.items()}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def fact(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return text(name) + struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        return text(name) + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    if isinstance(value, float):
        return text(name) + struct.pack("<If", 6, value)
    return text(name) + struct.pack("<II", 4, value)


FACTS = {
    "general.architecture": "llama",
    "tokenizer.ggml.tokens": ["<s>", "a"],
    "llama.embedding_length": C,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KEYS,
    "llama.attention.layer_norm_rms_epsilon": 1e-6,
}


def written(
    path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]], facts: dict[str, Any] = FACTS
) -> Path:
    declared, content = b"", b""
    for name, (dtype, shape, held) in tensors.items():
        sizes = struct.pack(f"<{len(shape)}Q", *reversed(shape))
        declared += text(name) + struct.pack("<I", len(shape)) + sizes
        declared += struct.pack("<IQ", NUMBERS[dtype], len(content))
        content += held + bytes(-len(held) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    head += b"".join(fact(name, value) for name, value in facts.items()) + declared
    path.write_bytes(head + bytes(-len(head) % 32) + content)
    return path


def of(values: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return "F32", values.shape, values.astype("<f4").tobytes()


def blocks(dtype: str, n: int) -> np.ndarray:
    """Random bytes whose halves are finite numbers."""
    _, _, n_bytes = TYPES[NUMBERS[dtype]]
    held = np.random.default_rng(len(dtype) + n).integers(0, 256, (n, n_bytes), dtype=np.uint8)
    for at in {"Q6_K": [208], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q4_1": [0, 2], "Q5_1": [0, 2]}.get(dtype, [0]):
        held[:, at : at + 2] = np.linspace(-1, 1, n).astype("<f2").reshape(-1, 1).view(np.uint8)
    return held


@pytest.mark.parametrize("dtype", UNPACK)
def test_blocks_are_unpacked_as_by_ggml(dtype: str, tmp_path: Path) -> None:
    """Fails if a nibble, a scale or a fifth bit goes to another number, or rows are cut elsewhere than where asked."""
    quants = pytest.importorskip("gguf.quants")
    gguf = pytest.importorskip("gguf")
    held = blocks(dtype, 6)
    shape = (3, 2 * TYPES[NUMBERS[dtype]][1])
    path = written(tmp_path / "a.gguf", {"a.weight": (dtype, shape, held.tobytes())})
    tensor = load(path, several=True)["a.weight"]
    expected = quants.dequantize(held, gguf.GGMLQuantizationType[dtype]).reshape(shape)
    np.testing.assert_allclose(tensor.array(), expected, rtol=1e-6)
    np.testing.assert_allclose(tensor.rows(1, 3), expected[1:], rtol=1e-6)


def test_one_block_by_hand(tmp_path: Path) -> None:
    """Fails if low nibbles are not the first half of a block; without ggml's package."""
    held = np.float16([0.5]).tobytes() + np.float16([-1]).tobytes() + bytes(i % 16 | 48 for i in range(16))
    tensor = load(written(tmp_path / "a.gguf", {"a": ("Q4_1", (1, 32), held)}), several=True)["a"]
    np.testing.assert_array_equal(tensor.array()[0], [*(0.5 * np.arange(16) - 1), *[0.5] * 16])


def model(scale: float = 1.0, **more: Any) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    rng = np.random.default_rng(0)
    return {
        "blk.0.attn_norm.weight": of(rng.normal(1, 0.2, C)),
        "blk.0.attn_q.weight": of(scale * rng.normal(size=(HEADS * D, C))),
        "blk.0.attn_k.weight": ("Q8_0", (KEYS * D, C), blocks("Q8_0", KEYS * D * C // 32).tobytes()),
        "output_norm.weight": of(rng.normal(1, 0.2, C)),
        "rare.weight": ("IQ2_XS", (1, 256), bytes(74)),
        **more,
    }


def test_check_reads_norms_eps_and_heads(tmp_path: Path) -> None:
    """Fails if gains are not those of the file, eps is assumed, or heads of its facts do not reach the table."""
    path = written(tmp_path / "model.gguf", model())
    report = bnprobe.check(path)
    layers = report.layers.set_index("layer")
    assert list(layers.index) == ["blk.0.attn_norm", "output_norm"]
    assert set(layers["kind"]) == {"rms_norm"}
    np.testing.assert_allclose(layers["eps"], 1e-6, rtol=1e-6)
    assert "eps is from its metadata: 1e-06." in report.recording.about.notes
    state = {
        name: tensor.array().astype(float) for name, tensor in load(path, True).items() if "rare" not in name
    }
    gamma = state["blk.0.attn_norm.weight"]
    np.testing.assert_allclose(report.channels["gamma"][:C], gamma)
    q, k = (state[f"blk.0.attn_{part}.weight"] * gamma for part in "qk")
    products = [
        q[h * D : (h + 1) * D].T @ k[h * KEYS // HEADS * D : (h * KEYS // HEADS + 1) * D]
        for h in range(HEADS)
    ]
    expected = max(np.linalg.norm(product, 2) for product in products) * C / math.sqrt(D)
    assert layers["qk_bound"]["blk.0.attn_norm"] == pytest.approx(expected, rel=1e-5)


def damaged() -> dict[str, tuple[bytes, str]]:
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    tensor = text("n.weight") + struct.pack("<IQIQ", 1, 32, 0, 0)
    return {
        "nothing behind its name": (b"GGUF", "ends within"),
        "another version": (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version is 9"),
        "another order of bytes": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version is 50331648"),
        "more than anyone has": (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 0), "was not read.*tensors"),
        "cut in a name": (head + struct.pack("<Q", 99) + b"short", "ends within"),
        "cut in a long name": (head + struct.pack("<Q", 2**40), "ends within"),
        "numbers beyond its end": (head + tensor, "ends at byte"),
        "far beyond": (head + tensor[:-8] + struct.pack("<Q", 2**63), "ends at byte"),
        "many dimensions": (head + text("a") + struct.pack("<I", 2**31), "dimensions"),
        "half a block": (head + text("a") + struct.pack("<IQIQ", 1, 31, 2, 0), "no whole blocks"),
        "a list without end": (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 8, 2**60),
            "longer than the file",
        ),
        "a list of lists": (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 9, 1),
            "values of type 9",
        ),
        "an unknown fact": (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<I", 77),
            "type 77",
        ),
        "no alignment": (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + fact("general.alignment", 0),
            "alignment is 0",
        ),
    }


@pytest.mark.parametrize("name", damaged())
def test_damaged_files_are_refused_in_a_line(name: str, tmp_path: Path) -> None:
    """Fails if a size that the file does not bear out is believed, or an error of Python's reaches the user."""
    content, words = damaged()[name]
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(BadCheckpoint, match=words) as error:
        bnprobe.check(tmp_path / "a.gguf")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_cut_short_is_refused(share: float, tmp_path: Path) -> None:
    """Fails if a download that stopped is judged by what arrived."""
    path = written(tmp_path / "a.gguf", model())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BadCheckpoint, match="not a whole checkpoint"):
        bnprobe.check(path)


def test_types_that_are_not_unpacked_leave_the_rest(tmp_path: Path) -> None:
    """Fails if one tensor of a rare type ends the check of a file."""
    rare = written(
        tmp_path / "a.gguf", model(**{"blk.0.attn_k.weight": ("IQ2_XS", (128, 256), bytes(128 * 74))})
    )
    report = bnprobe.check(rare)
    assert report.layers["qk_bound"].isna().all()
    assert len(report.layers) == 2
