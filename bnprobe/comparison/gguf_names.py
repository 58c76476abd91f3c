"""Names of a GGUF file beside those that transformers or the first code of a network gave the same modules.

blk.0.attn_norm is model.layers.0.input_layernorm there, transformer.h.0.ln_1 or layers.0.attention_norm. Which of them is
found out by what the other side has. The names are those of llama.cpp, gguf-py/gguf/tensor_mapping.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

BLOCK = re.compile(r"^(?:(?P<part>enc|dec|v|a)\.)?blk\.(?P<number>\d+)\.(?P<rest>.+)$")
"""A module in a block of a GGUF file, of its encoder, decoder, image or audio part."""

PARTS = {"enc": "encoder", "dec": "decoder", "v": "vi", "a": "audio"}
"""What the stack of a part has in its name: vision_tower, visual, vit."""

IN_BLOCK = {
    "attn_norm_2": ("ln_attn",),
    "attn_norm": (
        *("input_layernorm", "attention_norm", "attn_norm", "ln_mlp", "ln_1", "norm_1", "ln1", "layer.0.layer_norm"),
        *("pre_attn_norm", "self_attn_layer_norm", "norm"),
    ),
    "post_attention_norm": ("post_attention_layernorm", "post_self_attn_layernorm"),
    "ffn_norm": (
        *("pre_feedforward_layernorm", "post_attention_layernorm", "ffn_norm", "ln_2", "norm_2", "ln2"),
        *("layer.2.layer_norm", "layer.1.layer_norm", "mlp_norm", "final_layer_norm"),
    ),
    "post_ffw_norm": ("post_feedforward_layernorm", "post_mlp_layernorm"),
    "cross_attn_norm": ("layer.1.layer_norm",),
    "attn_q_norm": ("self_attn.q_norm", "self_attn.q_layernorm", "self_attention.q_layernorm", "attn.q_norm"),
    "attn_k_norm": ("self_attn.k_norm", "self_attn.k_layernorm", "self_attention.k_layernorm", "attn.k_norm"),
    "attn_output_norm": ("attention.output.LayerNorm", "sa_layer_norm", "norm1"),
    "layer_output_norm": ("output.LayerNorm", "output_layer_norm", "norm2"),
    "attn_sub_norm": ("self_attn.attn_sub_norm", "self_attn.inner_attn_ln"),
    "ffn_sub_norm": ("mlp.ffn_sub_norm", "mlp.ffn_layernorm"),
    "ln1": ("layer_norm1", "norm1", "ln_1", "attention_norm", "layernorm_before"),
    "ln2": ("layer_norm2", "norm2", "ln_2", "ffn_norm", "layernorm_after"),
    "attn_qkv": ("self_attn.qkv_proj", "attention.query_key_value", "self_attention.query_key_value", "attn.c_attn"),
    "attn_q": ("self_attn.q_proj", "attention.wq", "attention.self.query", "layer.0.SelfAttention.q", "attn.q_proj"),
    "attn_k": ("self_attn.k_proj", "attention.wk", "attention.self.key", "layer.0.SelfAttention.k", "attn.k_proj"),
    "attn_v": ("self_attn.v_proj", "attention.wv", "attention.self.value", "layer.0.SelfAttention.v", "attn.v_proj"),
    "attn_output": (
        *("self_attn.o_proj", "attention.wo", "attention.output.dense", "attention.dense", "self_attention.dense"),
        *("self_attn.dense", "attn.c_proj", "self_attn.out_proj", "layer.0.SelfAttention.o"),
    ),
    "ffn_gate": ("mlp.gate_proj", "feed_forward.w1", "layer.1.DenseReluDense.wi_0"),
    "ffn_up": (
        *("mlp.up_proj", "mlp.gate_up_proj", "feed_forward.w3", "intermediate.dense", "mlp.dense_h_to_4h"),
        *("mlp.c_fc", "mlp.fc1", "layer.1.DenseReluDense.wi_1"),
    ),
    "ffn_down": (
        *("mlp.down_proj", "feed_forward.w2", "output.dense", "mlp.dense_4h_to_h", "mlp.c_proj", "mlp.fc2"),
        *("layer.1.DenseReluDense.wo",),
    ),
}  # fmt: skip
"""What modules of a block are called elsewhere, the first that is there and not taken by a name above."""

OUTSIDE = {
    "enc.output_norm": ("encoder.final_layer_norm",),
    "dec.output_norm": ("decoder.final_layer_norm",),
    "v.pre_ln": ("pre_layrnorm", "ln_pre"),
    "v.post_ln": ("post_layernorm", "ln_post"),
    "output_norm": ("norm", "final_layernorm", "final_layer_norm", "ln_f", "norm_f"),
    "token_embd_norm": ("embeddings.LayerNorm", "word_embeddings_layernorm", "emb_ln"),
    "token_embd": (
        *("embed_tokens", "tok_embeddings", "wte", "embed_in", "embeddings.word_embeddings", "word_embeddings"),
        *("shared", "backbone.embeddings"),
    ),
    "output": ("lm_head", "embed_out", "output"),
}  # fmt: skip
"""The same of modules in no block: the end of their path."""


def is_named_so(names: Iterable[str]) -> bool:
    """Whether these are names of a GGUF file."""
    return any(map(BLOCK.match, names))


def names_elsewhere(of_gguf: Collection[str], of_other: Collection[str]) -> dict[str, str]:
    """What modules of a GGUF file are called on the other side, of those that are found there."""
    stacks = _stacks(of_other)
    found: dict[str, str] = {}
    taken: set[str] = set()
    order = {name: i for i, name in enumerate(IN_BLOCK)}
    blocks = [(match, name) for name in of_gguf if (match := BLOCK.match(name)) and match["rest"] in order]
    chosen = {part: _stack_of(part, stacks) for part in {match["part"] or "" for match, _ in blocks}}
    for match, name in sorted(blocks, key=lambda one: order[one[0]["rest"]]):
        there = stacks.get(chosen[match["part"] or ""], {})
        for candidate in IN_BLOCK[match["rest"]]:
            path = there.get((int(match["number"]), candidate), "")
            if path and path not in taken:
                found[name] = path
                taken.add(path)
                break
    outside = [name for name in of_other if not any(map(str.isdecimal, name.split(".")))]
    for name, ends in OUTSIDE.items():
        if name in of_gguf and (path := _ending_so(outside, ends)):
            found[name] = path
    return found


def _stacks(names: Iterable[str]) -> dict[str, dict[tuple[int, str], str]]:
    """The modules of each stack of blocks by number and rest."""
    stacks: dict[str, dict[tuple[int, str], str]] = {}
    for name in names:
        parts = name.split(".")
        for i in (i for i, part in enumerate(parts[:-1]) if part.isdecimal() and len(part) < 6):
            stacks.setdefault(".".join(parts[:i]), {})[int(parts[i]), ".".join(parts[i + 1 :])] = name
    return stacks


def _stack_of(part: str, stacks: Mapping[str, Mapping[tuple[int, str], str]]) -> str:
    """The stack of most blocks' modules that are known by these names, of the part that is asked for."""
    others = [word for name, word in PARTS.items() if name in ("v", "a") and name != part]
    wanted = PARTS.get(part, "")
    known = {candidate for candidates in IN_BLOCK.values() for candidate in candidates}
    sizes = Counter(
        {
            stack: sum(rest in known for _, rest in modules)
            for stack, modules in stacks.items()
            if wanted in stack and not any(word in stack for word in others)
        }
    )
    return max(sizes, key=lambda stack: sizes[stack], default="")


def _ending_so(names: Iterable[str], ends: Iterable[str]) -> str:
    """The shortest path with the first of these ends that one has."""
    for end in ends:
        paths = [name for name in names if name == end or name.endswith(f".{end}")]
        if paths:
            return min(paths, key=len)
    return ""
