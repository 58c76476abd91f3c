"""What only compiled loops can get wrong: vectors and chunks, threads, code kept on disk, arrays that end too early.

That they say what the reference says is asked in test_contract.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import bnprobe
from bnprobe.reductions import (
    Affine,
    ReadRequest,
    Share,
    add_mapped,
    compiled,
    moments_of,
    packed,
    products,
    reference,
)
from bnprobe.stats import Moments
from bnprobe.stats.fields import FIELDS, IMAGES, NONFINITE, OF_IMAGES, ORIGIN, POSITIVE
from bnprobe.stats.histogram import N_BINS, SIDE

from .contract import CPU, DTYPES, LAYOUTS, NEXT, a_map, values

cpu = compiled()
pytestmark = pytest.mark.skipif(cpu is None, reason="numba is not installed")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_channels_than_a_board_is_wide(layout):
    """Fails if channels side by side are written past the end of a board: DenseNet-161 ends in 2,208 of them."""
    CPU.check(values((3, 2500, 1)), layout, bins=a_map(2500))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_of_every_length(dtype):
    """Fails if the tail of a row is read twice, or not at all: lengths around whole vectors and blocks."""
    for p in [*range(1, 70), 2047, 2048, 2049, 2050, 4095, 4097, 5000]:
        x = values((2, 3, p), dtype, seed=p)
        CPU.check(x, origin=np.ones(3), gate=a_map(3), bins=a_map(3, seed=4))


@pytest.mark.parametrize("layout", NEXT)
def test_pieces_of_many_chunks(layout):
    """Fails if channels of one chunk meet the gate, the point or the sums of another: 700 channels."""
    x = values((3, 700, 20))
    x[0, 66, 3], x[1, 699, 0], x[2, 127] = torch.nan, torch.inf, -torch.inf
    for per_sample in (None, 3):
        asked = {"gate": a_map(700, per_sample), "bins": a_map(700, per_sample, seed=4), "share": Share(2, 1)}
        CPU.check(x, layout, origin=np.linspace(-1, 3, 700), keep_rows=True, **asked)


def test_constants_of_the_loops_are_those_of_the_statistics():
    """Fails if a bin or a field moves on one side only: compiled code cannot import them."""
    from bnprobe.reductions.cpu import channels, tally, totals

    assert (tally.N_BINS, tally.SIDE) == (N_BINS, SIDE)
    assert channels.N_OUT == totals.N_FIELDS == len(FIELDS)
    assert FIELDS[ORIGIN:NONFINITE] == OF_IMAGES
    assert (FIELDS[IMAGES], FIELDS[NONFINITE], FIELDS[POSITIVE]) == ("images", "nonfinite", "positive")


@pytest.mark.parametrize("loops", [True, False], ids=["compiled", "numpy"])
def test_the_image_of_a_total_is_added(loops, monkeypatch):
    """Fails if a reading that is mapped and added at once is not what `Moments.affine` and `merge` make of it."""
    if not loops:
        monkeypatch.setattr(sys.modules["bnprobe.reductions.dispatch"], "compiled", lambda: None)
    scale = np.array([2.0, -0.5, 0.0, np.nan, 1.0])
    map_ = Affine(np.linspace(-1, 1, 5), scale, np.array([0.0, 1.0, 2.0, 3.0, np.inf]))
    total, moments, bad = packed(Moments.empty(5)), Moments.empty(5), np.zeros(5)
    for seed, shape in enumerate([(4, 5, 50), (1, 5, 3), (0, 5, 3), (3, 5, 9)]):
        x = values(shape, seed=seed)
        x[:1, 1, :1] = torch.inf
        reading = reference.read(x, ReadRequest(origin=np.zeros(5)))
        before, after = reading.moments, reading.moments.affine(map_.scale, map_.offset, map_.origin)
        add_mapped(total, reading.packed, map_)
        moments, bad = moments.merge(after), bad + before.n + reading.n_nonfinite - after.n
    for name, value in vars(moments).items():
        np.testing.assert_allclose(
            getattr(moments_of(total), name), value, rtol=1e-9, atol=1e-9, err_msg=name
        )
    np.testing.assert_array_equal(total[NONFINITE], bad)
    assert not total[ORIGIN:NONFINITE].any()
    assert bad.tolist()[3] == sum(s[0] * s[2] for s in [(4, 5, 50), (1, 5, 3), (3, 5, 9)])


@pytest.fixture
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(8, 3, 20000), (16, 64, 400), (300, 1, 600)], ids=str)
@pytest.mark.parametrize("layout", NEXT)
@pytest.mark.usefixtures("_two_threads")
def test_threads_share_the_work(shape, layout):
    """Fails if a piece of work is done twice, or by nobody, when several threads take them."""
    x, c = values(shape), shape[1]
    for _ in range(5):
        CPU.check(x, layout, origin=np.zeros(c), gate=a_map(c), bins=a_map(c, seed=4), share=Share(3, 1))


@pytest.mark.usefixtures("_two_threads")
def test_two_python_threads_at_once():
    """Fails if passes in two threads meet in one buffer, or if the thread layer cannot be entered twice."""
    tensors = [values((8, 64, 400), seed=seed) for seed in range(4)]
    expected = [reference.read(x, ReadRequest(origin=np.zeros(64))) for x in tensors]
    faults: list[BaseException] = []

    def work(i: int) -> None:
        try:
            for _ in range(20):
                CPU.assert_same(CPU.read(tensors[i], origin=np.zeros(64)), expected[i])
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults[0]


@pytest.mark.usefixtures("_two_threads")
def test_without_torchs_threads(monkeypatch):
    """Fails if the way without GOMP_parallel (another OpenMP, or none) loses pieces of work."""
    from bnprobe.reductions.cpu import launch

    monkeypatch.setattr(launch, "_openmp", lambda: None)
    CPU.check(values((16, 64, 400)), bins=a_map(64))


def test_real_nets_keep_the_promise():
    """Fails if whole nets drift: variance to 1e-5, mean to 1e-5 of the deviation, shape to 1e-4."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 24, 5, padding=2),
        torch.nn.BatchNorm2d(24),
        torch.nn.ReLU(inplace=True),
        torch.nn.Conv2d(24, 48, 3, stride=2),
        torch.nn.BatchNorm2d(48),
    )
    seen: dict[str, list[Tensor]] = {"1": [], "4": []}
    for name, batches in seen.items():
        net.get_submodule(name).register_forward_pre_hook(
            lambda _, x, batches=batches: batches.append(x[0].clone())
        )
    with bnprobe.attach(net) as probe, torch.no_grad():
        for batch in range(3):
            net(torch.randn(4, 3, 61, 47) * (1 + batch))
    for record in probe.recording.layers:
        x = torch.cat(seen[record.layer]).double().movedim(1, 0).flatten(1).numpy()
        expected = Moments.of(x, axis=1)
        np.testing.assert_allclose(record.pre.var_population, expected.var_population, rtol=1e-5)
        assert np.all(np.abs(record.pre.mean - expected.mean) <= 1e-5 * np.sqrt(expected.var_population))
        np.testing.assert_allclose(record.pre.skewness, expected.skewness, atol=1e-4)
        np.testing.assert_allclose(record.pre.kurtosis_excess, expected.kurtosis_excess, atol=1e-4, rtol=1e-4)


