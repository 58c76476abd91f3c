"""Folders of torch.distributed.checkpoint: read in parts, as data; their pickled table may ask for nothing else."""

from __future__ import annotations

import io
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as torch_dcp
from support.checkpoints import Evil
from torch import nn
from torch.distributed.checkpoint import filesystem, metadata

import bnprobe
from bnprobe.errors import BadCheckpoint
from bnprobe.files import dcp
from bnprobe.files.pickles import UnknownName
from bnprobe.weights import dcp as reader
from bnprobe.weights import load

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.LayerNorm(7))
    nn.init.uniform_(model[1].weight, 0.5, 2)
    model[1].running_mean.normal_()
    model[1].num_batches_tracked += 100
    return model


def saved(state: dict[str, Any], folder: Path) -> None:
    """As a single process saves it; torch says that there are no others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch_dcp.save(state, checkpoint_id=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What torch writes of a model with its optimizer."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 9, 9)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optim": optimizer.state_dict(), "step": 3}
    saved(state, tmp_path / "dcp")
    torch.save(state, tmp_path / "same.pt")
    return tmp_path / "dcp"


def test_what_torch_wrote_is_what_is_read(folder):
    """Fails if a tensor is another, or one of the optimizer is taken for the model's."""
    found, same = load(folder, several=False), load(folder.parent / "same.pt", several=False)
    assert found.keys() == same.keys()
    for name, tensor in same.items():
        assert np.array_equal(found[name].array(), tensor.array()), name
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
    there, here = bnprobe.check(folder), bnprobe.check(folder.parent / "same.pt")
    assert there.channels.equals(here.channels)


def test_nothing_is_read_that_is_not_needed(folder, monkeypatch):
    """Fails if a check opens matrices that no rule asks for, or what was pickled beside the tensors."""
    opened: list[str] = []
    real = reader.InParts._stored

    def stored(self, chunk):
        opened.append(self._name)
        return real(self, chunk)

    monkeypatch.setattr(reader.InParts, "_stored", stored)
    load(folder, several=True)
    assert not opened
    bnprobe.check(folder)
    assert opened
    assert all(name.startswith("model.") for name in opened)


def in_parts(
    folder: Path, whole: torch.Tensor, cuts: list[list[tuple[int, int]]], *, name: str = "norm.weight"
) -> None:
    """A tensor in parts by (offset, size) of each dimension, each in a file of its own, as ranks write them."""
    folder.mkdir(exist_ok=True)
    chunks, storage = [], {}
    for rank, part in enumerate(cuts):
        at, sizes = torch.Size(start for start, _ in part), torch.Size(n for _, n in part)
        content = io.BytesIO()
        torch.save(whole[tuple(slice(start, start + n) for start, n in part)].clone(), content)
        junk = os.urandom(13 * rank)
        (folder / f"__{rank}_0.distcp").write_bytes(junk + content.getvalue() + b"more")
        chunks.append(metadata.ChunkStorageMetadata(at, sizes))
        place = filesystem._StorageInfo(f"__{rank}_0.distcp", len(junk), len(content.getvalue()))
        storage[metadata.MetadataIndex(name, at)] = place
    properties = metadata.TensorProperties(dtype=whole.dtype)
    tensor = metadata.TensorStorageMetadata(properties, whole.shape, chunks)
    table = metadata.Metadata({name: tensor}, None, storage)
    (folder / ".metadata").write_bytes(pickle.dumps(table))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_parts_are_joined(tmp_path, dtype):
    """Fails if the part of a rank lands in another's place, or an empty one counts."""
    whole = torch.randn(11, 6).to(dtype)
    in_parts(
        tmp_path / "a", whole, [[(0, 4), (0, 6)], [(4, 4), (0, 2)], [(4, 4), (2, 4)], [(8, 3), (0, 6)], [(11, 0), (0, 6)]]
    )  # fmt: skip
    (tensor,) = load(tmp_path / "a", several=False).values()
    assert np.array_equal(tensor.array(), whole.float().numpy() if dtype == torch.bfloat16 else whole.numpy())
    assert np.array_equal(tensor.rows(3, 9), tensor.array()[3:9])
    assert tensor.held


def test_rows_open_their_parts_alone(tmp_path, monkeypatch):
    """Fails if a row of a tensor of many ranks costs the whole tensor, or more files stay open than may be."""
    in_parts(tmp_path / "a", torch.arange(40.0), [[(4 * i, 4)] for i in range(10)])
    monkeypatch.setattr(reader, "MOST_OPEN", 3)
    (tensor,) = load(tmp_path / "a", several=False).values()
    opened: list[str] = []
    real = reader._Files.source
    monkeypatch.setattr(reader._Files, "source", lambda self, name: opened.append(name) or real(self, name))
    assert list(tensor.rows(6, 9)) == [6, 7, 8]
    assert opened == ["__1_0.distcp", "__2_0.distcp"]
    assert list(tensor.array()) == list(range(40))
    assert len(tensor._files._open) == 3


def test_a_scalar_and_a_tensor_without_numbers(tmp_path):
    """Fails if a counter, which has no dimension, or an empty tensor is a traceback."""
    saved({"n": torch.tensor(7), "none": torch.empty(0, 3), "w": torch.ones(3)}, tmp_path / "a")
    state = load(tmp_path / "a", several=False)
    assert state["n"].array() == 7
    assert state["none"].array().shape == (0, 3)


