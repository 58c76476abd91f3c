"""Shards worked off by a real local Ray: the bits of local processes, whatever is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from models.shards import samples, tar
from support.server import serving
from torch import nn

from bnprobe.cli.main import _parser, main
from bnprobe.cli.record import SETTINGS, record_shard
from bnprobe.cli.shard_list import shards_of
from bnprobe.errors import BadImages, BnprobeError
from bnprobe.scaling import on_ray
from bnprobe.scaling.on_ray import work_off_on_ray

from .deaths import emits_and_dies_once, emits_or_fails
from .test_shards import MODEL, shards


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    """Fails if the need of an extra is a traceback."""

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(on_ray, "import_module", absent)
    with pytest.raises(BnprobeError, match="Run pip install ray"):
        work_off_on_ray(shards(tmp_path, 1), emits_or_fails, 1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two processors of this machine; the folder of the tests is on its path, as a user's own is."""
    ray = pytest.importorskip("ray", reason="an extra")
    path = os.pathsep.join(str(one) for one in (Path(__file__).parents[1], Path(__file__).parents[2]))
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield
    ray.shutdown()


@pytest.mark.filterwarnings("ignore")  # of Ray's own
def test_what_is_killed_is_begun_again_by_ray(cluster, tmp_path):
    """Fails if a worker that is killed takes its shard with it, what is done is done again, or a task has more threads."""
    four = shards(tmp_path, 4)
    four[3].part.write_text("before")
    work_off_on_ray(four, emits_and_dies_once, 2)
    found = [shard.part.read_text() for shard in four]
    assert found == ["0 of 4 by 1", "1 of 4 by 1", "2 of 4 by 1", "before"]


@pytest.mark.filterwarnings("ignore")
def test_what_a_task_raises_is_the_line_of_ours(cluster, tmp_path):
    """Fails if the error of a shard is a traceback of Ray's, or what was finished is lost."""
    two = shards(tmp_path, 2)
    with pytest.raises(BadImages, match=r"^shard .*/1: gone$"):
        work_off_on_ray(two, emits_or_fails, 2)


@pytest.mark.filterwarnings("ignore")
def test_ray_gives_the_bits_of_processes(cluster, tmp_path, monkeypatch):
    """Fails if a part, or the whole, depends on the engine."""
    listed = [tar(tmp_path / f"{i}.tar", samples(range(10 * i, 10 * i + 5))) for i in range(3)]
    (tmp_path / "list").write_text("".join(f"{path}\n" for path in listed))
    shared = ["record", MODEL, "--shards", str(tmp_path / "list"), "--size", "8", "--batch-size", "4"]
    alone = _parser().parse_args([*shared, "--out", str(tmp_path / "alone")])
    for shard in shards_of(alone, SETTINGS):
        record_shard(alone, (), shard)
    assert main([*shared, "--out", str(tmp_path / "alone")]) == 0
    assert main([*shared, "--out", str(tmp_path / "ray"), "--engine", "ray"]) == 0
    files = [sorted(path.name for path in (tmp_path / one / "parts").iterdir()) for one in ("alone", "ray")]
    assert files[0] == files[1]
    for name in (*(f"parts/{name}" for name in files[0]), "whole.bnp"):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "ray" / name).read_bytes()


def checkpoints(n: int) -> list[str]:
    """Of a small network each, in the folder where we are, by names that are nothing elsewhere."""
    for i in range(n):
        torch.manual_seed(i)
        norm = nn.BatchNorm2d(4)
        nn.init.uniform_(norm.weight)
        torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), norm).state_dict(), f"{i}.pt")
    return [f"{i}.pt" for i in range(n)]


@pytest.mark.filterwarnings("ignore")
def test_an_audit_on_ray_gives_the_table_of_processes(cluster, tmp_path, monkeypatch):
    """Fails if a row depends on the engine, files are looked for where Ray began, or what is odd ends the audit."""
    monkeypatch.chdir(tmp_path)
    listed = [*checkpoints(5), "cut.pt", "nowhere.pt"]
    Path("cut.pt").write_bytes(Path("0.pt").read_bytes()[:-300])
    with serving(tmp_path) as server:
        Path("list").write_text(
            "".join(f"{name}\n" for name in (*listed, f"{server.address}/3.pt?sig=secret"))
        )
        assert main(["audit", "list", "-o", "alone.csv"]) == 0
        assert main(["audit", "list", "-o", "ray.csv", "--engine", "ray"]) == 0
    assert Path("alone.csv").read_bytes() == Path("ray.csv").read_bytes()
    files = pd.read_csv("ray.csv", dtype={"layer": str}).query("row == 'file'").set_index("path")
    assert list(files.index) == [*listed, f"{server.address}/3.pt"]
    assert list(files.index[files["error"].notna()]) == ["cut.pt", "nowhere.pt"]


COMMAND = """
import sys, time
from bnprobe.cli import audit, main
keep, pause = audit._keep, float(sys.argv.pop(1))
def kept(journal, rows):
    keep(journal, rows)
    print("read", rows[0]["path"], flush=True)
    time.sleep(pause)
audit._keep = kept
sys.exit(main.main(sys.argv[1:]))
"""
"""The command, which says what it reads, and may be slow enough to be killed in the middle."""


def test_an_audit_on_ray_that_is_killed_goes_on(tmp_path, monkeypatch):
    """Fails if a killed command loses a result that it had, or a file is read twice; Ray is begun and ended by it."""
    pytest.importorskip("ray", reason="an extra")
    monkeypatch.chdir(tmp_path)
    Path("list").write_text("\n".join(checkpoints(16)))
    arguments = ["audit", "list", "-o", "t.csv", "--engine", "ray", "--workers", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = subprocess.Popen([sys.executable, "-c", COMMAND, "0.2", *arguments], env=environment)
    results = Path(".t.csv.bnprobe-results")
    while not results.exists() or results.read_bytes().count(b"\n") < 4:
        assert command.poll() is None
        time.sleep(0.01)
    command.kill()
    command.wait()
    n_done = results.read_bytes().count(b"\n")
    assert n_done < 16
    again = subprocess.run(
        [sys.executable, "-c", COMMAND, "0", *arguments], env=environment, check=True, capture_output=True
    )
    assert again.stdout.count(b"read ") == 16 - n_done
    assert main(["audit", "list", "-o", "fresh.csv"]) == 0
    assert Path("t.csv").read_bytes() == Path("fresh.csv").read_bytes()
