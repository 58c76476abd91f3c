"""Names and gains of GGUF files, by gguf's own table of names and by what llama.cpp's converter does to a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.comparison.gguf_names import IN_BLOCK, OUTSIDE, names_elsewhere
from bnprobe.errors import CannotCompare

C, LAYERS = 16, 3

LLAMA = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
GEMMA = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}


def state_dict(gains: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {f"{path}.weight": torch.from_numpy(gamma) for path, gamma in gains.items()}


def transformers(names: dict[str, str], around: float) -> dict[str, np.ndarray]:
    """The gains of a network under the names that transformers gives them."""
    rng = np.random.default_rng(0)
    paths = [f"model.layers.{i}.{name}" for i in range(LAYERS) for name in names]
    return {path: rng.normal(around, 0.2, C).astype(np.float32) for path in (*paths, "model.norm")}


def converted(gains: dict[str, np.ndarray], names: dict[str, str], one: float = 0.0) -> dict[str, np.ndarray]:
    """The same as convert_hf_to_gguf.py writes them."""

    def name_of(path: str) -> str:
        parts = path.split(".", 3)
        return f"blk.{parts[2]}.{names[parts[3]]}" if len(parts) > 3 else "output_norm"

    return {name_of(path): gamma + np.float32(one) for path, gamma in gains.items()}


def compared(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> Any:
    return bnprobe.compare(state_dict(a), state_dict(b))


@pytest.mark.parametrize("back", [False, True], ids=["to GGUF", "from GGUF"])
def test_a_converted_network_is_the_same(back: bool) -> None:
    """Fails if one norm of a block is taken for another, or the names of one direction alone are known."""
    gains = transformers(LLAMA, 1.0)
    file = converted(gains, LLAMA)
    found = compared(file, gains) if back else compared(gains, file)
    assert found.unmatched.empty
    assert found.layers["identical"].all()
    assert len(found.layers) == 2 * LAYERS + 1
    assert "has the names of a GGUF file" in found.answer[-1]


def test_norms_that_a_converter_exchanged_are_found() -> None:
    """Fails if norms are matched by what they hold in place of their names."""
    gains = transformers(LLAMA, 1.0)
    wrong = {"input_layernorm": "ffn_norm", "post_attention_layernorm": "attn_norm"}
    found = compared(gains, converted(gains, wrong))
    assert [(one.severity, one.rule) for one in found.findings.itertuples()] == [
        ("critical", "vectors-moved")
    ]


@pytest.mark.parametrize("back", [False, True], ids=["to GGUF", "from GGUF"])
def test_the_one_that_gemma_adds_is_added_on_one_side(back: bool) -> None:
    """Fails if the convention of a file is called a change, or the sum is not the one that llama.cpp stores."""
    gains = transformers(GEMMA, 0.0)
    file = converted(gains, GEMMA, 1.0)
    found = compared(file, gains) if back else compared(gains, file)
    assert found.findings.empty
    assert found.layers["identical"].all()
    assert "multiply by 1 + w" in found.answer[-1]


def test_fine_tuning_and_the_convention_are_told_apart() -> None:
    """Fails if a γ that moved is lost with the 1."""
    gains = transformers(GEMMA, 0.0)
    tuned = {path: gamma + (path == "model.norm") * np.float32(0.05) for path, gamma in gains.items()}
    found = compared(gains, converted(tuned, GEMMA, 1.0))
    changed = found.layers[~found.layers["identical"].astype(bool)]
    assert list(changed["layer"]) == ["model.norm"]


def test_a_file_that_lacks_the_one() -> None:
    """Fails if a GGUF file with w, which is run as the scale, agrees with the network; or a right one is warned of."""
    gains = transformers(GEMMA, 0.0)
    found = compared(gains, converted(gains, GEMMA))
    assert [(one.severity, one.rule) for one in found.findings.itertuples()] == [
        ("critical", "changed-alike")
    ]
    assert found.findings["says"][0].startswith("γ is stored without its 1 in B, a GGUF file")
    llama = transformers(LLAMA, 1.0)
    assert compared(llama, converted(llama, LLAMA)).findings.empty


def test_two_files_of_this_kind_keep_their_names() -> None:
    """Fails if names of one format are translated where both sides have them."""
    file = converted(transformers(LLAMA, 1.0), LLAMA)
    found = compared(file, file)
    assert found.identical
    assert next(iter(found.layers["layer"])) == "blk.0.attn_norm"


def test_another_network_is_refused() -> None:
    """Fails if norms are compared that have nothing in common but a number."""
    file = converted(transformers(LLAMA, 1.0), LLAMA)
    with pytest.raises(CannotCompare, match="Rename the modules of one"):
        bnprobe.compare(nn.Sequential(nn.Linear(C, C), nn.BatchNorm1d(C)).state_dict(), state_dict(file))


@pytest.mark.parametrize(
    ("architecture", "others"),
    [
        ("LLAMA", ["input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "mlp.up_proj"]),
        ("GEMMA3", [*GEMMA, "self_attn.o_proj", "mlp.down_proj"]),
        ("QWEN3", ["input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"]),
        ("OLMO2", ["post_attention_layernorm", "post_feedforward_layernorm", "self_attn.q_norm"]),
    ],
)
def test_names_against_gguf(architecture: str, others: list[str]) -> None:
    """Fails if a name differs from what gguf's own table calls it for this architecture."""
    gguf = pytest.importorskip("gguf")
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture], LAYERS)
    other = [*(f"model.layers.{i}.{name}" for i in range(LAYERS) for name in others), "model.norm"]
    expected = {name: path for path in other if (name := table.get_name(path)) is not None}
    assert len(expected) == len(other)
    assert names_elsewhere(list(expected), other) == expected


