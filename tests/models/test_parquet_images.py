"""Encoded images in Parquet files: bytes, or the bytes and path of Hugging Face's data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnprobe.errors import BadImages
from bnprobe.models.image_shards import open_shard
from bnprobe.models.packed_images import Fields

from .shards import png

pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")


def written(path: Path, columns: dict[str, Any], names: list[str] | None = None, rows: int = 3) -> str:
    """A file of several row groups; `names` are those of the classes."""
    from pyarrow import parquet

    table = pa.table(columns)
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, path, row_group_size=rows)
    return str(path)


def structs(contents: list[bytes | None]) -> Any:
    return pa.array([{"bytes": one, "path": f"{i}.png"} for i, one in enumerate(contents)])


@pytest.mark.parametrize("kind", ["bytes", "large bytes", "struct"])
def test_images_and_classes_are_those_of_the_rows(tmp_path, kind):
    """Fails if an image is another row's, or a row group is left out."""
    contents = [png(seed) for seed in range(8)]
    column = {"bytes": pa.array(contents), "large bytes": pa.array(contents, pa.large_binary())}
    columns = {"image": column.get(kind, structs(contents)), "label": [seed % 3 for seed in range(8)]}
    with open_shard(written(tmp_path / "a.parquet", columns, ["x", "y", "z"])) as source:
        assert source.labels == (0, 1, 2, 0, 1, 2, 0, 1)
        assert source.classes == ("x", "y", "z")
        from .test_tar_images import direct

        for i in (7, 0, 4):
            np.testing.assert_array_equal(np.asarray(source.image(i)), direct(png(i)))
        assert source.caption(2) == tmp_path / "a.parquet" / "row 2"


def test_the_only_column_of_bytes_is_the_images(tmp_path):
    """Fails if a column must be called image, or one that is named is not taken."""
    path = written(tmp_path / "a.parquet", {"jpg": [png(1)], "text": ["a dog"]})
    with open_shard(path) as source:
        assert len(source) == 1
        assert source.labels is None
    path = written(tmp_path / "b.parquet", {"jpg": [png(1)], "mask": [png(2)], "kind": [4]})
    with open_shard(path, Fields("mask", "kind")) as source:
        assert source.labels == (4,)


def test_damaged_rows_are_left_out_and_named(tmp_path):
    """Fails if a row without an image ends a shard, or shifts those behind it."""
    path = written(tmp_path / "a.parquet", {"image": structs([None, png(1), b"", png(2)[:40], png(3)])})
    with open_shard(path) as source:
        batches = source.batches(lambda image: np.asarray(image), 8)  # type: ignore[arg-type,return-value]
        images = [image for batch in batches for image in batch.images]
        np.testing.assert_array_equal(images[1], np.asarray(source.image(4)))
    assert len(images) == 2
    assert [one.path.name for one in batches.unreadable] == ["row 0", "row 2", "row 3"]
    assert batches.unreadable[0].reason == "no image in this row"


@pytest.mark.parametrize(
    ("columns", "fields", "said"),
    [
        ({"text": ["a"]}, Fields(), "no column of encoded images. Its columns are text (string)."),
        ({"a": [b"1"], "b": [b"2"]}, Fields(), "no column of encoded images. Its columns are a (binary), b"),
        ({"a": [b"1"]}, Fields("image"), "no column image. Its columns are a (binary)"),
        ({"a": [b"1"], "x": [1]}, Fields("x"), "column x holds no encoded images"),
        ({"image": [b"1"], "label": ["dog"]}, Fields(), "no column label of whole numbers"),
        ({"image": [b"1"]}, Fields(label="kind"), "no column kind of whole numbers"),
        ({"image": [b"1", b"2"], "label": [1, None]}, Fields(), "row 1 has no label"),
        ({"image": [b"1"], "label": [-1]}, Fields(), "row 0 holds class -1"),
        ({"image": pa.array([], pa.binary())}, Fields(), "it has no rows"),
    ],
)
def test_columns_that_do_not_fit_are_one_line(tmp_path, columns, fields, said):
    """Fails if a column that is missing is a traceback, or the message does not list those that there are."""
    with pytest.raises(BadImages) as error, open_shard(written(tmp_path / "a.parquet", columns), fields):
        pass
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.97])
def test_a_file_that_was_cut_is_refused(tmp_path, share):
    """Fails if a file whose end is missing is a traceback of pyarrow's."""
    path = Path(written(tmp_path / "a.parquet", {"image": [png(seed) for seed in range(5)]}))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BadImages, match="truncated, or no Parquet file"), open_shard(str(path)):
        pass


def test_a_page_that_was_overwritten_is_refused(tmp_path):
    """Fails if numbers in the middle of a file that are not what its footer says end the process."""
    path = Path(written(tmp_path / "a.parquet", {"image": [png(seed) for seed in range(5)]}))
    content = bytearray(path.read_bytes())
    content[8:200] = bytes(192)
    path.write_bytes(content)
    with pytest.raises(BadImages, match="truncated, or no Parquet file"), open_shard(str(path)):
        pass


def test_one_image_said_many_times_fills_no_disk(tmp_path, monkeypatch):
    """Fails if a small file, whose rows all name one large value, is unpacked without a limit."""
    monkeypatch.setattr("bnprobe.models.parquet_images.SMALL", 0)
    content = np.random.default_rng(0).bytes(20_000)
    path = written(tmp_path / "a.parquet", {"image": [content] * 100}, rows=100)
    assert Path(path).stat().st_size < 100_000
    with pytest.raises(BadImages, match="made to fill a disk"), open_shard(path):
        pass
    with open_shard(written(tmp_path / "b.parquet", {"image": [content] * 3}, rows=3)) as source:
        assert len(source) == 3
