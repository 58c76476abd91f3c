"""Whether intervals of `bnprobe.ablate` keep what they promise: python -m scripts.ablation_intervals.

Null: the bias of a norm is replaced by itself, rounded to bfloat16. At most 5 % of the intervals should exclude the true
difference, which is that of 200,000 samples: of the accuracy none, of the loss a tiny one.
Planted: it is moved, in several directions, until the accuracy on 200,000 samples has fallen by two points; with 1,000
samples about 80 % should. How many can depends on how many decisions change, 5.1 % at most: of a move that costs 3.5 % of
the samples and mends 1.5 % the best test of matched pairs finds 80 %, of 4.1 % and 2.1 % 72 %; `power` says it. The loss of
the same samples is smoother than hits and misses, so its intervals are tried beside.
Each study has samples of its own, of a task whose truth is known.
"""

from __future__ import annotations

import argparse
from statistics import NormalDist

import torch
from torch import Tensor, nn

import bnprobe

N_CLASSES, N_FEATURES = 10, 16
N_SAMPLES = 1000
"""Of a study."""
METRICS: dict[str, str | None] = {"accuracy": None, "loss": "loss"}
"""Names, and what `bnprobe.ablate` is given."""


def task(seed: int = 0) -> Tensor:
    """The centers of the classes."""
    return 1.2 * torch.randn(N_CLASSES, N_FEATURES, generator=torch.Generator().manual_seed(seed))


def samples(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs and classes."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(N_CLASSES, (n,), generator=g)
    return task()[y] + 1.5 * torch.randn(n, N_FEATURES, generator=g), y


def trained() -> nn.Sequential:
    """A network that has learned the task, in eval mode."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(N_FEATURES, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, N_CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(400):
        x, y = samples(256, 1000 + step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def scored(model: nn.Module, bias: Tensor, n: int = 200_000) -> tuple[Tensor, Tensor]:
    """Scores of many samples with another bias in the norm, and their classes."""
    x, y = samples(n, 7)
    with torch.no_grad():
        x = model[0](x)
        norm = model[1]
        x = nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, bias)
        return model[3](x.relu()), y


def right(model: nn.Module, bias: Tensor) -> Tensor:
    """Which samples get their class."""
    scores, y = scored(model, bias)
    return scores.argmax(1) == y


def accuracy(model: nn.Module, bias: Tensor) -> float:
    """With another bias in the norm."""
    return float(right(model, bias).double().mean())


def loss_difference(model: nn.Module, bias: Tensor) -> float:
    """What another bias does to the loss, on so many samples that it is known."""
    own = model[1].bias.detach()
    before, after = (
        nn.functional.cross_entropy(*scored(model, b), reduction="none").double() for b in (own, bias)
    )
    return float((after - before).mean())


def changed(model: nn.Module, bias: Tensor) -> tuple[float, float]:
    """Shares of samples that lose their class, and that gain it, with another bias in the norm."""
    before, after = right(model, model[1].bias.detach()), right(model, bias)
    return float((before & ~after).double().mean()), float((after & ~before).double().mean())


def power(worse: float, better: float, n: int, level: float = 0.95) -> float:
    """Of the test of matched pairs (McNemar's, normal approximation) where such shares of n samples change."""
    difference = abs(worse - better)
    error = ((worse + better - difference**2) / n) ** 0.5
    under_null = ((worse + better) / n) ** 0.5
    beyond = NormalDist().inv_cdf((1 + level) / 2) * under_null
    return NormalDist().cdf((difference - beyond) / error)


def excluded(
    model: nn.Module, bias: Tensor, n_studies: int, metric: str | None = None, value: float = 0.0
) -> float:
    """Share of studies of 1,000 samples whose interval of this replacement excludes zero, or another value."""
    hits = 0
    for seed in range(n_studies):
        study = bnprobe.ablate(
            model, [samples(N_SAMPLES, 10_000 + seed)], metric, vectors="bias", initial={"1.bias": bias}
        )
        row = study.table[(study.table["level"] == "layer") & (study.table["replacement"] == "initial")].iloc[
            0
        ]
        hits += bool(row["low"] > value or row["high"] < value)
    return hits / n_studies


def moved(model: nn.Module, by: float, seed: int) -> Tensor:
    """The bias that costs so much accuracy: along a random direction, found by halving."""
    bias = model[1].bias.detach()
    direction = torch.randn(bias.shape, generator=torch.Generator().manual_seed(seed))
    whole = accuracy(model, bias)
    low, high = 0.0, 4.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if whole - accuracy(model, bias + middle * direction) > by else (middle, high)
        )
    return bias + low * direction


def main() -> None:
    """Print both shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--null", type=int, default=200)
    parser.add_argument("--planted", type=int, default=100, help="studies for each direction")
    parser.add_argument("--directions", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = trained()
    bias = model[1].bias.detach()
    rounded = bias.bfloat16().float()
    print(f"accuracy {accuracy(model, bias):.4f}, with the bias rounded {accuracy(model, rounded):.4f}")
    for name, metric in METRICS.items():
        true = loss_difference(model, rounded) if metric else 0.0
        share = excluded(model, rounded, options.null, metric, true)
        print(
            f"null, {name}: {share:.1%} of {options.null} intervals exclude the true difference (at most 5 %)"
        )
    for seed in range(options.directions):
        planted = moved(model, 0.02, seed)
        found = [
            f"{excluded(model, planted, options.planted, metric):.1%} by {name}"
            for name, metric in METRICS.items()
        ]
        worse, better = changed(model, planted)
        print(
            f"planted {seed}: accuracy {accuracy(model, planted):.4f} ({worse:.1%} worse, {better:.1%} better); of "
            f"{options.planted} studies exclude zero {', '.join(found)}; the best test of matched pairs would in "
            f"{power(worse, better, N_SAMPLES):.1%}"
        )


if __name__ == "__main__":
    main()
