"""How long all measures take on a recording of a large network.

    python -m scripts.performance.measures_cost [MODEL] [--images N] [--size PIXELS]

The network is as it was initialized (resnet50 by default), its images are noise: the time depends on neither. Prints
the seconds of the first pair of tables, which loads scipy, and the best of five; ends with 1 above --most seconds.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

import bnprobe
from bnprobe import models


def recorded(name: str, n_images: int, size: int) -> bnprobe.Recording:
    """One small batch of noise through the network."""
    torch.manual_seed(0)
    model = models.subject(name).model.eval()
    with bnprobe.attach(model) as probe, torch.no_grad():
        model(torch.randn(n_images, 3, size, size))
    return probe.recording


def seconds(recording: bnprobe.Recording) -> float:
    """Of both tables and the stem, from nothing."""
    began = time.perf_counter()
    report = bnprobe.report(recording)
    rows = len(report.layers) + len(report.channels)
    assert rows
    assert report.stem.why
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="resnet50", metavar="MODEL", help="as in `bnprobe list`")
    parser.add_argument("--images", type=int, default=4, metavar="N", help="images in the batch (default 4)")
    parser.add_argument(
        "--size", type=int, default=96, metavar="PIXELS", help="side of an image (default 96)"
    )
    parser.add_argument("--most", type=float, default=3.0, metavar="SECONDS", help="allowed (default 3)")
    options = parser.parse_args()
    recording = recorded(options.model, options.images, options.size)
    first, *again = [seconds(recording) for _ in range(6)]
    channels = sum(record.n_channels for record in recording.layers)
    print(
        f"{options.model}: {len(recording.layers)} norms, {channels:,} channels: "
        f"{first:.2f} s the first time, {min(again):.2f} s again"
    )
    return int(first > options.most)


if __name__ == "__main__":
    sys.exit(main())
