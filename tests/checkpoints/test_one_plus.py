"""Norms that multiply by 1 + w: recognized in a file by values around 0, and nowhere else."""

from __future__ import annotations

import json
from collections import OrderedDict

import pytest
import torch
from torch import Tensor
from weights.test_gguf import FACTS, written

import bnprobe
from bnprobe.checkpoints.one_plus import NOTE


def state(*scales: Tensor, bias: bool = False) -> dict[str, Tensor]:
    """A file of so many norms with these scales, and the weights between them."""
    entries: dict[str, Tensor] = {}
    for i, scale in enumerate(scales):
        entries[f"layers.{i}.proj.weight"] = torch.randn(48, 48, generator=torch.Generator().manual_seed(i))
        entries[f"layers.{i}.input_layernorm.weight"] = scale
        if bias:
            entries[f"layers.{i}.input_layernorm.bias"] = torch.zeros(48)
    return entries


def around(centre: float, spread: float, seed: int) -> Tensor:
    return centre + spread * torch.randn(48, generator=torch.Generator().manual_seed(seed))


FRESH = [torch.zeros(48)] * 3
TRAINED = [around(0.2, 0.15, seed) for seed in range(3)]
LLAMA = [around(centre, 0.01, seed).abs() for seed, centre in enumerate((0.05, 0.3, 0.4))]


@pytest.mark.parametrize("scales", [FRESH, TRAINED], ids=["fresh", "trained"])
def test_scales_around_zero_are_one_plus_w(scales):
    """Fails if a file of the Gemma family is said to let nothing of its input through."""
    report = bnprobe.check(state(*scales))
    assert "channels-constant" not in set(report.findings["rule"])
    assert set(report.findings["severity"]) <= {"info"}
    assert report.channels["gamma"].tolist() == pytest.approx((1 + torch.cat(list(scales))).tolist())
    assert NOTE in report.recording.about.notes


@pytest.mark.parametrize(
    "entries",
    [
        state(*LLAMA),
        state(*[1 + scale for scale in TRAINED]),
        state(torch.zeros(48)),
        state(*FRESH, bias=True),
        state(TRAINED[0], *LLAMA),
        state(*[around(0.7, 0.5, seed) for seed in range(3)]),
    ],
    ids=["small", "merged", "one", "layer norms", "mixed", "around one"],
)
def test_other_scales_stay_as_they_are(entries):
    """Fails if small scales, a lone norm or layer norms that start at 0 are given 1 more than they have."""
    report = bnprobe.check(entries)
    stored = torch.cat([tensor for name, tensor in entries.items() if name.endswith("norm.weight")])
    assert report.channels["gamma"].tolist() == pytest.approx(stored.tolist())
    assert NOTE not in report.recording.about.notes


@pytest.mark.parametrize(
    ("model_type", "scales", "added"),
    [
        ("gemma2", LLAMA, True),
        ("llama", LLAMA, False),
        ("gemma2", [1 + scale for scale in TRAINED], False),
        ("gemma2", FRESH, True),
    ],
)
def test_a_config_says_which_convention_a_file_follows(model_type, scales, added, tmp_path):
    """Fails if positive scales of a Gemma are taken for themselves, a Llama's get 1 more, or a converted file's do."""
    torch.save(state(*scales), tmp_path / "model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "rms_norm_eps": 1e-6}))
    report = bnprobe.check(tmp_path / "model.bin")
    assert set(report.layers["kind"]) == {"rms_norm"}
    stored = torch.cat(list(scales))
    assert report.channels["gamma"].tolist() == pytest.approx((stored + added).tolist())
    assert any("multiply by 1 + w" in note for note in report.recording.about.notes) == added


@pytest.mark.parametrize("one", [1, 0], ids=["right", "wrong"])
def test_a_gguf_file_is_run_as_it_is_stored(one, tmp_path):
    """Fails if gains that a converter forgot to add 1 to are called right, or those of a right file are warned of."""
    scales = {f"blk.{i}.attn_norm.weight": (one + scale).numpy() for i, scale in enumerate(TRAINED)}
    tensors = {name: ("F32", scale.shape, scale.tobytes()) for name, scale in scales.items()}
    facts = {key.replace("llama", "gemma3"): value for key, value in FACTS.items()}
    path = written(tmp_path / "a.gguf", tensors, facts | {"general.architecture": "gemma3"})
    report = bnprobe.check(path)
    assert report.channels["gamma"].tolist() == pytest.approx(torch.cat(list(TRAINED)).add(one).tolist())
    severe = report.findings[report.findings["severity"] != "info"]
    assert list(severe["rule"]) == ["gain-convention"] * (1 - one)


def test_two_files_are_compared_by_what_they_hold():
    """Fails if 1 is added to one side of a comparison alone, so that a merged file looks like its base."""
    found = bnprobe.compare(state(*TRAINED), state(*[1 + scale for scale in TRAINED]))
    assert list(found.findings["rule"]) == ["changed-alike"]
    assert found.findings["severity"][0] == "warning"
    assert "Every γ is exactly 1 larger in B than in A, in all 3 norms." in found.answer


class OnePlusRMSNorm(torch.nn.Module):
    """An RMS norm that multiplies by 1 + w."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.weight, self.eps = torch.nn.Parameter(scale), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * (1 + self.weight)


def test_a_file_against_a_run_of_its_own_model_is_a_note():
    """Fails if a file that holds w is a fault beside a run that shows 1 + w."""
    parts = {
        "norm1": OnePlusRMSNorm(TRAINED[0]),
        "fc": torch.nn.Linear(48, 48),
        "norm2": OnePlusRMSNorm(TRAINED[1]),
    }
    model = torch.nn.Sequential(OrderedDict(parts)).eval()
    found = bnprobe.compare(model.state_dict(), bnprobe.record(model, [torch.randn(40, 48)]))
    row = found.findings.iloc[0]
    assert (row["rule"], row["severity"]) == ("changed-alike", "info")
    assert row["do"].startswith("Nothing: the file stores w")
