"""Ranks made one: the tree of sends in threads, for any number of ranks, and real processes of torch.distributed."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.paths import ROOT

import bnprobe
from bnprobe.cli import report as command
from bnprobe.cli.main import main
from bnprobe.errors import BnprobeError, CannotMerge
from bnprobe.measures import tables
from bnprobe.recording import Recording, Source
from bnprobe.rules import judge
from bnprobe.scaling.exchange import gather_over
from bnprobe.scaling.merge import merge_files

from .conftest import Recorded, batch, network


@dataclass
class Threads:
    """Ranks as threads of one process; those of `gone` have ended."""

    rank: int
    n_ranks: int
    pipes: dict[tuple[int, int], queue.Queue[bytes]] = field(repr=False)
    gone: tuple[int, ...] = ()

    def send(self, content: bytes, to: int) -> None:
        if to in self.gone:
            raise ConnectionError("closed by peer")
        self.pipes[self.rank, to].put(content)

    def receive(self, source: int) -> bytes:
        if source in self.gone:
            raise ConnectionError("closed by peer")
        return self.pipes[source, self.rank].get(timeout=20)


def gathered(parts: list[Recording], gone: tuple[int, ...] = ()) -> list[Recording | BaseException]:
    """What every rank gets."""
    n = len(parts)
    pipes = {(a, b): queue.Queue[bytes]() for a in range(n) for b in range(n)}
    links = [Threads(rank, n, pipes, gone) for rank in range(n)]
    with ThreadPoolExecutor(n) as pool:
        running = [
            pool.submit(gather_over, link, part)
            for link, part in zip(links, parts, strict=True)
            if link.rank not in gone
        ]
        return [one.exception() or one.result() for one in running]


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_every_rank_gets_what_files_give(n, part: Recorded, tmp_path: Path):
    """Fails if a rank is left out, is added twice, or ranks are merged in another order than files of them."""
    parts = [part(seed, 2 + seed % 3) for seed in range(n)]
    ranks = gathered(parts)
    saved = [replace(one, sources=(Source.rank(rank, n),)) for rank, one in enumerate(parts)]
    files = merge_files([one.save(tmp_path / f"rank {rank}") for rank, one in enumerate(saved)])
    expected = replace(files, sources=()).to_bytes()
    for whole in ranks:
        assert isinstance(whole, Recording), whole
        assert replace(whole, sources=()).to_bytes() == expected
        assert [(source.index, source.of) for source in whole.sources] == [(rank, n) for rank in range(n)]
        assert not whole.missing


@pytest.mark.parametrize("odd", range(5))
def test_what_one_rank_cannot_merge_all_ranks_say(odd, part):
    """Fails if a failure at one rank leaves another waiting, or without the reason."""
    parts = [part(seed) for seed in range(5)]
    parts[odd] = bnprobe.record(network(8), [batch(odd)])
    for error in gathered(parts):
        assert isinstance(error, CannotMerge)
        assert f"rank {odd}" in str(error)
        assert "running_mean differs" in str(error)


def test_the_same_data_on_two_ranks_is_refused(part):
    """Fails if a sampler that gives every rank the same data, or tensor parallelism, makes errors look smaller."""
    for error in gathered([part(1), part(2), part(1)]):
        assert isinstance(error, CannotMerge)
        assert "rank 0 and rank 2 hold the same samples" in str(error)
        assert "DistributedSampler" in str(error)


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_a_rank_that_ended_is_named(gone, part):
    """Fails if a rank that died keeps the others waiting, or a whole is made without it."""
    errors = gathered([part(seed) for seed in range(4)], (gone,))
    assert len(errors) == 3
    for error in errors:
        assert isinstance(error, CannotMerge)
    assert f"rank {gone} ended before it handed over its recording (closed by peer)" in str(errors[0])


def test_without_a_process_group():
    """Fails if a script that was not started by torchrun gets an error of torch's instead of a next step."""
    with pytest.raises(BnprobeError, match=r"needs a process group.*use probe.recording as it is"):
        bnprobe.gather(bnprobe.record(network(), [batch(0)]))
    with pytest.raises(BnprobeError, match=r"needs a Recording, got Sequential. Pass probe.recording"):
        bnprobe.gather(network())  # type: ignore[arg-type]


