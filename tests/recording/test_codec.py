"""Recordings on disk: bit for bit there and back, and nothing believed that was not written so."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save as pack
from safetensors.numpy import save_file
from support.models import BY_NAME

import bnprobe
from bnprobe.errors import BadRecordingFile, CannotWrite
from bnprobe.recording import Recording, codec

AGAIN = "Record it again, or download the file again"


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Every kind of norm, a norm used twice beside it, with and without vectors: every field is in use."""
    case, twice = BY_NAME["mixed"], BY_NAME["no affine"]
    model = torch.nn.ModuleDict({"net": case.model(), "free": twice.model()})
    with bnprobe.attach(model) as probe:
        for x in case.batches():
            model["net"](x)
            model["free"](x)
    return probe.recording


@pytest.fixture
def path(recording: Recording, tmp_path: Path) -> Path:
    return recording.save(tmp_path / "one.bnp")


def assert_bit_equal(one: Any, other: Any, at: str = "recording") -> None:
    """Field by field, array by array, to the last bit and the type."""
    assert type(one) is type(other), at
    if is_dataclass(one):
        for field in fields(one):
            assert_bit_equal(getattr(one, field.name), getattr(other, field.name), f"{at}/{field.name}")
    elif isinstance(one, tuple):
        assert len(one) == len(other), at
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_bit_equal(a, b, f"{at}/{i}")
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()), at
    else:
        assert one == other or (one != one and other != other), at


