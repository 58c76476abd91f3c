"""What once got through: refused in a line, or worked on without harm to the terminal, the machine or other files."""

from __future__ import annotations

import json
import os
import stat

import pytest
import torch

from attacks import found
from attacks.sandbox import Sandbox
from attacks.test_checkpoints import assert_cheap, assert_one_line
from bnprobe.errors import BadCheckpoint
from bnprobe.models import load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore:.*nested")


@pytest.mark.parametrize("name", found.REFUSED)
def test_refused_in_a_line(sandbox: Sandbox, name, tmp_path):
    """Fails if a traceback, a wait or a gigabyte is the answer."""
    make, advice = found.REFUSED[name]
    verdict = sandbox.run(*make(tmp_path))
    assert_one_line(verdict, advice)
    assert_cheap(verdict)


@pytest.mark.parametrize("name", found.JUDGED)
def test_worked_on_without_harm(sandbox: Sandbox, name, tmp_path):
    """Fails if a strange name, counter or neighbor is more than that, or what is printed can be obeyed by a terminal."""
    verdict = sandbox.run(*found.JUDGED[name](tmp_path))
    assert verdict.code == 0, verdict.err[-2000:]
    assert all(line.isprintable() for line in (verdict.out + verdict.err).split("\n"))
    assert not any(line.startswith("bnprobe: fine") for line in verdict.err.split("\n"))
    assert name != "escape_json" or verdict.out.isascii()


def test_a_device_stays_one(sandbox: Sandbox, tmp_path):
    """Fails if an output that is a device is replaced by a file."""
    try:
        arguments = found.device_replaced(tmp_path)
    except PermissionError:
        pytest.skip("only root makes devices")
    assert sandbox.run(*arguments).code == 0
    assert stat.S_ISCHR(os.lstat(tmp_path / "null").st_mode)


def test_a_written_baseline_is_read_again(sandbox: Sandbox, tmp_path):
    """Fails if half a character in a name makes a baseline that cannot be read."""
    arguments = found.baseline_surrogate(tmp_path)
    assert sandbox.run(*arguments).code == 0
    (entry, *_) = json.loads((tmp_path / "b.json").read_text("ascii"))["findings"]
    assert entry["layer"] == r"\udcff"
    again = sandbox.run("check", tmp_path / "a.pt", "--baseline", tmp_path / "b.json", "--fail-on", "info")
    assert again.code == 0, again.err


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_a_file_that_is_cut_while_it_is_read(kind, tmp_path):
    """Fails if a trainer that writes its checkpoint anew ends the process that reads it, or mixes old and new."""
    from safetensors.torch import save_file

    state, path = {"w": torch.ones(500_000)}, tmp_path / f"a.{kind}"
    torch.save(state, path) if kind == "pt" else save_file(state, path)
    tensor = load_checkpoint(path)["w"]
    assert tensor.sum() == 500_000
    os.truncate(path, 200_000)
    with pytest.raises(BadCheckpoint, match="changed while it was read"):
        tensor.sum()
