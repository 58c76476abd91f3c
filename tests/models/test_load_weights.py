"""Every tensor of a checkpoint and of its model is accounted for, and the file is named by its hash."""

from __future__ import annotations

import hashlib

import pytest
import torch
import torchvision
from support.checkpoints import same
from torch import nn

from bnprobe import models
from bnprobe.errors import BadCheckpoint

from .specimens import LINEAR, TINY, changed_weights, put_in_cache, raised


def test_checkpoint_fits_and_says_where_it_is_from(tmp_path):
    """Fails if a checkpoint's numbers do not all arrive; num_batches_tracked may be absent (before torch 0.4.1)."""
    path = tmp_path / "mine.pt"
    state = changed_weights(models.subject(TINY).model)
    torch.save({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, path)
    subject = models.subject(TINY, checkpoint=path)
    assert same(subject.model.state_dict(), state)
    assert (
        subject.weights == f"checkpoint mine.pt, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:8]}…"
    )


def test_provenance_is_the_files_own_hash():
    """Fails if the hash in the file's name is repeated without looking at the file."""
    file = put_in_cache("resnet18", torchvision.models.resnet18().state_dict())
    words = models.subject("resnet18", weights="DEFAULT").weights
    assert hashlib.sha256(file.read_bytes()).hexdigest()[:8] in words
    assert words.endswith("(does not match the hash in its name)")


def test_checkpoint_that_does_not_fit_lists_what_differs(tmp_path):
    """Fails if a wrong architecture loads in part, or the message leaves one of three kinds of misfit out."""
    state = torchvision.models.resnet18(num_classes=7).state_dict()
    state["head.weight"] = state.pop("bn1.weight")
    torch.save(state, tmp_path / "a.pt")
    said = raised(BadCheckpoint, "does not fit torchvision resnet18.*Name the model that was saved", "resnet18",
                  checkpoint=tmp_path / "a.pt")  # fmt: skip
    assert "1 missing (bn1.weight)" in said
    assert "1 unexpected (head.weight)" in said
    assert "2 of another shape (fc.weight: (7, 512) in the file, (1000, 512) in the model" in said


@pytest.mark.parametrize(
    ("without", "extra", "match"),
    [
        ("fc.bias", None, r"resnet18: 1 missing \(fc\.bias\)\."),
        (None, "more", r"resnet18: 1 unexpected \(more\)\."),
    ],
)
def test_one_misfit_of_one_kind_is_enough(without, extra, match, tmp_path):
    """Fails if a checkpoint that only lacks, or only adds, a tensor is taken."""
    state = torchvision.models.resnet18().state_dict() | ({extra: torch.ones(2)} if extra else {})
    state.pop(without, None)
    torch.save(state, tmp_path / "a.pt")
    raised(BadCheckpoint, match, "resnet18", checkpoint=tmp_path / "a.pt")


def test_another_number_of_classes_is_enough(tmp_path):
    """Fails if tensors of another shape are dropped in silence, leaving random numbers in their place."""
    torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), tmp_path / "a.pt")
    raised(BadCheckpoint, "resnet18: 2 of another shape", "resnet18", checkpoint=tmp_path / "a.pt")


def test_long_lists_of_misfits_are_cut(tmp_path):
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "a.pt")
    said = raised(
        BadCheckpoint, r"unexpected \([^,]*, [^,]*, [^,]*, \.\.\.\)", "resnet18", checkpoint=tmp_path / "a.pt"
    )
    assert len(said) < 400


def test_lightnings_outer_name_is_peeled(own, tmp_path):
    """Fails if checkpoints of wrappers that keep the network as `self.model` do not load."""
    name = own(LINEAR)
    state = changed_weights(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)))
    torch.save({"state_dict": {f"model.{key}": value for key, value in state.items()}}, tmp_path / "a.ckpt")
    assert same(models.subject(f"{name}:build", checkpoint=tmp_path / "a.ckpt").model.state_dict(), state)


WRAPPED = """
from torch import nn
def bare():
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
def parallel():
    return nn.DataParallel(bare())
class Compiled(nn.Module):
    def __init__(self):
        super().__init__()
        self._orig_mod = bare()
    def forward(self, x):
        return self._orig_mod(x)
class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = bare()
        self.head = nn.BatchNorm2d(5)
    def forward(self, x):
        return self.head(self.module(x))
"""


@pytest.mark.parametrize("built", ["bare", "parallel", "Compiled", "Holder"])
@pytest.mark.parametrize("saved", ["bare", "parallel", "Compiled", "Holder"])
def test_names_of_wrappers_do_not_matter(built, saved, tmp_path, monkeypatch):
    """Fails if a builder that wraps its model refuses its own state dict, or a module of that name loses its own."""
    (tmp_path / "wrapped_models.py").write_text(WRAPPED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import importlib

    module = importlib.import_module("wrapped_models")
    state = changed_weights(getattr(module, saved)())
    torch.save(state, tmp_path / "mine.pt")
    if (built == "Holder") != (saved == "Holder"):
        raised(BadCheckpoint, "does not fit", f"wrapped_models:{built}", checkpoint=tmp_path / "mine.pt")
        return
    loaded = models.subject(f"wrapped_models:{built}", checkpoint=tmp_path / "mine.pt").model.state_dict()
    assert [t.tolist() for t in loaded.values()] == [t.tolist() for t in state.values()]