def content_of(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def forge(path: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> None:
    """Edit a recording as someone would who makes every digest fit again."""
    metadata, arrays = content_of(path)
    tree = json.loads(metadata["recording"])
    change(tree, arrays)
    text = json.dumps(tree)
    digests = {name: hashlib.sha256(array.tobytes()).hexdigest()[:32] for name, array in arrays.items()}
    metadata |= {
        "recording": text,
        "digest": hashlib.sha256(text.encode()).hexdigest()[:32],
        "digests": json.dumps(digests),
    }
    path.write_bytes(pack(arrays, metadata=metadata))


def rewrite(path: Path, change: Callable[[dict[str, str], dict[str, np.ndarray]], None]) -> None:
    """Edit metadata or arrays and leave the digests as they are."""
    metadata, arrays = content_of(path)
    change(metadata, arrays)
    path.write_bytes(pack(arrays, metadata=metadata))


MEAN = "recording/layers/0/pre/mean"


# There and back


def test_round_trip_is_bit_equal(recording, path):
    """Fails if a field is not written, a NaN or a None changes, or a float64 passes through a float32."""
    loaded = bnprobe.load(path)
    assert_bit_equal(loaded, recording)
    assert_bit_equal(bnprobe.load(loaded.save(path)), recording)
    assert any(r.gamma is None for r in loaded.layers)
    assert any(r.own_mean is not None for r in loaded.layers)


def test_round_trip_of_nothing(tmp_path):
    """Fails if a recording without layers cannot be kept: the machine that saw no data."""
    with bnprobe.attach(BY_NAME["mixed"].model()) as probe:
        pass
    assert_bit_equal(bnprobe.load(probe.recording.save(tmp_path / "none")), probe.recording)


def test_names_of_any_language(tmp_path, recording):
    """Fails if text is not written as UTF-8, or a strange layer path breaks the file."""
    odd = replace(recording.layers[0], layer="/../слой 1\n\"'\\")
    whole = replace(recording, layers=(odd,), about=replace(recording.about, notes=("ünï", "")))
    assert_bit_equal(bnprobe.load(whole.save(tmp_path / "ключ.bnp")), whole)


def test_loaded_arrays_cannot_be_changed(path):
    """Fails if two reports on one loaded recording could disturb each other through an array."""
    with pytest.raises(ValueError, match="read-only"):
        bnprobe.load(path).layers[0].pre.mean[0] = 7


def test_the_file_is_plain(path):
    """Fails if loading could ever run code: the file opens as safetensors, float64 or counts, and holds no pickle."""
    metadata, arrays = content_of(path)
    assert metadata["format"] == "bnprobe recording"
    assert metadata["schema"] == str(codec.SCHEMA)
    counts = {name: arrays.pop(name).dtype for name in [*arrays] if name.endswith("_histogram/counts")}
    assert counts.keys()
    assert set(counts.values()) <= {np.dtype("uint8"), np.dtype("uint16")}
    assert {array.dtype for array in arrays.values()} == {np.dtype("float64")}


def with_counts(recording: Recording, counts: np.ndarray) -> Recording:
    record = recording.layers[0]
    shape = record.pre_histogram.counts.shape
    wide = np.zeros(shape)
    wide.flat[: len(counts)] = counts
    histogram = replace(record.pre_histogram, counts=wide)
    return replace(recording, layers=(replace(record, pre_histogram=histogram), *recording.layers[1:]))


@pytest.mark.parametrize(
    ("counts", "stored"),
    [
        ([0, 255], "U8"),
        ([0, 256], "U16"),
        ([3, 2**16 - 1], "U16"),
        ([2**16], "U32"),
        ([2**32 - 1], "U32"),
        ([2**32], "F64"),
        ([7.25], "F64"),
        ([-1], "F64"),
        ([np.nan, 3], "F64"),
        ([3, np.inf], "F64"),
    ],
)
def test_counts_take_the_bytes_that_hold_them(recording, counts, stored):
    """Fails if a count is cut to the bytes of a smaller one, a number that is no count is taken for one, or a file of
    counts has eight bytes for each."""
    whole = with_counts(recording, np.array(counts, dtype=float))
    content = whole.to_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["recording/layers/0/pre_histogram/counts"]["dtype"] == stored
    assert_bit_equal(codec.decode_bytes(content, "sent", Recording), whole)


def test_numbers_that_would_fill_the_ram_are_refused(path, monkeypatch):
    """Fails if a file of bytes may become eight times as large in RAM as what is read of any."""
    in_ram = 8 * sum(array.size for array in content_of(path)[1].values())
    monkeypatch.setattr(codec, "LARGEST", in_ram)
    codec.decode_bytes(path.read_bytes(), "sent", Recording)
    monkeypatch.setattr(codec, "LARGEST", in_ram - 1)
    with pytest.raises(BadRecordingFile, match=rf"holds numbers of {in_ram:,} bytes"):
        codec.decode_bytes(path.read_bytes(), "sent", Recording)


# What is refused


def test_a_file_cut_anywhere_is_refused(path):
    """Fails if some length of a broken download loads: 40 lengths, and each of the first bytes."""
    content = path.read_bytes()
    lengths = {*range(24), *np.linspace(24, len(content) - 1, 40).astype(int).tolist()}
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        with pytest.raises(BadRecordingFile, match=AGAIN):
            bnprobe.load(path)


def test_a_longer_file_is_refused(path):
    """Fails if bytes after the end are ignored."""
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BadRecordingFile, match=AGAIN):
        bnprobe.load(path)


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\x80\x04.", b"PK\x03\x04" + bytes(100), b"\xff" * 64, b"{}" * 40], ids=repr
)
def test_garbage_is_refused(tmp_path, content):
    """Fails if something else than BadRecordingFile escapes, or a pickle is opened."""
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(BadRecordingFile, match=AGAIN):
        bnprobe.load(path)


def test_foreign_safetensors_are_refused(tmp_path):
    """Fails if a checkpoint is taken for a recording, or the reader is sent to record again what was never recorded."""
    path = tmp_path / "weights.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"weight": np.ones(3)}, path, metadata=metadata)
        with pytest.raises(
            BadRecordingFile, match=r"not a bnprobe recording\. If it is a checkpoint: bnprobe\.check\("
        ):
            bnprobe.load(path)


