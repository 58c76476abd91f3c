"""Small networks and data of the cases, and a loop that trains them in seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe

N_CLASSES = 4
Batch = tuple[Tensor, Tensor]
Loss = Callable[[Any, Tensor], Tensor]


def classes(scale: float = 1.0, side: int = 8) -> Tensor:
    """The mean image of each class, (4, 3, side, side); the same every time."""
    return torch.randn(N_CLASSES, 3, side, side, generator=torch.Generator().manual_seed(0)) * scale


def images(n: int = 32, centre: Tensor | None = None) -> Batch:
    """Images of four classes, (n, 3, 8, 8), and their labels."""
    centre = classes() if centre is None else centre
    y = torch.randint(0, N_CLASSES, (n,))
    return torch.randn(n, *centre.shape[1:]) + centre[y], y


def convnet(
    width: int = 16,
    depth: int = 2,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    between: Callable[[], list[nn.Module]] = list,
) -> nn.Sequential:
    """Convolutions, norms and ReLUs in a row, pooling and a linear layer; `between` follows every ReLU but the last."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(3 if i == 0 else width, width, 3, padding=1, bias=False), norm(width), nn.ReLU()]
        layers += between() if i + 1 < depth else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, N_CLASSES))


def fit(
    model: nn.Module,
    batch: Callable[[], Batch] = images,
    steps: int = 100,
    loss: Loss = F.cross_entropy,
    make: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    lr: float = 3e-3,
    **options: Any,
) -> nn.Module:
    """Train what can be trained, in place, in train mode."""
    optimizer = make([p for p in model.parameters() if p.requires_grad], lr=lr, **options)
    for _ in range(steps):
        x, y = batch()
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    return model


def padded(x: Tensor) -> Tensor:
    """Zeros after a length of its own, 5 steps at least, in each sample (N, ..., steps): in place."""
    for row, length in zip(x, torch.randint(5, x.shape[-1] + 1, (len(x),)), strict=True):
        row[..., length:] = 0
    return x


def frames(whole: bool) -> Batch:
    """Frames (32, 6, 40) whose mean is their class; of unequal length and padded with zeros unless they are `whole`."""
    y = torch.randint(0, N_CLASSES, (32,))
    x = torch.randn(32, 6, 40) + y[:, None, None] * 0.5 + 2
    return x if whole else padded(x), y


def follow(target: nn.Module, source: nn.Module, keep: float, buffers: bool = True) -> None:
    """One step of a moving average of weights, of which the share `keep` stays; 0 copies. Whole numbers are copied."""
    pairs = [*zip(target.parameters(), source.parameters(), strict=True)]
    pairs += [*zip(target.buffers(), source.buffers(), strict=True)] if buffers else []
    with torch.no_grad():
        for a, b in pairs:
            a.copy_(keep * a + (1 - keep) * b if a.is_floating_point() else b)


def several(batch: Callable[[], Batch] = images, n: int = 6) -> list[Batch]:
    return [batch() for _ in range(n)]


def told(model: nn.Module, data: Iterable[Any], **options: Any) -> bnprobe.Report:
    """The report on one recording of `data`."""
    return bnprobe.report(bnprobe.record(model, data, **options))


def checked(state: dict[str, Tensor]) -> Any:
    """What `bnprobe.check` says of a file with these tensors."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        torch.save(state, path)
        return bnprobe.check(path)


def compared(a: dict[str, Tensor], b: dict[str, Tensor]) -> Any:
    """What `bnprobe.compare` says of two files with these tensors."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{side}.pt" for side in "ab"]
        for path, state in zip(paths, (a, b), strict=True):
            torch.save(state, path)
        return bnprobe.compare(*paths)
