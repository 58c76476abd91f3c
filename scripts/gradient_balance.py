"""How evenly does the gradient travel with one norm, another, or none?

The same plain convolutional network is trained on handwritten digits with no norm, batch, layer, group and
instance norm; bnprobe records the gradient at every norm at the start and at the end. Without a norm its place is
taken by a batch norm that never normalizes (mean 0, variance 1, nothing learned), so that there is a place to look.

Writes gradient_balance.csv and gradient_balance.svg to --out, and prints the imbalance of each network: the
deviation through depth of log10 of the gradient's length (0: equally long everywhere).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from tqdm import tqdm

import bnprobe

WIDTH, PASSES, BATCH = 32, 8, 64


class Nothing(nn.BatchNorm2d):
    """A batch norm that passes its input on: a place to look at, and nothing more."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=0.0, affine=False)
        self.eval()

    def train(self, mode: bool = True) -> Nothing:
        return super().train(False)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": Nothing,
    "batch": nn.BatchNorm2d,
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "group": lambda channels: nn.GroupNorm(8, channels),
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
}


def network(norm: Callable[[int], nn.Module], depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(1 if i == 0 else WIDTH, WIDTH, 3, padding=1), norm(WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 10))


def batches(n: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    y = torch.tensor(digits.target)
    for _ in range(n):
        some = torch.randint(len(x), (BATCH,), generator=generator)
        yield x[some], y[some]


def train(model: nn.Module, steps: int, rate: float, name: str) -> float:
    """Plain SGD with momentum; the mean loss of the last tenth of the steps."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    losses = []
    for x, y in tqdm(batches(steps, torch.Generator().manual_seed(1)), total=steps, desc=name, disable=None):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses[-max(steps // 10, 1) :]))


def look(model: nn.Module) -> bnprobe.Report:
    """The gradients of a few batches that are the same for every network and every moment."""
    some = batches(PASSES, torch.Generator().manual_seed(2))
    return bnprobe.report(bnprobe.record(model, some, nn.functional.cross_entropy, histograms=False))


def measure(depth: int, steps: int, rate: float) -> pd.DataFrame:
    rows = []
    for name, norm in NORMS.items():
        torch.manual_seed(0)
        model = network(norm, depth).train()
        for moment in ("start", "end"):
            loss = train(model, steps, rate, name) if moment == "end" else float("nan")
            report = look(model)
            print(f"{name:<9} {moment:<6} imbalance {report.gradient_imbalance:.3f}   loss {loss:.3f}")
            lengths = report.layers["grad_out"].to_numpy()
            rows += [(name, moment, i + 1, length, loss) for i, length in enumerate(lengths)]
    return pd.DataFrame(rows, columns=["norm", "moment", "depth", "grad_out", "loss"])


def draw(table: pd.DataFrame, path: Path) -> None:
    import seaborn as sns

    matplotlib.use("svg")
    sns.set_theme(style="ticks", palette="colorblind")
    grid = sns.relplot(
        table,
        x="depth",
        y="grad_out",
        hue="norm",
        style="norm",
        col="moment",
        kind="line",
        markers=True,
        dashes=False,
    )
    grid.set(
        yscale="log",
        xlabel="depth (norm number from the input)",
        ylabel="length of dL/dy (root of the sum of squares)",
    )
    grid.set_titles("{col_name} of training")
    grid.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=12, help="number of convolutions (default 12)")
    parser.add_argument("--steps", type=int, default=300, help="training steps (default 300)")
    parser.add_argument("--rate", type=float, default=0.02, help="learning rate (default 0.02)")
    parser.add_argument(
        "--out", type=Path, default=Path("reports"), help="folder to write to (default reports)"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table = measure(options.depth, options.steps, options.rate)
    table.to_csv(options.out / "gradient_balance.csv", index=False, float_format="%.6g")
    draw(table, options.out / "gradient_balance.svg")
    print(f"written: {options.out / 'gradient_balance.csv'}, {options.out / 'gradient_balance.svg'}")


if __name__ == "__main__":
    main()
