"""Shards worked off by processes: what is killed is begun again, and the result is the same to the bit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models.shards import png, samples, tar
from PIL import Image
from support.paths import ROOT

import bnprobe
from bnprobe.cli.main import _parser, main
from bnprobe.cli.record import SETTINGS, record_shard
from bnprobe.cli.shard_list import classes_of, shards_of
from bnprobe.errors import BnprobeError
from bnprobe.models.image_folder import find_images
from bnprobe.scaling import shards as shards_module
from bnprobe.scaling.shards import Shard, work_off

from .conftest import network
from .deaths import dies, dies_once, sticks_once

MODEL = "scaling.conftest:network"


def shards(folder: Path, n: int) -> list[Shard]:
    made = [Shard(str(folder / str(i)), i, n, folder / f"{i}.part") for i in range(n)]
    for shard in made:
        Path(shard.place).mkdir()
    return made


def test_what_is_killed_is_begun_again(tmp_path, capsys):
    """Fails if a process that is killed takes its shard, or those of others, with it, or what is done is done again."""
    four = shards(tmp_path, 4)
    four[3].part.write_text("before")
    work_off(four, dies_once, workers=2)
    assert [shard.part.read_text() for shard in four] == ["0 of 4", "1 of 4", "2 of 4", "before"]
    assert "a worker process was ended from outside; its shard is begun again" in capsys.readouterr().err


def test_a_shard_that_kills_every_process_is_named(tmp_path):
    """Fails if a shard that does not fit into RAM is tried for ever, or what was finished is lost."""
    two = shards(tmp_path, 2)
    with pytest.raises(
        BnprobeError, match=rf"recorded one of {two[1].place}\. .*smaller --batch-size .*are kept"
    ):
        work_off(two, dies, workers=1)
    assert two[0].part.read_text() == "done"


def test_a_worker_that_hangs_is_not_waited_for(tmp_path, monkeypatch):
    """Fails if one slow machine, or a file system that does not answer, keeps everything waiting."""
    monkeypatch.setattr(shards_module, "LOOK", 0.05)
    three = shards(tmp_path, 3)
    started = time.monotonic()
    work_off(three, sticks_once, workers=2)
    assert time.monotonic() - started < 60
    assert all(shard.is_done for shard in three)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
def test_workers_end_with_their_parent(tmp_path):
    """Fails if the workers of a command that is killed are left, with all their RAM."""
    code = (
        "from scaling.deaths import one_shard, says_who_and_waits\n"
        "from bnprobe.scaling.shards import work_off\n"
        "if __name__ == '__main__':\n"
        f"    work_off([one_shard({str(tmp_path)!r})], says_who_and_waits, 1)\n"
    )
    (tmp_path / "parent.py").write_text(code)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], env={**os.environ, "PYTHONPATH": path}
    )
    written = tmp_path / "0" / "pid"
    wait_until(lambda: written.exists() and written.read_text() != "")
    parent.kill()
    parent.wait()
    wait_until(lambda: not Path(f"/proc/{written.read_text()}").exists())


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# The command


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folders of images, whose classes are not the same ones, recorded by two processes."""
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(7)
    for shard, classes in (("a", "xy"), ("b", "yz"), ("c", "xz")):
        for name in classes:
            (folder / shard / name).mkdir(parents=True)
            for i in range(2 + len(shard)):
                pixels = rng.integers(0, 255, (9, 11, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / shard / name / f"{i}.png")
    (folder / "list.txt").write_text("# three\n" + "".join(f"{folder / name}\n" for name in "abc"))
    assert main([*command(folder), "--workers", "2"]) == 0
    return folder


def command(folder: Path, out: str = "out") -> list[str]:
    shared = ["--shards", str(folder / "list.txt"), "--out", str(folder / out)]
    return ["record", MODEL, *shared, "--size", "8", "--batch-size", "4"]


def test_shards_make_what_one_run_makes(recorded):
    """Fails if a shard is left out or read twice, or a class has another number in another shard."""
    from bnprobe.models import subject

    whole = bnprobe.load(recorded / "out" / "whole.bnp")
    preprocess = subject(MODEL, size=8).preprocess
    batches = []
    for name in "abc":
        images = find_images(recorded / name)
        number = ["xyz".index(one) for one in images.classes]
        for batch in images.batches(preprocess, 4):
            labels = torch.tensor([number[label] for label in batch.labels or []])
            batches.append((torch.stack(batch.images), labels))
    at_once = bnprobe.record(network(), batches)
    assert whole.about.n_images == at_once.about.n_images == 18
    for mine, theirs in zip(whole.layers, at_once.layers, strict=True):
        np.testing.assert_array_equal(mine.pre.n, theirs.pre.n)
        np.testing.assert_array_equal(mine.pre.low, theirs.pre.low)
        np.testing.assert_allclose(mine.pre.mean, theirs.pre.mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(mine.pre.m2, theirs.pre.m2, rtol=1e-12)
        assert mine.classes is not None
        assert theirs.classes is not None
        np.testing.assert_array_equal(mine.classes.labels, [0, 1, 2])
        np.testing.assert_allclose(mine.classes.n, theirs.classes.n)
    assert not whole.missing
    assert [source.name for source in whole.sources] == [str(recorded / name) for name in "abc"]


def test_a_lost_part_is_recorded_again_to_the_last_bit(recorded, capsys):
    """Fails if a part depends on the process or the time, or a second run records what is there."""
    options = _parser().parse_args(command(recorded))
    three = shards_of(options, SETTINGS)
    files = [*(shard.part for shard in three), recorded / "out" / "whole.bnp"]
    before = [path.read_bytes() for path in files]
    three[1].part.unlink()
    record_shard(options, classes_of(three), three[1])
    assert main(command(recorded)) == 0
    assert [path.read_bytes() for path in files] == before
    out, err = capsys.readouterr()
    assert "3 of 3 shards are recorded already" in err
    assert out == f"recording: {files[-1]} (3 shards, 18 samples)\n"


def test_a_damaged_part_is_named_with_its_folder(recorded, capsys):
    """Fails if the same command stops at a part that was cut, and nothing says how to go on."""
    part = shards_of(_parser().parse_args(command(recorded)), SETTINGS)[2].part
    whole = part.read_bytes()
    part.write_bytes(whole[:5000])
    try:
        assert main(command(recorded)) == 2
    finally:
        part.write_bytes(whole)
    said = capsys.readouterr().err
    assert f"{part.name}: truncated" in said
    assert (
        f"Remove that part from {part.parent}, and run the command again: its shard is recorded again."
        in said
    )


def test_parts_of_other_settings_are_not_mixed_in(recorded, capsys):
    """Fails if a part of another size, batch size or list is merged, or recorded over."""
    for change in (
        ["--size", "7"],
        ["--batch-size", "3"],
        ["--no-histograms"],
        ["--layers", "1"],
        ["--label-field", "none"],
    ):
        assert main([*command(recorded), *change]) == 2
        assert (
            "holds parts of another list or of other settings (3, the first is 000000-"
            in capsys.readouterr().err
        )


@pytest.mark.parametrize(
    ("lines", "more", "said"),
    [
        ("", [], "lists no shards. Write one folder, .tar or .parquet file per line."),
        ("# none\n\n", [], "lists no shards"),
        (
            "a\nnowhere\n",
            [],
            "lists nowhere: there is no such folder and no such regular file. Correct the list.",
        ),
        ("a\nb\na\n", [], "lists a 2 times. Leave one of these lines."),
        ("a\n", ["--data", "a"], "--shards names the data, so --data can change nothing"),
        ("\udcff", [], "no text. Give a text file"),
        ("list\n", [], "lists list: a shard is a folder, a .tar or a .parquet file"),
        ("ssh://host/a.tar\n", [], "lists ssh://host/a.tar: no address of http, https"),
        ("memory://me:word@b.zip?secret\n", [], "lists memory://b.zip: a shard is a folder"),
        ("memory://a.tar\na\n", [], "lists shards of several kinds (.tar, folder)"),
    ],
)
def test_bad_input_is_one_line(lines, more, said, tmp_path, monkeypatch, capsys):
    """Fails if a list that cannot be recorded is a traceback, or begins work that must fail."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        Path(name).mkdir()
    Path("list").write_bytes(lines.encode(errors="surrogateescape"))
    assert main(["record", MODEL, "--shards", "list", "--out", "out", *more]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(
    "put",
    [
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to(os.devnull),
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["pipe", "folder", "null device", "link to nothing"],
)
def test_what_is_no_file_in_the_place_of_a_part(put, tmp_path, monkeypatch, capsys):
    """Fails if it is found out after all shards were recorded, or, as nothing ever lies in the null device, never."""
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    Path("list").write_text("a\n")
    given = ["record", MODEL, "--shards", "list", "--out", "out"]
    (shard,) = shards_of(_parser().parse_args(given), SETTINGS)
    shard.part.parent.mkdir(parents=True)
    put(shard.part)
    assert main(given) == 2
    err = capsys.readouterr().err
    assert f"{shard.part} is there, and no regular file" in err
    assert err.count("\n") == 1
    assert list(shard.part.parent.iterdir()) == [shard.part]


def test_a_shard_without_images_is_named(tmp_path):
    """Fails if an empty shard is a part like any other, or the message does not say which it is."""
    options = _parser().parse_args(["record", MODEL, "--shards", "l", "--out", "o", "--size", "8"])
    (tmp_path / "empty").mkdir()
    shard = Shard(str(tmp_path / "empty"), 0, 1, tmp_path / "part")
    with pytest.raises(BnprobeError, match=rf"^shard {shard.place}: no images in"):
        record_shard(options, (), shard)
    assert not shard.part.exists()


# Files


def recorded_alone(place: str, folder: Path, *more: str) -> bnprobe.Recording:
    """The recording of one shard, made here."""
    options = _parser().parse_args(
        ["record", MODEL, "--shards", "list", "--out", "o", "--size", "8", "--batch-size", "4", *more]
    )
    shard = Shard(place, 0, 1, folder / "part.bnp")
    record_shard(options, classes_of([shard]), shard)
    return bnprobe.load(shard.part)


def test_a_tar_and_a_parquet_file_are_the_folder_of_their_images(tmp_path):
    """Fails if the images of a file are read in another order, prepared otherwise, or numbered as other classes."""
    fsspec = pytest.importorskip("fsspec", reason="it comes with torch")
    for seed in range(10):
        (tmp_path / "f" / str(seed % 3)).mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / str(seed % 3) / f"{seed:06}.png").write_bytes(png(seed))
    by_class = sorted(range(10), key=lambda seed: (seed % 3, seed))
    members: dict[str, bytes] = {}
    for seed in by_class:
        members |= samples(range(seed, seed + 1))
    content = tar(tmp_path / "a.tar", members).read_bytes()
    fsspec.filesystem("memory").pipe("/a.tar", content)
    expected = recorded_alone(str(tmp_path / "f"), tmp_path)
    found = [recorded_alone(str(tmp_path / "a.tar"), tmp_path), recorded_alone("memory://a.tar", tmp_path)]
    with suppress(ImportError):
        from pyarrow import Table, parquet

        columns = {"image": [png(seed) for seed in by_class], "label": [seed % 3 for seed in by_class]}
        parquet.write_table(Table.from_pydict(columns), tmp_path / "a.parquet")
        found.append(recorded_alone(str(tmp_path / "a.parquet"), tmp_path))
    for one in found:
        assert replace(one, sources=()).to_bytes() == replace(expected, sources=()).to_bytes()
    assert found[1].sources[0].name == "memory://a.tar"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("cut.tar", "truncated, or no tar file"),
        (
            "memory://me:secret@gone.tar?token=secret",
            "memory://gone.tar: not found there. Correct the list",
        ),
        ("broken.tar", "none of 2 images in broken.tar could be read; the first is 1.png"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_line_and_no_part(place, said, tmp_path, monkeypatch):
    """Fails if a shard that is gone or damaged is left out in silence, or its line does not name it."""
    monkeypatch.chdir(tmp_path)
    Path("cut.tar").write_bytes(tar(tmp_path / "a.tar", samples(range(3))).read_bytes()[:5000])
    tar(tmp_path / "broken.tar", {"1.png": png(1)[:50], "2.png": b"x"})
    with pytest.raises(BnprobeError, match=rf"^shard .*{said}") as error:
        recorded_alone(place, tmp_path)
    assert "secret" not in str(error.value)
    assert not (tmp_path / "part.bnp").exists()


def test_exemplars_of_a_file_are_named_by_it(tmp_path):
    """Fails if an exemplar in a tar cannot be told from that of another, or is another one when it is recorded again."""
    path = tar(tmp_path / "a.tar", samples(range(6)))
    first, again = (recorded_alone(str(path), tmp_path, "--exemplars", "2") for _ in range(2))
    assert first.to_bytes() == again.to_bytes()
    assert first.samples is not None
    assert {Path(caption).parent for caption in first.samples.captions} == {path}
