"""How often a network with nothing wrong gets a warning: trained ones on their data, new ones in their first steps.

A new network is one architecture per family of torchvision and timm with random weights, recorded during three
training steps on noise. Nothing in it is wrong, so nothing may be said at warning or above.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

import bnprobe
from bnprobe import models
from bnprobe.models.image_folder import find_images
from scripts.rule_benchmark.cases.case import SEVERE
from scripts.rule_benchmark.planted import MODELS, healthy
from scripts.rule_benchmark.subjects import subjects
from scripts.zoo.entries import Call, Entry, torchvision_entries
from scripts.zoo.trial import loss_of

STEPS = 3
LARGE = 30_000_000
"""Parameters above which an architecture is left to its smaller relatives."""


def severe(findings: pd.DataFrame) -> str:
    """The rules that speak at warning or above, each once."""
    return "; ".join(sorted(set(findings["rule"][findings["severity"].isin(SEVERE)])))


def families() -> list[Entry]:
    """The smallest architecture of each family of torchvision, and the sample of timm where it is installed."""
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
    if importlib.util.find_spec("timm"):
        from scripts.zoo.samples import timm_entries

        entries += timm_entries()
    return entries


def first_steps(entry: Entry) -> pd.DataFrame:
    """Findings of a new network's first training steps, on noise of another seed each."""
    for size in entry.sizes:
        model = entry.model(size).train()
        try:
            with bnprobe.attach(model) as probe:
                _train(model, entry, size)
        except (RuntimeError, ValueError, AssertionError):  # too small an input for this architecture
            continue
        return bnprobe.report(probe).findings
    raise RuntimeError(f"{entry.name}: no size of {entry.sizes} can be trained on")


def _train(model: nn.Module, entry: Entry, size: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for seed in range(STEPS):
        generator = torch.Generator().manual_seed(seed)
        call = _shaken(entry.call(size, True), generator)
        optimizer.zero_grad()
        loss_of(call.of(model)).backward()
        optimizer.step()


def _shaken(call: Call, generator: torch.Generator) -> Call:
    """The same call with other noise in its images."""

    def other(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim >= 3:
            return torch.rand(value.shape, generator=generator)
        if isinstance(value, list) and value and isinstance(value[0], torch.Tensor):
            return [other(item) for item in value]
        return value

    return Call(tuple(other(arg) for arg in call.args), call.kwargs)


def networks(kept: Path, data: Path, new: bool = True) -> pd.DataFrame:
    """A row per network: its group, its name, and the rules that speak at warning or above ("" where none does)."""
    rows = [
        {"group": "trained", "network": name, "rules": severe(healthy(subject)[0])}
        for name, subject in subjects(kept, data, set(MODELS)).items()
    ]
    rows += _photographs(data)
    torch.manual_seed(0)
    for entry in tqdm(families() if new else [], desc="new networks", unit="net", disable=None):
        try:
            rules = severe(first_steps(entry))
        except bnprobe.NoNormLayers:
            continue
        rows.append({"group": f"new, {entry.library}", "network": entry.name, "rules": rules})
    return pd.DataFrame(rows)


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
        {"group": "trained", "network": "mobilenet_v2", "rules": severe(bnprobe.report(recording).findings)}
    ]