# Real processes

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """What `worker.py` left in its folder in two processes, and what they printed."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    running = [
        subprocess.Popen(
            [sys.executable, WORKER, folder],
            env={**os.environ, **shared, "RANK": str(rank), "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    return folder, [one.communicate(timeout=300)[0] for one in running]


def result(two_ranks: tuple[Path, list[str]], name: str) -> Recording:
    folder, said = two_ranks
    assert (folder / f"{name}.bnp").exists(), said
    return bnprobe.load(folder / f"{name}.bnp")


def assert_same_sums(whole: Recording, at_once: Recording) -> None:
    """Counts and extremes exactly, moments to 1e-12 of their size."""
    assert whole.about.n_images == at_once.about.n_images
    for mine, theirs in zip(whole.layers, at_once.layers, strict=True):
        for name in ("n", "low", "high"):
            np.testing.assert_array_equal(getattr(mine.pre, name), getattr(theirs.pre, name))
            np.testing.assert_array_equal(getattr(mine.post, name), getattr(theirs.post, name))
        np.testing.assert_array_equal(mine.n_positive, theirs.n_positive)
        for name in ("mean", "m2", "m3", "m4"):
            np.testing.assert_allclose(
                getattr(mine.pre, name), getattr(theirs.pre, name), rtol=1e-12, atol=1e-12
            )


@pytest.mark.parametrize("name", ["plain", "ddp"])
def test_two_processes_make_what_one_makes(two_ranks, name):
    """Fails if what crosses a process group is not what was recorded, or DistributedDataParallel hides a norm."""
    from .worker import batches

    at_once = bnprobe.record(network(), batches(0) + batches(1))
    ranks = [result(two_ranks, f"{name}-{rank}") for rank in range(2)]
    assert ranks[0].to_bytes() == ranks[1].to_bytes()
    for mine, theirs in zip(ranks[0].layers, at_once.layers, strict=True):
        assert mine.layer.removeprefix("module.") == theirs.layer
    assert_same_sums(ranks[0], at_once)
    assert [source.name for source in ranks[0].sources] == ["rank 0", "rank 1"]


def test_shards_of_fsdp_make_what_one_process_makes(two_ranks):
    """Fails if vectors are read while they are shards, or FSDP's own hooks are called a change that nobody explains."""
    if not hasattr(torch.cpu.Stream(), "record_event"):
        pytest.skip("this torch shards on GPUs only")
    from .worker import even

    whole = result(two_ranks, "fsdp-0")
    assert_same_sums(whole, bnprobe.record(network(), even(0) + even(1)))
    assert whole.integrity is not None
    assert [change.what for change in whole.integrity.changes if not change.because] == []
    assert ("hooks of state dicts", "FSDP sets its own at the first pass") in [
        (change.what, change.because) for change in whole.integrity.changes
    ]


def test_parts_of_a_sequence_add_up(two_ranks):
    """Fails if a tensor that is spread over processes is read where it has no storage, which ends Python, or twice."""
    from .worker import Block, sequences

    whole, block = result(two_ranks, "tensor-1"), Block().double()
    with bnprobe.attach(block) as probe:
        block(sequences()).square().sum().backward()
    at_once = probe.recording
    assert [record.layer for record in whole.layers] == ["norm", "rms", "last"]
    for mine, theirs in zip(whole.layers, at_once.layers, strict=True):
        np.testing.assert_array_equal(mine.gamma, theirs.gamma)
        np.testing.assert_array_equal(mine.pre.n, theirs.pre.n)
        for name in ("low", "high", "mean", "m2", "m3", "m4"):
            for ours, other in ((mine.pre, theirs.pre), (mine.post, theirs.post)):
                np.testing.assert_allclose(getattr(ours, name), getattr(other, name), rtol=1e-12, atol=1e-12)
        assert mine.gradient is not None
        assert theirs.gradient is not None
        np.testing.assert_allclose(mine.gradient.dy.m2, theirs.gradient.dy.m2, rtol=1e-9)
    first, one = whole.layers[0].pre, at_once.layers[0].pre  # its input comes from no product of matrices
    np.testing.assert_array_equal((first.low, first.high), (one.low, one.high))


