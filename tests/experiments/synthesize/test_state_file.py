"""A run that is continued is the run that was not stopped; other files are refused and left as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import bnprobe
from bnprobe.errors import BadRecordingFile
from bnprobe.experiments.synthesize.state_file import PARTS
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


NAME = "statistics and classes"
NUMBERS = 3 * (8 * 8 + 4 * 4 + 2 * 2)
"""Of one image."""


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """What the file of a run holds."""
    path = tmp_path_factory.mktemp("state") / "run.safetensors"
    make(path, controls=False)
    with safe_open(path, "pt") as file:
        return load_file(path), file.metadata()


FORGED = {
    "another shape": ({"mean": torch.ones(2)}, {}, "does not fit together"),
    "all of another shape": (dict.fromkeys(PARTS, torch.ones(6, 3 * 4 * 4)), {}, "does not fit together"),
    "wide ones": (dict.fromkeys(PARTS, torch.ones(6, 99 * NUMBERS)), {}, "does not fit together"),
    "another type": ({"values": torch.ones(6, NUMBERS, dtype=torch.float64)}, {}, "does not fit together"),
    "no numbers": ({"square": torch.full((6, NUMBERS), torch.inf)}, {}, "not finite"),
    "settings in brackets": ({}, {"settings": "[" * 100_000}, "nested too deep"),
    "settings that are none": ({}, {"settings": "[]"}, "no table"),
    "no settings": ({}, {"settings": ""}, "no state of such a run"),
    "steps that are none": ({}, {"done": "[1]"}, "no table"),
    **{
        f"steps {words}": ({}, {"done": f'{{"{name}": {words}}}'}, "what it says of its steps cannot be")
        for name, words in (
            (NAME, "null"),
            (NAME, "[8, 1.0]"),
            (NAME, "[9, 1.0, 4]"),
            (NAME, "[8, 1.0, 9]"),
            (NAME, "[-1, 1.0, -1]"),
            (NAME, "[8, NaN, 4]"),
            (NAME, f"[8, 1{'0' * 400}, 4]"),
            ("\\u001b[2J", "[8, 1.0, 4]"),
        )
    },
}


@pytest.mark.parametrize("name", FORGED)
def test_a_state_that_no_run_wrote_is_refused(tmp_path: Path, held: Any, name: str) -> None:
    """Fails if what a file says of a run is believed, or a traceback is what comes of it."""
    (tensors, metadata), (parts, said, reason) = held, FORGED[name]
    path = tmp_path / "run.safetensors"
    tensors = {**tensors, **{f"{NAME}/{part}": tensor for part, tensor in parts.items()}}
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path, {**metadata, **said})
    with pytest.raises(BadRecordingFile, match=reason):
        make(path, controls=False)


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    """Fails if a name that is too long, or has a zero byte, is an error of the system."""
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(bnprobe.CannotWrite, match="Choose another path"):
            make(tmp_path / name)
