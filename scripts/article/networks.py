"""The small networks that several claims share, on handwritten digits; every draw is seeded.

The network is that of scripts/gradient_balance.py: so many 3 x 3 convolutions with 32 channels, each followed by
a norm and a ReLU; then the mean over positions and one linear layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import bnprobe
from scripts.gradient_balance import NORMS, network
from scripts.train_demo import split

RATE, BATCH = 0.02, 64
Array = np.ndarray


@dataclass(frozen=True)
class Sizes:
    """How much is computed; verdicts are the same for both sizes below."""

    depth: int = 12
    steps: int = 300
    moments: tuple[int, ...] = (0, 10, 30, 100, 300)
    grid_depths: tuple[int, ...] = (2, 4, 8, 12, 16)
    grid_steps: int = 150
    factors: tuple[float, ...] = (1, 2, 4, 8, 16)
    balance_depth: int = 6
    balance_steps: int = 200
    batch_sizes: tuple[int, ...] = (2, 8, 64)
    batch_depth: int = 6
    batch_images: int = 4800
    n_demo: int = 128
    n_looks: int = 4
    resnet50_pixels: int = 64
    judge_depth: int = 6
    judge_steps: int = 300
    n_made: int = 40
    made_steps: int = 150


SMALL = Sizes(
    steps=60,
    moments=(0, 20, 60),
    grid_depths=(2, 12),
    grid_steps=60,
    factors=(1, 16),
    balance_steps=150,
    batch_sizes=(8, 64),
    batch_images=1920,
    n_demo=48,
    n_looks=2,
    judge_steps=150,
    made_steps=60,
)


@dataclass(frozen=True)
class Photographs:
    """Files of a network that has learned photographs: its weights, images for the judge, and what is kept of a run."""

    checkpoint: Path
    data: Path
    judge: Path | None = None
    state: Path | None = None


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, 8, 8) from −1 to 1 and their labels (N,)."""

    x: Tensor
    y: Tensor


@cache
def digits() -> tuple[Digits, Digits]:
    """1,437 digits to learn from and 360 held out: those of the demo."""
    train, held_out = (
        Digits(torch.tensor(part.images, dtype=torch.float32)[:, None] / 127.5 - 1, torch.tensor(part.labels))
        for part in split()
    )
    return train, held_out


def batches(n: int, seed: int, size: int = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches drawn with replacement from the digits to learn from."""
    data, generator = digits()[0], torch.Generator().manual_seed(seed)
    for _ in range(n):
        some = torch.randint(len(data.x), (size,), generator=generator)
        yield data.x[some], data.y[some]


def build(norm: str, depth: int, careful: bool = False) -> nn.Module:
    """An untrained network, the same weights every time; `careful` draws them for the depth (He et al. 2015).

    torch's own default shrinks the signal in every layer; N(0, 2 / fan-in) keeps its size through a ReLU.
    """
    torch.manual_seed(0)
    model = network(NORMS[norm], depth).train()
    for module in model.modules() if careful else ():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return model


def train(
    model: nn.Module,
    steps: int,
    name: str,
    *,
    size: int = BATCH,
    rate: float = RATE,
    at: tuple[int, ...] = (),
    look: Callable[[int], None] = lambda step: None,
) -> float:
    """SGD with momentum 0.9; the mean loss of the last tenth of the steps, infinite where it diverged.

    `look` is called after the steps named by `at`, 0 being the start.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    losses = []
    if 0 in at:
        look(0)
    for step, (x, y) in enumerate(
        tqdm(batches(steps, 1, size), total=steps, desc=name, unit="step", leave=False, disable=None), start=1
    ):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step in at:
            look(step)
    last = float(np.mean(losses[-max(steps // 10, 1) :]))
    return last if np.isfinite(last) else float("inf")


def look_back(model: nn.Module, n: int = 4) -> bnprobe.Report:
    """Data and gradients at every norm, on batches that are the same for every network; the model stays as it is."""
    some = batches(n, 2)
    return bnprobe.report(bnprobe.record(copy.deepcopy(model).train(), some, nn.functional.cross_entropy))


def look_held_out(model: nn.Module) -> bnprobe.Report:
    """The held-out digits in eval mode, as a user would run the model."""
    held_out = digits()[1]
    return bnprobe.report(bnprobe.record(copy.deepcopy(model).eval(), [(held_out.x, held_out.y)]))


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """Share (0..1) of the held-out digits read correctly in eval mode."""
    held_out = digits()[1]
    return float((copy.deepcopy(model).eval()(held_out.x).argmax(1) == held_out.y).float().mean())


@dataclass(frozen=True)
class Course:
    """One network through its training: a report and a copy of the model per moment."""

    model: nn.Module
    loss: float
    reports: dict[int, bnprobe.Report]
    models: dict[int, nn.Module]

    @property
    def start(self) -> bnprobe.Report:
        return self.reports[min(self.reports)]

    @property
    def end(self) -> bnprobe.Report:
        return self.reports[max(self.reports)]


@dataclass
class Laboratory:
    """Networks are trained when a claim first asks for them, and once."""

    sizes: Sizes
    photographs: Photographs | None = None
    _courses: dict[tuple[str, bool], Course] = field(default_factory=dict)

    def course(self, norm: str, careful: bool = False) -> Course:
        key = (norm, careful)
        if key not in self._courses:
            self._courses[key] = self._follow(norm, careful)
        return self._courses[key]

    def _follow(self, norm: str, careful: bool) -> Course:
        model = build(norm, self.sizes.depth, careful)
        reports: dict[int, bnprobe.Report] = {}
        models: dict[int, nn.Module] = {}

        def look(step: int) -> None:
            reports[step] = look_back(model, self.sizes.n_looks)
            models[step] = copy.deepcopy(model)

        name = f"{norm} norm" if norm != "none" else "no norm"
        loss = train(model, self.sizes.steps, name, at=self.sizes.moments, look=look)
        return Course(model, loss, reports, models)
