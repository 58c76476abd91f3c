"""What only kernels can get wrong: programs that share work, the compiler, and waiting for the GPU.

That they say what the reference says is asked in test_contract.py: on a GPU where there is one, else interpreted on
the CPU. Tests about waiting run only where there is one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import bnprobe
from bnprobe import reductions
from bnprobe.reductions import Share, reference
from bnprobe.stats.histogram import N_BINS, SIDE

from .contract import GPU_DEVICE, a_map, values

pytest.importorskip("triton", reason="triton ships with torch's CUDA builds only")

from bnprobe.reductions.gpu import engine

on_gpu = pytest.mark.skipif(GPU_DEVICE != "cuda", reason="needs a GPU")


def test_many_values_of_a_channel_are_binned_by_several_programs(monkeypatch):
    """Fails if a piece of a channel's values is binned twice, or by nobody."""
    monkeypatch.setattr(engine, "CHUNK", 128)
    x, bins = values((7, 3, 90)).to(GPU_DEVICE), a_map(3)
    for share in (Share(), Share(2, 1), Share(4, 2), Share(20, 3)):
        found = engine.count(x, None, bins, share).histogram
        np.testing.assert_array_equal(found, reference.count(x, None, bins, share).histogram)


def test_constants_of_the_kernels_are_those_of_the_statistics():
    """Fails if a bin moves on one side only: kernels can see no value from outside."""
    from bnprobe.reductions.gpu import tally

    assert (tally.N_BINS.value, tally.SIDE.value) == (N_BINS, SIDE)


def test_the_dispatch_picks_the_kernels(monkeypatch):
    """Fails if a tensor on the device goes elsewhere, or what the kernels cannot read goes to them."""
    monkeypatch.setitem(reductions.ENGINES, GPU_DEVICE, reductions.fused)
    monkeypatch.setattr(engine, "read", lambda x, request: "the kernels")
    x = values((2, 3, 4)).to(GPU_DEVICE)
    assert reductions.read(x) == "the kernels"
    assert reductions.read(x[:0]).moments.n.tolist() == [0, 0, 0]


def test_without_triton(monkeypatch):
    """Fails if a GPU needs triton: the reference takes over, and where triton fails it says why."""
    monkeypatch.setitem(reductions.ENGINES, GPU_DEVICE, reductions.fused.__wrapped__)
    x = values((2, 3, 4)).to(GPU_DEVICE)

    def no_compiler() -> None:
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(engine, "rehearse", no_compiler)
    with pytest.warns(RuntimeWarning, match="no C compiler.*plain torch"):
        found = reductions.read(x)
    np.testing.assert_allclose(found.moments.mean, x.double().mean((0, 2)).cpu())
    monkeypatch.setitem(__import__("sys").modules, "bnprobe.reductions.gpu.engine", None)
    monkeypatch.delattr(reductions.gpu, "engine")
    np.testing.assert_allclose(reductions.read(x).moments.mean, x.double().mean((0, 2)).cpu())


def test_every_kernel_compiles_for_a_gpu(tmp_path):
    """Fails if a kernel says what the interpreter understands and the compiler does not. Needs no GPU."""
    program = Path(__file__).with_name("compile_kernels.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(reductions.__file__).parents[2])}
    environment.pop("TRITON_INTERPRET", None)
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.split()
        == ["sum_rows"] * 5
        + ["join_rows"] * 2
        + [
            "bin_values",
            "count_positive",
        ]
        + ["add_packed"] * 3
    )


@on_gpu
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_no_pass_waits_for_the_gpu(layout, autocast):
    """Fails if a pass after the first makes the host wait: torch raises wherever one would."""
    model = torch.nn.Sequential(
        *(
            torch.nn.Conv2d(3, 64, 3),
            torch.nn.BatchNorm2d(64),
            torch.nn.ReLU(inplace=True),
            torch.nn.Conv2d(64, 32, 3),
        ),
        *(
            torch.nn.BatchNorm2d(32),
            torch.nn.Flatten(2),
            torch.nn.LayerNorm(36 * 36),
            torch.nn.RMSNorm(36 * 36),
        ),
    )
    model = model.eval().to(GPU_DEVICE, memory_format=layout)
    x = torch.randn(8, 3, 40, 40, device=GPU_DEVICE).to(memory_format=layout)
    with bnprobe.attach(model) as probe, torch.no_grad(), torch.autocast("cuda", enabled=autocast):
        model(x)
        model(x)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(5):
                model(x)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    recording = probe.recording
    assert [record.n_calls for record in recording.layers] == [7] * 4
    for record in recording.layers:
        record.pre.check_sane()
        assert record.pre_histogram.n.max() > 0
