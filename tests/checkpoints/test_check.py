"""A checkpoint checked: what is found, what is not claimed, and what is refused."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from support.paths import DATA, ROOT
from torch import nn

import bnprobe
from bnprobe import models
from bnprobe.errors import BadCheckpoint, NoNormLayers
from bnprobe.report.result import Report

CHECKPOINT = DATA / "cifar_resnet20.th"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the folder of real inputs is absent: {DATA}")

SILENT = {
    "bn1": {6, 14},
    "layer1.0.bn1": {2, 8},
    "layer1.2.bn1": {5, 11},
    "layer2.1.bn1": {13, 21},
    "layer2.2.bn1": {31},
    "layer3.0.bn1": {29, 62},
    "layer3.1.bn1": {0, 28, 59},
    "layer3.2.bn1": {31},
}
"""Channels before a ReLU that are not once positive on 1,000 test images: measured by hooks, see the slow test below."""


def trained(seed: int = 0) -> nn.Module:
    """A small network whose norms have learned something."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3),
        nn.BatchNorm2d(6),
        nn.GroupNorm(2, 6),
    )
    for module in model:
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias)
    model(torch.randn(8, 3, 9, 9))
    return model.eval()


def named(report: Report, *rules: str) -> dict[str, set[int]]:
    found = report.findings[report.findings["rule"].isin(rules)]
    return {layer: set().union(*group["channels"]) for layer, group in found.groupby("layer")}


# The real checkpoint


@pytest.fixture(scope="module")
def resnet20() -> Report:
    return bnprobe.check(CHECKPOINT)


@needs_data
def test_dead_channels_are_those_of_the_bound(resnet20):
    """Fails if the bound is taken with gamma's sign, or another threshold: 11 in the blocks, 1 in the stem."""
    channels = resnet20.channels
    dead = channels["beta"] + 6 * channels["gamma"].abs() < 1e-4
    expected = {layer: set(group["channel"]) for layer, group in channels[dead].groupby("layer")}
    found = named(resnet20, "channels-dead")
    assert found == expected
    inside = {layer: c for layer, c in found.items() if layer.endswith("bn1") and layer != "bn1"}
    assert sum(map(len, inside.values())) == 11
    assert all(c <= SILENT[layer] for layer, c in inside.items())


@needs_data
def test_all_silent_channels_are_found_and_no_other_is_called_silent(resnet20):
    """Fails below 15 of 15: the bound finds 12, the withered filters the rest, and no channel that fires is named."""
    found = named(resnet20, "channels-dead", "filters-decayed")
    before_a_relu = {layer: c for layer, c in found.items() if layer.endswith("bn1")}
    assert before_a_relu == SILENT
    assert sum(map(len, SILENT.values())) == 15


@needs_data
@pytest.mark.slow
def test_the_silent_channels_are_silent():
    """Fails if the list above is not what 1,000 images show."""

    from bnprobe import models
    from bnprobe.models.image_folder import find_images

    subject = models.subject("scripts.cifar_resnet:resnet20", checkpoint=CHECKPOINT, size=32)
    fired: dict[str, torch.Tensor] = {}
    for name, module in subject.model.named_modules():
        if name.endswith("bn1"):
            module.register_forward_hook(
                lambda _m, _a, y, name=name: fired.update({name: fired.get(name, 0) + (y > 0).sum((0, 2, 3))})
            )
    with torch.no_grad():
        for batch in find_images(DATA / "cifar10_jpeg" / "test").batches(subject.preprocess, 100):
            subject.model(*subject.to_inputs(batch.images))
    silent = {name: set(torch.nonzero(n == 0).flatten().tolist()) for name, n in fired.items()}
    assert {name: channels for name, channels in silent.items() if channels} == SILENT


