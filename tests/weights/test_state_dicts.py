"""State dicts are found in every kind of file, and nothing else is let in."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from support.checkpoints import STATE, Evil, refused, same
from torch import nn

from bnprobe import models


@pytest.mark.parametrize(
    "saved",
    [
        STATE,
        {"state_dict": STATE, "best_accuracy": torch.tensor(71.2), "epoch": 3},
        {"model": {"state_dict": STATE}, "optimizer": {"state": {0: {"momentum": torch.ones(2)}}}},
        {"model_state_dict": STATE},
        {"net": STATE},
        {"mine": STATE, "optimizer": {"state": {"momentum": torch.ones(2)}}},
        {"ema": STATE, "epoch": 9},
        {"ema_state_dict": STATE},
        {"mine": STATE, "best_accuracy": torch.tensor(71.2)},
        {"model": STATE, "ema": {"conv.weight": torch.zeros(2, 3)}},
        {f"module.{key}": value for key, value in STATE.items()},
        {f"_orig_mod.{key}": value for key, value in STATE.items()},
        {f"module._orig_mod.module.{key}": value for key, value in STATE.items()},
        {"n_averaged": torch.tensor(5)} | {f"module.{key}": value for key, value in STATE.items()},
        {key.replace(".", "._orig_mod."): value for key, value in STATE.items()},
    ],
    ids=lambda saved: ", ".join(saved),
)
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_are_found_and_unwrapped(saved, zipped, tmp_path):
    """Fails if one way of keeping a state dict is not understood, or a stray tensor is taken for one."""
    path = tmp_path / "a.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    assert same(models.load_checkpoint(path), STATE)


def test_a_submodule_called_module_keeps_its_name(tmp_path):
    """Fails if `module.` is taken off although not every name has it."""
    state = {"module.weight": torch.ones(2), "head.weight": torch.ones(3)}
    torch.save(state, tmp_path / "a.pt")
    assert models.load_checkpoint(tmp_path / "a.pt").keys() == state.keys()


def test_safetensors_are_read(tmp_path):
    save_file({f"module.{key}": value for key, value in STATE.items()}, tmp_path / "a.safetensors")
    assert same(models.load_checkpoint(tmp_path / "a.safetensors"), STATE)


def test_pickled_code_is_refused_unrun(tmp_path):
    """Fails if anything is executed while a checkpoint is read."""
    path = tmp_path / "a.pt"
    torch.save({"state_dict": STATE, "more": Evil(tmp_path / "ran")}, path)
    refused(path, r"asks to run \w+\.mkdir, so it was not loaded.*torch\.save\(model\.state_dict\(\), FILE\)")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: {"model": model, "epoch": 3}])
def test_whole_modules_are_refused_with_how_to_save(wrap, tmp_path):
    torch.save(wrap(nn.BatchNorm2d(3)), tmp_path / "a.pt")
    said = refused(
        tmp_path / "a.pt", r"object of the class torch\.\S*\.BatchNorm2d, as torch\.save\(model, FILE\)"
    )
    assert said.endswith("run torch.save(model.state_dict(), FILE) and use that file.")


def test_whole_modules_allowed_by_the_user_are_refused_too(tmp_path):
    """Fails if a module that the user's program allowed to unpickle is taken for an empty dict."""
    torch.save(nn.Identity(), tmp_path / "a.pt")
    with torch.serialization.safe_globals([nn.Identity, set]):
        refused(tmp_path / "a.pt", r"whole module.*torch\.save")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello world " * 99, b"\xff" * 999, b"PK\x03\x04"])
def test_garbage_is_refused(name, content, tmp_path):
    """Fails if some damage escapes as another error than ours."""
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "not a whole checkpoint.*Copy or download it again")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files_are_refused(kind, share, tmp_path):
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pt")
    big = {"weight": torch.rand(99, 99)}
    if kind == "safetensors":
        save_file(big, path)
    else:
        torch.save(big, path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(path, "cut short.*Copy or download it again")


def test_missing_file_and_folder_are_named(tmp_path):
    refused(tmp_path / "gone.pt", "no checkpoint .*Check the path")
    refused(tmp_path, "is a folder without a checkpoint. Give the checkpoint file inside it")


@pytest.mark.parametrize(
    ("saved", "match"),
    [
        ({"epoch": 3, "loss": 0.5}, r"no state dict \(it has: epoch, loss\).*torch\.save"),
        ({}, r"no state dict \(it has: nothing\)"),
        ([1, 2], r"no state dict \(it has: list\)"),
        (
            {"generator": STATE, "critic": STATE},
            r"several state dicts \(it has: generator, critic\).*torch\.save",
        ),
    ],
)
def test_files_without_one_state_dict_say_what_they_hold(saved, match, tmp_path):
    torch.save(saved, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", match)


@pytest.mark.parametrize(("depth", "found"), [(6, True), (7, False)])
def test_state_dicts_are_looked_for_six_levels_deep(depth, found, tmp_path):
    """Fails if a file that nests without end is searched for long, or a training framework's levels are too many."""
    saved = dict(STATE)
    for level in range(depth):
        saved = {f"part{level}": saved}
    torch.save(saved, tmp_path / "c.pt")
    if found:
        assert same(models.load_checkpoint(tmp_path / "c.pt"), STATE)
    else:
        refused(tmp_path / "c.pt", "no state dict")
