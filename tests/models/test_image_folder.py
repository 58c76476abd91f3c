"""Folders of images to batches: order, labels, damage, limits, and the shipped digits."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import DATA
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from bnprobe.errors import BadImages
from bnprobe.models.image_folder import Batch, demo_images, find_images, mixed, read_rgb, spread


def picture(path: Path, grey: int = 100, size: tuple[int, int] = (7, 5), mode: str = "RGB") -> Path:
    """A plain picture whose every value is `grey`, so that an image can be told from another by its value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).convert(mode).save(path)
    return path


def values(image: Image.Image) -> Tensor:
    assert image.mode == "RGB"
    return pil_to_tensor(image)


def greys(batches: list[Batch]) -> list[int]:
    """The value of each image of `picture`, in the order the batches gave them."""
    return [int(image[0, 0, 0]) for batch in batches for image in batch.images]


def one_line(error: pytest.ExceptionInfo[BadImages]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three and two images, written in an order that is not the sorted one."""
    for name, grey in (("b/2.png", 40), ("a/z.PNG", 30), ("b/1.png", 35), ("a/x.bmp", 10), ("a/y.Jpeg", 20)):
        picture(tmp_path / name, grey, mode="L")
    return tmp_path


def test_order_and_labels_are_those_of_the_sorted_names(folder):
    """Fails if the file system's order leaks through, or a suffix in capitals is passed over."""
    found = find_images(folder)
    assert [path.relative_to(folder).as_posix() for path in found.paths] == [
        "a/x.bmp",
        "a/y.Jpeg",
        "a/z.PNG",
        "b/1.png",
        "b/2.png",
    ]
    assert found.classes == ("a", "b")
    assert found.labels == (0, 0, 0, 1, 1)


def test_order_does_not_depend_on_the_walk(folder, monkeypatch):
    """Fails if the order of os.walk is used: the same folder, listed backwards, must give the same."""
    forwards, walk = find_images(folder), os.walk

    def backwards(*args, **kwargs):
        for here, below, files in walk(*args, **kwargs):
            yield here, below, files[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    assert find_images(folder) == forwards


def test_classes_are_not_interleaved_by_their_separator(tmp_path):
    """Fails if paths are sorted as whole strings: "-" sorts before "/", so a-b would split a."""
    for name in ("a/1.png", "a-b/1.png", "a/2.png"):
        picture(tmp_path / name)
    assert find_images(tmp_path).labels == (0, 0, 1)


def test_first_level_is_the_class_whatever_lies_deeper(tmp_path):
    """Fails if the class is the last folder instead of the first."""
    picture(tmp_path / "cat/indoors/1.png")
    picture(tmp_path / "dog/2.png")
    assert find_images(tmp_path).classes == ("cat", "dog")


def test_a_flat_folder_has_no_labels(folder):
    """Fails if images beside the class folders are given an invented class."""
    picture(folder / "stray.png", 5)
    found = find_images(folder)
    assert found.labels is None
    assert found.classes == ()
    assert [batch.labels for batch in found.batches(values, 4)] == [None, None]


def test_hidden_files_and_other_files_are_passed_over(folder):
    """Fails if the ._x.jpg files of an archive tool count as damaged images."""
    (folder / "a/._x.jpg").write_bytes(b"resource fork")
    (folder / "a/notes.txt").write_text("not an image")
    picture(folder / ".thumbnails/1.png")
    assert len(find_images(folder)) == 5


def test_links_that_lead_back_end(folder):
    """Fails if a link to a parent folder is followed for ever, or its images counted twice."""
    (folder / "a/back").symlink_to(folder, target_is_directory=True)
    (folder / "b/also").symlink_to(folder / "b", target_is_directory=True)
    assert len(find_images(folder)) == 5


def test_linked_class_folders_are_followed(folder, tmp_path_factory):
    """Fails if a subset made of links to class folders looks empty."""
    subset = tmp_path_factory.mktemp("subset")
    (subset / "a").symlink_to(folder / "a", target_is_directory=True)
    assert len(find_images(subset)) == 3


def test_missing_folder_says_what_to_check(tmp_path):
    with pytest.raises(BadImages, match=r"no folder .*nowhere\. Check --data") as error:
        find_images(tmp_path / "nowhere")
    one_line(error)


def test_file_instead_of_folder_says_what_to_give(tmp_path):
    with pytest.raises(BadImages, match=r"is a file\. Give the folder it is in") as error:
        find_images(picture(tmp_path / "a.png"))
    one_line(error)


def test_no_images_says_what_was_looked_for(tmp_path):
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(BadImages, match=r"Looked for files ending in \.jpg .*\.png") as error:
        find_images(tmp_path)
    one_line(error)


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (7, [5])])
def test_batches_give_every_image_once_with_its_label(folder, batch_size, sizes):
    """Fails if the last, smaller batch is lost, or labels drift from their images."""
    batches = find_images(folder).batches(values, batch_size)
    got = list(batches)
    assert [len(batch.images) for batch in got] == sizes
    assert len(batches) == len(sizes)
    assert batches.n_images == 5
    pairs = zip(greys(got), [label for batch in got for label in batch.labels or []], strict=True)
    # jpeg may move the value by one
    assert sorted((round(grey, -1) if grey != 35 else 35, label) for grey, label in pairs) == [
        (10, 0),
        (20, 0),
        (30, 0),
        (35, 1),
        (40, 1),
    ]