@needs_data
def test_a_healthy_checkpoint_raises_no_alarm(resnet20):
    """Fails if a rule calls a fact of every trained network a warning."""
    assert set(resnet20.findings["severity"]) == {"info"}
    assert set(resnet20.findings["rule"]) == {"channels-constant", "channels-dead", "filters-decayed"}
    assert (named(resnet20, "channels-constant")["layer1.0.bn1"]) == {2, 8}


@needs_data
def test_the_clock_of_the_dead_filters(resnet20):
    """Fails if the filter's length is of another layer or axis: weight decay alone leaves .0162 √2 of them."""
    channels = resnet20.channels.set_index(["layer", "channel"])
    dead = [(layer, c) for layer, where in SILENT.items() if layer != "bn1" for c in where]
    ratio = channels.loc[dead, "filter_norm"].mean() / np.sqrt(2)
    assert 0.0150 < ratio < 0.0162


@needs_data
def test_the_architecture_makes_it_exact(monkeypatch):
    """Fails if the model's own eps and kinds do not replace what was taken for granted."""
    monkeypatch.chdir(ROOT)
    report = bnprobe.check(CHECKPOINT, arch="scripts.cifar_resnet:resnet20")
    assert set(report.layers["class_name"]) == {"BatchNorm2d"}
    assert (report.layers["mode"] == "weights only").all()
    assert (report.channels["n_values"] == 0).all()


# The form


def test_a_check_reads_the_vectors_to_the_last_bit(tmp_path):
    """Fails if a vector is taken from another norm or rounded."""
    model = trained()
    torch.save(model.state_dict(), tmp_path / "a.pt")
    channels = bnprobe.check(tmp_path / "a.pt").channels
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            mine = channels[channels["layer"] == name]
            for column, tensor in (
                ("gamma", module.weight),
                ("beta", module.bias),
                ("running_mean", module.running_mean),
                ("running_var", module.running_var),
            ):
                np.testing.assert_array_equal(mine[column], tensor.detach().double().numpy())


def test_nothing_is_said_of_data(tmp_path):
    """Fails if the page or the text of weights speaks of images, modes or values that nobody saw."""
    report = bnprobe.check(trained().state_dict())
    text = report.to_text(100)
    for word in ("image", "Measured on", "of the time", "eval mode", "never do", "forward pass"):
        assert word not in text, word
    assert "weights only" in text
    page = report.to_html(tmp_path / "a.html").read_text("utf-8")
    assert "weights only" in page
    assert "<dt>measured on</dt>" not in page
    assert "could not be drawn" not in page


def test_every_measured_column_is_not_defined():
    """Fails if an empty statistic shows up as a zero."""
    report = bnprobe.check(trained().state_dict())
    for name in ("pre_mean", "pre_var", "pre_min", "post_max", "fires", "shift", "kl", "scale_ratio"):
        assert report.channels[name].isna().all(), name
    assert (report.layers["n_calls"] == 0).all()
    assert (report.layers["normalized_by"] == "nothing").all()


def test_a_recording_of_weights_is_saved_loaded_and_merged(tmp_path):
    """Fails if a record without a call cannot be kept like any other."""
    recording = bnprobe.check(trained().state_dict()).recording
    loaded = bnprobe.load(recording.save(tmp_path / "a.bnp"))
    pd.testing.assert_frame_equal(bnprobe.report(loaded).channels, bnprobe.report(recording).channels)
    assert loaded.merge(recording).weights_only
    assert recording.layers[0].neighbours.guessed


def test_architecture_and_file_agree(tmp_path):
    """Fails if the two ways of checking a file tell different vectors."""
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v3_small(weights=None)
    torch.save(model.state_dict(), tmp_path / "m.pth")
    alone = bnprobe.check(tmp_path / "m.pth")
    known = bnprobe.check(tmp_path / "m.pth", arch="torchvision:mobilenet_v3_small")
    assert set(known.layers["eps"]) == {0.001}
    assert set(alone.layers["eps"]) == {1e-5}
    assert set(known.layers["layer"]) == set(alone.layers["layer"])
    vectors = ["layer", "channel", "gamma", "running_var"]
    pd.testing.assert_frame_equal(
        known.channels[vectors].sort_values(vectors[:2], ignore_index=True),
        alone.channels[vectors].sort_values(vectors[:2], ignore_index=True),
    )
    assert known.recording.weights_only
    with pytest.raises(BadCheckpoint, match="does not fit"):
        bnprobe.check(tmp_path / "m.pth", arch="torchvision:mobilenet_v2")


