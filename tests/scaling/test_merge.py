"""Parts in files made one: the sums of one run, the same file from any number of processes, one line for what is no part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import bnprobe
from bnprobe.cli.main import main
from bnprobe.errors import BnprobeError, CannotMerge
from bnprobe.recording import Source
from bnprobe.scaling.merge import merge_files, part_files

from .conftest import Recorded, batch, network


@pytest.fixture
def files(part: Recorded, tmp_path: Path) -> list[Path]:
    """Eleven parts of unlike sizes, saved."""
    return [part(seed, 2 + seed % 3).save(tmp_path / f"part-{seed:02}.bnp") for seed in range(11)]


def test_parts_make_what_one_run_makes(files):
    """Fails if a part is left out, counted twice or weighed otherwise than by its number of values."""
    whole = merge_files(files)
    at_once = bnprobe.record(network(), [batch(seed, 2 + seed % 3) for seed in range(11)])
    assert whole.about.n_images == at_once.about.n_images == sum(2 + seed % 3 for seed in range(11))
    for mine, theirs in zip(whole.layers, at_once.layers, strict=True):
        for name in ("n", "low", "high"):
            np.testing.assert_array_equal(getattr(mine.pre, name), getattr(theirs.pre, name))
        np.testing.assert_array_equal(mine.n_positive, theirs.n_positive)
        for name in ("mean", "m2", "m3", "m4"):
            np.testing.assert_allclose(
                getattr(mine.pre, name), getattr(theirs.pre, name), rtol=1e-12, atol=1e-12
            )
        np.testing.assert_allclose(mine.pre_folds.n, theirs.pre_folds.n)
    assert [source.name for source in whole.sources] == [path.name for path in files]


def test_the_number_of_workers_changes_no_bit(files, tmp_path):
    """Fails if the order of merging depends on how the work is shared."""
    one = merge_files(files).save(tmp_path / "one")
    two = merge_files(files, workers=2).save(tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()


def test_the_same_samples_twice_are_refused(files, tmp_path):
    """Fails if a copy, or a shard that was recorded once more, is counted twice: alone, or inside a whole."""
    copy = bnprobe.load(files[3]).save(tmp_path / "copy.bnp")
    again = bnprobe.record(network(), [batch(3, 2)]).save(tmp_path / "again.bnp")
    for other in (copy, again):
        with pytest.raises(
            CannotMerge, match=rf"part-03.bnp and {other.name} hold the same samples.*Leave one"
        ):
            merge_files([*files, other])
    whole = merge_files(files[:5]).save(tmp_path / "whole.bnp")
    with pytest.raises(CannotMerge, match=r"whole.bnp and part-03.bnp hold the same samples"):
        merge_files([whole, *files[3:]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"histograms": False}, "histograms differ"),
        ({"layers": "1"}, "recorded norms differ"),
        ({"unit": "clips"}, "units differ"),
        ({"normalize": ([0.5] * 3, [0.2] * 3)}, "constants of normalization differ"),
        ({"preprocessing": "resized"}, "preprocessings differ"),
        ({"loss": lambda out, y: out.sum()}, "gradients differ"),
    ],
)
def test_other_settings_are_refused(part, tmp_path, change, said):
    """Fails if a part is merged that was recorded otherwise, so that some of its numbers mean another thing."""
    a, b = part(1).save(tmp_path / "a.bnp"), part(2, **change).save(tmp_path / "b.bnp")
    with pytest.raises(CannotMerge, match=rf"^a.bnp and b.bnp: {said} .*same settings"):
        merge_files([a, b])


def test_other_modes_and_weights_are_refused(part, tmp_path):
    """Fails if a part of another checkpoint, or in train mode, is added, or the files are not named."""
    a = part(1).save(tmp_path / "a.bnp")
    b = bnprobe.record(network().train(), [batch(2)]).save(tmp_path / "b.bnp")
    with pytest.raises(CannotMerge, match=r"^a.bnp and b.bnp: modes differ \(eval; train\)"):
        merge_files([a, b])
    b = bnprobe.record(network(5), [batch(2)]).save(tmp_path / "b.bnp")
    with pytest.raises(CannotMerge, match=r"^a.bnp and b.bnp: 1: running_mean differs .*same checkpoint"):
        merge_files([a, b])


def test_other_weights_than_those_of_norms_are_refused(part, tmp_path):
    """Fails if two networks are added whose norms are alike, as those that nobody trained are."""
    a = part(1).save(tmp_path / "a.bnp")
    other = network()
    with torch.no_grad():
        other[0].weight.mul_(3)
    b = bnprobe.record(other, [batch(2)]).save(tmp_path / "b.bnp")
    with pytest.raises(
        CannotMerge, match=r"weights differ \(1 tensor, the first is 0.weight\).*same checkpoint"
    ):
        merge_files([a, b])


def test_of_ranks_other_weights_are_not_compared_and_of_training_they_are_noted(part):
    """Fails if a sharded network, or frozen norms of one that is trained, cannot be merged."""
    other = network()
    with torch.no_grad():
        other[0].weight.mul_(3)
    moved = bnprobe.record(other, [batch(2)])
    first, second = (
        replace(recording, sources=(Source.rank(i, 2),)) for i, recording in enumerate((part(1), moved))
    )
    assert first.merge(second).about.notes == first.about.notes
    trained = replace(moved, layers=tuple(replace(record, n_calls_training=1) for record in moved.layers))
    assert "trained in between" in " ".join(part(1).merge(trained).about.notes)


def test_an_output_that_exists_is_kept(files, tmp_path, capsys):
    """Fails if a forgotten output, which makes the first part one, costs that part."""
    before = files[0].read_bytes()
    assert main(["merge", "-o", *map(str, files)]) == 2
    assert "exists, and merge replaces no file" in capsys.readouterr().err
    assert files[0].read_bytes() == before


def test_missing_parts_are_said(part):
    """Fails if a whole does not know that a rank is not in it, or still misses one that came later."""
    ranks = [replace(part(seed), sources=(Source.rank(seed, 4),)) for seed in range(4)]
    some = ranks[0].merge(ranks[2])
    assert some.missing == "Of 4 ranks 2 are missing: 1, 3, counted from 0."
    assert ("parts", f"merged from 2. {some.missing}") in provenance(some)
    assert some.merge(ranks[1]).missing == "Of 4 ranks 1 is missing: 3, counted from 0."
    assert not some.merge(ranks[1]).merge(ranks[3]).missing
    assert not part(5).merge(part(6)).missing


def provenance(recording):
    from bnprobe.report.chapters.provenance import provenance

    return provenance(recording)


def test_a_part_that_saw_nothing_is_a_part(part, tmp_path):
    """Fails if a rank without data cannot be merged, or two of them are called the same samples."""
    with bnprobe.attach(network()) as probe:
        pass
    empty = [probe.recording.save(tmp_path / f"empty{i}.bnp") for i in range(2)]
    full = part(1).save(tmp_path / "full.bnp")
    whole = merge_files([*empty, full])
    assert whole.about.n_images == 4
    assert len(whole.sources) == 3


def test_sources_are_saved(files, tmp_path):
    """Fails if a whole that was saved no longer knows whose samples it holds."""
    whole = merge_files(files[:3])
    assert len(whole.sources) == 3
    assert bnprobe.load(whole.save(tmp_path / "whole.bnp")).sources == whole.sources
    assert all(len(source.samples) == 32 for source in whole.sources)


# The command


def test_the_command(files, tmp_path, monkeypatch, capsys):
    """Fails if a folder of parts cannot be merged and shown, or the command does not say what it wrote."""
    monkeypatch.chdir(tmp_path)
    assert main(["merge", str(tmp_path), "-o", "all/whole.bnp"]) == 0
    out, err = capsys.readouterr()
    assert out == f"recording: {Path('all/whole.bnp')} (11 parts, 32 samples)\n"
    assert not err
    assert len(bnprobe.load("all/whole.bnp").sources) == 11


def test_the_command_says_what_is_missing(part, tmp_path, capsys):
    """Fails if a rank that was lost is lost in silence."""
    for rank in (0, 1, 3):
        replace(part(rank), sources=(Source.rank(rank, 4),)).save(tmp_path / f"rank{rank}.bnp")
    assert main(["merge", str(tmp_path), "-o", str(tmp_path / "whole")]) == 0
    assert capsys.readouterr().err == "bnprobe: Of 4 ranks 1 is missing: 2, counted from 0.\n"


def bad_inputs(folder: Path) -> dict[str, tuple[list[str], str]]:
    part = str(folder / "part-00.bnp")
    (folder / "none").mkdir()
    (folder / "cut.bnp").write_bytes(Path(part).read_bytes()[:-9])
    torch.save({"a": torch.ones(3)}, folder / "weights.pt")
    return {
        "nothing in it": ([str(folder / "none"), "-o", "w"], "no recordings (*.bnp) in this folder"),
        "not there": ([part, str(folder / "nowhere.bnp"), "-o", "w"], "no such file"),
        "cut": ([part, str(folder / "cut.bnp"), "-o", "w"], "cut.bnp: truncated"),
        "weights": ([part, str(folder / "weights.pt"), "-o", "w"], "If it is a checkpoint: bnprobe.check("),
        "output is input": ([part, "-o", part], "is what is read, and would be replaced"),
        "no output": ([part], "the following arguments are required: -o/--out"),
        "no workers": ([part, "-o", "w", "--workers", "0"], "'0' is not a whole number of at least 1"),
    }


def test_bad_input_is_one_line(files, tmp_path, monkeypatch, capsys):
    """Fails if bad input is a traceback, is written over, or leaves a file behind."""
    monkeypatch.chdir(tmp_path)
    before = files[0].read_bytes()
    for name, (arguments, said) in bad_inputs(tmp_path).items():
        assert main(["merge", *arguments]) == 2, name
        err = capsys.readouterr().err
        assert said in err, name
        assert err.count("\n") == 1, name
    assert files[0].read_bytes() == before
    assert not Path("w").exists()


def test_files_of_folders(tmp_path):
    """Fails if other files of a folder, or hidden ones, are taken for parts."""
    for name in ("b.bnp", "a.bnp", ".c.bnp", "page.html"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in part_files([tmp_path])] == ["a.bnp", "b.bnp"]
    (tmp_path / "folder.bnp").mkdir()
    with pytest.raises(BnprobeError, match="no recordings"):
        part_files([tmp_path / "folder.bnp"])


def test_a_worker_that_is_killed_is_a_line():
    """Fails if the end of a process, as by a machine without RAM, is a traceback of a pool."""
    from concurrent.futures.process import BrokenProcessPool

    from bnprobe.scaling.processes import processes

    with pytest.raises(BnprobeError, match=r"ended from outside.*with fewer --workers"), processes(1):
        raise BrokenProcessPool("as a pool does")
