"""Whether intervals of `bnprobe.ablate` keep what they promise: python -m scripts.ablation_intervals.

Null: the bias of a norm is replaced by itself, rounded to bfloat16. At most 5 % of the intervals should exclude zero.
Planted: it is moved, in several directions, until the accuracy on 200,000 samples has fallen by two points; with 1,000
samples about 80 % should. How many do depends on the direction: of a move that costs 3.7 % of the samples and mends
1.7 %, the best test of matched pairs finds 79 %, of 3 % and 1 % 90 %.
Each study has samples of its own, of a task whose truth is known.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

import bnprobe

N_CLASSES, N_FEATURES = 10, 16


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


def accuracy(model: nn.Module, bias: Tensor, n: int = 200_000) -> float:
    """With another bias in the norm."""
    x, y = samples(n, 7)
    with torch.no_grad():
        x = model[0](x)
        norm = model[1]
        x = nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, bias)
        return float((model[3](x.relu()).argmax(1) == y).double().mean())


def excluded(model: nn.Module, bias: Tensor, n_studies: int, n_samples: int) -> float:
    """Share of studies whose interval of this replacement excludes zero."""
    hits = 0
    for seed in range(n_studies):
        study = bnprobe.ablate(
            model, [samples(n_samples, 10_000 + seed)], vectors="bias", initial={"1.bias": bias}
        )
        row = study.table[(study.table["level"] == "layer") & (study.table["replacement"] == "initial")].iloc[
            0
        ]
        hits += bool(row["low"] > 0 or row["high"] < 0)
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
    share = excluded(model, rounded, options.null, 1000)
    print(f"null: {share:.1%} of {options.null} intervals exclude zero (at most 5 %)")
    shares = []
    for seed in range(options.directions):
        planted = moved(model, 0.02, seed)
        shares.append(excluded(model, planted, options.planted, 1000))
        print(
            f"planted {seed}: accuracy {accuracy(model, planted):.4f}, {shares[-1]:.1%} of {options.planted} exclude zero"
        )
    print(f"planted: {sum(shares) / len(shares):.1%} on average over {len(shares)} directions (about 80 %)")


if __name__ == "__main__":
    main()