@pytest.mark.parametrize(
    ("architecture", "other"),
    [
        ("GPT2", ["transformer.h.1.ln_1", "transformer.h.1.ln_2", "transformer.h.1.attn.c_attn", "transformer.ln_f"]),
        ("GPT2", ["transformer.h.1.mlp.c_fc", "transformer.h.1.attn.c_proj", "transformer.wte"]),
        ("GPTNEOX", ["gpt_neox.layers.1.input_layernorm", "gpt_neox.layers.1.post_attention_layernorm"]),
        ("LLAMA", ["layers.1.attention_norm", "layers.1.ffn_norm", "layers.1.attention.wq", "norm", "output"]),
        ("FALCON", ["transformer.h.1.ln_mlp", "transformer.h.1.ln_attn", "transformer.ln_f"]),
        ("BERT", ["encoder.layer.1.attention.output.LayerNorm", "encoder.layer.1.output.LayerNorm", "embeddings.LayerNorm"]),
        ("BERT", ["encoder.layer.1.attention.self.query", "encoder.layer.1.intermediate.dense"]),
        ("T5", ["encoder.block.1.layer.0.layer_norm", "encoder.block.1.layer.1.layer_norm", "encoder.final_layer_norm",
                "decoder.block.1.layer.0.layer_norm", "decoder.block.1.layer.1.layer_norm",
                "decoder.block.1.layer.2.layer_norm", "decoder.final_layer_norm"]),
        ("MAMBA", ["backbone.layers.1.norm", "backbone.norm_f"]),
        ("MPT", ["transformer.blocks.1.norm_1", "transformer.blocks.1.norm_2", "transformer.norm_f"]),
    ],
)  # fmt: skip
def test_names_of_other_families_against_gguf(architecture: str, other: list[str]) -> None:
    """Fails if a family's own words are missing, or one of its norms is taken for the other."""
    gguf = pytest.importorskip("gguf")
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture], LAYERS)
    expected = {name: path for path in other if (name := table.get_name(path)) is not None}
    assert len(expected) == len(other)
    assert names_elsewhere(list(expected), other) == expected


def test_parts_of_one_file_have_stacks_of_their_own() -> None:
    """Fails if the blocks of images are taken for those of the text, or the other way round."""
    other = [
        *(
            "vision_tower.vision_model.encoder.layers.0.layer_norm1",
            "vision_tower.vision_model.post_layernorm",
        ),
        *("language_model.model.layers.0.input_layernorm", "language_model.model.norm"),
    ]
    names = ["v.blk.0.ln1", "v.post_ln", "blk.0.attn_norm", "output_norm"]
    assert names_elsewhere(names, other) == dict(zip(names, other, strict=True))


def test_no_name_stands_in_two_places() -> None:
    """Fails if a name of a module in no block is looked for in blocks, or a list is empty."""
    assert all(IN_BLOCK.values())
    assert all(OUTSIDE.values())
    assert not set(IN_BLOCK) & set(OUTSIDE)


def test_names_of_tensors_follow_their_modules() -> None:
    """Fails if weights keep the names of the file, and are missing on both sides; or have those of others."""
    gains = transformers(LLAMA, 1.0)
    weights = {
        "model.embed_tokens.weight": torch.ones(9, C),
        "model.layers.0.mlp.up_proj.weight": torch.zeros(9, C),
    }
    file = {"token_embd.weight": torch.ones(9, C), "blk.0.ffn_up.weight": torch.ones(9, C)}
    found = bnprobe.compare(state_dict(gains) | weights, state_dict(converted(gains, LLAMA)) | file)
    assert list(found.tensors["tensor"]) == ["model.layers.0.mlp.up_proj.weight"]
    assert list(found.tensors["side"]) == ["both"]
