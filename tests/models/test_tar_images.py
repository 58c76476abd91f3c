"""Images in tar files: what WebDataset writes, nothing that was cut, and nothing that a header claims."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from bnprobe.errors import BadImages
from bnprobe.models.image_folder import Source
from bnprobe.models.image_shards import open_shard
from bnprobe.models.packed_images import Fields
from bnprobe.models.tar_images import LARGEST_HEADER

from .shards import png, samples, tar


def pixels(source: Source, index: int) -> np.ndarray:
    return np.asarray(source.image(index))


def direct(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_images_and_classes_are_those_of_the_members(tmp_path):
    """Fails if an image is read from another's place, or gets another's class."""
    with open_shard(str(tar(tmp_path / "a.tar", samples(range(7))))) as source:
        assert source.words == f"7 images in {tmp_path.name}/a.tar"
        assert source.labels == (0, 1, 2, 0, 1, 2, 0)
        for i in (6, 0, 3):
            np.testing.assert_array_equal(pixels(source, i), direct(png(i)))
        assert source.caption(2) == tmp_path / "a.tar" / "000002.png"


def test_other_files_hidden_ones_and_masks_are_no_images(tmp_path):
    """Fails if captions, masks of the same sample or what a Mac adds are taken for images."""
    members = {
        "s/1.jpg": png(1),
        "s/1.txt": b"a dog",
        "s/1.seg.png": png(2),
        "s/._1.jpg": b"mac",
        "s/2.JPG": png(3),
    }
    with open_shard(str(tar(tmp_path / "a.tar", members))) as source:
        assert [str(path) for path in source.paths] == ["s/1.jpg", "s/2.jpg"]
        assert source.labels is None
    with open_shard(str(tmp_path / "a.tar"), Fields("seg.png")) as source:
        assert [str(path) for path in source.paths] == ["s/1.seg.png"]


def test_long_names_and_unlike_formats(tmp_path):
    """Fails if the headers of long names, of which each format has its own, shift the images behind them."""
    name = "/".join(["folder" * 9] * 4)
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=kind) as file:
            for seed in range(3):
                entry = tarfile.TarInfo(f"{name}/ä{seed}.png")
                entry.size = len(png(seed))
                file.addfile(entry, io.BytesIO(png(seed)))
        with open_shard(str(tmp_path / "a.tar")) as source:
            np.testing.assert_array_equal(pixels(source, 2), direct(png(2)))


def test_damaged_images_are_left_out_and_named(tmp_path):
    """Fails if one image that does not decode, or a link to a file of the machine, ends a shard or is read."""
    path = tmp_path / "a.tar"
    tar(path, {"1.png": png(1), "2.png": png(2)[:60], "3.png": b""})
    with tarfile.open(path, "a") as file:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo(f"link{kind.decode()}.png")
            link.type, link.linkname = kind, "/etc/passwd"
            file.addfile(link)
    with open_shard(str(path)) as source:
        batches = source.batches(lambda image: np.asarray(image), 8)  # type: ignore[arg-type,return-value]
        assert sum(len(batch.images) for batch in batches) == 1
    bad = {one.path.name: one.reason for one in batches.unreadable}
    assert set(bad) == {"2.png", "3.png", "link1.png", "link2.png"}
    assert "a link or a sparse file" in bad["link1.png"]


def whole_members(content: bytes) -> int:
    """Where the last member ends, before the mark of the end."""
    with tarfile.open(fileobj=io.BytesIO(content)) as file:
        last = file.getmembers()[-1]
    return last.offset_data + -(-last.size // 512) * 512


@pytest.mark.parametrize("where", ["in an image", "between two members", "in a header", "to nothing"])
def test_a_tar_that_was_cut_is_refused(tmp_path, where):
    """Fails if the samples of a tar whose end is missing are recorded as if they were all."""
    content = tar(tmp_path / "a.tar", samples(range(4))).read_bytes()
    end = whole_members(content)
    at = {"in an image": end - 1800, "between two members": end, "in a header": end - 1200, "to nothing": 0}
    (tmp_path / "a.tar").write_bytes(content[: at[where]])
    with (
        pytest.raises(BadImages, match=r"truncated, or no tar file.*download it again"),
        open_shard(str(tmp_path / "a.tar")),
    ):
        pass


def damaged(kind: str, content: bytes) -> bytes:
    """The same with a second header that claims something else."""
    with tarfile.open(fileobj=io.BytesIO(content)) as file:
        at = file.getmembers()[1].offset
    header = bytearray(content[at : at + 512])
    if kind == "checksum":
        header[0] ^= 1
    else:
        size = {"larger than the file": b"77777777777\0", "below zero": b"\xff" * 12}[kind]
        header[124:136] = size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    return content[:at] + bytes(header) + content[at + 512 :]


@pytest.mark.parametrize("kind", ["checksum", "larger than the file", "below zero"])
def test_a_header_that_lies_is_refused(tmp_path, kind):
    """Fails if what follows a damaged header is left out in silence, or a size below zero is a loop without end."""
    path = tar(tmp_path / "a.tar", samples(range(4)))
    path.write_bytes(damaged(kind, path.read_bytes()))
    with pytest.raises(BadImages, match="truncated, or no tar file"), open_shard(str(path)):
        pass


def test_headers_are_read_up_to_a_limit(tmp_path):
    """Fails if the text of a header is read into RAM by the size that it claims."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        entry = tarfile.TarInfo("1.png")
        entry.pax_headers = {"comment": "x" * (LARGEST_HEADER + 1)}
        file.addfile(entry)
    with pytest.raises(BadImages, match="a header of 1,04"), open_shard(str(path)):
        pass


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"000001.cls": b"dog"}, "000001.cls holds 'dog', and a class is a number from 0"),
        ({"000001.cls": b"-1"}, "000001.cls holds '-1'"),
        ({"000001.cls": b"99999999999"}, "holds class 99,999,999,999"),
        ({"000001.cls": None}, "1 of 3 images have no .cls, the first is 000001.png"),
    ],
)
def test_classes_that_are_none_are_one_line(tmp_path, change, said):
    """Fails if words become numbers, or an image without a class gets one; without classes the images can be read."""
    members = {name: one for name, one in {**samples(range(3)), **change}.items() if one is not None}
    path = str(tar(tmp_path / "a.tar", members))
    with pytest.raises(BadImages) as error, open_shard(path):
        pass
    assert said in str(error.value)
    assert "--label-field none" in str(error.value)
    with open_shard(path, Fields(label="none")) as source:
        assert source.labels is None


