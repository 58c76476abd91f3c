"""Gradients of several parts: saved, loaded, merged and checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from hashlib import sha256
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save as pack
from support.gradients import assert_same, assert_same_gradients, loss_of
from support.models import BY_NAME, C, Case
from torch import nn

import bnprobe
from bnprobe.errors import BadRecordingFile
from bnprobe.measures import tables
from bnprobe.recording import Recording
from probe.backward.runs import AlteredNorm, gradients, images, learned, probed, trained


def parts_of(case: Case, training: bool = False) -> list[Recording]:
    """A recording of each of four batches."""
    model = case.model(training)
    return [trained(case, model, [x]) for x in case.batches((2, 3, 4, 5))]


@pytest.mark.parametrize("name", ["mixed", "twice", "instance norm with vectors", "RMS norm by its looks"])
def test_parts_saved_loaded_and_merged_in_any_order_are_the_whole(name, tmp_path):
    """Fails if a field of a gradient is lost on disk, or merged by another rule than it adds up by."""
    case = replace(BY_NAME[name], build=_without_dropout(BY_NAME[name]))
    parts = [bnprobe.load(part.save(tmp_path / f"{i}.bnp")) for i, part in enumerate(parts_of(case))]
    whole = trained(case, case.model(False), case.batches((2, 3, 4, 5)))
    for order in list(permutations(parts))[::5]:
        merged = reduce(Recording.merge, order).check_sane()
        by_site = {record.site: record for record in merged.layers}
        assert len(by_site) == len(whole.layers)
        for record in whole.layers:
            assert record.gradient.n_passes == 4
            assert_same_gradients(by_site[record.site].gradient, record.gradient)


def _without_dropout(case: Case) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = case.build()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return model

    return build


def test_a_part_without_gradients_keeps_the_others():
    """Fails if a shard that was only run forward deletes what backward passes of the other told."""
    case = BY_NAME["mixed"]
    with_, without = parts_of(case)[0], bnprobe.record(case.model(), case.batches())
    for merged in (with_.merge(without), without.merge(with_)):
        for record in merged.layers:
            (expected,) = (r.gradient for r in with_.layers if r.layer == record.layer)
            assert_same_gradients(record.gradient, expected)
            assert record.n_calls == 4


def test_a_part_without_some_gradients_keeps_the_others():
    """Fails if dx, gamma or the feeder of one part is dropped because the other part had none."""
    case = BY_NAME["mixed"]
    full = parts_of(case)[0]
    model = case.model()
    for p in (model.bn.weight, model.conv.weight):
        p.requires_grad_(False)
    lacking = probed(model, lambda: loss_of(model(case.batches()[0])))
    for merged in (full.merge(lacking), lacking.merge(full)):
        (mine,) = (r.gradient for r in full.layers if r.layer == "bn")
        (both,) = (r.gradient for r in merged.layers if r.layer == "bn")
        assert both.n_passes == 2
        for name in ("dx", "gamma", "importance"):
            assert_same(getattr(both, name), getattr(mine, name), name, 1e-12)
        assert_same(both.producer.norm, mine.producer.norm, "w", 1e-12)
        np.testing.assert_array_equal(both.dy.n, 2 * mine.dy.n)


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> Path:
    """The file with another content, and digests that agree with it."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name).copy() for name in file.keys()}  # noqa: SIM118
    content = json.loads(metadata["recording"])
    change(content, arrays)
    metadata["recording"] = json.dumps(content)
    metadata["digest"] = sha256(metadata["recording"].encode()).hexdigest()[:32]
    metadata["digests"] = json.dumps({n: sha256(a.tobytes()).hexdigest()[:32] for n, a in arrays.items()})
    path.write_bytes(pack(arrays, metadata=metadata))
    return path


def test_the_largest_gap_of_the_parts_stays():
    """Fails if merging hides a violated identity behind a part where it holds, or behind NaN."""
    found = []
    for altered in (1.0, 1.5):
        torch.manual_seed(3)
        model = learned(nn.Sequential(nn.Conv2d(C, C, 1), AlteredNorm(C)), False)
        model[1].scale = altered
        found.append(probed(model, lambda m=model: loss_of(m(images()))))
    for merged in (found[0].merge(found[1]), found[1].merge(found[0])):
        both, bad = merged.layers[0].gradient, found[1].layers[0].gradient
        np.testing.assert_array_equal(both.gap_map, bad.gap_map)
        np.testing.assert_array_equal(both.producer.gap, bad.producer.gap)
        assert np.nanmin(both.gap_map) > 1e-2


def test_files_from_before_gradients_load(tmp_path):
    """Fails if a recording that was saved without the field is refused, or gets one."""
    case = BY_NAME["mixed"]
    path = bnprobe.record(case.model(), case.batches()).save(tmp_path / "old.bnp")

    def strip(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        for layer in content["layers"]:
            assert layer.pop("gradient") is None

    old = bnprobe.load(rewritten(path, strip))
    assert {record.gradient for record in old.layers} == {None}
    assert len(tables(old).layers) == 4
    new = parts_of(case)[0]
    assert all(g is not None for g in gradients(old.merge(new)).values())


@pytest.mark.insane
@pytest.mark.parametrize("field", ["dy/m2", "dx/m4", "gamma/low", "producer/angle/m2"])
def test_gradients_that_no_sample_can_have_are_refused(field, tmp_path):
    """Fails if the statistics of gradients are believed unseen, unlike those of activations."""
    case = BY_NAME["mixed"]
    path = trained(case, case.model(True), case.batches()).save(tmp_path / "odd.bnp")

    def spoil(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        (name,) = (n for n in arrays if n.endswith(f"layers/0/gradient/{field}"))
        arrays[name][0] = 1e9 if "low" in field else -1.0

    with pytest.raises(BadRecordingFile, match="Record it again"):
        bnprobe.load(rewritten(path, spoil))


@pytest.mark.parametrize("field", ["energy", "gap_centre", "dy_nonfinite"])
def test_gradients_of_another_shape_are_refused(field, tmp_path):
    """Fails if a vector of the wrong length is found out by a table, far from its place."""
    case = BY_NAME["mixed"]
    path = trained(case, case.model(True), case.batches()).save(tmp_path / "odd.bnp")

    def spoil(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        (name,) = (n for n in arrays if n.endswith(f"layers/0/gradient/{field}"))
        arrays[name] = arrays[name][:-1].copy()

    with pytest.raises(BadRecordingFile, match=r"expected shape \(6,\)"):
        bnprobe.load(rewritten(path, spoil))
