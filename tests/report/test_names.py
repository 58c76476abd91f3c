"""Names under pictures: short, different, and with the numbers that tell blocks apart."""

from __future__ import annotations

import re

import pytest

from bnprobe.report.figures.names import short_names

VIT = [f"encoder.layers.encoder_layer_{i}.ln_{k}" for i in range(12) for k in (1, 2)] + ["encoder.ln"]
LLAMA = [f"model.layers.{i}.{k}" for i in range(30) for k in ("input_layernorm", "post_attention_layernorm")]
DENSENET = [
    "features.norm0",
    *(f"features.denseblock{b}.denselayer{i}.norm{k}" for b in (1, 2) for i in range(1, 13) for k in (1, 2)),
    "features.transition1.norm",
    "features.norm5",
]
MOBILENET = ["features.0.1", *(f"features.{i}.conv.{k}.1" for i in range(1, 18) for k in (0, 1))]
FEW = ["a", "encoder.layers.encoder_layer_11.self_attention.norm"]


@pytest.mark.parametrize("longest", [16, 22, 28])
@pytest.mark.parametrize(
    "paths", [VIT, LLAMA, DENSENET, MOBILENET], ids=["vit", "llama", "densenet", "mobilenet"]
)
def test_numbers_are_never_cut(paths: list[str], longest: int) -> None:
    """Fails if a name is too long, or a block loses its number."""
    names = short_names(paths, longest)
    assert max(map(len, names)) <= longest
    for path, name in zip(paths, names, strict=True):
        numbers = re.findall(r"\d+", name)
        assert numbers == re.findall(r"\d+", path)[-len(numbers) :] if numbers else True
    assert len(set(names)) == len(paths)


def test_what_all_begin_with_and_common_words_go_first() -> None:
    """Fails if letters are cut where a word that tells nothing apart could go."""
    assert short_names(VIT, 22)[:2] == ["encoder_layer_0.ln_1", "encoder_layer_0.ln_2"]
    assert short_names(VIT, 16)[-3:] == ["11.ln_1", "11.ln_2", "ln"]
    assert short_names(LLAMA, 28)[1] == "0.post_attention_layernorm"
    assert short_names(DENSENET, 16)[1] == "1.1.norm1"
    assert short_names(["model.0.norm", "model.1.norm"], 28) == ["model.0.norm", "model.1.norm"], (
        "short enough"
    )


def test_names_stay_different() -> None:
    """Fails if leaving a common word out gives two layers one name."""
    twins = ["a.blocks.norm", "a.norm", "b.blocks.other.with.a.long.name.norm"]
    assert len(set(short_names(twins, 12))) == 3


def test_a_long_name_alone_keeps_its_number_and_its_end() -> None:
    """Fails if the middle of a path, with its index, is left out."""
    name = short_names(FEW, 28)[1]
    assert len(name) <= 28
    assert "11" in name
    assert name.endswith(".norm")
