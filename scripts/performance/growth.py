"""How time and RAM grow with the number of norms, channels and tensors: CPU seconds on one core.

    python -m scripts.performance.growth                    # 500, 1000 and 2000 norms
    python -m scripts.performance.growth --norms 5000 20000

Each line is a process of its own, so that one does not use the RAM of another.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import bnprobe

CHANNELS = 8


def state_of(n_norms: int, n_channels: int = CHANNELS) -> dict[str, torch.Tensor]:
    """Batch norms with statistics that no two share."""
    rng = torch.Generator().manual_seed(0)
    state = {}
    for i in range(n_norms):
        for name in ("weight", "bias", "running_mean"):
            state[f"l{i}.{name}"] = torch.randn(n_channels, generator=rng)
        state[f"l{i}.running_var"] = torch.rand(n_channels, generator=rng) + 0.5
    return state


def check(n: int) -> None:
    """`bnprobe.check`, with its findings, on a file of n norms."""
    assert len(bnprobe.check(state_of(n)).findings) >= 0


def live(n: int) -> None:
    """Attach, one pass, detach, on n norms in a row."""
    model = nn.Sequential(*(nn.BatchNorm1d(CHANNELS) for _ in range(n))).eval()
    with torch.no_grad(), bnprobe.attach(model) as probe:
        model(torch.randn(4, CHANNELS))
    assert len(probe.recording.layers) == n


def channels(n: int) -> None:
    """`bnprobe.check` on ten norms with n channels together."""
    assert len(bnprobe.check(state_of(10, n // 10)).findings) >= 0


def tensors(n: int) -> None:
    """A header of n tensors: read, or refused beyond the limit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        header = json.dumps({f"layers.{i}.weight": entry for i in range(n)}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        try:
            bnprobe.check(path)
        except bnprobe.BnprobeError as error:
            print(f"({str(error)[-90:]})", end=" ", file=sys.stderr)


WORK: dict[str, Callable[[int], None]] = {
    "check": check,
    "live": live,
    "channels": channels,
    "tensors": tensors,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--norms", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--only", nargs=2, metavar=("WORK", "N"), help="one line, in this process")
    options = parser.parse_args()
    if options.only:
        name, n = options.only[0], int(options.only[1])
        torch.set_num_threads(1)
        WORK[name](2) if name != "channels" else WORK[name](20)  # imports, and what is compiled
        began = time.process_time()
        WORK[name](n)
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"{name:<9} {n:>9,} {time.process_time() - began:8.2f} s {megabytes:7,} MB", flush=True)
        return
    lines = [(name, n) for name in ("check", "live") for n in options.norms]
    lines += [("channels", n) for n in (10_000, 100_000, 1_000_000)]
    lines += [("tensors", n) for n in (10_000, 100_000, 1_000_000)]
    for name, n in lines:
        command = [sys.executable, "-m", "scripts.performance.growth", "--only", name, str(n)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
