"""Embeddings that one side scales by √d once more: in files, in models, and by code alone."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import bnprobe
from bnprobe.rules.embeddings import scaled_tensors

C, VOCABULARY = 36, 50
RULE = "embeddings-scaled"


class Small(nn.Module):
    """Embeddings that are multiplied by `factor` when it runs, as Gemma's, and two blocks."""

    def __init__(self, factor: float = 1.0, norm: Any = nn.RMSNorm) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.factor = factor
        self.embedding = nn.Embedding(VOCABULARY, C)
        self.norms = nn.ModuleList(norm(C) for _ in range(2))
        self.branches = nn.ModuleList(nn.Linear(C, C) for _ in range(2))
        self.head = nn.Linear(C, VOCABULARY, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) * self.factor
        for norm, branch in zip(self.norms, self.branches, strict=True):
            x = x + branch(norm(x))
        y: Tensor = self.head(x)
        return y


def recorded(model: nn.Module, seed: int = 1) -> bnprobe.Recording:
    ids = torch.randint(0, VOCABULARY, (16, 12), generator=torch.Generator().manual_seed(seed))
    return bnprobe.record(model.eval(), [ids])


def found(a: Any, b: Any) -> pd.DataFrame:
    findings = bnprobe.compare(a, b).findings
    return findings[findings["rule"] == RULE]


def stored(model: nn.Module, path: Path) -> str:
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return str(path)


def scaled(model: nn.Module, factor: float) -> Any:
    other = deepcopy(model)
    with torch.no_grad():
        other.embedding.weight.mul_(factor)
    return other


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("turned", [False, True])
def test_two_files(tmp_path: Path, dtype: torch.dtype, turned: bool):
    """Fails if an embedding that a converter scaled is not said to be, or the sides are exchanged."""
    model = Small().to(dtype)
    paths = [
        stored(model, tmp_path / "a.safetensors"),
        stored(scaled(model, math.sqrt(C)), tmp_path / "b.safetensors"),
    ]
    (finding,) = found(*(paths[::-1] if turned else paths)).itertuples()
    larger, smaller = ("A", "B") if turned else ("B", "A")
    assert f"Embeddings are √{C} times as large in {larger} as in {smaller}" in finding.says
    assert "embedding.weight (root mean square" in finding.because
    assert finding.severity == "warning"
    rules = set(bnprobe.compare(*paths).findings["rule"])
    assert "tensors-differ" not in rules


def test_two_models_of_one_code():
    """Fails if what is said of files is not of models."""
    model = Small()
    assert len(found(recorded(model), recorded(scaled(model, math.sqrt(C))))) == 1


@pytest.mark.parametrize("norm", [nn.RMSNorm, nn.LayerNorm])
def test_code_that_scales(norm: Any):
    """Fails if equal tensors hide that one side's code scales them."""
    a, b = recorded(Small(1.0, norm)), recorded(Small(math.sqrt(C), norm))
    (finding,) = found(a, b).itertuples()
    assert f"√{C} times as large in B as in A" in finding.says
    assert finding.layer == "norms.0"
    (finding,) = found(b, a).itertuples()
    assert f"√{C} times as large in A as in B" in finding.says


@pytest.mark.parametrize("factor", [1.0, 2.0, 0.97 * math.sqrt(C), C])
def test_other_factors_are_not_the_root_of_the_width(factor: float, tmp_path: Path):
    """Fails if any factor is taken for one of a converter."""
    model = Small()
    assert found(recorded(model), recorded(scaled(model, factor))).empty
    assert found(recorded(model), recorded(Small(factor))).empty
    paths = [stored(m, tmp_path / f"{i}.safetensors") for i, m in enumerate((model, scaled(model, factor)))]
    assert found(*paths).empty


def test_channels_that_changed_by_other_factors():
    """Fails if a typical factor of √d is enough, whatever single channels do."""
    model, other = Small(), scaled(Small(), math.sqrt(C))
    with torch.no_grad():
        other.embedding.weight[:, 3] *= 1.5
    assert found(recorded(model), recorded(other)).empty


def table(shape: str, a: float, b: float, side: str = "both", shape_b: str = "") -> pd.DataFrame:
    columns = ["tensor", "side", "shape_a", "shape_b", "size_a", "size_b"]
    return pd.DataFrame([["m.weight", side, shape, shape_b or shape, a, b]], columns=columns)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (table("100×64", 1, 8), True),
        (table("100×64", 8, 1), True),
        (table("64×64", 1, 8.03), True),
        (table("64×64", 1, 8.05), False),
        (table("63×64", 1, 8), False),
        (table("100×9", 1, 3), False),
        (table("100", 1, 10), False),
        (table("4×100×64", 1, 8), False),
        (table("100×64", 0, 8), False),
        (table("100×64", float("nan"), 8), False),
        (table("100×64", 1, 8, "A"), False),
        (table("100×64", 1, 8, shape_b="101×64"), False),
    ],
)
def test_which_tensors(row: pd.DataFrame, told: bool):
    """Fails if a convolution, a vector, a small matrix or a tensor of one side alone has such a factor."""
    assert len(scaled_tensors(row)) == told
