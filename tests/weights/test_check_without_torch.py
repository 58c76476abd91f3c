"""`check` reads what torch writes today without torch, and comes to the very numbers that it comes to with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bnprobe

DTYPES = ("float32", "float16", "bfloat16", "float64")


def model() -> nn.Module:
    """Norms of three kinds, filters with and without positions and groups, and running statistics that follow from them."""
    torch.manual_seed(1)
    net = nn.Sequential(
        *(nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.Conv2d(12, 16, 3, groups=4, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.LayerNorm(4)),
    )
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    with torch.no_grad():
        net(torch.randn(4, 3, 8, 8))
    return net


def write(state: dict[str, torch.Tensor], path: Path) -> Path:
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_no_torch_is_imported(name, tmp_path):
    """Fails if a check of either format waits for torch, or draws, or brings scipy."""
    write(model().state_dict(), tmp_path / name)
    code = f"""
import sys
from bnprobe.cli.main import main
assert main(["check", "{name}"]) == 0
heavy = ("torch", "torchvision", "numba", "matplotlib", "seaborn", "jinja2", "scipy", "PIL")
print([name for name in heavy if name in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(bnprobe.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("\n[]\n")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_the_numbers_are_those_of_torch(name, dtype, tmp_path):
    """Fails if one bit of a table depends on who read the tensors."""
    state = {
        k: t.to(getattr(torch, dtype)) if t.is_floating_point() else t
        for k, t in model().state_dict().items()
    }
    state = dict(sorted(state.items()))  # the order that a safetensors file is read in
    read, held = bnprobe.check(write(state, tmp_path / name)), bnprobe.check(state)
    assert len(read.layers) == 5
    for table in ("layers", "channels", "findings"):
        ours, theirs = getattr(read, table), getattr(held, table)
        assert ours.equals(theirs), table


def test_what_torch_alone_can_read_is_read_with_it(tmp_path):
    """Fails if a file from before torch 1.6 is refused, or judged otherwise."""
    state = model().state_dict()
    torch.save(state, tmp_path / "a.th", _use_new_zipfile_serialization=False)
    read, held = bnprobe.check(tmp_path / "a.th"), bnprobe.check(state)
    assert read.channels.equals(held.channels)
