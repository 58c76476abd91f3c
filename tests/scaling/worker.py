"""One of two processes of test_gather.py: it gathers what both recorded, and leaves the wholes in a folder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import bnprobe
from bnprobe.cli import report as command
from bnprobe.cli.main import main
from bnprobe.printing import say
from scaling.conftest import batch, network

REPORT = ["report", "scaling.conftest:network", "--limit", "40", "--batch-size", "8", "--size", "16"]


def batches(rank: int) -> list[Tensor]:
    """Unlike numbers of samples, in unlike numbers of batches."""
    return [batch(10 * rank + seed, 3 + rank + seed) for seed in range(2 + rank)]


def work(folder: Path, rank: int) -> None:
    model = network()
    bnprobe.gather(bnprobe.record(model, batches(rank))).save(folder / f"plain-{rank}.bnp")
    ddp = DistributedDataParallel(model).eval()
    with bnprobe.attach(ddp) as probe, torch.no_grad():
        for x in batches(rank):
            ddp(x)
    bnprobe.gather(probe.recording, group=distributed.new_group([0, 1])).save(folder / f"ddp-{rank}.bnp")
    train(DistributedDataParallel(network().train()), rank).save(folder / "training.bnp")
    os.chdir(folder)
    command._written = lambda *_: (
        say("page: written") or 0
    )  # the page itself takes seconds, and is tested elsewhere
    assert main([*REPORT, "--save", "report.bnp", "-o", "page.html"]) == 0
    distributed.barrier()
    if rank == 1:
        os._exit(0)  # as a process that the system kills
    try:
        bnprobe.gather(bnprobe.record(model, batches(0)))
    except bnprobe.BnprobeError as error:
        (folder / "error.json").write_text(json.dumps([type(error).__name__, str(error)]))


def train(model: nn.Module, rank: int) -> bnprobe.Recording:
    """Two steps of training, by the loop that users write."""
    with bnprobe.attach(model) as probe:
        for step in range(2):
            model(batch(100 * rank + step)).square().sum().backward()
    return bnprobe.gather(probe.recording)


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    work(Path(sys.argv[1]), distributed.get_rank())
