"""What the first look costs: attach, one pass, detach, relative to one bare pass beside it.

    python -m scripts.performance.first_pass                        # three models → reports/first_pass.csv
    python -m scripts.performance.first_pass --models resnet18 --rounds 3
    python -m scripts.performance.first_pass --clock cpu            # on a machine that others use too

The first round of a process also loads the compiled loops; `again` is the median of the later rounds, each with a new
`attach` on the same model.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
import torchvision
from torch import nn
from tqdm import tqdm

import bnprobe

BATCHES = {"resnet50": 16, "mobilenet_v3_large": 32, "vit_b_16": 8}
"""Models of torchvision, and images per batch."""

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def seconds_of(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds that `work` takes by `clock`."""
    began = clock()
    work()
    return clock() - began


def rounds_of(
    model: nn.Module, x: torch.Tensor, n_rounds: int, clock: Callable[[], float]
) -> list[tuple[float, float]]:
    """Seconds of a bare pass, and of attach + pass + detach right after it, in each round."""

    def look() -> None:
        with bnprobe.attach(model):
            model(x)

    model(x)
    return [(seconds_of(lambda: model(x), clock), seconds_of(look, clock)) for _ in range(n_rounds)]


def row_of(name: str, batch: int, n_rounds: int, clock: str) -> dict[str, object]:
    """One line of the table: ratios of the first round and of the later ones."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    with torch.no_grad():
        times = rounds_of(model, torch.randn(batch, 3, 224, 224), n_rounds, CLOCKS[clock])
    ratios = [look / bare for bare, look in times]
    return {
        "model": name,
        "batch": batch,
        "clock": clock,
        "bare_seconds": statistics.median(bare for bare, _ in times),
        "first": ratios[0],
        "again": statistics.median(ratios[1:]),
        "rounds": n_rounds,
    }


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(BATCHES), help="names that torchvision knows")
    parser.add_argument("--rounds", type=int, default=5, help="attaches per model, two or more (default 5)")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="cpu: of this process")
    parser.add_argument("--out", type=Path, default=Path("reports/first_pass.csv"), help="the table")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds must be 2 or more: the first round is reported apart from the others")
    rows = [
        row_of(name, BATCHES.get(name, 16), options.rounds, options.clock) for name in tqdm(options.models)
    ]
    table = pd.DataFrame(rows).round(3)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