class Picky(torch.nn.Module):
    """Refuses every input."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = torch.nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("two\nlines")


def test_an_architecture_that_does_not_run_is_read_all_the_same(tmp_path, monkeypatch):
    """Fails if the exception of a user's own model ends the check, or goes unsaid."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    torch.save(Picky().state_dict(), tmp_path / "m.pth")
    report = bnprobe.check(tmp_path / "m.pth", arch="checkpoints.test_check:Picky")
    assert list(report.layers["class_name"]) == ["BatchNorm2d"]
    (note,) = report.recording.about.notes
    assert "does not run on a blank input (RuntimeError: two lines)" in note


# Every kind of file


def as_shards(state: dict[str, torch.Tensor], folder: Path) -> Path:
    names = list(state)
    halves = {"s-1.safetensors": names[:7], "s-2.safetensors": names[7:]}
    for file, keys in halves.items():
        save_file({key: state[key] for key in keys}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {key: file for file, keys in halves.items() for key in keys}}))
    return index


def as_gan(state: dict[str, torch.Tensor], folder: Path) -> Path:
    torch.save({"G": state, "D": dict(state), "optim_G": {"state": {"x": torch.ones(3)}}}, folder / "gan.pt")
    return folder / "gan.pt"


def test_shards_are_read_by_index_and_by_folder(tmp_path):
    """Fails if a shard is left out."""
    state = trained().state_dict()
    index = as_shards(state, tmp_path)
    (tmp_path / "optimizer.pt").write_bytes(b"not read")
    for path in (index, tmp_path):
        assert len(bnprobe.check(path).layers) == 3
    index.unlink()
    assert len(bnprobe.check(tmp_path).layers) == 3


def test_of_several_networks_in_a_file_all_are_checked(tmp_path):
    """Fails if a GAN's file is refused, or its optimizer taken for a network."""
    layers = bnprobe.check(as_gan(trained().state_dict(), tmp_path)).layers["layer"]
    assert sorted({layer.partition(".")[0] for layer in layers}) == ["D", "G"]
    assert len(layers) == 6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read(dtype, tmp_path):
    """Fails if a halved file is refused or its numbers are not those of the file."""
    state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in trained().state_dict().items()}
    save_file(state, tmp_path / "h.safetensors")
    channels = bnprobe.check(tmp_path / "h.safetensors").channels
    mine = channels[channels["layer"] == "1"]["gamma"].to_numpy()
    np.testing.assert_array_equal(mine, state["1.weight"].double().numpy())


def test_files_without_norms_say_what_they_hold(tmp_path):
    """Fails if a folded network is called fine, or the refusal does not say what to look at."""
    folded = {"conv.weight": torch.ones(4, 3, 3, 3), "conv.bias": torch.ones(4)}
    for state, match in (
        (
            folded,
            r"2 tensors, 1 layer of weights \(1 with a bias\).*folded into the weights. Check the file from before",
        ),
        ({"embedding.weight": torch.ones(4, 4)}, r"no running_mean.*starts with embedding.weight"),
        ({"bn.running_mean": torch.ones(3)}, r"bn \(entries: running_mean 3\) does not fit together"),
    ):
        torch.save(state, tmp_path / "a.pt")
        with pytest.raises(NoNormLayers, match=match):
            bnprobe.check(tmp_path / "a.pt")


