"""Replicas, processes and shards: DataParallel, DistributedDataParallel, FSDP."""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from recording.test_recording import assert_same_recordings
from support.models import BY_NAME, C
from support.ranks import leave
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import bnprobe

BATCHES = BY_NAME["batch norm"].batches()


def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(C, C, 3), nn.BatchNorm2d(C), nn.ReLU(), nn.Flatten(2), nn.LayerNorm(15)
    ).double()


def recorded(model: nn.Module, *batches: torch.Tensor, backward: bool = False) -> bnprobe.Recording:
    with bnprobe.attach(model) as probe:
        for x in batches:
            y = model(x)
            if backward:
                y.square().sum().backward()
    return probe.recording


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def group(rank: int = 0, n: int = 1, port: int = 0) -> Iterator[None]:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port or free_port())}
    distributed.init_process_group("gloo", rank=rank, world_size=n)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def test_data_parallel_is_its_module():
    """Fails if layers are named after the wrapper, so that recordings cannot be merged with the bare model's."""
    bare = model().eval()
    assert_same_recordings(recorded(nn.DataParallel(bare), *BATCHES), recorded(bare, *BATCHES), 1e-15)


def test_replicas_of_data_parallel_add_up():
    """Fails if replicas, which share the hooks and run in threads, are lost, mixed up, or race."""
    bare = model().eval()
    expected = recorded(bare, *BATCHES)
    wrapped, start = nn.DataParallel(bare), Barrier(len(BATCHES))

    def together(replica: nn.Module, x: torch.Tensor) -> None:
        start.wait()
        replica(x)

    with bnprobe.attach(wrapped) as probe:
        replicas = [_replica(bare) for _ in BATCHES]
        with ThreadPoolExecutor(len(BATCHES)) as threads:
            list(threads.map(together, replicas, BATCHES))
    found = probe.recording
    assert (found.about.n_forwards, found.about.n_images) == (3, 9)
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert (one.layer, one.n_calls) == (other.layer, other.n_calls)
        np.testing.assert_allclose(one.pre.mean, other.pre.mean, rtol=1e-12)


def _replica(module: nn.Module) -> nn.Module:
    """What DataParallel makes for a device: shallow copies of all modules, whose parameters are plain tensors."""
    made = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        setattr(made, name, _replica(child))
    for name, p in module._parameters.items():
        made._parameters.pop(name, None)
        setattr(made, name, None if p is None else p.detach())
    for name, buffer in module._buffers.items():
        setattr(made, name, buffer)
    return made


def test_ddp_is_its_module():
    """Fails if DistributedDataParallel's own hooks and ours disturb each other, or the paths gain a prefix."""
    bare = model().train()
    other = copy.deepcopy(bare)
    with group():
        wrapped = DistributedDataParallel(bare)
        found = recorded(wrapped, *BATCHES, backward=True)
    expected = recorded(other, *BATCHES, backward=True)
    assert_same_recordings(found, expected, 1e-12)
    assert all(
        torch.equal(a.grad, b.grad) for a, b in zip(bare.parameters(), other.parameters(), strict=True)
    )


def _rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    with group(rank, 2, port):
        wrapped = DistributedDataParallel(model().eval())
        # two batches and one: whoever is done first answers the other's collective calls
        with wrapped.join():
            recording = recorded(wrapped, *BATCHES[rank::2], backward=True)
        recording.save(Path(folder) / f"{rank}.bnp")
    leave()


@pytest.mark.slow
def test_two_processes_record_their_own_and_merge_to_the_whole(tmp_path: Path):
    """Fails if a rank records the other's batches, or two ranks do not add up to one run."""
    multiprocessing.spawn(_rank, (free_port(), str(tmp_path)), nprocs=2)
    parts = [bnprobe.load(tmp_path / f"{rank}.bnp") for rank in (0, 1)]
    whole = recorded(model().eval(), *BATCHES, backward=True)
    merged = parts[0].merge(parts[1])
    assert [part.about.n_images for part in parts] == [2 + 4, 3]
    for one, other in zip(merged.layers, whole.layers, strict=True):
        assert (one.n_calls, one.n_images) == (other.n_calls, other.n_images)
        np.testing.assert_allclose(one.pre.mean, other.pre.mean, rtol=1e-12)
        np.testing.assert_allclose(one.gradient.dy.m2, other.gradient.dy.m2, rtol=1e-9)


@pytest.mark.parametrize("apart", [False, True], ids=["the whole", "the norm by itself"])
def test_fsdp_shards_are_read_while_they_are_together(apart: bool):
    """Fails if vectors are read after the shards were freed: reading their storage then ends Python."""
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    from torch.distributed.device_mesh import init_device_mesh

    if not hasattr(torch.cpu.Stream(), "record_event"):
        pytest.skip("this torch shards on GPUs only")
    bare = model().train()
    other = copy.deepcopy(bare)
    with group():
        mesh = init_device_mesh("cpu", (1,))
        if apart:
            fsdp.fully_shard(bare[1], mesh=mesh)
        fsdp.fully_shard(bare, mesh=mesh)
        found = recorded(bare, *BATCHES, backward=True)
        early = [r.gamma for r in found.layers]
    expected = recorded(other, *BATCHES, backward=True)
    assert len(early) == 2
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert (one.layer, one.n_calls) == (other.layer, other.n_calls)
        np.testing.assert_array_equal(one.gamma, other.gamma)
        np.testing.assert_allclose(one.pre.mean, other.pre.mean, rtol=1e-12)
        np.testing.assert_allclose(one.post.m2, other.post.m2, rtol=1e-12)
        assert one.gradient is not None
        np.testing.assert_allclose(one.gradient.dy.m2, other.gradient.dy.m2, rtol=1e-9)