def test_training_in_two_processes(two_ranks):
    """Fails if ranks that train together cannot be gathered, or their gradients do not add up."""
    whole = result(two_ranks, "training")
    assert whole.layers[0].mode == "train"
    assert whole.layers[0].call_log is not None
    assert whole.layers[0].call_log.n_ranks == 2
    assert whole.layers[0].gradient is not None
    assert whole.about.n_images == 16


def test_stages_of_a_pipeline_are_one_network(two_ranks):
    """Fails if norms of one stage are lost, a sample is counted once per stage, or stages are called different models."""
    whole = result(two_ranks, "piped-1")
    at_once = bnprobe.record(network(), [part for seed in range(2) for part in batch(400 + seed).chunk(2)])
    assert [record.layer for record in whole.layers] == ["1", "4"]
    assert_same_sums(whole, at_once)
    assert (whole.about.n_images, whole.about.n_forwards) == (8, 4)
    assert whole.about.n_parameters == at_once.about.n_parameters
    assert whole.tensors is not None
    assert set(whole.tensors.names) == set(at_once.tensors.names)
    assert not whole.missing
    assert not bnprobe.compare(whole, at_once).findings["rule"].str.startswith("tensors").any()


def test_ranks_that_differ_are_found(two_ranks):
    """Fails if buffers that drift apart without broadcasts, or a rank with other data, are gathered without a word."""
    from .worker import OFFSET, training_batches

    whole = result(two_ranks, "drifted-1")
    found = judge(tables(whole)).set_index("rule")
    assert found.loc["ranks-drifted", "layer"] == "1"
    assert found.loc["ranks-unlike", "layer"] == "1"
    stored = []
    for rank in range(2):  # what each rank's batch norm stores, by the update that torch documents
        mean, var = (
            vector.double().numpy() for vector in (network()[1].running_mean, network()[1].running_var)
        )
        for x in training_batches(rank):
            with torch.no_grad():
                values = network()[0](x + OFFSET * rank).transpose(0, 1).flatten(1).double().numpy()
            mean, var = 0.9 * mean + 0.1 * values.mean(1), 0.9 * var + 0.1 * values.var(1, ddof=1)
        stored.append((mean, var + 1e-5))
    (mean, var), (other_mean, other_var) = stored
    squares = (mean - other_mean) ** 2 / var + np.log(np.sqrt(other_var / var)) ** 2
    assert whole.layers[0].ranks is not None
    np.testing.assert_allclose(whole.layers[0].ranks.stored, np.sqrt(squares.mean()), rtol=1e-4)
    for name in ("plain-0", "training"):
        assert not judge(tables(result(two_ranks, name)))["rule"].str.startswith("ranks-").any()


def test_the_command_in_two_processes(two_ranks, tmp_path, monkeypatch):
    """Fails if `torchrun -m bnprobe report` reads an image twice or not at all, or both processes write."""
    from .worker import REPORT

    monkeypatch.setattr(command, "_written", lambda *_: 0)
    assert main([*REPORT, "--save", str(tmp_path / "one.bnp"), "-o", "page.html"]) == 0
    whole, at_once = result(two_ranks, "report"), bnprobe.load(tmp_path / "one.bnp")
    assert_same_sums(whole, at_once)
    assert whole.about.data == at_once.about.data
    assert [text.count("page: ") for text in two_ranks[1]] == [1, 0]


def test_a_process_that_ends_is_a_line(two_ranks):
    """Fails if the death of one process is a traceback of torch's in another, or is waited for."""
    error = json.loads((two_ranks[0] / "error.json").read_text())
    assert error[0] == "CannotMerge"
    assert error[1].startswith("rank 1 ended before it handed over its recording (")
    assert error[1].count("\n") == 0
