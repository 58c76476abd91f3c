"""What fold means cost: CPU seconds of a probed pass with and without them, and of a bare one.

    python -m scripts.performance.fold_cost [MODEL ...] [--batch 8] [--rounds 9]

Folds are made of what every reading already holds, so nothing is read for them. The three passes alternate, and the best
round of each counts, so that a busy machine does; CPU time of one thread.
"""

from __future__ import annotations

import argparse
import time
from unittest import mock

import torch

import bnprobe
from bnprobe import models
from bnprobe.probe.calls.fold_sums import FoldSums

MODELS = ("resnet18", "mobilenet_v2", "vit_b_16")


def measured(name: str, batch: int, n_rounds: int) -> tuple[float, float, float]:
    """Milliseconds of a bare pass, one with folds and one without, the best of the rounds."""
    model, x = models.subject(name, weights=None).model.eval(), torch.randn(batch, 3, 224, 224)
    best = [float("inf")] * 3

    def timed(place: int) -> None:
        began = time.process_time()
        model(x)
        best[place] = min(best[place], 1e3 * (time.process_time() - began))

    with torch.no_grad():
        for _ in range(n_rounds):
            timed(0)
            with bnprobe.attach(model) as probe:
                model(x)  # the first pass checks formulas
                timed(1)
                with mock.patch.object(FoldSums, "add", return_value=None):
                    timed(2)
                assert probe.n_images
    bare, folds, none = best
    return bare, folds, none


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL", help="as in `bnprobe list`")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="images (default 8)")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="rounds (default 9)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.models:
        bare, folds, none = measured(name, options.batch, options.rounds)
        print(
            f"{name:<14} bare {bare:7.1f} ms  probed {folds:7.1f} ms ({folds / bare:.3f})  without folds {none:7.1f} ms "
            f"({none / bare:.3f})  folds {100 * (folds - none) / bare:+.2f}% of a bare pass",
            flush=True,
        )


if __name__ == "__main__":
    main()
