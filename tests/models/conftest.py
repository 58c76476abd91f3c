"""What every test of the zoo gets: no network, a picture, and a folder for a module of its own."""

from __future__ import annotations

import sys

import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def _offline(tmp_path_factory, monkeypatch):
    """No test may download: an empty cache, and every download fails at once."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("torch_home")))
    monkeypatch.setattr(torch.hub, "urlopen", _no_network)


def _no_network(*_: object, **__: object) -> object:
    raise OSError("no route to host")


@pytest.fixture
def picture():
    """A photograph's stand-in: 300 x 200, all values different in x and y and colour."""
    ramp = Image.linear_gradient("L").resize((300, 200))
    return Image.merge("RGB", (ramp, ramp.rotate(180), Image.radial_gradient("L").resize((300, 200))))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's module in the current folder; returns its name, unlike any other test's."""
    monkeypatch.chdir(tmp_path)
    name = f"own_{tmp_path.name}"
    yield lambda text: (tmp_path / f"{name}.py").write_text(text) and name
    sys.modules.pop(name, None)
