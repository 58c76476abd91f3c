"""Samples of timm and transformers, one architecture per family; the libraries come with `bnprobe[zoo]`."""

from __future__ import annotations

from typing import Any

import torch

from scripts.zoo.entries import Call, Entry, images, noise

TIMM = (
    *("cait_xxs24_224", "coatnet_nano_rw_224", "convmixer_768_32", "convnext_atto", "convnextv2_atto"),
    *("crossvit_tiny_240", "cspresnet50", "davit_tiny", "deit_tiny_patch16_224", "densenet121"),
    *("dla34", "edgenext_xx_small", "efficientformer_l1", "efficientnet_b0", "eva02_tiny_patch14_224"),
    *("fastvit_t8", "fbnetc_100", "focalnet_tiny_srf", "ghostnet_050", "hrnet_w18_small"),
    *("inception_next_tiny", "levit_128s", "mixer_s16_224", "mobilenetv3_small_050", "mobileone_s0"),
    *("mobilevit_xxs", "nf_regnet_b0", "poolformer_s12", "pvt_v2_b0", "regnety_002"),
    *("repvgg_a0", "resnest14d", "resnetv2_50", "resnet18", "rexnet_100"),
    *("swin_tiny_patch4_window7_224", "swinv2_cr_tiny_ns_224", "visformer_tiny", "vit_tiny_patch16_224"),
    *("xcit_nano_12_p16_224",),
)
"""Forty, the smallest of their families where that is not another architecture."""

SIZES = (64, 128, 224, 240)


def timm_entries() -> list[Entry]:
    import timm

    return [
        Entry(
            name,
            "timm",
            name.partition("_")[0],
            lambda size, name=name: timm.create_model(name),
            images,
            SIZES,
        )
        for name in sorted(TIMM)
    ]


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
DECODER = SMALL | {"num_key_value_heads": 2, "head_dim": 8, "vocab_size": 99, "use_cache": False}
VISION = SMALL | {"image_size": 32, "patch_size": 8}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
CLIP = {
    "text_config": SMALL | {"vocab_size": 99, "eos_token_id": 2},
    "vision_config": VISION,
    "projection_dim": 16,
}

TRANSFORMERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "albert": (SMALL | {"vocab_size": 99, "embedding_size": 16}, ("input_ids",)),
    "bart": (
        {"vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "use_cache": False}
        | {
            f"{side}_{what}": n
            for side in ("encoder", "decoder")
            for what, n in (("ffn_dim", 64), ("attention_heads", 4))
        },
        ("input_ids",),
    ),
    "bert": (SMALL | {"vocab_size": 99}, ("input_ids",)),
    "clip": (CLIP, ("input_ids", "pixel_values")),
    "convnext": (STAGES | {"num_stages": 2}, ("pixel_values",)),
    "deepseek_v3": (
        SMALL
        | {
            "vocab_size": 99,
            "num_key_value_heads": 4,
            "kv_lora_rank": 8,
            "q_lora_rank": 16,
            "use_cache": False,
        }
        | {"qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "first_k_dense_replace": 1}
        | {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2}
        | {"moe_intermediate_size": 16},
        ("input_ids",),
    ),
    "gemma2": (DECODER, ("input_ids",)),
    "gemma3_text": (DECODER | {"sliding_window": 8}, ("input_ids",)),
    "gpt2": ({"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "use_cache": False}, ("input_ids",)),
    "gpt_oss": (DECODER | {"num_local_experts": 4, "num_experts_per_tok": 2}, ("input_ids",)),
    "llama": (DECODER, ("input_ids",)),
    "mamba": (
        {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "use_cache": False},
        ("input_ids",),
    ),
    "mamba2": (
        {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "use_cache": False}
        | {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "chunk_size": 8},
        ("input_ids",),
    ),
    "mixtral": (DECODER | {"num_local_experts": 4}, ("input_ids",)),
    "modernbert": (SMALL | {"vocab_size": 99, "pad_token_id": 0}, ("input_ids",)),
    "olmo2": (DECODER, ("input_ids",)),
    "qwen3": (DECODER, ("input_ids",)),
    "qwen3_next": (
        DECODER
        | {"num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
        | {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2}
        | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
        ("input_ids",),
    ),
    "resnet": (STAGES | {"embedding_size": 8, "layer_type": "basic"}, ("pixel_values",)),
    "swin": (
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [2, 4],
            "window_size": 4,
        },
        ("pixel_values",),
    ),
    "t5": (
        {
            "vocab_size": 99,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "use_cache": False,
        },
        ("input_ids", "decoder_input_ids"),
    ),
    "vit": (VISION, ("pixel_values",)),
    "wav2vec2": (
        SMALL
        | {"conv_dim": [16, 16], "conv_kernel": [10, 3], "conv_stride": [5, 2], "apply_spec_augment": False}
        | {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "num_feat_extract_layers": 2},
        ("input_values",),
    ),
    "whisper": (
        {"vocab_size": 99, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "use_cache": False}
        | {
            f"{side}_{what}": n
            for side in ("encoder", "decoder")
            for what, n in (("ffn_dim", 64), ("attention_heads", 4))
        }
        | {"num_mel_bins": 8, "max_source_positions": 16, "pad_token_id": 0, "decoder_start_token_id": 1}
        | {"bos_token_id": 1, "eos_token_id": 2},
        ("input_features", "decoder_input_ids"),
    ),
}
"""Each with two small layers and what it is called with."""


def transformers_entries() -> list[Entry]:
    return [_transformer(name, *what) for name, what in TRANSFORMERS.items()]


def _transformer(name: str, settings: dict[str, Any], takes: tuple[str, ...]) -> Entry:
    def build(size: int) -> torch.nn.Module:
        from transformers import AutoConfig, AutoModel

        return AutoModel.from_config(AutoConfig.for_model(name, **settings))

    def call(size: int, training: bool) -> Call:
        return Call(kwargs={key: _input(key) for key in takes})

    return Entry(name, "transformers", name, build, call, sizes=(0,))


def _input(name: str) -> torch.Tensor:
    if name.endswith("input_ids"):
        return torch.randint(3, 99, (2, 12), generator=torch.Generator().manual_seed(5))
    if name == "input_features":
        return noise(2, 8, 32)
    return noise(2, 3, 32, 32) if name == "pixel_values" else noise(2, 800) - 0.5
