"""A run that is continued is the run that was not stopped; other files are refused and left as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import bnprobe
from bnprobe.errors import BadRecordingFile
from tests.experiments.synthesize.small import NORMALIZE, SHAPE, trained


def make(path: Path | None, fails_in: int = -1, **options: Any) -> bnprobe.Made:
    model = trained(**options.pop("network", {}))
    model.fails_in[:] = [fails_in, 1]
    given = {"steps": 8, "shape": SHAPE, "normalize": NORMALIZE, **options}
    return bnprobe.synthesize(model, n=6, state=path, **given)


@pytest.mark.parametrize("stops", [12, 19, 26])
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, stops: int) -> None:
    """Fails if a step, an average of Adam, its age or a random number is not as without the stop, to the last bit."""
    path = tmp_path / "run.safetensors"
    stopped = make(path, fails_in=stops)
    assert stopped.interrupted
    assert "the same call goes on from run.safetensors" in stopped.notes[0]
    went_on, whole = make(path), make(None)
    assert torch.equal(went_on.images, whole.images)
    assert went_on.table.drop(columns="seconds").equals(whole.table.drop(columns="seconds"))


def test_a_finished_run_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    first = make(path)
    second = make(path)
    assert torch.equal(second.images, first.images)
    assert second.table["seconds"].iloc[0] == first.table["seconds"].iloc[0]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"seed": 1}, "seed"),
        ({"steps": 9}, "steps"),
        ({"targets": [0]}, "targets"),
        ({"normalize": None}, "normalize"),
        ({"network": {"seed": 3}}, "model"),
    ],
)
def test_the_state_of_another_run_is_refused(tmp_path: Path, options: dict[str, Any], what: str) -> None:
    path = tmp_path / "run.safetensors"
    make(path)
    before = path.read_bytes()
    with pytest.raises(BadRecordingFile, match=f"differs in {what}"):
        make(path, **options)
    assert path.read_bytes() == before


def test_other_files_are_refused_and_left(tmp_path: Path) -> None:
    checkpoint, text, cut = (tmp_path / name for name in ("a.safetensors", "a.txt", "cut.safetensors"))
    save_file({"weight": torch.ones(3)}, checkpoint)
    text.write_text("mine")
    make(cut)
    cut.write_bytes(cut.read_bytes()[:-40])
    for path in (checkpoint, text, cut, tmp_path):
        before = None if path.is_dir() else path.read_bytes()
        with pytest.raises(BadRecordingFile, match="Name another"):
            make(path)
        assert before is None or path.read_bytes() == before


def test_a_state_that_cannot_be_written_is_refused_before_minutes_of_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(bnprobe.CannotWrite, match="Choose another path"):
        make(tmp_path / "file" / "run.safetensors", fails_in=1)


def test_tensors_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    make(path, controls=False)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["statistics and classes/mean"] = torch.ones(2)
    save_file(tensors, path, metadata)
    with pytest.raises(BadRecordingFile, match="does not fit together"):
        make(path)
