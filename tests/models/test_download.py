"""torchvision's own files: in the cache, missing, foreign, damaged."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torchvision
from support.checkpoints import Evil, same

from bnprobe import models
from bnprobe.errors import BadCheckpoint

from .specimens import changed_weights, put_in_cache, raised


@pytest.mark.parametrize(
    "weights", ["DEFAULT", "IMAGENET1K_V1", "imagenet1k_v1", "ResNet18_Weights.IMAGENET1K_V1"]
)
def test_weights_load_by_torchvisions_own_code(weights):
    """Fails if named weights are not those of the file in torch's cache."""
    state = changed_weights(torchvision.models.resnet18())
    file = put_in_cache("resnet18", state)
    subject = models.subject("resnet18", weights=weights)
    assert same(subject.model.state_dict(), state)
    assert not subject.model.training
    assert subject.weights.startswith(f"IMAGENET1K_V1 from {file.name}, sha256 ")


def test_missing_weights_name_the_file_and_the_ways_round(capsys):
    """Fails if being offline gives a traceback, a progress bar, or no way out."""
    said = raised(
        BadCheckpoint, "by hand.*--checkpoint FILE.*leave out --weights", "resnet50", weights="DEFAULT"
    )
    assert "resnet50-11ad3fa6.pth" in said
    assert str(Path(torch.hub.get_dir(), "checkpoints")) in said
    assert "no route to host" in said
    assert capsys.readouterr() == ("", "")
    assert list(Path(torch.hub.get_dir(), "checkpoints").iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_cached_weights_that_run_code_are_refused(tmp_path, monkeypatch):
    """Fails if torchvision's loading unpickles what lies in the cache, as it does by itself."""
    put_in_cache("resnet18", Evil(tmp_path / "ran"))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    raised(BadCheckpoint, "asks to run .*not loaded", "resnet18", weights="DEFAULT")
    assert not (tmp_path / "ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_cached_weights_cut_short_are_refused():
    file = put_in_cache("resnet18", torchvision.models.resnet18().state_dict())
    file.write_bytes(file.read_bytes()[:10_000])
    raised(BadCheckpoint, "cut short.*Copy or download it again", "resnet18", weights="DEFAULT")


def test_cached_weights_of_another_model_are_refused():
    put_in_cache("resnet18", torchvision.models.squeezenet1_1().state_dict())
    raised(BadCheckpoint, "does not fit.*Delete it", "resnet18", weights="DEFAULT")
