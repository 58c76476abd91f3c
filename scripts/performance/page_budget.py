"""How long does a page take to make from a saved recording, and how large is it?

    python -m scripts.performance.page_budget                        # both networks, within their budgets or exit code 1
    python -m scripts.performance.page_budget resnet50 --keep DIR    # keeps recordings and pages

Records each network once (random weights, one batch with histograms, γ, β and running statistics set at random, so that
no column is constant), then makes its page in a fresh interpreter and measures seconds from import to file, and bytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

BUDGETS = {"resnet50": (4.0, 3.0), "densenet201": (8.0, 6.0)}
"""Seconds on two cores, and megabytes (10^6)."""

MAKE = """
import json, sys, time
begin = time.perf_counter()
import bnprobe
report = bnprobe.report(sys.argv[1])
path = report.to_html(sys.argv[2])
print(json.dumps({"seconds": time.perf_counter() - begin, "bytes": path.stat().st_size,
                  "layers": len(report.layers), "channels": len(report.channels)}))
"""


def record(name: str, path: Path) -> None:
    """A network that has learned nothing, with vectors as if it had."""
    import torch

    import bnprobe
    from bnprobe import models

    torch.manual_seed(0)
    model = models.subject(name, weights=None).model
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.normal_(0.8, 0.3)
                module.bias.normal_(-0.2, 0.3)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
    recording = bnprobe.record(model.eval(), [(torch.randn(4, 3, 224, 224), None)], model_name=name)
    recording.save(path)


def measure(recording: Path, page: Path) -> dict[str, float]:
    """Seconds and bytes of the page, made in an interpreter of its own."""
    run = subprocess.run(
        [sys.executable, "-c", MAKE, str(recording), str(page)], capture_output=True, text=True, check=True
    )
    return dict(json.loads(run.stdout))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=list(BUDGETS), metavar="MODEL")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where recordings and pages stay")
    options = parser.parse_args()
    over = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.models:
            recording, page = folder / f"{name}.bnp", folder / f"{name}.html"
            if not recording.exists():
                record(name, recording)
            found = measure(recording, page)
            seconds, megabytes = BUDGETS.get(name, (float("inf"), float("inf")))
            within = found["seconds"] <= seconds and found["bytes"] <= 1e6 * megabytes
            over += not within
            print(
                f"{name:<14} {found['layers']:>4} norms {found['channels']:>7,} channels  "
                f"{found['seconds']:5.1f} s of {seconds:g}  {found['bytes'] / 1e6:5.2f} MB of {megabytes:g}  "
                f"{'within' if within else 'OVER'}",
                flush=True,
            )
    return 1 if over else 0


if __name__ == "__main__":
    raise SystemExit(main())