def test_batch_size_must_be_positive(folder):
    with pytest.raises(BadImages, match=r"batch size is 0\. Give at least 1"):
        find_images(folder).batches(values, 0)


def test_damaged_images_are_named_and_the_rest_still_comes(folder):
    """Fails if one damaged file ends the run, is lost silently, or shifts the labels of those after it."""
    (folder / "a/y.Jpeg").write_bytes(b"\xff\xd8\xff but no picture")
    whole = picture(folder / "b/0.png", 33, size=(90, 90)).read_bytes()
    (folder / "b/0.png").write_bytes(whole[: len(whole) // 2])
    (folder / "b/3.png").symlink_to(folder / "gone.png")
    batches = find_images(folder).batches(values, 3)
    got = list(batches)
    assert sorted(greys(got)) == [10, 30, 35, 40]
    assert [sorted(batch.labels or []) for batch in got] == [[0, 0, 1], [1]]
    assert sorted(entry.path.name for entry in batches.unreadable) == ["0.png", "3.png", "y.Jpeg"]
    assert all(entry.reason and "\n" not in entry.reason for entry in batches.unreadable)


def test_a_second_pass_counts_the_damaged_anew(folder):
    """Fails if the list of unreadable images grows with every pass."""
    (folder / "a/x.bmp").write_bytes(b"")
    batches = find_images(folder).batches(values, 2)
    assert greys(list(batches)) == greys(list(batches))
    assert len(batches.unreadable) == 1


def test_nothing_readable_is_an_error(tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(BadImages, match=r"none of 2 images in .*a\.png .*Check that they open") as error:
        list(find_images(tmp_path).batches(values, 2))
    one_line(error)


def test_bombs_are_unreadable_not_fatal(folder, monkeypatch):
    """Fails if a picture above PIL's limit, or between the limit and twice it, is decoded or ends the run."""
    picture(folder / "a/large.png", size=(40, 40))
    picture(folder / "a/larger.png", size=(60, 60))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    batches = find_images(folder).batches(values, 10)
    assert len(greys(list(batches))) == 5
    assert [entry.path.name for entry in batches.unreadable] == ["large.png", "larger.png"]
    assert all("decompression bomb" in entry.reason for entry in batches.unreadable)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(folder):
    """Fails if a pipe with an image's name is opened, which waits for ever."""
    os.mkfifo(folder / "a/pipe.png")
    batches = find_images(folder).batches(values, 10)
    assert len(greys(list(batches))) == 5
    assert batches.unreadable[0].reason == "not a regular file but a pipe"


def test_a_file_is_not_given_to_a_decoder_that_runs_programs(tmp_path):
    """Fails if content decides: a PostScript file named .jpg would be handed to Ghostscript."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(OSError, match="cannot identify"):
        read_rgb(path)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    """Fails if a grey or indexed picture reaches the model with another number of channels."""
    path = picture(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), 255, mode=mode)
    assert values(read_rgb(path)).shape == (3, 5, 7)
    assert int(values(read_rgb(path)).min()) == 255


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    """Fails if a 16-bit grey picture turns white: 0x8000 is half of the range, not above 255."""
    Image.new("I;16", (7, 5), 0x8000).save(tmp_path / "a.png")
    assert set(values(read_rgb(tmp_path / "a.png")).flatten().tolist()) == {128}


def test_a_limit_is_spread_over_all_classes(tmp_path):
    """Fails if the first images are taken: the first class would be all there is."""
    for kind in "abcde":
        for number in range(7):
            picture(tmp_path / kind / f"{number}.png", size=(2, 3))
    batches = find_images(tmp_path).batches(values, 3, limit=5)
    labels = [label for batch in batches for label in batch.labels or []]
    assert sorted(labels) == [0, 1, 2, 3, 4]
    assert batches.n_images == 5
    assert batches.words.startswith("5 of 35 images of 5 classes in ")
    assert batches.words.endswith("evenly spread over their sorted order")


def test_every_batch_holds_all_classes(tmp_path):
    """Fails if batches follow the sorted order: one of a single class gives a norm in train mode that class's statistics."""
    for kind in "abc":
        for number in range(4):
            picture(tmp_path / kind / f"{number}.png", size=(2, 3))
    batches = list(find_images(tmp_path).batches(values, 3))
    assert [sorted(batch.labels or []) for batch in batches] == [[0, 1, 2]] * 4


@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (5, 5), (5, 9), (7, 3), (100, 32), (9, 1)])
def test_mixing_keeps_every_number_and_one_batch_as_it_was(n, batch_size):
    """Fails if a number is lost or doubled, if one batch is turned over, or batches are not as alike as they can be."""
    order = mixed(tuple(range(n)), batch_size)
    assert sorted(order) == list(range(n))
    if batch_size >= n or batch_size == 1:
        assert order == tuple(range(n))
    first = order[: -(-n // -(-n // batch_size))]
    assert np.ptp(np.diff(first)) == 0 if len(first) > 2 else True


@pytest.mark.parametrize("n", [1, 2, 7, 100])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 99, 100, 101, None])
def test_spread_is_distinct_sorted_and_of_the_right_number(n, limit):
    """Fails if rounding picks an image twice or one past the end."""
    picked = spread(n, limit)
    assert list(picked) == sorted(set(picked))
    assert len(picked) == min(n, limit or n)
    assert 0 <= picked[0] <= picked[-1] < n


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_of_nothing_is_refused(limit):
    with pytest.raises(BadImages, match="Give at least 1, or leave it out for all 9"):
        spread(9, limit)


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_shares_make_the_whole(of):
    """Fails if a process reads what another reads, an image is left out, or batches are made otherwise."""
    whole = demo_images().batches(lambda image: torch.zeros(1), 16, 103)
    shares = [whole.share(index, of) for index in range(of)]
    batches = [part.picked[start : start + 16] for part in shares for start in range(0, part.n_images, 16)]
    assert batches == [whole.picked[start : start + 16] for start in range(0, 103, 16)]
    assert sum(map(len, shares)) == len(whole) == 7
    with pytest.raises(
        BadImages, match=r"103 images in 7 batches cannot be shared by 8 processes. Start fewer"
    ):
        whole.share(0, 8)


def test_classes_that_a_limit_leaves_out_are_counted(tmp_path):
    """Fails if a page of two classes of a folder of three looks like one of all three."""
    for name, n in (("a", 4), ("b", 1), ("c", 3)):
        (tmp_path / name).mkdir()
        for i in range(n):
            Image.new("RGB", (4, 4)).save(tmp_path / name / f"{i}.png")
    source = find_images(tmp_path)
    words = [source.batches(lambda image: image, 2, limit).words for limit in (1, 2, 7, None)]
    ends = ["; 2 of its classes are not among them", "; 1 of its classes is not among them"]
    assert [words[0].endswith(ends[0]), words[1].endswith(ends[1])] == [True, True]
    assert not any("not among them" in one for one in words[2:])
    assert "not among" not in replace(source, labels=None).batches(lambda image: image, 2, 1).words


def test_words_count_and_place(folder, tmp_path_factory):
    """Fails if one is counted in the plural, or a folder without classes is said to have some."""
    assert find_images(folder).words == f"5 images of 2 classes in {folder.parent.name}/{folder.name}"
    one = tmp_path_factory.mktemp("one")
    picture(one / "only" / "1.png")
    assert find_images(one).words == f"1 image of 1 class in {one.parent.name}/{one.name}"
    assert find_images(one / "only").words == f"1 image in {one.name}/only"


def test_demo_images_have_the_same_face():
    """Fails if the digits come in another form than a folder's images, or are scaled wrongly."""
    source = demo_images()
    batches = source.batches(values, 100)
    got = list(batches)
    assert len(source) == 360
    assert [len(batch.images) for batch in got] == [100, 100, 100, 60]
    assert {image.shape for batch in got for image in batch.images} == {torch.Size([3, 8, 8])}
    assert max(int(image.max()) for image in got[0].images) == 255
    assert sorted({label for batch in got for label in batch.labels or []}) == list(range(10))
    assert source.words.startswith("360 handwritten digits of 10 classes")
    assert batches.unreadable == []


def test_real_images_are_found():
    data = DATA / "cifar10_jpeg" / "test"
    if not data.is_dir():
        pytest.skip(f"no real images: {data} is absent")
    found = find_images(data)
    assert found.words == "1,000 images of 10 classes in cifar10_jpeg/test"
    assert found.classes[0] == "airplane"
    assert found.classes[-1] == "truck"
