"""Probe several torchvision models on one folder of images, and write a page for each.

    python scripts/pretrained.py resnet50 vit_b_16 --weights DEFAULT --data DIR --out reports

Without --weights the networks are as they were initialized. Models are named as in `bnprobe list`; a pattern
("resnet*") stands for all that match. Prints one line per model: layers, channels, seconds, findings.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import bnprobe
from bnprobe import models
from bnprobe.models import image_folder


def page(name: str, options: argparse.Namespace) -> str:
    """Probe one model, write its page, and say in a line what came of it."""
    subject = models.subject(name, weights=options.weights)
    batches = image_folder.find_images(options.data).batches(
        subject.preprocess, options.batch_size, options.limit
    )
    recording = bnprobe.record(
        subject.model,
        ((subject.to_inputs(batch.images), None) for batch in batches),
        n_images=batches.n_images,
        model_name=subject.name,
        weights=subject.weights,
        data=batches.words,
        preprocessing=subject.preprocess_words,
    )
    report = bnprobe.report(recording)
    path = report.to_html(options.out / f"{name}.html")
    found = report.findings["severity"].value_counts()
    serious = ", ".join(f"{n} {severity}" for severity, n in found.items()) or "no findings"
    return (
        f"{name:<32} {len(report.layers):>4} norms {len(report.channels):>7,} channels "
        f"{recording.about.seconds:>7.1f} s   {serious}   {path}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="name or pattern of torchvision models")
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of images")
    parser.add_argument("--weights", metavar="NAME", help="DEFAULT, IMAGENET1K_V1, ... (default: random)")
    parser.add_argument("--limit", type=int, metavar="N", help="use N images, spread evenly over the folder")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="images per batch (default 8)")
    parser.add_argument(
        "--out", type=Path, default=Path("reports"), metavar="DIR", help="where pages go (default reports)"
    )
    options = parser.parse_args()
    failed = 0
    for name in dict.fromkeys(match for model in options.models for match in models.names(model) or [model]):
        try:
            print(page(name, options), flush=True)
        except bnprobe.BnprobeError as error:
            failed += 1
            print(f"{name:<32} {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
