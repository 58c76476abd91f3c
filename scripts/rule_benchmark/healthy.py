"""How often a network with nothing wrong gets a warning: trained ones on their data, new ones in their first steps.

A new network has random weights. It is one architecture per family of torchvision, timm and transformers, or one of
small_networks, recorded during three training steps on noise, and once more in eval mode. Nothing in it is wrong, so nothing
may be said at warning or above.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

import bnprobe
from bnprobe import models
from bnprobe.models.image_folder import find_images
from scripts.rule_benchmark.cases.case import SEVERE
from scripts.rule_benchmark.planted import MODELS, healthy
from scripts.rule_benchmark.small_networks import SMALL
from scripts.rule_benchmark.subjects import subjects
from scripts.zoo.entries import Call, Entry, noise, torchvision_entries
from scripts.zoo.trial import tensors

STEPS = 3
FEW, BATCHES = 2, (8, 32)
"""Samples per batch: for networks without a batch norm, and for others, of which those that need more get more."""

LARGE = 30_000_000
"""Parameters above which an architecture is left to its smaller relatives."""


def severe(findings: pd.DataFrame) -> set[str]:
    """The rules that speak at warning or above."""
    return set(findings["rule"][findings["severity"].isin(SEVERE)])


def families() -> list[Entry]:
    """The smallest of each family of torchvision, the samples of timm and transformers, and the small networks."""
    smallest: dict[str, tuple[int, Entry]] = {}
    for entry in torchvision_entries():
        if entry.on_meta:
            continue
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                size = sum(p.numel() for p in entry.build(entry.sizes[-1]).parameters())
            except Exception:  # some builders compute with tensors, which the meta device cannot
                size = LARGE
        if size < smallest.get(entry.family, (LARGE, entry))[0]:
            smallest[entry.family] = (size, entry)
    entries = [entry for _, entry in smallest.values()]
    from scripts.zoo.samples import timm_entries, transformers_entries

    for library, more in (("timm", timm_entries), ("transformers", transformers_entries)):
        if importlib.util.find_spec(library):
            entries += more()
    return entries + [_small(name) for name in SMALL]


def _small(name: str) -> Entry:
    build, shape = SMALL[name]
    return Entry(
        name, "small", name, lambda size: build(), lambda size, training: Call((noise(1, *shape),)), (0,)
    )


def first_steps(entry: Entry) -> set[str]:
    """The rules that warn of a new network in its first training steps, or in eval mode after them."""
    for size in entry.sizes:
        try:
            return _warnings(entry, size)
        except (RuntimeError, ValueError, AssertionError):  # too small an input for this architecture
            continue
    raise RuntimeError(f"{entry.name}: no size of {entry.sizes} can be trained on")


def _warnings(entry: Entry, size: int) -> set[str]:
    said: set[str] = set()
    for n in BATCHES:
        model = entry.model(size)
        batched = any(isinstance(module, _BatchNorm) for module in model.modules())
        said = _used(model, entry, size, n if batched else FEW)
        # what this rule says is true: a larger batch, as it advises, must be enough
        if "few-values" not in said or not batched:
            break
    return said


def _used(model: nn.Module, entry: Entry, size: int, n: int) -> set[str]:
    with bnprobe.attach(model.train()) as training:
        _train(model, entry, size, n)
    with bnprobe.attach(model.eval()) as evaluation, torch.no_grad():
        _drawn(entry.call(size, False), n, STEPS).of(model)
    return severe(bnprobe.report(training).findings) | severe(bnprobe.report(evaluation).findings)


def _train(model: nn.Module, entry: Entry, size: int, n: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for seed in range(STEPS):
        optimizer.zero_grad()
        _loss(_drawn(entry.call(size, True), n, seed).of(model)).backward()
        optimizer.step()


def _loss(output: Any) -> Tensor:
    """Distance from noise, the same at every step; that from 0 would be met by what starts at 0, and by norms at the end."""
    noise = torch.Generator().manual_seed(STEPS)
    parts = [part for _, part in tensors(output) if part.requires_grad]
    return torch.stack(
        [(part - torch.randn(part.shape, generator=noise)).square().mean() for part in parts]
    ).sum()


def _drawn(call: Call, n: int, seed: int) -> Call:
    """The same call with `n` samples, of other noise for each seed."""
    generator = torch.Generator().manual_seed(seed)

    def other(value: Any) -> Any:
        if isinstance(value, list):
            return [
                other(value[i % len(value)]) if isinstance(value[0], Tensor) else value[0] for i in range(n)
            ]
        if not isinstance(value, Tensor):
            return value
        shape = value.shape if value.ndim == 3 and value.shape[0] == 3 else (n, *value.shape[1:])
        if value.is_floating_point():
            return torch.rand(shape, generator=generator)
        return value[torch.arange(n) % len(value)]

    return Call(tuple(map(other, call.args)), {name: other(v) for name, v in (call.kwargs or {}).items()})


def networks(kept: Path, data: Path, new: bool = True) -> pd.DataFrame:
    """A row per network: its group, its name, and the rules that speak at warning or above ("" where none does)."""
    rows = [
        {"group": "trained", "network": name, "rules": _joined(severe(healthy(subject)[0]))}
        for name, subject in subjects(kept, data, set(MODELS)).items()
    ]
    rows += _photographs(data)
    torch.manual_seed(0)
    for entry in tqdm(families() if new else [], desc="new networks", unit="net", disable=None):
        try:
            rules = _joined(first_steps(entry))
        except (bnprobe.NoNormLayers, bnprobe.NothingRecorded):  # or functions that normalize weights alone
            continue
        rows.append({"group": f"new, {entry.library}", "network": entry.name, "rules": rules})
    return pd.DataFrame(rows)


def _joined(rules: set[str]) -> str:
    return "; ".join(sorted(rules))


def _photographs(data: Path) -> list[dict[str, str]]:
    """torchvision's mobilenet_v2 on photographs, where its weights are in torch's cache."""
    from scripts.mobilenet_v2 import FILE, cache

    if not (cache() / FILE).exists() or not (data / "imagenet_samples").is_dir():
        print("left out: mobilenet_v2 (python -m scripts.mobilenet_v2 fetches its weights)")
        return []
    subject = models.subject("mobilenet_v2", weights="IMAGENET1K_V1")
    source = find_images(data / "imagenet_samples")
    batches = [torch.stack(batch.images) for batch in source.batches(subject.preprocess, 16)]
    with torch.no_grad():
        recording = bnprobe.record(subject.model.eval(), batches)
    return [
        {
            "group": "trained",
            "network": "mobilenet_v2",
            "rules": _joined(severe(bnprobe.report(recording).findings)),
        }
    ]
