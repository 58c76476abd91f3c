"""Models that processes share: wrapped in DistributedDataParallel, sharded by FSDP2, with SyncBatchNorm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pandas.testing import assert_frame_equal
from support.ranks import leave
from torch import Tensor, distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import bnprobe


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def network(norm: type[nn.Module] = nn.BatchNorm1d) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), norm(8), nn.ReLU(), nn.Linear(8, 8), norm(8), nn.Linear(8, 3))
    for layer in (model[1], model[4]):
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    return model.eval()


def batches() -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(1)
    return [(torch.randn(20, 6, generator=g) + 1, torch.randint(3, (20,), generator=g)) for _ in range(3)]


def wrapped(model: nn.Module) -> nn.Module:
    """In train mode itself, as torch makes it, around a model in eval mode."""
    return DistributedDataParallel(model)


def sharded(model: nn.Module) -> nn.Module:
    if not hasattr(torch.cpu.Stream(), "record_event"):
        pytest.skip("this torch shards on GPUs only")
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    for part in (model[1], model[4], model):
        fully_shard(part, mesh=mesh)
    return model


def synchronized(model: nn.Module) -> nn.Module:
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def bits(model: nn.Module) -> list[Tensor]:
    every = (*model.parameters(), *model.buffers())
    return [(t.full_tensor() if hasattr(t, "full_tensor") else t).detach().clone() for t in every]


@pytest.mark.parametrize("share", [wrapped, sharded])
def test_a_shared_model_gives_what_the_model_itself_gives(
    alone: None, share: Callable[[nn.Module], nn.Module]
) -> None:
    """Fails if norms are not found inside the wrapper, a replacement does not reach the shards, or one stays there."""
    model = share(network())
    before, training = bits(model), [m.training for m in model.modules()]
    plan, own = (bnprobe.recalibrate(m, batches()) for m in (model, network()))
    assert list(plan.renewals) == list(own.renewals) == ["1", "4"]
    assert plan.preview(batches()).after == pytest.approx(own.preview(batches()).after, rel=1e-5)
    for budget_s in (None, 60):
        study = bnprobe.ablate(model, batches(), budget_s=budget_s)
        alike = bnprobe.ablate(network(), batches(), budget_s=budget_s)
        # Not bit by bit: a sum may be cut elsewhere in memory that lies elsewhere.
        assert_frame_equal(study.table, alike.table, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(before, bits(model), strict=True))
    assert [m.training for m in model.modules()] == training


def test_synchronized_norms_are_renewed_without_a_group() -> None:
    plan = bnprobe.recalibrate(synchronized(network()), batches())
    own = bnprobe.recalibrate(network(), batches())
    for path, renewal in own.renewals.items():
        assert torch.equal(renewal.new[0], plan.renewals[path].new[0])
        assert torch.equal(renewal.new[1], plan.renewals[path].new[1])


def _rank(rank: int, ways: dict[str, Callable[[nn.Module], nn.Module]], folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    try:
        found = {name: _found(share(network())) for name, share in ways.items()}
    finally:
        distributed.destroy_process_group()
    torch.save(found, Path(folder) / f"{rank}.pt")
    leave()


def _found(model: nn.Module) -> tuple[Any, ...]:
    """What a process finds of the model, whether it was put back, and what applying the plan makes of it."""
    before = bits(model)
    plan = bnprobe.recalibrate(model, batches())
    effect = plan.preview(batches())
    study = bnprobe.ablate(model, batches())
    same = all(torch.equal(a, b) for a, b in zip(before, bits(model), strict=True))
    plan.apply()
    return plan.channels, study.table, effect, same, bits(model)


@pytest.mark.slow
def test_two_processes_find_the_same(tmp_path: Path) -> None:
    """Fails if a process waits for the other, renews or replaces only its shard, or leaves one replaced."""
    ways = {"ddp": wrapped} | ({"fsdp": sharded} if hasattr(torch.cpu.Stream(), "record_event") else {})
    multiprocessing.spawn(_rank, (ways, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    own = _found(network())
    for way in ways:
        one, other = first[way], second[way]
        for table in (0, 1):
            assert_frame_equal(one[table], other[table], check_exact=True)
            assert_frame_equal(one[table], own[table], rtol=1e-4, atol=1e-5)
        assert one[2] == other[2]
        assert (one[3], other[3]) == (True, True), way
        assert all(torch.equal(a, b) for a, b in zip(one[4], other[4], strict=True))