@pytest.mark.parametrize("ending", [".pt", ".pth", ".ckpt", ".bin"])
def test_a_checkpoint_of_torch_is_sent_to_check(tmp_path, ending):
    """Fails if `load` of a checkpoint only says that the file is broken."""
    path = tmp_path / f"weights{ending}"
    path.write_bytes(b"PK" + bytes(90))
    with pytest.raises(BadRecordingFile, match=rf"bnprobe\.check\('.*weights{re.escape(ending)}'\)"):
        bnprobe.load(path)


def test_a_missing_file_says_how_recordings_are_made(tmp_path):
    """Fails if FileNotFoundError escapes."""
    with pytest.raises(BadRecordingFile, match=r"written with recording.save\(path\)"):
        bnprobe.load(tmp_path / "none.bnp")


@pytest.mark.parametrize(
    "schema", [str(codec.SCHEMA + 1), "99", "", "1.0", "-1", "one", "9" * 5000], ids=lambda s: s[:9]
)
def test_a_newer_schema_is_refused(path, schema):
    """Fails if a file of tomorrow is half understood today."""
    rewrite(path, lambda metadata, _: metadata.update(schema=schema))
    with pytest.raises(BadRecordingFile, match="Update bnprobe"):
        bnprobe.load(path)


def test_an_edited_number_is_refused_by_name(path):
    """Fails if one bit of one number changes unseen (fault: digest unchecked)."""

    def change(_: Any, arrays: dict[str, np.ndarray]) -> None:
        arrays[MEAN] = np.nextafter(arrays[MEAN], np.inf)

    rewrite(path, change)
    with pytest.raises(BadRecordingFile, match=AGAIN) as caught:
        bnprobe.load(path)
    assert f"one.bnp: {MEAN}: the numbers do not match" in str(caught.value)


def test_an_edited_text_is_refused(path):
    """Fails if the count of calls, which stands in the JSON, can be edited by hand."""
    rewrite(path, lambda m, _: m.update(recording=m["recording"].replace('"n_calls": 3', '"n_calls": 4')))
    with pytest.raises(BadRecordingFile, match="the text does not match its digest"):
        bnprobe.load(path)


