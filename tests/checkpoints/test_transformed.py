"""Files of trained networks whose running statistics a converter took as they were, and these files as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.paths import DATA
from torch import Tensor
from torch.hub import get_dir

import bnprobe
from bnprobe.models import load_checkpoint

DEMO = Path(bnprobe.__file__).parent / "models" / "demo_data" / "digits_mobilenet_v2.safetensors"
IMAGENET = Path(get_dir()) / "checkpoints" / "mobilenet_v2-b0353104.pth"
REAL = [DEMO, DATA / "cifar_resnet20.th", DATA / "nets" / "version-slim-320.pth", IMAGENET]

MADE: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "the standard deviation σ,": ("running_var", Tensor.sqrt),
    "the inverse 1/σ²,": ("running_var", lambda var: 1 / (var + 1e-5)),
    "the inverse of the standard deviation, 1/σ,": ("running_var", lambda var: (var + 1e-5).rsqrt()),
    "the square of the variance, σ⁴,": ("running_var", Tensor.square),
    "opposite sign": ("running_mean", Tensor.neg),
}


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_networks(path: Path) -> None:
    """Fails if a real file is accused as it is, or is not with each of these in place of its own statistics."""
    if not path.exists():
        pytest.skip(f"not here: {path.name}")
    state = load_checkpoint(path)
    assert found(state) == []
    for words, (vector, made) in MADE.items():
        says = found({name: made(value) if name.endswith(vector) else value for name, value in state.items()})
        assert len(says) == 1, words
        assert words in says[0]


@pytest.mark.parametrize("name", ["espnet_p_2_q_3.pth", "honk_res8.pt"])
def test_files_that_show_no_line(name: str) -> None:
    """Fails if a file is accused whose weights say nothing of its statistics, whatever these are."""
    path = DATA / "nets" / name
    if not path.exists():
        pytest.skip(f"not here: {name}")
    state = load_checkpoint(path)
    for vector, made in [("none", Tensor.neg), *MADE.values()]:
        assert found({name: made(v) if name.endswith(vector) else v for name, v in state.items()}) == []


def found(state: dict[str, Tensor]) -> list[str]:
    findings = bnprobe.check(state).findings
    rules = findings["rule"].isin(["statistics-transformed", "folded-and-kept", "statistics-scaled"])
    return list(findings["says"][rules])