def test_what_holds_no_images_says_what_it_holds(tmp_path):
    """Fails if a tar of arrays, or one whose endings are others, is an empty shard."""
    path = str(tar(tmp_path / "a.tar", {"1.npy": b"x", "1.cls": b"1"}))
    with (
        pytest.raises(BadImages, match=r"no images in it, but files ending in cls, npy.*--image-field"),
        open_shard(path),
    ):
        pass


def test_a_name_twice_is_refused(tmp_path):
    """Fails if one of two files of a name is read, and nobody knows which."""
    path = tar(tmp_path / "a.tar", {"1.png": png(1)})
    with tarfile.open(path, "a") as file:
        file.addfile(tarfile.TarInfo("1.png"))
    with pytest.raises(BadImages, match=r"it holds 1.png twice"), open_shard(str(path)):
        pass


@pytest.mark.parametrize(
    ("name", "said"),
    [("a.tar.gz", "is packed, and its images"), ("a.zip", "a shard is a folder, a .tar or a .parquet file")],
)
def test_other_files_are_refused(tmp_path, name, said):
    """Fails if a packed tar, which may grow without end, or another file is opened."""
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(BadImages, match=said), open_shard(str(tmp_path / name)):
        pass


def test_a_pipe_is_not_waited_for(tmp_path):
    """Fails if a shard is opened past the gate for files."""
    import os

    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(BadImages, match="not a regular file but a pipe"), open_shard(str(tmp_path / "a.tar")):
        pass


def test_the_file_is_closed(tmp_path):
    """Fails if every shard of a worker stays open."""
    with open_shard(str(tar(tmp_path / "a.tar", samples(range(2))))) as source:
        pass
    with pytest.raises(ValueError, match="closed file"):
        source.image(0)
