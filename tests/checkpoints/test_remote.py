"""Remote checkpoints: judged as the same files on a disk are, for a small part of their bytes. The loopback alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.server import serving
from torch import nn

import bnprobe
from bnprobe.checkpoints import remote
from bnprobe.cli.main import main
from bnprobe.errors import BadCheckpoint, CannotFetch
from bnprobe.files.remote import http

WIDTH = 2048


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(http, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(http, "SILENCE", 5.0)
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path) as one:
        yield one


def sparse(file: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """Numbers of half precision: vectors are written, matrices are holes."""
    rng, header, at, vectors = np.random.default_rng(1), {}, 0, {}
    for name, shape in tensors.items():
        n = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + n]}
        if len(shape) == 1:
            vectors[at] = rng.normal(1, 0.1, shape).astype(np.float16).tobytes()
        at += n
    text = json.dumps(header).encode()
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for place, content in vectors.items():
            out.seek(8 + len(text) + place)
            out.write(content)
        out.truncate(8 + len(text) + at)


def blocks(n: int, start: int = 0) -> dict[str, tuple[int, ...]]:
    """Of a language model."""
    found: dict[str, tuple[int, ...]] = {}
    for i in range(start, start + n):
        for name in ("input", "post_attention"):
            found[f"model.layers.{i}.{name}_layernorm.weight"] = (WIDTH,)
        found |= {f"model.layers.{i}.mlp.{name}_proj.weight": (4 * WIDTH, WIDTH) for name in ("up", "gate")}
    return found


def norms_of(source) -> dict[str, np.ndarray]:
    return {record.layer: record.gamma for record in bnprobe.check(source).recording.layers}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_file_of_4_gb_costs_less_than_a_percent_of_it(server, tmp_path, capsys):
    """Fails if more is fetched than headers and norms, or what is fetched are not the norms."""
    file = tmp_path / "model.safetensors"
    sparse(file, blocks(60))
    assert file.stat().st_size > 4e9
    address = f"{server.address}/model.safetensors"
    found = norms_of(address)
    assert server.sent < 0.001 * file.stat().st_size
    assert len(server.asked) <= 1 + 60
    assert same(found, norms_of(file))
    assert main(["check", address]) in (0, 1)
    out = capsys.readouterr().out
    assert "What the norms of model.safetensors learned" in out
    (note,) = [note for note in bnprobe.check(address).recording.about.notes if "fetched" in note]
    assert note == "0.5 MB of 4,027.1 MB were fetched."


def test_shards_behind_an_index(server, tmp_path):
    """Fails if shards are looked for elsewhere than beside their index, or one of them is left out."""
    places = {}
    for i in range(3):
        sparse(tmp_path / f"part-{i}.safetensors", blocks(2, 2 * i))
        places |= dict.fromkeys(blocks(2, 2 * i), f"part-{i}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    (tmp_path / "config.json").write_text('{"rms_norm_eps": 1e-6}')
    found = norms_of(f"{server.address}/{index.name}?token=secret")
    assert same(found, norms_of(index))
    asked = {one.path for one in server.asked}
    assert asked == {f"/{name}?token=secret" for name in (index.name, *places.values())}
    (tmp_path / "part-1.safetensors").unlink()
    with pytest.raises(CannotFetch, match=r"there is no file .*part-1.safetensors .404 Not Found.. Check"):
        bnprobe.check(f"{server.address}/{index.name}")
    index.write_text(json.dumps({"weight_map": {"a": "../x"}}))
    with pytest.raises(BadCheckpoint, match="not a file of its own folder, so nothing was read"):
        bnprobe.check(f"{server.address}/{index.name}")
    index.write_text("[]")
    with pytest.raises(BadCheckpoint, match="is not an index of a checkpoint"):
        bnprobe.check(f"{server.address}/{index.name}")


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential()
    for i in range(6):
        model.add_module(f"conv{i}", nn.Conv2d(16, 16, 3, bias=False))
        model.add_module(f"bn{i}", nn.BatchNorm2d(16))
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.num_batches_tracked += 100
    return model


@pytest.mark.parametrize("zipped", [True, False], ids=["pt", "safetensors"])
def test_what_is_said_of_a_remote_file_is_said_of_the_same_file_here(server, tmp_path, zipped):
    """Fails if a remote file is judged by less than its norms and the weights before them."""
    state = network().state_dict() | {"head.weight": torch.zeros(2000, 2000)}
    file = tmp_path / ("a.pt" if zipped else "a.safetensors")
    torch.save(state, file) if zipped else save_file(state, file)
    there, here = bnprobe.check(f"{server.address}/{file.name}"), bnprobe.check(file)
    assert there.layers.equals(here.layers)
    assert there.channels.equals(here.channels)
    assert there.channels["filter_norm"].notna().all()
    assert server.sent < 0.05 * file.stat().st_size


def test_weights_before_norms_are_fetched_as_long_as_they_are_few(server, tmp_path, monkeypatch):
    """Fails if a large network is fetched as a whole, or that it was not is not said."""
    save_file(network().state_dict(), tmp_path / "a.safetensors")
    monkeypatch.setattr(remote, "MOST", 6 * 16 * 16 * 9 * 4 - 1)
    monkeypatch.setattr("bnprobe.files.remote.ranges.FIRST", 4096)
    monkeypatch.setattr("bnprobe.files.remote.ranges.GAP", 64)
    report = bnprobe.check(f"{server.address}/a.safetensors")
    assert "filter_norm" not in report.channels or report.channels["filter_norm"].isna().all()
    assert any(
        "weights before norms (0 MB) were not fetched" in note for note in report.recording.about.notes
    )
    assert server.sent < 12_000
    monkeypatch.setattr(remote, "MOST", 6 * 16 * 16 * 9 * 4)
    report = bnprobe.check(f"{server.address}/a.safetensors")
    assert report.channels["filter_norm"].notna().all()
    assert not any("not fetched" in note for note in report.recording.about.notes)


def test_a_config_is_asked_for_in_a_repository_only(server, tmp_path, monkeypatch):
    """Fails if something is asked for that was not named, or the eps of a repository is not read."""
    folder = tmp_path / "me/net/resolve/main"
    folder.mkdir(parents=True)
    sparse(folder / "model.safetensors", blocks(1))
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    assert bnprobe.check("hf://me/net/model.safetensors").recording.layers[0].eps_assumed
    (folder / "config.json").write_text('{"rms_norm_eps": 1e-6}')
    assert bnprobe.check("hf://me/net/model.safetensors").recording.layers[0].eps == 1e-6
    assert not bnprobe.check("hf://me/net/model.safetensors").recording.layers[0].eps_assumed
    server.asked.clear()
    assert (
        bnprobe.check(f"{server.address}/me/net/resolve/main/model.safetensors")
        .recording.layers[0]
        .eps_assumed
    )
    assert {one.path for one in server.asked} == {"/me/net/resolve/main/model.safetensors"}


@pytest.mark.parametrize("fault", ["401", "403", "404", "416", "500", "short", "another etag", "whole"])
def test_faults_end_in_one_line_and_2(server, tmp_path, capsys, fault):
    """Fails if a server's fault is a traceback, a finding, or a damaged file."""
    sparse(tmp_path / "model.safetensors", blocks(10))
    server.faults = {0: ""}
    server.always = fault
    address = f"{server.address}/model.safetensors?sig=secret"
    assert main(["check", address]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert f"{server.address}/model.safetensors" in err
    assert "secret" not in err
    assert "whole checkpoint" not in err


def test_other_contents_are_refused_as_here(server, tmp_path):
    """Fails if a remote file that is no checkpoint is read as one, or taken whole."""
    (tmp_path / "page.pt").write_text("<html>" + " " * 300_000)
    (tmp_path / "cut.safetensors").write_bytes(struct.pack("<Q", 10**6) + b"{" + bytes(200_000))
    with pytest.raises(BadCheckpoint, match="is a web page"):
        bnprobe.check(f"{server.address}/page.pt")
    with pytest.raises(BadCheckpoint, match="is not a whole checkpoint"):
        bnprobe.check(f"{server.address}/cut.safetensors")
    with pytest.raises(BadCheckpoint, match="Download the file, and use that"):
        bnprobe.check(f"{server.address}/cut.safetensors", arch="resnet18")


def test_pages_name_the_address_without_its_secrets(server, tmp_path, capsys):
    """Fails if a signed address stands on a page, or in a name of a file."""
    sparse(tmp_path / "model.safetensors", blocks(2))
    address = f"{server.address}/model.safetensors?sig=secret"
    assert main(["check", address, "--format", "html"]) in (0, 1)
    assert Path("reports/model.check.html").exists()
    assert "secret" not in Path("reports/model.check.html").read_text()
    assert main(["check", address, "--format", "json", "-o", "a.json"]) in (0, 1)
    assert "secret" not in Path("a.json").read_text()
    assert f"{server.address}/model.safetensors" in Path("a.json").read_text()