@pytest.mark.parametrize("source", [nn.BatchNorm2d(3), 5, {}, {"epoch": 3}])
def test_what_is_no_state_dict_is_refused_with_what_to_give(source):
    with pytest.raises(BadCheckpoint, match=r"Give model.state_dict\(\), or probe the model: bnprobe.attach"):
        bnprobe.check(source)


# Hostile files: refused, nothing executed, little memory


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        import os

        return os.mkdir, (str(self.path),)


def evil_pickle(folder: Path) -> Path:
    torch.save({"state_dict": trained().state_dict(), "x": Evil(folder / "ran")}, folder / "evil.pt")
    return folder / "evil.pt"


def truncated_zip(folder: Path) -> Path:
    torch.save(trained().state_dict(), folder / "cut.pt")
    (folder / "cut.pt").write_bytes((folder / "cut.pt").read_bytes()[:-200])
    return folder / "cut.pt"


def huge_shape(folder: Path) -> Path:
    header = json.dumps(
        {"bn.running_mean": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ).encode()
    (folder / "huge.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)
    return folder / "huge.safetensors"


def huge_header(folder: Path) -> Path:
    (folder / "header.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    return folder / "header.safetensors"


def outside(folder: Path) -> Path:
    (folder / "a.index.json").write_text(json.dumps({"weight_map": {"bn.weight": "../../../etc/passwd"}}))
    return folder / "a.index.json"


def absolute(folder: Path) -> Path:
    (folder / "a.index.json").write_text(json.dumps({"weight_map": {"bn.weight": "/etc/passwd"}}))
    return folder / "a.index.json"


def odd_index(folder: Path) -> Path:
    (folder / "a.index.json").write_text('{"weight_map": [1, 2]}')
    return folder / "a.index.json"


def missing_shard(folder: Path) -> Path:
    (folder / "a.index.json").write_text(json.dumps({"weight_map": {"bn.weight": "gone.safetensors"}}))
    return folder / "a.index.json"


def bomb(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2**24)
    return folder / "bomb.pt"


def many_views(folder: Path) -> Path:
    one = torch.ones(2**19)
    torch.save(
        {f"{i}.{leaf}": one for i in range(500) for leaf in ("running_mean", "running_var")}, folder / "v.pt"
    )
    return folder / "v.pt"


def expanded(folder: Path) -> Path:
    wide = torch.ones(1).expand(2**20)
    torch.save({"bn.running_mean": wide, "bn.running_var": wide}, folder / "e.pt")
    return folder / "e.pt"


def two_checkpoints(folder: Path) -> Path:
    for name in ("epoch1.pt", "epoch2.pt"):
        torch.save(trained().state_dict(), folder / name)
    return folder


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (evil_pickle, r"asks to run \w+\.mkdir, so it was not loaded"),
        (truncated_zip, "cut short"),
        (huge_shape, "not a whole checkpoint"),
        (huge_header, "not a whole checkpoint"),
        (outside, "not a file of its own folder, so nothing was read"),
        (absolute, "not a file of its own folder, so nothing was read"),
        (odd_index, 'no "weight_map" of file names'),
        (missing_shard, r"1 are missing \(gone.safetensors\). Fetch them"),
        (bomb, "compressed archive"),
        (many_views, "views of one another"),
        (expanded, "views of one another"),
        (two_checkpoints, "in more than one file, so these are several checkpoints"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_hostile_files_are_refused_unrun_and_unread(make, match, tmp_path):
    """Fails if code of a file runs, a path leads out of its folder, or a declared size is believed."""
    import resource

    path = make(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadCheckpoint, match=match) as error:
        bnprobe.check(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_more_norms_than_are_read(tmp_path, monkeypatch):
    """Fails if a file of any number of norms is worked on for hours, or one at the limit is refused."""
    state = {f"l{i}.running_{end}": torch.ones(2) for i in range(5) for end in ("mean", "var")}
    monkeypatch.setattr("bnprobe.checkpoints.records.MOST_NORMS", 5)
    assert len(bnprobe.check(state).layers) == 5
    monkeypatch.setattr("bnprobe.checkpoints.records.MOST_NORMS", 4)
    with pytest.raises(
        BadCheckpoint, match=r"it has 5 norms, and 4 are the most that are read\. Save it in shards"
    ):
        bnprobe.check(state)


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_more_tensors_than_are_read_are_no_damage(kind, tmp_path, monkeypatch):
    """Fails if a large file is called broken, and is fetched again for nothing."""
    state, path = {f"l{i}.weight": torch.ones(2, 2) for i in range(30)}, tmp_path / f"a.{kind}"
    torch.save(state, path) if kind == "pt" else save_file(state, path)
    monkeypatch.setattr("bnprobe.files.header.MOST_TENSORS", 20)
    monkeypatch.setattr("bnprobe.files.archive.MOST_ENTRIES", 20)
    words = rf"a.{kind} was not read: it (declares more than 20 tensors|holds more than 20 entries). Save it in shards"
    with pytest.raises(BadCheckpoint, match=words):
        bnprobe.check(path)


def test_a_dict_that_holds_itself_ends(tmp_path):
    """Fails if a file can send the search for tensors round in a circle, or into a tree that doubles at every level."""
    state: dict[str, object] = {"bn.running_mean": torch.ones(3), "bn.running_var": torch.ones(3)}
    loop: dict[str, object] = {"mine": state}
    loop["again"] = loop
    twice: dict[str, object] = dict(state)
    for _ in range(60):
        twice = {"a": twice, "b": twice}
    torch.save(loop, tmp_path / "loop.pt")
    assert len(bnprobe.check(tmp_path / "loop.pt").layers) == 1
    with pytest.raises(BadCheckpoint, match=r"Give model\.state_dict"):
        bnprobe.check(twice)


@pytest.mark.parametrize("beside", ["state_dict_ema", "ema", "model_ema"])
def test_a_running_average_beside_the_weights_is_checked_too(beside, tmp_path):
    """Fails if what will be deployed is passed over in silence, or takes the place of the model elsewhere."""
    good, bad = trained().state_dict(), trained().state_dict()
    norm = next(key.removesuffix(".running_mean") for key in bad if key.endswith("running_mean"))
    bad[f"{norm}.running_mean"][0] = torch.nan
    torch.save(
        {"state_dict": good, beside: {f"module.{key}": v for key, v in bad.items()}}, tmp_path / "a.pt"
    )
    found = named(bnprobe.check(tmp_path / "a.pt"), "statistics-poisoned")
    assert found == {f"{beside}.{norm}": {0}}
    assert models.load_checkpoint(tmp_path / "a.pt").keys() == good.keys()


NORMS = {
    "batch norm": nn.BatchNorm2d(8),
    "without running statistics": nn.BatchNorm2d(8, track_running_stats=False),
    "group norm": nn.GroupNorm(2, 8),
    "layer norm": nn.LayerNorm(8),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", NORMS)
def test_a_network_of_nan_is_critical(name: str, value: float, tmp_path: Path) -> None:
    """Fails if vectors that are NaN throughout are taken for missing ones, as they look in tables, or a page has no words
    for them: this is what a training that diverged leaves."""
    state = nn.Sequential(nn.Conv2d(3, 8, 3), NORMS[name], nn.Conv2d(8, 8, 3), NORMS[name]).state_dict()
    state = {key: torch.full_like(t, value) if t.is_floating_point() else t for key, t in state.items()}
    report = bnprobe.check(state)
    found = report.findings[report.findings["severity"] == "critical"]
    spoilt = {"statistics-poisoned"} if name == "batch norm" else set()
    assert set(found["rule"]) == {"values-not-finite"} | spoilt
    assert set(found["layer"]) == {"1", "3"}
    assert "γ and β of this layer are NaN or infinite" in report.to_text(10**6)
    assert "not finite" in report.to_html(tmp_path / "page.html").read_text("utf-8")