SILENT = """
import torch, bnprobe
net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
with bnprobe.attach(net) as probe:
    net(torch.randn(2, 3, 16, 16))
from bnprobe import reductions
assert reductions.compiled() is {engine}, reductions.compiled()
assert probe.recording.layers[0].pre.n[0] == 2 * 14 * 14
"""


def run_silently(engine: str, *options: str, **environment: str) -> None:
    root = str(Path(bnprobe.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", SILENT.format(engine=engine)],
        env={**os.environ, "PYTHONPATH": root, **environment},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_first_call_of_a_process_is_silent():
    """Fails if compiling or loading the loops prints or warns."""
    run_silently("reductions.cpu.engine")


def test_without_a_place_for_compiled_code(tmp_path):
    """Fails if the loops need a writable home: a package and a user directory that cannot be written."""
    package = tmp_path / "bnprobe"
    shutil.copytree(Path(bnprobe.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    kernels = package / "reductions" / "cpu"
    (kernels / "__pycache__").write_text("a file where the directory should be")
    home = tmp_path / "home"
    home.write_text("likewise")
    environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "NUMBA_CACHE_DIR": ""}
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", SILENT.format(engine="reductions.cpu.engine")],
        env={**os.environ, **environment, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,  # where it runs comes before PYTHONPATH
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_numba():
    """Fails if the package needs numba to run: the reference takes over without a word."""
    run_silently("None", NUMBA_DISABLE_JIT="1")
    blocked = "import sys; sys.modules['numba'] = None\n" + SILENT.format(engine="None")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocked],
        env={**os.environ, "PYTHONPATH": str(Path(bnprobe.__file__).parent.parent)},
        cwd=Path(bnprobe.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 2049), (257, 5000), (4, 0)])
@pytest.mark.parametrize("turned", [False, True], ids=["rows", "on its side"])
def test_products_of_weights_and_gradients(shape, dtype, turned):
    """Fails if a block at the end is left out, or a row begins where another one does."""
    draw = torch.Generator().manual_seed(sum(shape))
    w = torch.randn(shape, generator=draw).to(dtype)
    g = (torch.randn(shape[::-1], generator=draw).T if turned else torch.randn(shape, generator=draw)).to(
        dtype
    )
    exact_w, exact_g = w.double().numpy(), g.double().numpy()
    found = products(w, g)
    # plain torch, which reads what lies on its side, rounds as it goes and answers in the type of the weights
    close = 1e-5 if dtype in (torch.float32, torch.float64) else 1e-2
    np.testing.assert_allclose(found[0], np.sqrt((exact_w**2).sum(1)), rtol=close)
    np.testing.assert_allclose(found[1], np.sqrt((exact_g**2).sum(1)), rtol=close)
    reach = np.sqrt((exact_w**2).sum(1) * (exact_g**2).sum(1))
    assert (np.abs(found[2] - (exact_w * exact_g).sum(1)) <= close * reach).all()


def test_nothing_is_read_beyond_the_end_of_an_array():
    """Fails if loops, which do not look where an array ends, are given one that is too short."""
    x = values((2, 5, 7))
    with pytest.raises(ValueError, match=r"4 channels.* 5"):
        cpu.read(x, ReadRequest(origin=np.zeros(4)))
    with pytest.raises(ValueError, match="do not add"):
        cpu.add(cpu.read(x).packed, cpu.read(x[:, :4]).packed)
    w = torch.randn(6, 3)
    with pytest.raises((ValueError, RuntimeError)):
        cpu.products(w, w[:5])
