"""Whether errors are what they say: a trained ResNet-20 on real images that are copied, in order, or the same on both sides.

Nothing moved where it says "null": then at most one channel in a hundred may be called changed. Where something did, it
must be found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

import bnprobe
from bnprobe.recording import Recording
from scripts.rule_benchmark.claims import ERRORS
from scripts.rule_benchmark.subjects import subjects

DRAWS = 6
N, BATCH = 400, 20

Change = Callable[[Tensor], Tensor]


def dependence(folder: Path, data: Path, draws: int = DRAWS) -> pd.DataFrame:
    """A row per situation: what was counted, its mean over draws and the error of that, the least and most it may be."""
    subject = subjects(folder, data, {"resnet20"}).get("resnet20")
    if subject is None:
        return pd.DataFrame()
    model, (images, labels) = subject.build(), subject.training.tensors
    seen: dict[tuple[str, str, float, float], list[float]] = {}
    for seed in tqdm(range(draws), desc="dependence"):
        torch.manual_seed(seed)
        for key, value in (*paired(model, images), *copies(model, images), *in_order(model, images, labels)):
            seen.setdefault(key, []).append(value)
    rows = [
        (*key[:2], float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5, *key[2:])
        for key, values in seen.items()
    ]
    table = pd.DataFrame(rows, columns=["situation", "counted", "mean", "error", "least", "most"])
    slack = ERRORS * table["error"]
    return table.assign(fine=table["mean"].between(table["least"] - slack, table["most"] + slack))


Row = tuple[tuple[str, str, float, float], float]
CHANGED = "share of channels called changed"
NULL, FOUND = (0.0, 0.01), (0.7, 1.0)


def paired(model: nn.Module, images: Tensor) -> Iterator[Row]:
    """The same images in the same order, with something done to them; and other images."""
    order = torch.randperm(len(images))
    x, halves = images[order[:N]], images[order[: 24 * BATCH]].chunk(2)
    a = record(model, x)
    changes: dict[str, Change] = {
        "contrast times 0.975": lambda x: 0.975 * x,
        "brightness plus 0.05": lambda x: x + 0.05,
        "noise of 0.05": lambda x: x + 0.05 * torch.randn_like(x),
    }
    for name, change in changes.items():
        yield (name, CHANGED, *FOUND), changed(a, record(model, change(x)))
    yield (
        ("null: each image flipped by chance", CHANGED, *NULL),
        changed(*(record(model, flipped(x)) for _ in "ab")),
    )
    yield ("null: other images", CHANGED, *NULL), changed(*(record(model, half) for half in halves))


def copies(model: nn.Module, images: Tensor) -> Iterator[Row]:
    """Ten copies of each of 40 photos, side by side and shuffled."""
    order = torch.randperm(len(images))
    sides = [jittered(images[part].repeat_interleave(10, dim=0)) for part in order[: N // 5].chunk(2)]
    a, b = (record(model, x) for x in sides)
    yield ("null: ten copies of other photos", CHANGED, *NULL), changed(a, b)
    yield ("ten copies", "samples-alike", 1.0, 1.0), alike(a)
    worth = bnprobe.report(a).layers["n_effective"].median()
    yield ("ten copies", "independent samples of 400", 25.0, 70.0), worth
    yield ("single photos", "samples-alike", 0.0, 0.0), alike(record(model, images[order[:N]]))


def in_order(model: nn.Module, images: Tensor, labels: Tensor) -> Iterator[Row]:
    """Four classes of a folder, one after another, without their labels."""
    chosen = torch.cat([torch.nonzero(labels == c)[:, 0] for c in torch.randperm(10)[:4]])
    yield ("four classes in order", "samples-alike", 1.0, 1.0), alike(record(model, images[chosen]))
    shuffled = chosen[torch.randperm(len(chosen))]
    yield ("four classes shuffled", "samples-alike", 0.0, 0.0), alike(record(model, images[shuffled]))


def record(model: nn.Module, x: Tensor) -> Recording:
    return bnprobe.record(model, x.split(BATCH))


def changed(a: Recording, b: Recording) -> float:
    return float(bnprobe.compare(a, b).channels["pre_changed"].mean())


def alike(recording: Recording) -> float:
    return float((bnprobe.report(recording).findings["rule"] == "samples-alike").any())


def flipped(x: Tensor) -> Tensor:
    """Each image as it is or mirrored, by chance."""
    return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x, x.flip(3))


def jittered(x: Tensor) -> Tensor:
    """Each copy a little brighter or darker, with a little noise."""
    return x + 0.02 * torch.randn(len(x), 1, 1, 1) + 0.02 * torch.randn_like(x)