def metadata_of(*tensors: tuple, storage: dict | None = None) -> bytes:
    return pickle.dumps(metadata.Metadata(dict(tensors), None, storage or {}))


def lying() -> dict[str, tuple[bytes, str]]:
    """What a `.metadata` may say, and what is said of it."""
    properties = metadata.TensorProperties(dtype=torch.float32)

    def tensor(size, *chunks):
        parts = [metadata.ChunkStorageMetadata(torch.Size(at), torch.Size(n)) for at, n in chunks]
        return metadata.TensorStorageMetadata(properties, torch.Size(size), parts)

    def place(file="__0_0.distcp", start=0, n=10, at=(0,)):
        return {metadata.MetadataIndex("w", torch.Size(at)): filesystem._StorageInfo(file, start, n)}

    one = ("w", tensor([4], ([0], [4])))
    return {
        "no metadata": (pickle.dumps({"w": 3}), "it holds no metadata"),
        "empty": (b"", "EOFError"),
        "cut": (metadata_of(one, storage=place())[:-30], "is not a whole checkpoint"),
        "nowhere": (metadata_of(one), "a part of w is in no file"),
        "outside": (metadata_of(one, storage=place("../x")), "'../x', which is not a file of its own folder"),
        "absolute": (metadata_of(one, storage=place("/etc/passwd")), "not a file of its own folder"),
        "missing file": (metadata_of(one, storage=place("__7_0.distcp")), "No such file"),
        "beyond the end": (metadata_of(one, storage=place(n=10**12)), "is shorter than .metadata says"),
        "beyond itself": (metadata_of(("w", tensor([4], ([2], [4]))), storage=place(at=(2,))), "lies outside of it"),
        "not all of it": (metadata_of(("w", tensor([9], ([0], [4]))), storage=place()), "do not make it up"),
        "dimensions": (metadata_of(("w", tensor([1] * 40, ([0] * 40, [1] * 40)))), "has 40 dimensions"),
        "one dimension less": (metadata_of(("w", tensor([4, 1], ([0], [4])))), "a part of w is none"),
    }  # fmt: skip


@pytest.mark.parametrize("what", lying())
def test_lying_tables_are_refused(tmp_path, what):
    """Fails if a table's word is taken, or its damage is a traceback."""
    (tmp_path / "__0_0.distcp").write_bytes(bytes(100))
    content, said = lying()[what]
    (tmp_path / ".metadata").write_bytes(content)
    with pytest.raises(BadCheckpoint, match="Copy the whole folder again") as error:
        load(tmp_path, several=False)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_parts_that_are_none_are_refused(tmp_path):
    """Fails if a part is read as what the table says although its own says otherwise, or a gap is filled with anything."""
    in_parts(tmp_path / "a", torch.ones(8), [[(0, 8)]])
    file = tmp_path / "a/__0_0.distcp"
    content = file.read_bytes()
    file.write_bytes(bytes(len(content)))
    (tensor,) = load(tmp_path / "a", several=False).values()
    with pytest.raises(BadCheckpoint, match=r"the part of norm.weight in it is not whole"):
        tensor.array()
    other = io.BytesIO()
    torch.save(torch.ones(8, dtype=torch.float64), other)
    in_parts(tmp_path / "a", torch.ones(8), [[(0, 8)]])
    table = pickle.loads((tmp_path / "a/.metadata").read_bytes())
    (index,) = table.storage_data
    table.storage_data[index] = filesystem._StorageInfo("__0_0.distcp", 0, len(other.getvalue()))
    (tmp_path / "a/.metadata").write_bytes(pickle.dumps(table))
    file.write_bytes(other.getvalue())
    (tensor,) = load(tmp_path / "a", several=False).values()
    with pytest.raises(BadCheckpoint, match="says another type or shape"):
        tensor.array()
    in_parts(tmp_path / "b", torch.ones(8), [[(0, 4)], [(2, 4)]])
    (tensor,) = load(tmp_path / "b", several=False).values()
    with pytest.raises(BadCheckpoint, match="overlap, and leave some of it out"):
        tensor.array()
    in_parts(tmp_path / "c", torch.ones(8), [[(0, 8)]])
    (tensor,) = load(tmp_path / "c", several=False).values()
    with (tmp_path / "c/__0_0.distcp").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BadCheckpoint, match="changed while it was read"):
        tensor.array()


def test_pickled_code_is_refused_unrun(tmp_path):
    """Fails if anything is executed, wherever in the table, or the way to convert is not told."""
    for i, table in enumerate(
        (
            Evil(tmp_path / "ran"),
            metadata.Metadata({"w": Evil(tmp_path / "ran")}, None, {}),
            metadata.Metadata({}, Evil(tmp_path / "ran"), {}),
        )
    ):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / ".metadata").write_bytes(pickle.dumps(table))
        with pytest.raises(
            BadCheckpoint, match=r"asks for .*, so it was not loaded. If you trust it, run .*dcp_to_torch"
        ):
            load(folder, several=False)
    assert not (tmp_path / "ran").exists()


def test_only_the_formats_own_names_are_known():
    """Fails if the table may ask for what a checkpoint may ask for, or for more."""
    modules = {module for module, _ in dcp._MAKERS}
    assert modules == {
        *("torch", "torch.serialization", "pathlib", "pathlib._local"),
        *("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"),
    }
    with pytest.raises(UnknownName):
        dcp.read_metadata(pickle.dumps(np.float64(3)))