@pytest.mark.parametrize("digests", ["[]", "3", "null", '"x"', "{", "{}", ""])
def test_broken_digests_are_refused(path, digests):
    """Fails if a list where a dictionary should be ends in an AttributeError."""
    rewrite(path, lambda metadata, _: metadata.update(digests=digests))
    with pytest.raises(BadRecordingFile, match=AGAIN):
        bnprobe.load(path)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{", "1", '{"about": null}', "[" * 100_000], ids=lambda t: t[:9]
)
def test_broken_json_is_refused(path, text):
    """Fails if JSON of another shape, or nested without end, escapes as another error."""

    def change(metadata: dict[str, str], _: Any) -> None:
        metadata.update(recording=text, digest=hashlib.sha256(text.encode()).hexdigest()[:32])

    rewrite(path, change)
    with pytest.raises(BadRecordingFile, match=AGAIN):
        bnprobe.load(path)


def _shorter(_: Any, arrays: dict[str, np.ndarray]) -> None:
    arrays["recording/layers/0/gamma"] = arrays["recording/layers/0/gamma"][:2].copy()


def _other_type(_: Any, arrays: dict[str, np.ndarray]) -> None:
    arrays[MEAN] = arrays[MEAN].astype(np.float32)


def _missing_array(_: Any, arrays: dict[str, np.ndarray]) -> None:
    del arrays[MEAN]


def _missing_field(tree: dict[str, Any], _: Any) -> None:
    del tree["layers"][0]["eps"]


def _unknown_field(tree: dict[str, Any], _: Any) -> None:
    tree["layers"][0]["surprise"] = 1


def _text_for_a_number(tree: dict[str, Any], _: Any) -> None:
    tree["layers"][0]["n_calls"] = "three"


def _yes_for_a_number(tree: dict[str, Any], _: Any) -> None:
    tree["layers"][0]["n_calls"] = True


def _number_for_a_name(tree: dict[str, Any], _: Any) -> None:
    tree["layers"][0]["layer"] = 3


def _no_list(tree: dict[str, Any], _: Any) -> None:
    tree["layers"] = {}


def _impossible(_: Any, arrays: dict[str, np.ndarray]) -> None:
    arrays["recording/layers/0/pre/m2"] = -arrays["recording/layers/0/pre/m2"]


def _too_positive(_: Any, arrays: dict[str, np.ndarray]) -> None:
    arrays["recording/layers/0/n_positive"] = arrays["recording/layers/0/n_positive"] + 1e6


def _twice(tree: dict[str, Any], _: Any) -> None:
    tree["layers"].append(tree["layers"][0])


FORGED = {
    _shorter: r"gamma: expected shape \(6,\), found \(2,\)",
    _other_type: f"{MEAN}: expected float64, found F32",
    _missing_array: f"{MEAN}: its numbers are missing",
    _missing_field: "layers/0: fields missing or unknown: eps",
    _unknown_field: "layers/0: fields missing or unknown: surprise",
    _text_for_a_number: "layers/0/n_calls: expected int, found 'three'",
    _yes_for_a_number: "layers/0/n_calls: expected int, found True",
    _number_for_a_name: "layers/0/layer: expected str, found 3",
    _no_list: "recording/layers: expected a list, found dict",
    _impossible: "net.bn / pre: variance >= 0 is violated",
    _too_positive: "net.bn / n_positive: more positive outputs than outputs",
    _twice: "a site twice",
}


@pytest.mark.insane
@pytest.mark.parametrize("change", FORGED, ids=lambda change: change.__name__[1:])
def test_a_forged_file_is_refused_by_field(path, change):
    """Fails if shapes, types, names or the laws of statistics are not asked when the digests fit."""
    forge(path, change)
    with pytest.raises(BadRecordingFile, match=FORGED[change]) as caught:
        bnprobe.load(path)
    assert "one.bnp: " in str(caught.value)
    assert AGAIN in str(caught.value)


def test_forging_without_a_change_loads(recording, path):
    """Fails if the forger of these tests breaks files by itself: every refusal above would prove nothing."""
    forge(path, lambda tree, arrays: None)
    assert_bit_equal(bnprobe.load(path), recording)


# Writing


def test_a_failing_write_leaves_the_old_file(recording, path, monkeypatch):
    """Fails if the file is opened in place: a full disk would cost the old recording (fault: not atomic)."""
    old = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match=r"No space left on device\. Choose another path"):
        recording.save(path)
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == ["one.bnp"]


def test_an_interrupted_write_leaves_no_part(recording, path, monkeypatch):
    """Fails if Ctrl-C between writing and renaming leaves a .part file behind."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recording.save(path)
    assert [p.name for p in path.parent.iterdir()] == ["one.bnp"]


def test_a_path_that_cannot_be_written(recording, tmp_path):
    """Fails if an OSError escapes: a folder in the way, a file for a folder, a name too long."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    for bad in (tmp_path / "folder", tmp_path / "file" / "x.bnp", tmp_path / ("x" * 300)):
        with pytest.raises(CannotWrite, match="Choose another path for the output"):
            recording.save(bad)
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_save_makes_folders_and_returns_the_path(recording, tmp_path):
    """Fails if the caller must make the folder, or cannot chain on the path."""
    path = tmp_path / "new" / "folder" / "x.bnp"
    assert recording.save(str(path)) == path
    assert path.is_file()


def test_the_file_may_be_read_by_others(recording, tmp_path):
    """Fails if the temporary file's private mode survives: a web server could not show the report."""
    old = os.umask(0o022)
    try:
        path = recording.save(tmp_path / "x.bnp")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_folder_is_not_a_file_that_is_missing(tmp_path):
    """Fails if somebody who gave a folder is sent to look for a file."""
    with pytest.raises(BadRecordingFile, match="is a folder"):
        bnprobe.load(tmp_path)
