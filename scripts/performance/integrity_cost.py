"""How long the look at a model takes that proves it unchanged, against one forward pass of one image.

    python -m scripts.performance.integrity_cost [MODEL ...] [--rounds 7]

A probe looks twice: when it is attached and when it is detached. Prints both in milliseconds, the best of the
rounds, which alternate; ends with 1 where a look takes longer than the pass.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch

from bnprobe import models
from bnprobe.norms import ModuleTree
from bnprobe.probe.integrity.fingerprint import Fingerprint

MODELS = ("resnet50", "mobilenet_v3_large", "vit_b_16", "vgg16_bn")


def seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def measured(name: str, n_rounds: int) -> tuple[float, float]:
    """Milliseconds of a look and of a pass, the best of the rounds."""
    model, x = models.subject(name, weights=None).model.eval(), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        model(x)
        rounds = [
            (seconds(lambda: Fingerprint.of(ModuleTree.of(model))), seconds(lambda: model(x)))
            for _ in range(n_rounds)
        ]
    look, forward = (1e3 * min(times) for times in zip(*rounds, strict=True))
    return look, forward


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL", help="as in `bnprobe list`")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="rounds (default 7)")
    options = parser.parse_args()
    over = 0
    for name in options.models:
        look, forward = measured(name, options.rounds)
        over += look > forward
        print(
            f"{name:<20} look {look:6.1f} ms  forward {forward:6.1f} ms  ratio {look / forward:.2f}",
            flush=True,
        )
    return int(over > 0)


if __name__ == "__main__":
    sys.exit(main())
