"""Whether ranks of a process group record what one process records: counts and extremes exactly, moments to 1e-12.

python -m scripts.ranks_agree            # 2 and 4 processes of torchrun, over gloo
python -m scripts.ranks_agree --ranks 8
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, nn

import bnprobe
from bnprobe.recording import Recording

ALLOWED = 1e-12
"""Of the size of a moment."""

N_BATCHES = 13
"""So that no number of ranks has equally many each."""


def network() -> nn.Module:
    """Batch norms with running statistics of a training, before and after others."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 24, 3, groups=4), nn.BatchNorm2d(24), nn.SiLU(), nn.Flatten(), nn.LazyLinear(10)),
        nn.BatchNorm1d(10),
    )
    for seed in range(5):
        model(batch(1000 + seed))
    return model.eval()


def batch(seed: int) -> Tensor:
    """Samples far from zero, of unlike numbers."""
    return 50 + 3 * torch.randn(4 + seed % 5, 3, 12, 10, generator=torch.Generator().manual_seed(seed))


def recorded(rank: int = 0, of: int = 1) -> Recording:
    """What a rank records: every `of`-th batch."""
    return bnprobe.record(network(), [batch(seed) for seed in range(rank, N_BATCHES, of)])


def disagreement(whole: Recording, at_once: Recording) -> tuple[bool, float]:
    """Whether counts and extremes are the same, and the largest difference of a moment, in its size."""
    same, largest = whole.about.n_images == at_once.about.n_images, 0.0
    for mine, theirs in zip(whole.layers, at_once.layers, strict=True):
        same &= mine.layer == theirs.layer and np.array_equal(mine.n_positive, theirs.n_positive)
        for ours, other in ((mine.pre, theirs.pre), (mine.post, theirs.post)):
            same &= all(
                np.array_equal(getattr(ours, name), getattr(other, name)) for name in ("n", "low", "high")
            )
            # in units in which they have a size: a third moment may be 0
            sd = np.sqrt(other.m2 / other.n)
            units = {
                "mean": np.abs(other.mean) + sd,
                "m2": other.n * sd**2,
                "m3": other.n * sd**3,
                "m4": other.m4,
            }
            for name, unit in units.items():
                largest = max(
                    largest, float(np.max(np.abs(getattr(ours, name) - getattr(other, name)) / unit))
                )
    return bool(same), largest


def agrees(n_ranks: int) -> bool:
    """Start the processes, and say what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={n_ranks}",
        ]
        subprocess.run([*command, "-m", "scripts.ranks_agree", "--folder", folder], check=True)
        wholes = [bnprobe.load(Path(folder) / f"{rank}.bnp") for rank in range(n_ranks)]
    same, largest = disagreement(wholes[0], recorded())
    everywhere = len({whole.to_bytes() for whole in wholes}) == 1
    good = same and everywhere and largest <= ALLOWED
    print(
        f"{n_ranks} ranks: counts and extremes {'the same' if same else 'DIFFER'}, moments differ by {largest:.1e} at most, "
        f"every rank has {'the same' if everywhere else 'ANOTHER'} whole: {'as asked' if good else 'NOT AS ASKED'}"
    )
    return good


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--folder", help="of a rank that torchrun started: where it leaves what it gathered")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if not options.folder:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        results = [agrees(n) for n in options.ranks]
        return int(not all(results))
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    bnprobe.gather(recorded(rank, distributed.get_world_size())).save(Path(options.folder) / f"{rank}.bnp")
    distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
