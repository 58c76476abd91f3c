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
    piped(rank).save(folder / f"piped-{rank}.bnp")
    drifted(rank).save(folder / f"drifted-{rank}.bnp")
    sharded(rank, folder)
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


def even(rank: int) -> list[Tensor]:
    """As many batches on every rank: FSDP gathers its shards in each pass."""
    return [batch(10 * rank + seed, 3 + rank) for seed in range(2)]


class Block(nn.Module):
    """A feed-forward branch as tensor parallelism cuts it, with norms on both sides."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.norm, self.rms, self.last = nn.LayerNorm(6), nn.RMSNorm(6), nn.LayerNorm(6)
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.down(torch.relu(self.up(self.norm(x))))
        return self.last(self.rms(x))


def sequences() -> Tensor:
    return torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(5)).double()


def sharded(rank: int, folder: Path) -> None:
    """What FSDP2 shards, also where a norm is a unit of its own, and norms of which each rank has a part of the sequence."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        SequenceParallel,
        parallelize_module,
    )

    mesh = init_device_mesh("cpu", (2,))
    if hasattr(torch.cpu.Stream(), "record_event"):  # older releases shard on GPUs only
        from torch.distributed.fsdp import fully_shard

        model = network()
        fully_shard(model[1], mesh=mesh)
        fully_shard(model, mesh=mesh)
        bnprobe.gather(bnprobe.record(model, even(rank))).save(folder / f"fsdp-{rank}.bnp")
    part = Shard(1)
    plan = {
        **dict.fromkeys(("norm", "rms", "last"), SequenceParallel()),
        "up": ColwiseParallel(input_layouts=part),
        "down": RowwiseParallel(output_layouts=part),
    }
    block = parallelize_module(Block().double(), mesh, plan)
    with bnprobe.attach(block) as probe:
        block(sequences().chunk(2, 1)[rank].clone()).to_local().square().sum().backward()
    bnprobe.gather(probe.recording).save(folder / f"tensor-{rank}.bnp")


def train(model: nn.Module, rank: int) -> bnprobe.Recording:
    """Two steps of training, by the loop that users write."""
    with bnprobe.attach(model) as probe:
        for step in range(2):
            model(batch(100 * rank + step)).square().sum().backward()
    return bnprobe.gather(probe.recording)


def piped(rank: int) -> bnprobe.Recording:
    """The network as two stages of a pipeline, in micro-batches."""
    from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

    whole = network()
    part = whole[:3] if rank == 0 else whole[3:]
    schedule = ScheduleGPipe(PipelineStage(part, rank, 2, torch.device("cpu")), n_microbatches=2)
    first = [batch(400)] if rank == 0 else []
    with torch.no_grad():
        schedule.step(*first)  # in which the stages find out the shapes of what they exchange
        with bnprobe.attach(part) as probe:
            for seed in range(2):
                schedule.step(*([batch(400 + seed)] if rank == 0 else []))
    return bnprobe.gather(probe.recording)


OFFSET = 2.0
"""What is added to the data of rank 1 there."""


def training_batches(rank: int) -> list[Tensor]:
    return [batch(200 * rank + step) for step in range(3)]


def drifted(rank: int) -> bnprobe.Recording:
    """Ranks that trained without sending buffers, on other data, and are evaluated each by itself."""
    model = DistributedDataParallel(network().train(), broadcast_buffers=False)
    for x in training_batches(rank):
        model(x + OFFSET * rank).square().sum().backward()
    model.eval()
    with bnprobe.attach(model) as probe, torch.no_grad():
        for x in even(rank):
            model(x + OFFSET * rank)
    return bnprobe.gather(probe.recording)


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    work(Path(sys.argv[1]), distributed.get_rank())
