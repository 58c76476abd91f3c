"""Shards worked off by processes: what is killed is begun again, and the result is the same to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bnprobe
from bnprobe.cli.main import _parser, main
from bnprobe.cli.record import _classes, _shards, record_shard
from bnprobe.errors import BnprobeError
from bnprobe.models.image_folder import find_images
from bnprobe.scaling.shards import Shard, work_off

from .conftest import network
from .deaths import dies, dies_once

MODEL = "scaling.conftest:network"


def shards(folder: Path, n: int) -> list[Shard]:
    made = [Shard(folder / str(i), i, n, folder / f"{i}.part") for i in range(n)]
    for shard in made:
        shard.path.mkdir()
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
        BnprobeError, match=rf"recorded one of {two[1].path}\. .*smaller --batch-size .*are kept"
    ):
        work_off(two, dies, workers=1)
    assert two[0].part.read_text() == "done"


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
    three = _shards(options)
    files = [*(shard.part for shard in three), recorded / "out" / "whole.bnp"]
    before = [path.read_bytes() for path in files]
    three[1].part.unlink()
    record_shard(options, _classes(three), three[1])
    assert main(command(recorded)) == 0
    assert [path.read_bytes() for path in files] == before
    out, err = capsys.readouterr()
    assert "3 of 3 shards are recorded already" in err
    assert out == f"recording: {files[-1]} (3 shards, 18 samples)\n"


def test_a_damaged_part_is_named_with_its_folder(recorded, capsys):
    """Fails if the same command stops at a part that was cut, and nothing says how to go on."""
    part = _shards(_parser().parse_args(command(recorded)))[2].part
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
    for change in (["--size", "7"], ["--batch-size", "3"], ["--no-histograms"], ["--layers", "1"]):
        assert main([*command(recorded), *change]) == 2
        assert (
            "holds parts of another list or of other settings (3, the first is 000000-"
            in capsys.readouterr().err
        )


@pytest.mark.parametrize(
    ("lines", "more", "said"),
    [
        ("", [], "lists no shards. Write one folder of images per line."),
        ("# none\n\n", [], "lists no shards"),
        ("a\nnowhere\n", [], "lists nowhere, and there is no such folder"),
        ("a\nb\na\n", [], "lists a 2 times. Leave one of these lines."),
        ("a\n", ["--data", "a"], "--shards names the data, so --data can change nothing"),
        ("\udcff", [], "no text. Give a text file"),
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


def test_a_shard_without_images_is_named(tmp_path):
    """Fails if an empty shard is a part like any other, or the message does not say which it is."""
    options = _parser().parse_args(["record", MODEL, "--shards", "l", "--out", "o", "--size", "8"])
    (tmp_path / "empty").mkdir()
    shard = Shard(tmp_path / "empty", 0, 1, tmp_path / "part")
    with pytest.raises(BnprobeError, match=rf"^shard {shard.path}: no images in"):
        record_shard(options, (), shard)
    assert not shard.part.exists()
